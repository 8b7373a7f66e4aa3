"""`sweeper results --where`: every column whatever its name, and no empty table without a message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper.model.money import Amount, Charge
from sweeper.store import Store
from sweeper.store.records import SUBMITTED, SUCCEEDED, JobEnd, JobRecord, TableLayout

# trial 0 and trial 1
CELLS = {
    "style": ["in oil", "in ink"], "style.label": ["oil", "ink"], "scene": ["a fox in snow", "a fox in rain"],
    "scene.1": ["snow", "rain"], "lora-a": [1, 2], "in": [3, 4], "steps": [8, None],
}  # fmt: skip
METRICS = ("mine:word", "pkg.mine:glow")


@pytest.fixture
def folder():
    """A results folder made without a server."""
    out = Path("results/shop")
    with Store.open(out) as store, store.transaction():
        run = store.create_run(
            TableLayout("shop", tuple(CELLS), (), METRICS), file="shop.yaml", targets=["embedded"], now=1.0
        )
        rows = [(n, str(n) * 64, {}, {name: cells[n] for name, cells in CELLS.items()}) for n in range(2)]
        store.add_trials(run, rows)
    return out


@pytest.mark.parametrize(
    ("where", "trials"),
    [
        ("style.label == 'oil'", [0]),
        ("scene.1 == 'snow' and style.label != 'ink'", [0]),
        ("scene.1.upper() in ['SNOW', 'RAIN']", [0, 1]),
        ("scene.endswith('rain')", [1]),
        ("style.label | length == 3 and 'scene.1' != scene.1", [0, 1]),
        ("scene[0:5] == 'a fox'", [0, 1]),
        ("`lora-a` > 1.5", [1]),
        ("`in` == 3", [0]),
        ("in == 4", [1]),
        ("`style.label` == 'ink'", [1]),
        ("mine:word is none and pkg.mine:glow is none and error_type is none", [0, 1]),
        ("{style: 1}['in oil'] is defined and [trial, 5][1] == 5", [0]),
        ("steps > 4", [0]),
    ],
)
def test_where_works_with_every_column(sweeper, folder, where, trials):
    outcome = sweeper("results", folder, "--json", "--where", where)

    assert (outcome.code, outcome.err) == (0, "")
    assert [row["trial"] for row in outcome.json] == trials


@pytest.mark.parametrize(
    ("where", "messages"),
    [
        ("scene.2 == 'snow'", ["there is no column 'scene.2'; did you mean 'scene.1'?"]),
        ("style.lable == 'oil'", ["there is no column 'style.lable'; did you mean 'style.label'?"]),
        ("mine:wrd == 's1'", ["there is no column 'mine:wrd'; did you mean 'mine:word'?"]),
        ("`lora-b` > 1", ["there is no column 'lora-b'; did you mean 'lora-a'?"]),
        ("lora-a > 1", ["write the column 'lora-a' between backticks here: `lora-a`"]),
        ("steps > 4 and", ["'steps > 4 and' is not Jinja2: a value is missing before its end"]),
        (
            "stpes > 4 or scene.3 == 'x'",
            [
                "there is no column 'scene.3'; did you mean 'scene.1'?",
                "there is no column 'stpes'; did you mean 'steps'?",
            ],
        ),
        (
            "style.label > 4",
            [
                "trial 0: `>` compares a text with a number; only two numbers, or two texts, have an order (with "
                "style.label = 'oil')"
            ],
        ),
    ],
)
def test_unknown_column_is_an_error_not_an_empty_table(sweeper, folder, where, messages):
    outcome = sweeper("results", folder, "--where", where)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines() == [f"error: --where: {message}" for message in messages]


def test_failing_operation_is_reported_despite_missing_values(sweeper, folder):
    outcome = sweeper("results", folder, "--where", "trial == 1 and steps is none and style / 2 > 1")

    assert outcome.code == 2
    assert outcome.err.startswith(
        "error: --where: trial 1: `/` cannot go between a text and a number (with trial = 1, steps = nothing, style = "
    )


def test_where_without_matches_says_so_beside_the_empty_table(sweeper, folder):
    outcome = sweeper("results", folder, "--json", "--where", "style == 'oil'")

    assert (outcome.code, outcome.json) == (0, [])
    assert outcome.err == "--where: style == 'oil' matches none of the 2 trials\n"


def write_axis(values, digests=None, charges=()):
    """A results folder with an axis `x`; trials of one digest share a job, which cost these charges."""
    out = Path("results/types")
    digests = digests or [str(index) for index in range(len(values))]
    with Store.open(out) as store:
        with store.transaction():
            run = store.create_run(TableLayout("types", ("x",), ("x",)), file="t.yaml", targets=["cloud"], now=1.0)
            rows = zip(digests, values, strict=True)
            store.add_trials(run, ((index, digest * 64, {"x": x}, {"x": x}) for index, (digest, x) in enumerate(rows)))
        for digest in dict.fromkeys(digests):
            job = JobRecord(f"j{digest}", run, "cloud", digest * 64, "s", 1, "p", SUBMITTED, 2.0, 2.0)
            store.record_intent(job, charges=charges)
            store.record_finished(job.id, JobEnd(SUCCEEDED, 3.0, 4.0))
    return out


@pytest.mark.parametrize(
    ("where", "trials"),
    [
        ("x is integer", [0]),
        ("x is float and x == 1", [1, 7]),
        ("x is boolean", [2]),
        ("x is string", [3]),
        ("x | string == '0.0'", [4]),
        ("x | string == '-0.0'", [5]),
        ("x is none", [6]),
        ("x == 1", [0, 1, 2, 7]),
        ("1", list(range(8))),
    ],
)
def test_where_keeps_equal_values_of_other_types_apart(sweeper, where, trials):
    folder = write_axis([1, 1.0, True, "1", 0.0, -0.0, None, 1.0])

    outcome = sweeper("results", folder, "--json", "--where", where)

    assert [row["trial"] for row in outcome.json] == trials


@pytest.mark.parametrize(
    ("where", "costs"), [("trial >= 0", [0.5, 0, 0.5]), ("trial > 0", [0, 0.5]), ("trial == 2", [0.5])]
)
def test_selection_leaves_the_cost_with_the_first_trial_of_a_job(sweeper, where, costs):
    folder = write_axis([1, 2, 3], ["a", "a", "b"], [Charge("7", "Node", Amount(500_000, 500_000), "priced")])

    outcome = sweeper("export", folder, "-o", "-", "--format", "jsonl", "--where", where)
    shown = sweeper("results", folder, "--json", "--where", where)

    read = [json.loads(line)["cost"] for line in outcome.out.splitlines()]
    assert read == [row["cost"] for row in shown.json] == costs


def test_cost_is_a_column_also_if_no_selected_trial_has_one(sweeper):
    folder = write_axis([1, 2], ["a", "b"], [Charge("7", "Node", Amount(500_000, 500_000), "priced")])
    with Store.open(folder) as store, store.transaction():
        store.charges.replace("jb", ())

    assert "cost_kind" in sweeper("results", folder, "--where", "x == 2").out
