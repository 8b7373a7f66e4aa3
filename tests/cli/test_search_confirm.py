"""`sweeper search --confirm`: the best point on seeds that the search did not use."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from sweeper.embedded import EmbeddedServer
from sweeper.store import Store
from tests.cli.terminal import answer
from tests.experiment_files import make_search_writer
from tests.few_classes import pick_classes

SEARCH = {
    "maximize": "brightness",
    "trials": 8,
    "batch": 2,
    "space": {"cfg": {"from": 1, "to": 9}, "steps": [1, 2]},
    "over": {"prompt": ["a fox", "a house"], "seed": [1, 2]},
}


@pytest.fixture
def write_search(write):
    return make_search_writer(write, SEARCH)


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as running:
        yield running


def load_rows(folder):
    with Store.open(folder, readonly=True) as store:
        return list(store.results())


def test_best_point_runs_on_fresh_seeds_beside_the_search(sweeper, write_search):
    found = sweeper("search", write_search())
    command = "sweeper search shop.yaml --confirm"
    assert f"To measure it on fresh seeds: {command}\n" in found.out
    assert f"confirm  {command}\n" in found.out
    best = sweeper("search", "shop.yaml", "--json", "-q").json["best"][0]
    confirmed = sweeper("search", "shop.yaml", "--confirm")
    first = confirmed.out.splitlines()[0]
    values = f"cfg {best['values']['cfg']}, steps {best['values']['steps']}"
    number = r"\d+(\.\d+)? \(\d+(\.\d+)? to \d+(\.\d+)?\)"
    assert re.fullmatch(f"brightness {number} on 4 fresh seeds and these 2 prompts, at {values}", first), first
    assert (confirmed.code, "8 done, 0 failed" in confirmed.err) == (0, True)
    rows = load_rows("results/shop-confirm")
    assert {(row.params["cfg"], row.params["steps"]) for row in rows} == {tuple(best["values"].values())}
    assert not {row.params["seed"] for row in rows} & {row.params["seed"] for row in load_rows("results/shop")}
    again = sweeper("search", "shop.yaml", "--confirm")
    assert (again.code, again.out, "nothing to do" in again.err) == (0, confirmed.out, True)
    assert len(load_rows("results/shop")) == 8
    result = sweeper("search", "shop.yaml", "--confirm", "--json", "-q").json
    (point,) = result["points"]
    assert (point["seeds"], point["trials"], point["succeeded"], result["over"]) == (4, 8, 8, {"prompt": 2})
    mean = point["objectives"]["brightness"]
    numbers = [row.metrics["brightness"] for row in rows]
    assert mean["mean"] == pytest.approx(sum(numbers) / 8)
    assert mean["low"] < mean["mean"] < mean["high"]


def test_confirmation_before_the_search_says_to_search(sweeper, write_search):
    outcome = sweeper("search", write_search(), "--confirm")
    message = "error: no point in results/shop can be confirmed yet; run the search first: sweeper search shop.yaml\n"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", message)
    assert not Path("results").exists()
    outcome = sweeper("search", "shop.yaml", "--confirm", "--out", "other", "--target", "embedded", "--set", "steps=2")
    again = "sweeper search shop.yaml --target embedded --out other --set steps=2"
    assert outcome.err == f"error: no point in other can be confirmed yet; run the search first: {again}\n"


@pytest.mark.parametrize("flag", ["--preview", "--rehearse"])
def test_confirmation_runs_on_the_target_only(sweeper, write_search, flag):
    outcome = sweeper("search", write_search(), "--confirm", flag)
    message = "--confirm runs the best point on its target, so it goes without --preview and --rehearse"
    assert (outcome.code, outcome.err) == (2, f"error: {message}\n")


def test_votes_alone_have_no_number_to_confirm(sweeper, write_search):
    outcome = sweeper("search", write_search(maximize="votes"), "--confirm")
    assert (outcome.code, "error: --confirm needs a number of each trial, and votes" in outcome.err) == (2, True)


def test_every_point_of_the_front_is_confirmed_where_the_search_says(sweeper, write_search):
    file = write_search(maximize=["brightness", "sharpness"], over=None, where="seed > 9 or seed == 5")
    found = sweeper("search", file, "--out", "found", "--set", "prompt=a dog", "--json", "-q").json
    outcome = sweeper("search", file, "--out", "found", "--set", "prompt=a dog", "--confirm")
    sentences = [line for line in outcome.out.splitlines() if " on 8 fresh seeds, at cfg " in line]
    assert (outcome.code, len(sentences)) == (0, len(found["best"]))
    assert all(re.match(r"brightness \S+ \(.* to .*\) and sharpness \S+ \(", line) for line in sentences)
    rows = load_rows("found-confirm")
    assert ({row.params["prompt"] for row in rows}, 5 in {row.params["seed"] for row in rows}) == ({"a dog"}, False)


def test_condition_that_no_fresh_seed_fulfils_is_reported(sweeper, write_search):
    file = write_search(over={"seed": [1, 2]}, where="seed < 3")
    assert sweeper("search", file, "-q").code == 0
    outcome = sweeper("search", file, "--confirm")
    message = "shop.yaml:1: search.where: is true for no fresh seed of the best point, so it cannot be confirmed"
    assert (outcome.code, message in outcome.err) == (2, True)


def test_slot_with_few_seeds_is_reported(sweeper, write_search):
    file = write_search(over={"seed": [1, 2]})
    slots = Path("t.slots.yaml")
    slots.write_text(slots.read_text().replace("minimum: 0", "minimum: 0, maximum: 8"))
    assert sweeper("search", file, "-q").code == 0
    outcome = sweeper("search", file, "--confirm")
    message = "shop.yaml: seed: the slot takes too few seeds that the search did not use; --confirm needs 8"
    assert (outcome.code, outcome.err) == (2, f"error: {message}\n")


def test_link_in_the_place_of_the_folder_is_refused(sweeper, write_search, tmp_path):
    file = write_search()
    Path("pyproject.toml").touch()
    assert sweeper("search", file, "-q").code == 0
    (tmp_path / "elsewhere").mkdir()
    Path("results/shop-confirm").symlink_to(tmp_path / "elsewhere")
    outcome = sweeper("search", file, "--confirm")
    assert (outcome.code, "name that folder in its place" in outcome.err) == (2, True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_failed_trials_are_said_and_left_out(sweeper, write_search, server):
    file = write_search({"target": server.url})
    assert sweeper("search", file, "-q").code == 0
    server.faults.fail_nodes = {"SaveImage"}
    outcome = sweeper("search", file, "--confirm")
    server.faults.fail_nodes = set()
    lines = outcome.out.splitlines()
    assert (outcome.code, lines[0].startswith("brightness unknown on 0 fresh seeds and these 2 prompts, at ")) == (
        1,
        True,
    )
    assert lines[1] == "8 of 8 trials failed; add --retry-failed to submit these again"
    repaired = sweeper("search", file, "--confirm", "--retry-failed")
    assert (repaired.code, " on 4 fresh seeds and these 2 prompts" in repaired.out) == (0, True)


def test_budget_limits_the_confirmation_and_the_price_is_asked(python, sweeper, write_search, server):
    target = {"name": "box", "url": server.url, "price": {"per_job": "2 USD"}}
    file = write_search({"target": target, "run": {"confirm_above": "1 USD"}})
    assert sweeper("search", file, "-q", "--trust", "--yes").code == 0
    code, shown = answer(python, "search", file, "n\n", "--confirm")
    assert "Submit 8 jobs to box for 16.00 USD? [y/N]" in shown
    assert (code, Path("results/shop-confirm").exists()) == (1, False)
    outcome = sweeper("search", file, "--confirm", "--budget", "5", "--trust", "--yes")
    assert (outcome.code, "6 of 8 trials did not run; the same command goes on" in outcome.out) == (1, True)
    with Store.open("results/shop-confirm", readonly=True) as store:
        assert store.charges.load_spent().high <= Decimal(5_000_000)


def test_rehearsed_search_names_no_confirmation(sweeper, write_search):
    outcome = sweeper("search", write_search(), "--rehearse")
    assert (outcome.code, "--confirm" in outcome.out) == (0, False)
