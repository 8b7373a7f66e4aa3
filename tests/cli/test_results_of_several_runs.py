"""The table keeps the best result of every trial, whatever ran later, and `--run ID` shows one run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import sweeper as library
from sweeper.embedded import EmbeddedServer
from tests.few_classes import pick_classes

GRID = "template: t.json\nsweep: {grid: {seed: [1, 2, 3]}}\nparams: {steps: 1}\nmetrics: [brightness]\n"
FOLDER = Path("results/shop")


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer(dialect="cloud", nodes=pick_classes()) as server:
        yield server


@pytest.fixture
def partial_run(sweeper, write, server):
    """An experiment that ran on a server, and then its first trial on the embedded one."""
    experiment = write(GRID)
    assert sweeper("run", experiment, "--target", server.url).code == 0
    partial = sweeper("run", experiment, "--target", "embedded", "--limit", "1")
    assert partial.code == 0
    return experiment, partial


def read_targets(folder=FOLDER):
    with Path(folder, "results.csv").open(encoding="utf-8", newline="") as file:
        return [(row["target"], row["status"]) for row in csv.DictReader(file)]


def test_a_partial_run_on_the_embedded_server_hides_no_result(sweeper, partial_run, server):
    experiment, partial = partial_run
    assert read_targets() == [(server.url, "succeeded")] * 3
    assert list(library.results(experiment)["target"]) == [server.url] * 3
    exported = sweeper("export", experiment, "-o", "-", "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["target"] for line in exported] == [server.url] * 3
    assert sweeper("report", experiment).code == 0
    data = json.loads((FOLDER / "report/data.json").read_text("utf-8"))
    assert data["status"] == [data["statuses"].index("succeeded")] * 3
    assert len(data["files"]) == 3
    assert partial.out.splitlines()[1].split() == ["3", "1", "0", "1", "0", "0", "2"]  # what this run did
    command = f"sweeper results {FOLDER} --run 2"
    assert f"3 rows of results.csv are from earlier runs on {server.url}; `{command}` shows this run alone" in (
        partial.out
    )


def test_one_run_shows_only_what_it_did(sweeper, partial_run, server):
    experiment, _ = partial_run
    rows = sweeper("results", experiment, "--run", "2", "--json").json
    assert [(row["target"], row["status"]) for row in rows] == [("embedded", "succeeded")] + [(None, "pending")] * 2
    assert rows[0]["brightness"] is not None  # measured, although the table shows another row in its place
    (_, second) = sweeper("runs", experiment, "--json").json
    assert (second["succeeded"], second["pending"]) == (1, 2)


def test_a_real_server_replaces_rows_of_the_embedded_one(sweeper, write, server):
    experiment = write(GRID)
    assert sweeper("run", experiment).code == 0
    outcome = sweeper("run", experiment, "--target", server.url, "--limit", "1", "--json")
    assert outcome.json["kept"] == {"embedded": 2}
    assert read_targets() == [(server.url, "succeeded")] + [("embedded", "succeeded")] * 2
    sweeper("run", experiment, "--target", server.url)
    assert read_targets() == [(server.url, "succeeded")] * 3


def test_accept_takes_the_table_and_names_several_targets(sweeper, write, server):
    experiment = write(GRID)
    sweeper("run", experiment)
    sweeper("run", experiment, "--target", server.url, "--limit", "1")
    whole = sweeper("accept", experiment, "--baseline", "whole")
    assert f"made on several targets (1 on {server.url}, 2 on embedded); `--run ID` accepts those of one run" in (
        whole.err
    )
    assert len(list(Path("whole").glob("*.png"))) == 3
    one = sweeper("accept", experiment, "--baseline", "one", "--run", "2", "--json")
    assert (one.json["targets"], one.err) == ({server.url: 1}, "")


def test_a_check_shows_nothing_of_earlier_checks(sweeper, write, server):
    experiment = write(GRID)
    sweeper("run", experiment, "--target", server.url)
    sweeper("accept", experiment)
    for target in (server.url, "embedded"):
        assert sweeper("check", experiment, "--target", target).code == 0
        assert read_targets("results/shop-check") == [(target, "succeeded")] * 3
