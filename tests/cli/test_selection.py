"""`--where`, `--limit` and `--set` select the same trials in every command that has them."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path

import pytest

SWEEP = "name: shop\ntemplate: t.json\nsweep:\n  grid:\n    steps: [1, 2, 3]\n    seed: [7, 8]\n"


@pytest.fixture
def shop(write):
    return write(SWEEP)


def list_points(rows):
    return [(int(row["steps"]), int(row["seed"])) for row in rows]


def list_planned(outcome):
    assert outcome.code == 0, outcome.err
    return list_points(json.loads(line)["params"] for line in outcome.out.splitlines())


def test_plan_shows_what_run_would_submit(sweeper, shop):
    planned = sweeper("plan", shop, "--where", "steps > 1", "--limit", "3", "--jsonl", "-")
    summary = sweeper("plan", shop, "--where", "steps > 1", "--limit", "3", "--json").json
    assert list_planned(planned) == [(2, 7), (2, 8), (3, 7)]
    assert [summary[name] for name in ("count", "selected", "new", "jobs")] == [6, 4, 4, 3]
    text = " ".join(sweeper("plan", shop, "--where", "steps > 1").out.split())
    assert "selected 4 (by --where: steps > 1)" in text
    assert sweeper("run", shop, "--where", "steps > 1", "--limit", "3", "--json").json["submitted"] == 3
    rest = sweeper("plan", shop, "--limit", "2", "--jsonl", "-")
    assert list_planned(rest) == [(1, 7), (1, 8)]  # the run has done the others
    assert sweeper("plan", shop, "--where", "stps > 1").code == 2
    assert "drop --where" in sweeper("plan", shop, "--diff", "1", "--where", "steps > 1").err


def test_dry_run_shows_the_plan_and_submits_nothing(sweeper, shop):
    options = ["--where", "steps > 1", "--limit", "3", "--set", "seed=[4,5,6]"]
    dry = sweeper("run", shop, "--dry-run", *options, "--retry-failed")
    parts = [answer.out.partition("\nnext: ") for answer in (dry, sweeper("plan", shop, *options))]
    assert (dry.code, parts[0][0]) == (0, parts[1][0])
    assert shlex.split(parts[0][2]) == ["sweeper", "run", str(shop), *options, "--retry-failed"]
    assert not Path("results").exists()
    assert sweeper("run", shop, "--json").json["succeeded"] == 6
    again = sweeper("run", shop, "--dry-run", "--fresh", "--json").json
    assert (again["new"], again["done"]) == (6, 0)
    assert sweeper("run", shop, "--dry-run", "--json").json["next"] == f"sweeper report {shop}"
    for option in ("--view", "--no-check"):
        refused = sweeper("run", shop, "--dry-run", option)
        assert (refused.code, f"{option} cannot be given with it" in refused.err) == (2, True)


def test_every_command_selects_the_same_rows(sweeper, shop):
    options = ["--where", "steps > 1", "--set", "seed=[8, 9]", "--limit", "1"]
    chosen = [(2, 8)]
    assert sweeper("run", shop).code == 0

    assert list_points(sweeper("results", shop, "--json", *options).json) == chosen
    exported = sweeper("export", shop, "-o", "-", "--format", "csv", *options).out
    assert list_points(csv.DictReader(io.StringIO(exported))) == chosen
    assert sweeper("report", shop, *options).code == 0
    assert json.loads(Path("results/shop/report/data.json").read_text())["trials"] == [3]
    sheet = sweeper("report", shop, "--sheet", "sheet.png", *options)
    assert (sheet.code, sheet.out) == (0, "sheet.png\n")
    assert sweeper("accept", shop, "--json", *options).json["counts"] == {"new": 1}
    checked = sweeper("check", shop, "--json", *options)
    assert (checked.code, [case["case"] for case in checked.json["cases"]]) == (0, ["steps=2 seed=8 [9]"])
    assert sweeper("check", "results/shop", "--json", *options).code == 0
    assert sweeper("accept", shop, "--yes", "--where", "status == 'succeeded'", "--json").json["counts"]["new"] == 5


def test_selection_that_matches_nothing_says_so(sweeper, shop):
    sweeper("run", shop, "--limit", "1")
    for command in (["results"], ["export", "-o", "-", "--format", "csv"], ["accept"]):
        outcome = sweeper(*command[:1], shop, *command[1:], "--set", "steps=9")
        assert (outcome.code, outcome.err) == (0, "--set steps=9 matches none of the 6 trials\n")
    refused = sweeper("report", shop, "--set", "steps=9")  # a page without trials would replace a good one
    assert (refused.code, refused.err) == (
        2,
        "error: --set steps=9 matches none of the 6 trials; the report would be empty\n",
    )
    unknown = sweeper("results", shop, "--set", "stpes=1", "--where", "sed == 1")
    assert unknown.code == 2
    assert "--set stpes: there is no column 'stpes'; did you mean 'steps'?" in unknown.err
    assert "--where: there is no column 'sed'" in unknown.err


def test_axes_of_a_partial_report_keep_their_order(sweeper, write):
    write(
        "name: shop\ntemplate: t.json\nsweep:\n"
        "  - {grid: {steps: [3], seed: [7]}}\n  - {grid: {steps: [1, 3, 2], seed: [8]}}\n"
    )
    assert sweeper("run", "shop.yaml").code == 0
    assert sweeper("report", "shop.yaml", "--where", "seed == 8 and steps != 3").code == 0
    columns = json.loads(Path("results/shop/report/data.json").read_text())["columns"]
    assert columns[0]["values"] == [1, 2]
