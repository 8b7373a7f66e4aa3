"""Judges as metrics: what they are asked, what it becomes, and what happens when they fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import yaml

import sweeper
from sweeper.cli import main
from sweeper.comfy.retry import RetryPolicy
from sweeper.errors import ExperimentError, ImageError, SweeperError, UnreachableError
from sweeper.images.metrics import judge_messages
from sweeper.model.experiment import Judge
from sweeper.model.money import to_usd
from sweeper.reporting.contents import describe_rerun
from sweeper.running import judge_client
from sweeper.running.judge_client import JudgeClient
from sweeper.running.run_events import JudgeAsked, Notice
from sweeper.store import Store
from tests import ROOT
from tests.running.judge_server import serve_judge

KEY = "sk-judge-0123456789abcdef"


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setattr(judge_client, "JUDGE_POLICY", RetryPolicy(attempts=3, base_wait=0.01, max_wait=0.02))
    with serve_judge() as server:
        yield server


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A results folder with two pictures of two prompts, to copy."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    assert sweeper.run(folder / "e.yaml", out=folder / "out").succeeded == 2
    return folder


EXPERIMENT = {
    "template": str(ROOT / "templates" / "txt2img.json"),
    "params": {"steps": 2, "width": 64, "height": 64},
    "sweep": {"grid": {"prompt": ["a red fox", "a lighthouse"]}},
}


@pytest.fixture
def ask(project, judge, tmp_path):
    """Runs the experiment with a judge: `ask(repeats=1)` gives the column, and the messages of the run."""
    out = tmp_path / "out"

    def run(**settings):
        if not out.exists():
            out.mkdir()
            for source in sorted((project / "out").rglob("*")):
                target = out / source.relative_to(project / "out")
                target.mkdir() if source.is_dir() else target.write_bytes(source.read_bytes())
        settings = {"question": "One fox?", "url": judge.url, "model": "tiny", "key_env": "JUDGE_KEY", **settings}
        (project / "e.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "metrics": [{"judge": settings}]}))
        events = []
        done = sweeper.run(project / "e.yaml", out=out, progress=events.append)
        assert (done.submitted, done.succeeded, done.stopped_by) == (0, 2, None)
        column = sweeper.results(out)[settings.get("name", "judge")].tolist()
        messages = [event.message for event in events if isinstance(event, Notice)]
        asked = [event for event in events if isinstance(event, JudgeAsked)]
        return [None if pd.isna(value) else value for value in column], messages, asked

    run.out = out
    return run


def test_metric_is_the_share_of_yes(ask, judge):
    judge.reply = lambda body: "yes" if "fox" in body["messages"][0]["content"][0]["text"] else next(others)
    others = iter(["no", "Yes!", "no", "no"])
    column, messages, (asked,) = ask(question="Does it show {{ prompt }}?", repeats=4, name="shows_it")
    assert column == [1.0, 0.25]
    assert messages == []
    assert (asked.metric, asked.model, asked.pictures, asked.repeats) == ("shows_it", "tiny", 2, 4)
    assert set(judge.texts) == {
        f"Does it show {prompt}?\n\nAnswer with one word: yes or no." for prompt in ("a red fox", "a lighthouse")
    }
    assert {headers["authorization"] for headers in judge.headers} == {f"Bearer {KEY}"}
    assert not any("x-api-key" in headers for headers in judge.headers)


def test_no_answer_is_asked_for_twice(ask, judge):
    assert ask(repeats=1)[0] == [1.0, 1.0]
    ask(repeats=1)
    assert len(judge.bodies) == 2
    judge.reply = lambda body: "no"
    assert ask(repeats=2)[0] == [0.5, 0.5]
    assert len(judge.bodies) == 4
    assert ask(repeats=2, question="Another?")[0] == [0.0, 0.0]
    assert len(judge.bodies) == 8
    assert ask(repeats=1)[0] == [1.0, 1.0]
    assert ask(repeats=2, question="Another?", name="again")[0] == [0.0, 0.0]
    assert len(judge.bodies) == 8


def test_unclear_answers_do_not_count_and_are_reported(ask, judge):
    answers = iter(["yes", "hard to say", "no", "maybe", "maybe", "maybe"])
    judge.reply = lambda body: next(answers)
    column, (message,), _ = ask(repeats=1)
    assert sorted(column, key=str) == [1.0, None]
    assert "1 of 1 answers are neither yes nor no" in message
    assert len(judge.bodies) == 2
    ask(repeats=1)
    assert len(judge.bodies) == 2  # an unclear answer is paid for too


def test_busy_judge_is_asked_again(ask, judge):
    waits = iter([(429, {"retry-after": "0"}, {}), (503, {}, {}), *["yes"] * 9])
    judge.reply = lambda body: next(waits)
    assert ask(repeats=1)[0] == [1.0, 1.0]
    assert len(judge.bodies) == 4


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, {}, {"error": {"message": f"Incorrect API key: {KEY}"}}), "HTTP 401): Incorrect API key: ***"),
        ((500, {}, {"error": {"message": "out of memory"}}), "HTTP 500): out of memory"),
        ((404, {}, {"error": {"message": "no such model"}}), "HTTP 404): no such model"),
        ((200, {}, {"detail": "hello"}), "this is no chat completion"),
    ],
)  # fmt: skip
def test_failing_judge_leaves_cells_empty_and_is_not_asked_on(ask, judge, answer, words):
    judge.reply = lambda body: answer
    column, (message,), _ = ask(repeats=5)
    assert column == [None, None]
    assert words in message
    assert "metric 'judge'" in message
    assert "run the experiment again" in message
    assert KEY not in message
    judge.reply = lambda body: "yes"
    assert ask(repeats=5)[0] == [1.0, 1.0]


def test_refused_picture_leaves_only_its_own_cell_empty(ask, judge):
    refusal = 400, {}, {"error": {"message": "unsafe"}}
    judge.reply = lambda body: refusal if "fox" in body["messages"][0]["content"][0]["text"] else "no"
    column, (message,), _ = ask(repeats=1, question="{{ prompt }}?")
    assert column == [None, 0.0]
    assert message.endswith("HTTP 400): unsafe")


def test_judge_that_refuses_every_picture_is_not_asked_on(judge):
    judge.reply = lambda body: (400, {}, {"error": {"message": "no such model"}})

    async def ask_often():
        errors = []
        async with JudgeClient(Judge("judge", "", judge.url, "tiny")) as client:
            for _ in range(3):
                try:
                    await client.ask("One fox?", "data:a")
                except SweeperError as error:
                    errors.append(type(error))
        return errors

    assert asyncio.run(ask_often()) == [ImageError, ImageError, UnreachableError]


def test_redirect_is_not_followed(ask, judge):
    with serve_judge() as other:
        judge.reply = lambda body: (307, {"location": f"{other.url}/chat/completions"}, {})
        column, (message,), _ = ask(repeats=1)
        assert other.bodies == []
    assert column == [None, None]
    assert f"redirect (HTTP 307) to {other.url}, which sweeper does not follow" in message


def test_unreachable_judge_fails_no_run(ask, judge):
    column, (message,), _ = ask(url="http://127.0.0.1:9/v1")
    assert column == [None, None]
    assert "127.0.0.1:9: Connection refused" in message


def test_key_is_in_no_file(ask, judge):
    judge.reply = lambda body: (401, {}, {"error": {"message": KEY}})
    ask()
    assert not [file for file in ask.out.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


def test_missing_key_ends_a_run_before_anything_is_submitted(project, judge, monkeypatch, tmp_path):
    monkeypatch.delenv("JUDGE_KEY")
    settings = {"question": "One fox?", "url": judge.url, "model": "tiny", "key_env": "JUDGE_KEY"}
    (project / "e.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "metrics": [{"judge": settings}]}))
    with pytest.raises(ExperimentError, match="needs its key in the environment variable JUDGE_KEY, which is not set"):
        sweeper.run(project / "e.yaml", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_stranger_needs_trust_and_a_rehearsal_asks_nobody(project, judge, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SWEEPER_TRUST_FILE", str(tmp_path / "none.json"))
    settings = {"question": "One fox?", "url": judge.url, "model": "tiny", "key_env": "JUDGE_KEY"}
    (project / "e.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "metrics": ["sharpness", {"judge": settings}]}))
    arguments = ["run", str(project / "e.yaml"), "--out", str(tmp_path / "new"), "--quiet"]
    assert main([*arguments]) == 2
    message = capsys.readouterr().err
    assert "metrics[1]: sends its pictures, and a question about them, to http://127.0.0.1" in message
    assert "with the value of the environment variable JUDGE_KEY" in message
    assert main([*arguments, "--trust", "--rehearse"]) == 0
    assert judge.bodies == []


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (("left", "right"), "left"),
        (("right", "left"), "right"),
        (("left", "left"), "tie"),  # it prefers a side
        (("tie", "right"), "tie"),
        (("left", "no idea"), ""),
    ],
)
def test_pair_is_judged_in_both_orders(judge, answers, verdict):
    waiting = iter(answers)
    judge.reply = lambda body: next(waiting)

    async def compare():
        async with JudgeClient(Judge("judge", "", judge.url, "tiny", "JUDGE_KEY")) as client:
            return await client.judge_pair("Which fox is better?", "data:a", "data:b")

    assert asyncio.run(compare()) == verdict
    urls = partial(map, lambda part: part["image_url"]["url"])
    assert [list(urls(body["messages"][0]["content"][1:])) for body in judge.bodies] == [
        ["data:a", "data:b"],
        ["data:b", "data:a"],
    ]
    assert judge_messages.LEFT in judge.texts[0]


def test_smaller_experiment_of_a_report_has_the_whole_judge(ask, project):
    settings = {"question": "One fox?", "model": "tiny", "key_env": "JUDGE_KEY", "name": "one_fox"}
    ask(repeats=1, **settings)
    experiment = sweeper.load(project / "e.yaml")
    with Store.open(ask.out, readonly=True) as store:
        (*_, record), layout = store.runs(), replace(store.layout(), metrics=("one_fox", "votes", "sharpness"))
    (entry, sharpness) = describe_rerun(record, layout, experiment)["kept"]["metrics"]
    assert (entry["judge"]["name"], sharpness) == ("one_fox", "sharpness")
    assert describe_rerun(record, layout, None)["kept"]["metrics"] == ["sharpness"]


@pytest.fixture
def spend(project, judge, tmp_path):
    """Runs the experiment with a judge and a budget: gives the column, and the messages of the run."""

    def run(budget, **settings):
        settings = {"question": "One fox?", "url": judge.url, "model": "tiny", "key_env": "JUDGE_KEY", **settings}
        settings = {name: value for name, value in settings.items() if value is not None}
        text = {**EXPERIMENT, "metrics": [{"judge": settings}], "run": {"budget": budget}}
        (tmp_path / "e.yaml").write_text(yaml.safe_dump(text))
        events = []
        sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out", progress=events.append)
        column = sweeper.results(tmp_path / "out")["judge"].tolist()
        return column, [event.message for event in events if isinstance(event, Notice)]

    run.out = tmp_path / "out"
    return run


def load_spent(out):
    with Store.open(out, readonly=True) as store:
        return to_usd(store.charges.load_spent().high)


def test_no_question_exceeds_the_budget(spend, judge):
    column, messages = spend("0.01 USD", price="0.003 USD", repeats=2)
    assert len(judge.bodies) == 3
    assert [value for value in column if not pd.isna(value)] == [1.0]
    assert any("the budget is spent: a question costs 0.003 USD, and 0.001 is left" in text for text in messages)
    assert load_spent(spend.out) == 0.009
    spend("0.01 USD", price="0.003 USD", repeats=2)
    assert len(judge.bodies) == 3
    column, _ = spend("0.012 USD", price="0.003 USD", repeats=2)
    assert (len(judge.bodies), column) == (4, [1.0, 1.0])
    assert load_spent(spend.out) == 0.012


def test_a_question_without_an_answer_is_paid_for(spend, judge):
    judge.reply = lambda body: (400, {}, {"error": {"message": "no"}})
    spend("1 USD", price="0.01 USD", repeats=1)
    assert load_spent(spend.out) == 0.02


def test_a_budget_needs_the_price_of_a_judge_with_a_key(spend, judge):
    with pytest.raises(ExperimentError, match="a budget needs the price of a question"):
        spend("1 USD")
    assert judge.bodies == []
    assert not spend.out.exists()


def test_a_judge_without_a_key_needs_no_price(spend):
    assert spend("1 USD", key_env=None)[0] == [1.0, 1.0]


def test_costs_show_what_questions_cost(spend, monkeypatch, capsys):
    spend("1 USD", price="0.01 USD", repeats=1)
    assert main(["costs", str(spend.out)]) == 0
    text = capsys.readouterr().out
    assert "spent  0.02 USD" in text
    assert "tiny" in text
