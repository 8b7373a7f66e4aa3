"""`sweeper report` as a person meets it."""

from __future__ import annotations

import json

from sweeper.cli import main
from tests.reporting.made_up_sweeps import Sweep


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_the_page_goes_beside_the_results_and_its_place_is_told(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    code, said, _ = run(capsys, "report", out)
    assert code == 0
    assert said.strip() == str(out / "report" / "index.html")
    assert (out / "report" / "index.html").is_file()


def test_the_page_goes_where_it_is_wanted_and_machines_get_json(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    code, said, _ = run(capsys, "report", out, "-o", tmp_path / "page", "--json")
    assert code == 0
    assert json.loads(said) == {"page": str(tmp_path / "page" / "index.html"), "trials": 2, "missing": 0}


def test_missing_artifacts_are_warned_of(tmp_path, capsys):
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


def test_what_belongs_to_sheets_is_refused_without_one(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    for options in (["--x", "steps"], ["--cell", "256"], ["--megapixels", "50"], ["--animate", "steps"]):
        code, said, err = run(capsys, "report", out, *options)
        assert (code, said) == (2, "")
        assert err == f"error: {options[0]} belongs to --sheet FILE; the page chooses axes and sizes in the browser\n"
    assert not (out / "report").exists()
    assert run(capsys, "report", out, "--sheet", tmp_path / "s.png", "-o", tmp_path / "d")[0] == 2
    assert run(capsys, "report", tmp_path / "nothing")[0] == 2


def test_a_baseline_that_is_not_there_is_told_and_sheets_take_none(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    code, _, err = run(capsys, "report", out, "--baseline", tmp_path / "none")
    assert code == 2
    assert "none: no baseline here; `sweeper accept" in err
    for option in (["--baseline", str(tmp_path)], ["--no-check"]):
        assert run(capsys, "report", out, "--sheet", tmp_path / "s.png", *option)[0] == 2


def test_a_file_where_a_folder_is_needed_is_named(tmp_path, capsys):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "r")
    file = tmp_path / "afile"
    file.touch()
    for options in (["-o", file / "page"], ["--sheet", file / "s.png"]):
        code, said, err = run(capsys, "report", out, *options)
        assert (code, said) == (2, "")
        assert f"cannot be written: {file} is a file, and a folder is needed there" in err
