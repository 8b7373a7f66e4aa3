"""`sweeper run` asks on a terminal before it spends much, and says it elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper.embedded import EmbeddedServer, Faults, Scenario
from sweeper.store import Store
from tests.cli.terminal import answer
from tests.few_classes import pick_classes

QUESTION = "Submit 4 jobs to box for 8.00 USD"


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as running:
        yield running


@pytest.fixture
def experiment(write, server):
    """A function that writes an experiment of four jobs that cost 2 USD each."""

    def make(run=None, price="2 USD"):
        target = {"name": "box", "url": server.url, "price": {"per_job": price}}
        sweep = {"grid": {"seed": [1, 2], "steps": [1, 2]}}
        return write(json.dumps({"template": "t.json", "target": target, "sweep": sweep, "run": run or {}}))

    return make


@pytest.mark.parametrize(("text", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_terminal_asks_before_it_spends(python, experiment, text, code):
    ended, shown = answer(python, "run", experiment(), text)

    assert "cost 8.00 USD for the jobs on the target" in shown
    assert f"{QUESTION}? [y/N]" in shown
    assert ended == code, shown
    assert Path("results/shop").exists() == (code == 0)
    if code:
        assert "error: the answer was no, so nothing was submitted" in shown


def test_question_is_about_what_is_left_of_the_budget(python, experiment):
    code, shown = answer(python, "run", experiment({"budget": 7, "confirm_above": 6}), "n\n")
    assert (code, "Submit 4 jobs to box for 7.00 USD? [y/N]" in shown) == (1, True)
    code, shown = answer(python, "run", experiment({"budget": 5, "confirm_above": 6}), "n\n")
    assert (code, "[y/N]" in shown, "budget: 4.00 USD of 5.00 USD" in shown) == (1, False, True)


def test_pipe_says_what_it_spends_and_goes_on(sweeper, experiment):
    file = experiment()
    outcome = sweeper("run", file, "--trust", "--limit", 3)
    assert (outcome.code, "about to submit 3 jobs to box for 6.00 USD" in outcome.err) == (0, True)

    outcome = sweeper("run", file, "--trust")  # 2 USD are left to pay
    assert (outcome.code, "about to submit" in outcome.err) == (0, False)


@pytest.mark.parametrize("run", [{"confirm_above": "8 USD"}, {"confirm_above": 8.5}, {}])
def test_no_word_about_a_cost_that_was_accepted(sweeper, experiment, run):
    outcome = sweeper("run", experiment(run), "--trust", *([] if run else ["--yes"]))
    assert (outcome.code, "about to submit" in outcome.err) == (0, False)
    with Store.open("results/shop", readonly=True) as store:
        assert store.count_submitted(1) == 4


def test_many_jobs_at_an_unknown_cost_are_asked_about(sweeper, write, monkeypatch):
    monkeypatch.setenv("PARTNER_KEY", "secret")
    monkeypatch.setenv("COMFY_CLOUD_API_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for target, price in (
        ({"name": "box", "url": "http://127.0.0.1:9", "partner_key_env": "PARTNER_KEY"}, "at a cost that is not known"),
        ("cloud", "whose time costs what nobody stated (`price:` of cloud)"),
    ):
        text = json.dumps({"template": "t.json", "target": target, "sweep": {"grid": {"seed": {"seeds": 101}}}})
        outcome = sweeper("run", write(text), "--trust")
        assert f"about to submit 101 jobs to {'box' if isinstance(target, dict) else 'cloud'}, {price}" in outcome.err
        assert outcome.code == 3


def test_run_says_why_it_ends_at_its_budget_and_which_one_would_do(sweeper, experiment):
    file = experiment({"budget": "5 USD"})
    outcome = sweeper("run", file, "--trust")
    assert outcome.code == 1
    assert "about to submit" not in outcome.err
    assert "; 4.00 of 5.00 USD spent" in outcome.err
    assert "no job fits into the budget: submitting no more" in outcome.err
    assert (
        "error: budget: 4.00 USD of 5.00 USD is spent, and the next job may cost 2.00 USD; 2 trials are" in outcome.err
    )
    again = sweeper("run", file, "--trust", "--json", "--budget", "8")
    assert "with `--budget '8.00 USD'`" in outcome.err
    assert (again.code, again.json["succeeded"], again.json["stopped_by"]) == (0, 4, None)
    check = sweeper("check", experiment({"budget": "3 USD"}), "--trust")
    assert (check.code, "budget: 2.00 USD of 3.00 USD is spent" in check.err) == (1, True)


@pytest.mark.parametrize(
    ("value", "line"),
    [("five", "'five'"), (-1, "found -1, but at least 0"), ("5 EUR", "such as 20 USD"), (True, "a sum such as 20 USD")],
)
def test_wrong_sum_is_refused(sweeper, experiment, value, line):
    outcome = sweeper("run", experiment({"confirm_above": value}))
    assert outcome.code == 2
    assert "run.confirm_above" in outcome.err
    assert line in outcome.err


def test_stranger_cannot_switch_the_question_off(sweeper, write, monkeypatch, tmp_path):
    monkeypatch.setenv("SWEEPER_TRUST_FILE", str(tmp_path / "nobody.json"))
    text = {
        "template": "t.json", "target": "cloud", "targets": {"cloud": {"price": {"per_job": "0 USD"}}},
        "run": {"confirm_above": 1000},
    }  # fmt: skip
    outcome = sweeper("run", write(json.dumps(text)))
    assert outcome.code == 2
    assert "run.confirm_above: lets runs cost 1000 USD without a question" in outcome.err
    assert "targets.cloud.price: states what https://cloud.comfy.org costs" in outcome.err


def test_forecast_after_ten_jobs_is_near_what_the_server_charges(sweeper, write, monkeypatch, tmp_path):
    """Against the account of the embedded server, which charges for the nodes that ran and for its seconds.

    The ten jobs that are left are like the ten that ran. The seconds of a busy machine vary, and the server's include
    what it does between two jobs; so they need only be right to three quarters of what they cost.
    """
    monkeypatch.setenv("PARTNER_KEY", "secret")
    rates = {"prices": {"KSampler": "0.03 USD"}, "price_per_second": "0.02 USD", "job_seconds": [0.2, 0.4]}
    faults = Faults(scenario=Scenario.from_mapping({"tier": "pro", "seed": 5, **rates}))
    with EmbeddedServer(faults=faults, nodes=pick_classes()) as shop:
        price = {"per_second": "0.02 USD"}
        target = {"name": "shop", "url": shop.url, "partner_key_env": "PARTNER_KEY", "price": price}
        file = write(json.dumps({"template": "t.json", "target": target, "sweep": {"grid": {"seed": {"seeds": 20}}}}))
        assert sweeper("run", file, "--trust", "--yes", "--limit", 10).code == 0
        forecast = sweeper("plan", file, "--trust", "--json").json["cost"]["left"]
        nodes, seconds = 0.3, shop.charge_total - 0.3
    assert (forecast["low"] + forecast["high"]) / 2 == pytest.approx(nodes + seconds, abs=0.75 * seconds)
