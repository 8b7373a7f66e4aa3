"""The values of axes in the tables of `sweeper results`: each as itself, in its place."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from sweeper.loading.load import load
from sweeper.planning.plan import plan as make_plan
from sweeper.store import FILE_NAME, Store
from sweeper.store.records import Artifact, JobRecord, TableLayout

CFG = (0.1234567, 0.1234568, 1234567.25)


def stored(layout, trials):
    """A results folder without a server, each of its trials with a brightness of its own."""
    out = Path("results/shop")
    with Store.open(out) as store:
        with store.transaction():
            run = store.create_run(layout, file="shop.yaml", targets=["embedded"], now=1.0)
            store.add_trials(run, trials)
        for place, (_, digest, _, _) in enumerate(trials):
            store.record_intent(
                JobRecord(f"job{place}", run, "embedded", digest, "s" * 64, 1, f"p{place}", "intent", 1.0)
            )
            sha256 = f"{place:064}"
            files = [Artifact("9", "images", 0, f"artifacts/{place}.png", sha256, 10, "a.png")]
            store.record_finished(f"job{place}", "succeeded", artifacts=files)
            store.cache_metrics([(sha256, "brightness", 100.1234567)])
    return out


def cells(outcome):
    assert (outcome.code, outcome.err) == (0, "")
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in outcome.out.splitlines()]


def test_a_value_of_an_axis_is_whole_and_a_metric_rounded(sweeper):
    trials = [(n, str(n) * 64, {"cfg": cfg}, {"cfg": cfg, "seed": 1}) for n, cfg in enumerate(CFG)]
    out = stored(TableLayout("shop", ("cfg", "seed"), ("cfg",), ("brightness",)), trials)
    whole = ["0.1234567", "0.1234568", "1234567.25"]

    assert cells(sweeper("results", out, "--columns", "cfg,brightness"))[1:] == [[cfg, "100.123"] for cfg in whole]
    assert [row[0] for row in cells(sweeper("results", out, "--by", "cfg"))[1:]] == whole
    assert cells(sweeper("results", out, "--pivot", "cfg,seed,brightness"))[1] == ["seed \\ cfg", *whole]


def ordered(write, sweep):
    """A results folder of an experiment of which no run was made."""
    plan = make_plan(load(write(f"name: shop\ntemplate: t.json\nsweep: {json.dumps(sweep)}\n")))
    layout = TableLayout("shop", plan.axis_columns, plan.slot_names, ("brightness",), plan.value_order)
    return stored(layout, [(t.index, t.digest, t.params, t.columns) for t in plan.written()])


SWEEP = {
    "grid": {"cfg": [7, 5], "steps": [1, {"label": "two", "value": 2}, 3]},
    "exclude": [{"cfg": 7, "steps": 1}, {"cfg": 7, "steps": "two"}],
}


def test_groups_and_pivots_have_the_values_of_an_axis_as_they_were_written(sweeper, write):
    out = ordered(write, SWEEP)

    assert [row[0] for row in cells(sweeper("results", out, "--by", "steps"))[1:]] == ["1", "two", "3"]
    assert [row["steps.label"] for row in sweeper("results", out, "--by", "steps.label", "--json").json] == [
        None,
        "two",
    ]
    assert cells(sweeper("results", out, "--pivot", "steps,cfg,brightness"))[1] == ["cfg \\ steps", "1", "two", "3"]
    assert [row[:2] for row in cells(sweeper("results", out, "--by", "steps,cfg"))[1:]] == [
        ["3", "7"], ["1", "5"], ["two", "5"], ["3", "5"],
    ]  # fmt: skip
    only = ("--by", "steps", "--where", "steps != 2")
    assert [row[0] for row in cells(sweeper("results", out, *only))[1:]] == ["1", "3"]


def test_rows_stay_in_the_order_of_the_trials(sweeper, write):
    assert [row["trial"] for row in sweeper("results", ordered(write, SWEEP), "--json").json] == [0, 1, 2, 3]


def test_a_store_of_before_the_order_was_kept_has_the_values_as_they_come(sweeper, write):
    out = ordered(write, SWEEP)
    with sqlite3.connect(out / FILE_NAME) as database:
        database.execute("UPDATE runs SET layout = json_remove(layout, '$.value_order')")
    database.close()

    assert [row[0] for row in cells(sweeper("results", out, "--by", "steps"))[1:]] == ["3", "1", "two"]
