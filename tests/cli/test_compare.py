"""`sweeper compare` by axis, on two made-up runs."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
from PIL import Image

from sweeper.store import Store
from sweeper.store.records import Artifact, JobEnd, JobRecord, TableLayout

AXES = {"style": ["oil", "ink"], "steps": [4, 8], "seed": [7]}


@pytest.fixture
def run():
    """Make a results folder; `grey` maps (style, steps, seed) to the grey level of a picture; None omits it."""

    def make(name, grey, axes=AXES):
        out = Path("results") / name
        (out / "artifacts").mkdir(parents=True)
        columns = ("style", "style.label", "steps", "seed")
        rows = [
            {"style": f"in {style}", "style.label": style, "steps": steps, "seed": seed}
            for style, steps, seed in itertools.product(*axes.values())
            if grey(style, steps, seed) is not None
        ]
        with Store.open(out) as store:
            with store.transaction():
                begun = store.create_run(
                    TableLayout("shop", columns, ("seed",)), file="shop.yaml", targets=["t"], now=1.0
                )
                trials = [(n, f"{n}" * 64, {"seed": row["seed"]}, row) for n, row in enumerate(rows)]
                store.add_trials(begun, trials)
            for n, row in enumerate(rows):
                level = grey(row["style.label"], row["steps"], row["seed"])
                path = out / "artifacts" / f"{n}.png"
                Image.new("RGB", (8, 8), (level, level, level)).save(path)
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                artifact = Artifact("9", "images", 0, f"artifacts/{n}.png", sha256, 10, "a.png")
                store.record_intent(JobRecord(f"job{n}", begun, "t", f"{n}" * 64, "s" * 64, 1, f"p{n}", "intent", 1.0))
                store.record_submitted(f"job{n}", f"p{n}", 1.0)
                store.record_finished(f"job{n}", JobEnd("succeeded", artifacts=[artifact]))
        return out

    return make


def test_axis_values_are_listed_with_counts_most_changed_first(sweeper, run):
    one = run("one", lambda *_: 100)
    other = run("other", lambda style, steps, _: 100 + (10 if style == "oil" else 40) * (steps == 8))
    outcome = sweeper("compare", one, other)
    assert outcome.code == 1
    _, axes, where = (part.splitlines() for part in outcome.out.split("\n\n"))
    assert [line.split() for line in axes] == [
        ["axis", "value", "cases", "changed", "new", "gone", "mae", "of", "255"],
        ["style", "ink", "2", "1", "0", "0", "40"],
        ["style", "oil", "2", "1", "0", "0", "10"],
        ["steps", "8", "2", "2", "0", "0", "25"],
        ["steps", "4", "2", "0", "0", "0"],
    ]
    assert where == ["every changed case has steps = 8", "2 changed, 0 gone, 0 new, 2 same"]


def test_new_and_gone_cases_are_counted_and_json_lists_all(sweeper, run):
    one = run("one", lambda _, steps, __: None if steps == 8 else 100)
    other = run("other", lambda style, *_: None if style == "oil" else 100)
    report = sweeper("compare", one, other, "--json").json
    assert report["counts"] == {"changed": 0, "not compared": 0, "gone": 1, "new": 1, "same": 1}
    assert report["axes"] == [
        {"axis": "style", "value": "in oil", "label": "oil", "cases": 1, "changed": 0, "not compared": 0, "gone": 1,
         "new": 0, "same": 0, "mae": None},
        {"axis": "style", "value": "in ink", "label": "ink", "cases": 2, "changed": 0, "not compared": 0, "gone": 0,
         "new": 1, "same": 1, "mae": None},
        {"axis": "steps", "value": 8, "cases": 1, "changed": 0, "not compared": 0, "gone": 0, "new": 1, "same": 0,
         "mae": None},
        {"axis": "steps", "value": 4, "cases": 2, "changed": 0, "not compared": 0, "gone": 1, "new": 0, "same": 1,
         "mae": None},
    ]  # fmt: skip


def test_no_axis_value_is_blamed_if_every_value_changed(sweeper, run):
    outcome = sweeper("compare", run("one", lambda *_: 100), run("other", lambda *_: 101))
    assert "every changed case has" not in outcome.out
    assert outcome.out.endswith("4 changed, 0 gone, 0 new, 0 same\n")


def test_equal_runs_print_one_line(sweeper, run):
    outcome = sweeper("compare", run("one", lambda *_: 100), run("other", lambda *_: 100))
    assert (outcome.code, outcome.out) == (0, "0 changed, 0 gone, 0 new, 4 same\n")


def test_missing_or_broken_picture_does_not_stop_the_comparison(sweeper, run):
    one, other = run("one", lambda *_: 100), run("other", lambda _, steps, __: 100 + steps)
    (one / "artifacts" / "0.png").unlink()
    (other / "artifacts" / "1.png").write_bytes(b"no picture")
    outcome = sweeper("compare", one, other, "--json")
    assert outcome.code == 1
    assert outcome.json["counts"] == {"changed": 2, "not compared": 2, "gone": 0, "new": 0, "same": 0}
    reasons = {case["case"]: case["reason"] for case in outcome.json["cases"] if case["state"] == "not compared"}
    gone, broken = (reasons[f"style=in oil steps={steps} seed=7 [9]"] for steps in (4, 8))
    assert gone.endswith(
        f"artifacts/0.png is gone; `sweeper run shop.yaml --out {one}` fetches it again from its server"
    )
    assert "1.png: cannot be read as a picture" in broken
    assert sweeper("compare", one, other).out.endswith("2 changed, 2 not compared, 0 gone, 0 new, 0 same\n")


def test_problems_of_both_runs_are_reported_together(sweeper, run):
    one = run("one", lambda *_: 100)
    outcome = sweeper("compare", "results/gone", f"{one}@9")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "error: results/gone: no such results folder, and no experiment file of that name; did you mean results/one?\n"
        "error: results/one: no run 9 here; there are: 1\n"
    )
