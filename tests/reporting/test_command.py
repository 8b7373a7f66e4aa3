"""The command `sweeper report`."""

from __future__ import annotations

import json

from sweeper.cli import main
from tests.reporting.made_up_sweeps import Sweep


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_report_is_written_beside_the_results(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    code, said, _ = run(capsys, "report", out)
    assert code == 0
    assert said.strip() == str(out / "report" / "index.html")
    assert (out / "report" / "index.html").is_file()


def test_report_accepts_out_and_json(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    code, said, _ = run(capsys, "report", out, "-o", tmp_path / "page", "--json")
    assert code == 0
    assert json.loads(said) == {"page": str(tmp_path / "page" / "index.html"), "trials": 2, "missing": 0}


def test_missing_artifacts_cause_a_warning(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    (out / "artifacts/picture-0.png").unlink()
    code, _, err = run(capsys, "report", out)
    assert code == 0
    assert "1 artifacts are missing" in err


def test_sheets_are_written_instead_of_the_page(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    code, said, _ = run(capsys, "report", out, "--sheet", tmp_path / "s.png", "--x", "steps", "--json")
    assert code == 0
    assert json.loads(said) == {"sheets": [str(tmp_path / "s.png")]}
    assert not (out / "report").exists()


def test_sheet_options_require_sheet(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    for options in (["--x", "steps"], ["--cell", "256"], ["--megapixels", "50"]):
        code, said, err = run(capsys, "report", out, *options)
        assert (code, said) == (2, "")
        assert err == f"error: {options[0]} belongs to --sheet FILE; the page chooses axes and sizes in the browser\n"
    assert not (out / "report").exists()
    assert run(capsys, "report", out, "--sheet", tmp_path / "s.png", "-o", tmp_path / "d")[0] == 2
    assert run(capsys, "report", tmp_path / "nothing")[0] == 2


def test_report_refuses_missing_baseline_and_baseline_for_sheets(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    code, _, err = run(capsys, "report", out, "--baseline", tmp_path / "none")
    assert code == 2
    assert "none: no baseline here; `sweeper accept" in err
    for option in (["--baseline", str(tmp_path)], ["--no-check"]):
        assert run(capsys, "report", out, "--sheet", tmp_path / "s.png", *option)[0] == 2


def test_error_names_the_file_that_blocks_a_folder(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    file = tmp_path / "afile"
    file.touch()
    for options in (["-o", file / "page"], ["--sheet", file / "s.png"]):
        code, said, err = run(capsys, "report", out, *options)
        assert (code, said) == (2, "")
        assert f"cannot be written: {file} is a file, and a folder is needed there" in err
