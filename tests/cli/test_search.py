"""`sweeper search`: what it shows before, while and after it searches, its options, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import urllib.request
from pathlib import Path

import pytest

from sweeper.embedded import EmbeddedServer
from sweeper.store import Store
from tests.cli.terminal import answer
from tests.experiment_files import make_search_writer
from tests.few_classes import pick_classes

INSTALL = f"{sys.executable} -m pip install"
SEARCH = {
    "maximize": "brightness",
    "trials": 8,
    "batch": 2,
    "space": {"cfg": {"from": 1, "to": 9}, "steps": [1, 2]},
    "over": {"seed": [1, 2]},
}
PREVIEW = """\
shop: search of t.json on embedded
maximize brightness over seed (2): 2 trials of each point

cfg    1 to 9
steps  2  1 | 2

left  at most 8 trials, 2 points in a round

The next points:

  cfg  steps
 4.28      2
6.775      1
"""
SUMMARY = """\
8 trials of 4 points in 2 rounds; that is the limit; `trials:` or --trials allows more

brightness    cfg  steps  round  trials  succeeded
   1##.###  8.239      2      2  4, 5            2
   1##.###  6.775      1      1  2, 3            2
   1##.###   4.28      2      1  0, 1            2
   1##.###  2.737      1      2  6, 7            2

The best number is too good, because its point was chosen for it: by 1.7 to 2.2 standard errors in simulations. \
To measure it on fresh seeds: sweeper search shop.yaml --confirm

table    results/shop/results.csv
report   sweeper report shop.yaml
best     sweeper results shop.yaml --best 5
confirm  sweeper search shop.yaml --confirm
"""
TOO_LARGE = "shop.yaml:1: search.space.cfg: node 3 (KSampler) cfg: found 900.0, but at most 100.0 is needed"


@pytest.fixture
def write_search(write):
    return make_search_writer(write, SEARCH)


def hide_digits(text):
    """The text without the digits of a brightness that may differ a little between processors."""
    return re.sub(r" *1\d\d\.\d+(?= )", lambda found: "1##.###".rjust(max(len(found[0]), 8)), text)


def test_preview_shows_the_space_and_the_next_points(sweeper, write_search):
    outcome = sweeper("search", write_search(), "--preview")
    assert (outcome.code, outcome.err, outcome.out) == (0, "", PREVIEW)
    preview = sweeper("search", "shop.yaml", "--preview", "--json").json
    points = [{"cfg": 4.28, "steps": 2}, {"cfg": 6.775, "steps": 1}]
    assert (preview["points"], preview["left"], preview["round_jobs"]) == (points, 8, 4)
    assert not Path("results").exists()


def test_search_shows_its_rounds_and_its_best_points(sweeper, write_search):
    outcome = sweeper("search", write_search())
    assert (outcome.code, hide_digits(outcome.out)) == (0, SUMMARY)
    rounds = [hide_digits(line) for line in outcome.err.splitlines() if line.startswith("round")]
    assert rounds == [
        "round 1: 4 trials of 2 new points (0 of 8 done)",
        "round 2: 4 trials of 2 new points (4 of 8 done); best brightness 1##.### at cfg 6.775, steps 1",
    ]
    again = sweeper("search", "shop.yaml")
    assert (again.code, again.out, "round" in again.err) == (0, outcome.out, False)
    longer = sweeper("search", "shop.yaml", "--trials", 10, "--json", "--quiet")
    result = longer.json
    assert (longer.code, longer.err) == (0, "")
    assert (result["ended_by"], result["rounds"], result["points"], result["trials"]) == ("trials", 3, 5, 10)
    assert (result["run"]["submitted"], result["run"]["reused"]) == (2, 8)
    assert result["best"][0] | {"objectives": None} == {
        "values": {"cfg": 8.239, "steps": 2}, "objectives": None, "round": 2, "trials": [4, 5], "succeeded": 2,
    }  # fmt: skip


def test_quiet_search_prints_nothing(sweeper, write_search):
    outcome = sweeper("search", write_search(trials=4), "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    with Store.open("results/shop", readonly=True) as store:
        assert len(list(store.results())) == 4


def test_set_fixes_an_axis_of_the_space_and_changes_a_slot(sweeper, write_search):
    result = sweeper("search", write_search(trials=4), "--set", "steps=3", "--set", "prompt=a dog", "--json", "-q").json
    assert {point["values"]["steps"] for point in result["best"]} == {3}
    assert len({point["values"]["cfg"] for point in result["best"]}) == 2
    with Store.open("results/shop", readonly=True) as store:
        assert {(row.params["prompt"], row.params["steps"]) for row in store.results()} == {("a dog", 3)}


def test_value_that_the_target_refuses_is_found_before_the_first_round(sweeper, write_search):
    file = write_search(space={"cfg": {"from": 1, "to": 900}})  # the first points would be in order
    outcome = sweeper("search", file, "--preview")
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {TOO_LARGE} (on embedded)\n")
    outcome = sweeper("search", file)
    assert outcome.code == 2
    assert f"error: {TOO_LARGE} (on embedded; --no-check submits it nevertheless)" in outcome.err
    assert not Path("results/shop/sweeper.sqlite").exists()


@pytest.mark.parametrize("arguments", [(), ("--preview",)])
def test_experiment_without_a_search_is_refused(sweeper, write, arguments):
    outcome = sweeper("search", write('{"template": "t.json", "sweep": {"grid": {"cfg": [1, 2]}}}'), *arguments)
    message = "error: shop.yaml:1: has no `search:`; write what to maximize, the space and an end, or use `sweeper run`"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"{message}\n")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (
            ["optuna"],
            f"sweeper searches with optuna, which is not installed; run: {INSTALL} optuna",
        ),
        (
            ["torch"],
            f"search.method: gp needs PyTorch, which is not installed; run: {INSTALL} torch, or use "
            "`method: auto`, which needs only Optuna",
        ),
    ],
)
def test_missing_package_is_named_with_its_command(sweeper, write_search, monkeypatch, missing, message):
    find = importlib.util.find_spec
    monkeypatch.setattr("sweeper.running.search_rounds.find_spec", lambda name: None if name in missing else find(name))
    outcome = sweeper("search", write_search(method="gp"))
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {message}\n")


def test_condition_that_no_point_fulfils_is_refused(sweeper, write_search):
    outcome = sweeper("search", write_search(where="cfg > 20"))
    assert outcome.code == 2
    assert "shop.yaml:1: search.where: no point of the space was found for which this is true" in outcome.err
    assert not Path("results").exists()


def test_objective_that_no_trial_has_ends_the_search_with_1(sweeper, write_search):
    outcome = sweeper("search", write_search(maximize=None, minimize="cost"))
    message = "error: the trials succeeded, but have no number in the column 'cost', which the search needs"
    assert (outcome.code, message in outcome.err.splitlines()) == (1, True)
    assert outcome.out.startswith("4 trials of 2 points in 1 round; ")


def test_budget_alone_does_not_end_a_search_that_costs_nothing(sweeper, write_search):
    outcome = sweeper("search", write_search(trials=None, budget="5 USD"))
    message = (
        "error: the trials so far have no known cost, so the budget does not end the search; state the `price` of the "
        "target, or add --trials N"
    )
    assert (outcome.code, message in outcome.err.splitlines()) == (1, True)
    assert outcome.out.startswith("4 trials of 2 points in 1 round; ")


def test_max_trials_ends_a_search_before_the_round_that_exceeds_it(sweeper, write_search):
    outcome = sweeper("search", write_search(trials=None, until="no better for 99 trials"), "--max-trials", "7")
    message = (
        "error: with another round the table would have 8 trials, more than max_trials allows (7); --max-trials 8 "
        "lifts the limit"
    )
    assert (outcome.code, message in outcome.err.splitlines()) == (1, True)
    assert outcome.out.startswith("4 trials of 2 points in 1 round; ended early\n")


def test_results_before_the_first_round_name_the_search(sweeper, write_search):
    outcome = sweeper("results", write_search())
    message = (
        "error: shop.yaml: there are no results in results/shop yet; create them with `sweeper search shop.yaml`\n"
    )
    assert (outcome.code, outcome.out, outcome.err) == (2, "", message)


def test_page_options_do_not_go_with_a_preview(sweeper, write_search):
    outcome = sweeper("search", write_search(), "--preview", "--open")
    message = "error: --preview submits nothing, so it goes without --view, --open and --rehearse\n"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", message)


def test_rehearsal_searches_without_the_target(sweeper, write_search):
    target = {"name": "box", "url": "http://127.0.0.1:9", "price": {"per_job": "2 USD"}}
    outcome = sweeper(
        "search", write_search({"target": target, "run": {"budget": "3 USD"}}), "--rehearse", "--trials", 4
    )
    assert (outcome.code, outcome.out.splitlines()[-1]) == (
        0, "This was a rehearsal on sweeper's own server. The real search is: sweeper search shop.yaml --trials 4",
    )  # fmt: skip
    assert "not checked against box, whose node classes are unknown here; `sweeper validate shop.yaml" in outcome.err
    assert sorted(Path("results/shop").iterdir()) == [Path("results/shop/rehearsal")]
    with Store.open("results/shop/rehearsal", readonly=True) as store:
        assert [row.status for row in store.results()] == ["succeeded"] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"maximize": ["brightness", "cost"]},
            "--rehearse asks no judge and costs nothing, so no trial would have cost",
        ),
        ({"trials": None, "budget": 5}, "--rehearse costs nothing, so the budget would not end it; add --trials N"),
        (
            {"space": {"cfg": {"from": 1, "to": 900}}},
            f"{TOO_LARGE.replace('100.0', '50.0')} (on the server of classes.json)",
        ),
    ],
)
def test_search_that_cannot_be_rehearsed_is_refused(sweeper, write_search, server, changes, message):
    classes = json.loads(urllib.request.urlopen(f"{server.url}/object_info", timeout=30).read())
    classes["KSampler"]["input"]["required"]["cfg"][1]["max"] = 50.0
    Path("classes.json").write_text(json.dumps(classes))
    outcome = sweeper("search", write_search(**changes), "--rehearse", "--object-info", "classes.json")
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {message}\n")
    assert not Path("results").exists()


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as running:
        yield running


@pytest.fixture
def write_priced_search(write_search, server):
    """A function that writes a search whose jobs cost 2 USD each."""
    return lambda **changes: write_search(
        {"target": {"name": "box", "url": server.url, "price": {"per_job": "2 USD"}}}, **changes
    )


def test_terminal_asks_about_the_price_of_all_trials(python, write_priced_search, sweeper):
    write_priced_search()
    preview = sweeper("search", "shop.yaml", "--preview")
    assert "cost    8.00 USD for the jobs on the target (next round)\n" in preview.out
    assert "in all  16.00 USD for 8 trials at the same price\n" in preview.out
    code, shown = answer(python, "search", "shop.yaml", "n\n")
    assert "Submit 8 jobs to box for 16.00 USD? [y/N]" in shown
    assert (code, "error: the answer was no, so nothing was submitted" in shown) == (1, True)
    assert not Path("results").exists()


def test_budget_of_a_search_ends_it_in_order(write_priced_search, sweeper):
    outcome = sweeper("search", write_priced_search(trials=None, budget="10 USD"))
    assert outcome.out.startswith("8 trials of 4 points in 2 rounds; no further trial fits into the budget\n")
    assert (outcome.code, "error" in outcome.err, "about to submit" in outcome.err) == (0, False, False)
    with Store.open("results/shop", readonly=True) as store:
        assert (store.charges.load_spent().high, sum(row.status == "succeeded" for row in store.results())) == (
            10**7,
            5,
        )
