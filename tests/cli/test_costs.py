"""What jobs cost, in `sweeper results` and in `sweeper costs`, in a results folder that is made without a server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sweeper.embedded import EmbeddedServer
from sweeper.model.money import ESTIMATED, MEASURED, OF_JOB, PRICED, Amount, Charge
from sweeper.store import Store, records
from sweeper.store.records import JobEnd, JobRecord, TableLayout
from sweeper.tables import dataframe
from tests.few_classes import pick_classes

DAY = 86_400.0
EVENING = 1_700_000_000.0  # 2023-11-14T22:13:20 in UTC
LAYOUT = TableLayout("shop", ("model", "seed"), ("model", "seed"))
TRIALS = [("pro", 1, "a"), ("pro", 2, "b"), ("dev", 1, "c"), ("dev", 2, "c"), ("pro", 3, "d")]


def priced_node(low, high=None, class_type="FluxProNode", kind=PRICED):
    return Charge("7", class_type, Amount.between(low, low if high is None else high), kind)


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
        store.record_finished(name, JobEnd(state, started=now, ended=now + 2.0, charges=charges))


@pytest.fixture
def cost_folder():
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


def test_each_row_has_what_its_job_cost_and_shared_jobs_count_once(sweeper, cost_folder):
    rows = sweeper("results", cost_folder, "--json").json

    assert [(row["cost"], row["cost_kind"], row["currency"]) for row in rows] == [
        (0.04, "measured", "USD"),
        (0.06, "estimated", "USD"),
        (0.002, "estimated", "USD"),
        (0.0, "estimated", "USD"),
        (None, None, None),
    ]
    assert list(rows[0])[-7:] == ["ran_s", "cost", "cost_kind", "currency", "models", "error_type", "error"]
    assert [row["cost"] for row in sweeper("results", cost_folder, "--json", "--run", "1").json][:2] == [0.05, 0.06]
    frame = dataframe.results(cost_folder)
    assert frame["cost"].dtype == "float64"
    assert frame["cost"].sum() == pytest.approx(0.102)


def test_cost_can_be_filtered_sorted_and_summed_by_group(sweeper, cost_folder):
    where = sweeper(
        "results", cost_folder, "--where", "cost > 0.01", "--sort", "-cost", "--columns", "trial,cost", "--json"
    )
    assert where.json == [{"trial": 1, "cost": 0.06}, {"trial": 0, "cost": 0.04}]

    table = sweeper("results", cost_folder, "--by", "model", "--sort", "cost_sum").out.partition("\n\n")[0].splitlines()
    assert [line.split() for line in table] == [
        ["model", "trials", "succeeded", "ran_s", "cost_sum", "cost"],
        ["dev", "2", "2", "2", "0.002", "0.0010", "±", "0.0014"],
        ["pro", "3", "2", "2", "0.1", "0.050", "±", "0.014"],
    ]
    group = sweeper("results", cost_folder, "--by", "model", "--json").json[0]
    assert (group["cost_sum"], group["cost"]["n"], group["cost"]["mean"]) == (0.1, 2, 0.05)


def test_folder_without_prices_shows_no_cost(sweeper, recorded):
    assert "cost" not in sweeper("results", recorded).out
    assert "cost" not in sweeper("results", recorded, "--by", "style").out
    assert {row["cost"] for row in sweeper("results", recorded, "--json").json} == {None}


def test_costs_shows_what_was_spent_and_kept_in_all_runs(sweeper, cost_folder):
    outcome = sweeper("costs", cost_folder, "--by", "model")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == COSTS


COSTS = """\
spent  0.682-0.702 USD for 6 jobs: 0.04 USD measured, 0.63-0.65 USD priced, 0.012 USD estimated
kept   0.082-0.102 USD for results that the table shows
rest   0.10 USD for failures, retries and results that others replaced
open   0.50 USD at most, for 1 job that may still run

cost by target:

target  jobs  spent          kept           kind
cloud      5  0.68-0.70 USD  0.08-0.10 USD  estimated
gpu        1  0.002 USD      0.002 USD      estimated

cost by day:

day         jobs  spent            kept             kind
2023-11-14     4  0.142-0.162 USD  0.042-0.062 USD  estimated
2023-11-15     2  0.54 USD         0.04 USD         priced

cost by class:

class        jobs  spent          kept           kind
FluxProNode     5  0.67-0.69 USD  0.07-0.09 USD  priced
(the job)       2  0.012 USD      0.012 USD      estimated

cost by model:

model  jobs  spent          kept           kind
pro       5  0.68-0.70 USD  0.08-0.10 USD  estimated
dev       1  0.002 USD      0.002 USD      estimated
"""


def test_costs_of_several_folders_are_added_up(sweeper, cost_folder):
    shutil.copytree(cost_folder, "results/other")

    data = sweeper("costs", cost_folder, "results/other", cost_folder, "--by", "seed", "--json").json

    assert data["folders"] == ["results/shop", "results/other"]
    assert (data["jobs"], data["open_jobs"], data["kind"]) == (12, 2, "estimated")
    assert data["spent"] == {"low": 1.364, "high": 1.404}
    assert {name: data[name]["high"] for name in ("kept", "rest", "open")} == {"kept": 0.204, "rest": 0.2, "open": 1.0}
    assert [row["value"] for row in data["by"]["folder"]] == ["results/shop", "results/other"]
    assert [(row["value"], row["jobs"]) for row in data["by"]["class"]] == [("FluxProNode", 10), (None, 4)]
    assert [(row["value"], row["spent"]["high"]) for row in data["by"]["seed"]] == [(1, 0.284), (2, 0.12), (3, 1.0)]


def test_costs_writes_each_charge_as_a_csv_row(sweeper, process, cost_folder):
    outcome = sweeper("costs", cost_folder, "--by", "model", "--csv", "costs.csv")

    assert (outcome.code, outcome.err) == (0, "wrote 7 rows to costs.csv\n")
    lines = Path("costs.csv").read_text().splitlines()
    assert lines[0] == "folder,run,trial,target,day,node,class,low,high,currency,kind,kept,model"
    assert lines[4] == "results/shop,1,1,cloud,2023-11-14,7,FluxProNode,0.03,0.05,USD,priced,true,pro"
    assert lines[5] == "results/shop,1,2,gpu,2023-11-14,,,0.002,0.002,USD,estimated,true,dev"
    piped = process("costs", cost_folder, "--by", "model", "--csv", "-")
    assert piped.out.splitlines() == lines
    assert piped.err.startswith("spent  0.682")


def test_costs_says_how_to_give_a_price_if_nothing_has_one(sweeper, recorded):
    outcome = sweeper("costs", recorded)

    assert outcome.code == 0
    assert outcome.out.startswith("results/shop: no job has a price.")
    assert "`price: {per_second: 0.0013 USD}`" in outcome.out
    assert sweeper("costs", recorded, "--json").json["spent"] == {"low": 0, "high": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "modle"], "--by: there is no column 'modle'; did you mean 'model'?"),
        (["--by", ","], "--by: names no axis; axes and slots: model, seed"),
        (["--json", "--csv", "-"], "--json and --csv - both write to stdout; give one"),
        (["nowhere"], "nowhere: no such results folder, and no experiment file of that name"),
    ],
)
def test_wrong_option_of_costs_exits_2(sweeper, cost_folder, options, message):
    outcome = sweeper("costs", cost_folder, *options)

    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {message}\n")


def test_run_ends_with_what_it_and_its_folder_cost(sweeper, write):
    experiment = write("template: t.json\nsweep: {grid: {seed: [1, 2]}}\nparams: {prompt: a fox, steps: 1, cfg: 1}\n")
    assert "cost" not in sweeper("run", experiment).out
    with Store.open("results/shop") as store, store.transaction():
        for job, charge in zip(list(store.jobs()), (priced_node(0.25), of_time(0.125)), strict=True):
            store.charges.replace(job.id, [charge])

    again = sweeper("run", experiment)
    third = sweeper("run", experiment, "--json").json["cost"]

    assert "cost      0.00 USD in this run, 0.375 USD in this folder" in again.out.splitlines()
    assert third == {
        "currency": "USD",
        "run": {"low": 0, "high": 0},
        "kind": None,
        "folder": {"low": 0.375, "high": 0.375},
        "budget": None,
    }


def test_run_on_a_target_with_a_price_ends_with_its_cost_and_budget(sweeper, write):
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as server:
        experiment = write(
            "template: t.json\nsweep: {grid: {seed: [1, 2]}}\nparams: {prompt: a fox, steps: 1, cfg: 1}\n"
            f"target: {{url: '{server.url}', price: {{per_job: 0.25 USD}}}}\nrun: {{budget: 2 USD}}\n"
        )
        lines = [sweeper("run", experiment, "--limit", count).out.splitlines() for count in (1, 2)]

    assert "cost      0.25 USD in this run (estimated), 0.25 USD in this folder of a budget of 2.00 USD" in lines[0]
    assert "cost      0.25 USD in this run (estimated), 0.50 USD in this folder of a budget of 2.00 USD" in lines[1]
    assert sweeper("costs", experiment, "--json").json["kept"] == {"low": 0.5, "high": 0.5}
