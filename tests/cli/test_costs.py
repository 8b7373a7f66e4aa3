"""What jobs cost, in `sweeper results` and in `sweeper costs`, in a results folder that is made without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.model.charges import ESTIMATED, MEASURED, OF_JOB, PRICED, Charge
from sweeper.model.money import Amount
from sweeper.store import Store, records
from sweeper.store.records import JobRecord, TableLayout
from sweeper.tables import dataframe

DAY = 86_400.0
EVENING = 1_700_000_000.0  # 2023-11-14T22:13:20 in UTC
LAYOUT = TableLayout("shop", ("model", "seed"), ("model", "seed"))
TRIALS = [("pro", 1, "a"), ("pro", 2, "b"), ("dev", 1, "c"), ("dev", 2, "c"), ("pro", 3, "d")]


def priced_node(low, high=None, class_type="FluxProNode", kind=PRICED):
    return Charge("7", class_type, Amount(low, low if high is None else high), kind)


def of_time(usd):
    return Charge(OF_JOB, "", Amount.exactly(usd), ESTIMATED)


def add_run(store, now):
    with store.transaction():
        run = store.create_run(LAYOUT, file="shop.yaml", targets=["cloud", "gpu"], now=now)
        rows = [{"model": model, "seed": seed} for model, seed, _ in TRIALS]
        store.add_trials(run, [(index, TRIALS[index][2] * 64, row, row) for index, row in enumerate(rows)])
    return run


def add_job(store, name, run, state, *charges, target="cloud", now=EVENING):
    store.record_intent(
        JobRecord(name, run, target, name[0] * 64, "s" * 64, 1, None, records.INTENT, now), charges=charges
    )
    store.record_submitted(name, f"prompt of {name}", now)
    if state is not None:
        store.record_finished(name, state, started=now, ended=now + 2.0, charges=charges)


@pytest.fixture
def priced():
    """Two runs. Trial 0 failed once, succeeded, and was made again; trials 2 and 3 share a job; trial 4 is running."""
    out = Path("results/shop")
    with Store.open(out) as store:
        run = add_run(store, EVENING)
        add_job(store, "a1", run, records.FAILED, priced_node(0.05))
        add_job(store, "a2", run, records.SUCCEEDED, priced_node(0.05))
        add_job(store, "b1", run, records.SUCCEEDED, priced_node(0.03, 0.05), of_time(0.01))
        add_job(store, "c1", run, records.SUCCEEDED, of_time(0.002), target="gpu")
        run = add_run(store, EVENING + DAY)
        add_job(store, "a3", run, records.SUCCEEDED, priced_node(0.04, kind=MEASURED), now=EVENING + DAY)
        add_job(store, "d1", run, None, priced_node(0.5), now=EVENING + DAY)
    return out


def test_each_row_has_what_its_job_cost_and_shared_jobs_count_once(sweeper, priced):
    rows = sweeper("results", priced, "--json").json

    assert [(row["cost"], row["cost_kind"], row["currency"]) for row in rows] == [
        (0.04, "measured", "USD"),
        (0.06, "estimated", "USD"),
        (0.002, "estimated", "USD"),
        (0.0, "estimated", "USD"),
        (None, None, None),
    ]
    assert list(rows[0])[-6:] == ["ran_s", "cost", "cost_kind", "currency", "error_type", "error"]
    assert [row["cost"] for row in sweeper("results", priced, "--json", "--run", "1").json][:2] == [0.05, 0.06]
    frame = dataframe.results(priced)
    assert frame["cost"].dtype == "float64"
    assert frame["cost"].sum() == pytest.approx(0.102)


def test_cost_can_be_filtered_sorted_and_summed_by_group(sweeper, priced):
    where = sweeper("results", priced, "--where", "cost > 0.01", "--sort", "-cost", "--columns", "trial,cost", "--json")
    assert where.json == [{"trial": 1, "cost": 0.06}, {"trial": 0, "cost": 0.04}]

    table = sweeper("results", priced, "--by", "model", "--sort", "cost_sum").out.splitlines()
    assert [line.split() for line in table] == [
        ["model", "trials", "succeeded", "ran_s", "cost_sum", "cost"],
        ["dev", "2", "2", "2", "0.002", "0.0010", "±", "0.0014"],
        ["pro", "3", "2", "2", "0.1", "0.050", "±", "0.014"],
    ]
    group = sweeper("results", priced, "--by", "model", "--json").json[0]
    assert (group["cost_sum"], group["cost"]["n"], group["cost"]["mean"]) == (0.1, 2, 0.05)


def test_folder_without_prices_shows_no_cost(sweeper, recorded):
    assert "cost" not in sweeper("results", recorded).out
    assert "cost" not in sweeper("results", recorded, "--by", "style").out
    assert {row["cost"] for row in sweeper("results", recorded, "--json").json} == {None}
