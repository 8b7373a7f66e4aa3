"""Long prompts in tables on a terminal: the names differ where the prompts do, and files keep the whole texts."""

from __future__ import annotations

import json

import pytest

from sweeper.cli import main
from sweeper.model.search_columns import SearchedPoint
from sweeper.running.run_answer import describe_point
from tests.long_prompts import BEFORE, LABELS, PROMPTS
from tests.tables.written_results import make_grid, write_results


@pytest.fixture
def folder(tmp_path):
    rows = make_grid(text=PROMPTS, seed=[11, 22, 33, 44, 55])
    return write_results(tmp_path / "results", rows, {"glow": [row["seed"] % 7 + len(row["text"]) for row in rows]})


def run_sweeper(capsys, *arguments):
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("options", [(), ("--by", "text"), ("--pivot", "text,seed,glow"), ("--columns", "text,glow")])
def test_results_show_the_words_that_differ(folder, capsys, options):
    out = run_sweeper(capsys, "results", folder, *options)
    assert all(label in out for label in LABELS)
    assert BEFORE not in out


def test_results_in_files_keep_the_whole_prompts(folder, capsys):
    assert {row["text"] for row in json.loads(run_sweeper(capsys, "results", folder, "--json"))} == {*PROMPTS}
    assert all(prompt in run_sweeper(capsys, "export", folder, "-o", "-", "--format", "csv") for prompt in PROMPTS)


def test_effects_show_the_words_that_differ(folder, capsys):
    out = run_sweeper(capsys, "effects", folder, "--axis", "text")
    assert f"{LABELS[1]} is higher than {LABELS[0]}" in out
    assert BEFORE[:60] not in out


def test_a_verdict_on_prompts_shows_the_words_that_differ(folder, capsys):
    file = folder.parent / "short"
    rows = make_grid(text=[prompt.replace(",", "") for prompt in PROMPTS], seed=[11, 22, 33, 44, 55])
    write_results(file, rows, {"glow": [row["seed"] % 7 + len(row["text"]) for row in rows]})
    old, new = (prompt.replace(",", "") for prompt in PROMPTS)
    main(["compare", str(file), "--axis", f"text={old},{new}", "--verdict"])
    assert f"text {LABELS[1]} against {LABELS[0]}" in capsys.readouterr().out


def test_best_point_names_the_words_that_differ():
    points = [SearchedPoint({"prompt": prompt, "cfg": 7}, {"sharpness": 344.7}, 1, (0,), 1) for prompt in PROMPTS]
    assert describe_point(points[0], points) == f"sharpness 344.7 at prompt {LABELS[0]}, cfg 7"
