"""Axis values in the tables of `sweeper results`: exact, and in the written order."""

from __future__ import annotations

import json
from pathlib import Path

from sweeper.loading.load import load
from sweeper.planning.plan import Plan
from sweeper.store import Store
from sweeper.store.records import Artifact, JobEnd, JobRecord, TableLayout

CFG = (0.1234567, 0.1234568, 1234567.25)


def store_trials(layout, trials):
    """A results folder made without a server, with a different brightness for each trial."""
    out = Path("results/shop")
    (out / "artifacts").mkdir(parents=True)
    with Store.open(out) as store:
        with store.transaction():
            run = store.create_run(layout, file="shop.yaml", targets=["embedded"], now=1.0)
            store.add_trials(run, trials)
        for index, (_, digest, _, _) in enumerate(trials):
            store.record_intent(
                JobRecord(f"job{index}", run, "embedded", digest, "s" * 64, 1, f"p{index}", "intent", 1.0)
            )
            sha256 = f"{index:064}"
            (out / f"artifacts/{index}.png").touch()
            files = [Artifact("9", "images", 0, f"artifacts/{index}.png", sha256, 10, "a.png")]
            store.record_finished(f"job{index}", JobEnd("succeeded", artifacts=files))
            store.cache_metrics([(sha256, "brightness", 100.1234567)])
    return out


def split_cells(outcome):
    assert (outcome.code, outcome.err) == (0, "")
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in outcome.out.splitlines()]


def test_axis_values_are_exact_and_metrics_rounded(sweeper):
    trials = [(n, str(n) * 64, {"cfg": cfg}, {"cfg": cfg, "seed": 1}) for n, cfg in enumerate(CFG)]
    out = store_trials(TableLayout("shop", ("cfg", "seed"), ("cfg",), ("brightness",)), trials)
    whole = ["0.1234567", "0.1234568", "1234567.25"]

    assert split_cells(sweeper("results", out, "--columns", "cfg,brightness"))[1:] == [
        [cfg, "100.123"] for cfg in whole
    ]
    assert [row[0] for row in split_cells(sweeper("results", out, "--by", "cfg"))[1:]] == whole
    assert split_cells(sweeper("results", out, "--pivot", "cfg,seed,brightness"))[2] == ["seed \\ cfg", *whole]


def store_in_order(write, sweep):
    """A results folder of an experiment, written without a run."""
    plan = Plan(load(write(f"name: shop\ntemplate: t.json\nsweep: {json.dumps(sweep)}\n")))
    layout = TableLayout("shop", plan.axis_columns, plan.slot_names, ("brightness",), plan.value_order)
    return store_trials(layout, [(t.index, t.digest, t.params, t.columns) for t in plan.written()])


SWEEP = {
    "grid": {"cfg": [7, 5], "steps": [1, {"label": "two", "value": 2}, 3]},
    "exclude": [{"cfg": 7, "steps": 1}, {"cfg": 7, "steps": "two"}],
}


def test_groups_and_pivots_keep_the_written_order_of_values(sweeper, write):
    out = store_in_order(write, SWEEP)

    assert [row[0] for row in split_cells(sweeper("results", out, "--by", "steps"))[1:]] == ["1", "two", "3"]
    assert [row["steps.label"] for row in sweeper("results", out, "--by", "steps.label", "--json").json] == [
        None,
        "two",
    ]
    assert split_cells(sweeper("results", out, "--pivot", "steps,cfg,brightness"))[2] == [
        "cfg \\ steps",
        "1",
        "two",
        "3",
    ]
    assert [row[:2] for row in split_cells(sweeper("results", out, "--by", "steps,cfg"))[1:]] == [
        ["3", "7"], ["1", "5"], ["two", "5"], ["3", "5"],
    ]  # fmt: skip
    only = ("--by", "steps", "--where", "steps != 2")
    assert [row[0] for row in split_cells(sweeper("results", out, *only))[1:]] == ["1", "3"]


def test_rows_keep_the_order_of_the_trials(sweeper, write):
    assert [row["trial"] for row in sweeper("results", store_in_order(write, SWEEP), "--json").json] == [0, 1, 2, 3]
