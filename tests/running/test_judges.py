"""Judges as metrics: what they are asked, what it becomes, and what happens when they fail."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import sweeper
from sweeper.cli import main
from sweeper.comfy.retry import RetryPolicy
from sweeper.errors import ExperimentError, ImageError, SweeperError, UnreachableError
from sweeper.images.metrics import judge_messages
from sweeper.images.metrics.judge_messages import Inquiry
from sweeper.loading.trust import find_trust_needs
from sweeper.model.experiment import Judge, JudgeQuestion
from sweeper.model.money import to_usd
from sweeper.reporting.contents import describe_rerun
from sweeper.running import ask_judges
from sweeper.running.ask_judges import JudgeClient
from sweeper.running.run_events import JudgeAsked, Notice
from sweeper.running.stop_control import StopControl
from sweeper.store import Store
from tests import ROOT
from tests.running.judge_server import serve_judge
from tests.waiting import wait_until

KEY = "sk-judge-0123456789abcdef"


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setattr(ask_judges, "JUDGE_POLICY", RetryPolicy(attempts=3, base_wait=0.01, max_wait=0.02))
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

    def run(*, keys=None, **settings):
        if not out.exists():
            out.mkdir()
            for source in sorted((project / "out").rglob("*")):
                target = out / source.relative_to(project / "out")
                target.mkdir() if source.is_dir() else target.write_bytes(source.read_bytes())
        settings = {"url": judge.url, "model": "tiny", "key_env": "JUDGE_KEY", **settings}
        settings = settings if "questions" in settings else {"question": "One fox?", **settings}
        experiment = {**EXPERIMENT, "metrics": [{"judge": settings}], **(keys or {})}
        (project / "e.yaml").write_text(yaml.safe_dump(experiment))
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
    assert "1 of 1 answer not counted: neither yes nor no; word the question so that one word answers it" in message
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


def test_pictures_refused_in_an_earlier_run_do_not_end_the_next(judge, tmp_path):
    control, refused = StopControl(), set()

    def reply(body):
        picture = body["messages"][0]["content"][1]["image_url"]["url"]
        if 1 < len(judge.bodies) < 8:
            refused.add(picture)
        elif len(judge.bodies) == 8:
            control.stop()
        return (400, {}, {"error": {"message": "unsafe"}}) if picture in refused else "yes"

    judge.reply = reply
    metric = {"judge": {"question": "One fox?", "url": judge.url, "model": "tiny", "repeats": 1}}
    sweep = {"grid": {"seed": {"seeds": 24}}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "sweep": sweep, "metrics": [metric]}))
    run = sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out", control=control)
    judge.bodies += [{}] * 8  # no picture is new to the list of refused ones
    sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out")
    assert (run.succeeded, sweeper.results(tmp_path / "out")["judge"].count()) == (24, 24 - len(refused))


def test_refused_picture_is_asked_about_again_only_with_retry_failed(judge, tmp_path):
    refusal = 413, {}, {"error": {"message": "too large"}}
    judge.reply = lambda body: refusal if "fox" in body["messages"][0]["content"][0]["text"] else "no"
    metric = {"judge": {"question": "{{ prompt }}?", "url": judge.url, "model": "tiny", "repeats": 2}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "metrics": [metric]}))

    def run(**settings):
        events = []
        sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out", progress=events.append, **settings)
        asked, judge.bodies = len(judge.bodies), []
        return asked, [event.message for event in events if isinstance(event, Notice)]

    assert run()[0] == 3
    asked, (message,) = run()
    assert (asked, message.rpartition(": ")[2]) == (
        0, "the judge has refused this picture before; --retry-failed asks again",
    )  # fmt: skip
    assert run(retry_failed=True)[0] == 1
    assert run()[0] == 0
    judge.reply = lambda body: "yes"
    assert run(retry_failed=True)[0] == 2
    assert run() == (0, [])
    assert sweeper.results(tmp_path / "out")["judge"].tolist() == [1.0, 0.0]


def test_pictures_refused_by_a_judge_without_any_answer_are_asked_about_again(ask, judge):
    judge.reply = lambda body: (400, {}, {"error": {"message": "no such model"}})
    assert ask(repeats=1)[0] == [None, None]
    judge.reply = lambda body: "yes"
    assert ask(repeats=1)[0] == [1.0, 1.0]


def test_judge_that_refuses_every_picture_is_not_asked_on(judge):
    judge.reply = lambda body: (400, {}, {"error": {"message": "no such model"}})

    async def ask_often():
        errors = []
        async with JudgeClient(Judge("judge", (), judge.url, "tiny")) as client:
            for _ in range(3):
                try:
                    await client.ask(Inquiry("One fox?", "yes", "yes-no"), ["data:a"])
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
        async with JudgeClient(Judge("judge", (), judge.url, "tiny", "JUDGE_KEY")) as client:
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

    def run(budget, *, sweep=None, **settings):
        settings = {"question": "One fox?", "url": judge.url, "model": "tiny", "key_env": "JUDGE_KEY", **settings}
        settings = {name: value for name, value in settings.items() if value is not None}
        keys = {"sweep": sweep} if sweep else {}
        text = {**EXPERIMENT, "metrics": [{"judge": settings}], "run": {"budget": budget}, **keys}
        (tmp_path / "e.yaml").write_text(yaml.safe_dump(text))
        events = []
        run.ended = sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out", progress=events.append)
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
    (message,) = [text for text in messages if "the budget is spent" in text]
    assert (
        "a question costs 0.003 USD, and 0.001 is left; no more questions are asked now; raise the budget, " in message
    )
    assert load_spent(spend.out) == 0.009
    assert (spend.ended.stopped_by, spend.ended.succeeded) == ("budget", 2)
    spend("0.01 USD", price="0.003 USD", repeats=2)
    assert len(judge.bodies) == 3
    column, _ = spend("0.012 USD", price="0.003 USD", repeats=2)
    assert (len(judge.bodies), column) == (4, [1.0, 1.0])
    assert spend.ended.stopped_by is None
    assert load_spent(spend.out) == 0.012


def test_four_pictures_at_once_do_not_exceed_the_budget(spend, judge):
    judge.reply = lambda body: time.sleep(0.05) or "yes"
    sweep = {"grid": {"seed": {"seeds": 8}}}
    column, _ = spend("0.03 USD", sweep=sweep, price="0.01 USD", repeats=1)
    assert (len(judge.bodies), load_spent(spend.out)) == (3, 0.03)
    assert sum(not pd.isna(value) for value in column) == 3


def test_a_killed_question_is_paid_for_and_asked_once_more(spend, judge, tmp_path):
    is_killed = threading.Event()
    judge.reply = lambda body: is_killed.wait(60) and "yes"
    settings = {"question": "One fox?", "url": judge.url, "model": "tiny", "key_env": "JUDGE_KEY",
                "price": "0.01 USD", "repeats": 1}  # fmt: skip
    keys = {"metrics": [{"judge": settings}], "run": {"budget": "1 USD"}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**EXPERIMENT, **keys}))
    command = [sys.executable, "-m", "sweeper", "run", tmp_path / "e.yaml", "--out", spend.out, "--trust", "--yes"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(judge.bodies) == 2)
    process.kill()
    process.wait()
    is_killed.set()
    assert load_spent(spend.out) == 0.02
    assert spend("1 USD", price="0.01 USD", repeats=1)[0] == [1.0, 1.0]
    assert (len(judge.bodies), load_spent(spend.out)) == (4, 0.04)


def test_interrupted_judge_says_that_questions_are_left(project, judge, tmp_path):
    control, events = StopControl(), []
    judge.reply = lambda body: control.stop() or "yes"
    settings = {"question": "One fox?", "url": judge.url, "model": "tiny", "repeats": 2}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "metrics": [{"judge": settings}]}))
    sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out", control=control, progress=events.append)
    messages = [event.message for event in events if isinstance(event, Notice)]
    assert messages == ["metric 'judge': interrupted; run the experiment again to ask the rest"]
    assert len(judge.bodies) == 2


def test_second_interrupt_waits_for_no_answer(project, judge, tmp_path):
    is_over, control = threading.Event(), StopControl()

    def reply(body):
        control.stop()
        control.stop()
        return is_over.wait(60) and "yes"

    judge.reply = reply
    settings = {"question": "One fox?", "url": judge.url, "model": "tiny", "repeats": 1}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "metrics": [{"judge": settings}]}))
    begin = time.monotonic()
    assert sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out", control=control).stopped_by == "interrupt"
    assert time.monotonic() - begin < 45
    is_over.set()


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


# --- what a question gives


def answer_with(*tops, content="yes", tokens=None):
    """A completion whose first token could be each of `tops`: (text, probability)."""
    listed = [{"token": text, "logprob": math.log(chance) if chance > 0 else -9999.0} for text, chance in tops]
    first = {**listed[0], "bytes": None, "top_logprobs": listed}
    message = {"role": "assistant", "content": content}
    return 200, {}, {"choices": [{"message": message, "logprobs": {"content": tokens or [first]}}]}


def test_plain_judges_keep_the_answers_that_were_paid_for(ask, judge):
    plain = Judge("judge", (JudgeQuestion("One fox?"),), "http://h/v1", "tiny")
    assert (
        plain.name_answers("One fox?", *Inquiry("One fox?", "yes", "yes-no").marks)
        == "answers 169733a66e9ffb9ccf41dcf7922dc77c"
    )
    ask(repeats=1)
    with Store.open(ask.out) as store:
        (sha256, other) = store.load_cached_metrics("answers 169733a66e9ffb9ccf41dcf7922dc77c")
        store.cache_metrics(
            [
                (sha256, "answers 169733a66e9ffb9ccf41dcf7922dc77c", ["no"]),
                (other, "answers 169733a66e9ffb9ccf41dcf7922dc77c", ["no"]),
            ],
            discard=["judge"],
        )
    assert ask(repeats=1)[0] == [0.0, 0.0]
    assert len(judge.bodies) == 2


def test_right_answers_of_several_questions_are_averaged(ask, judge):
    words = {"How many": "Four.", "Is it": "no", "What": "It is a lighthouse", "Colour": "dark red fur"}
    judge.reply = lambda body: next(words[start] for start in words if get_text(body).startswith(start))
    questions = [
        ["How many foxes?", "4"], ["Is it night?", False], {"question": "What is it?", "answer": "fox"},
        ["Colour?", "Dark Red"], "Is it an oil painting?",
    ]  # fmt: skip
    assert ask(questions=questions, repeats=1)[0] == [0.6, 0.6]
    assert "How many foxes?\n\nAnswer in one word." in judge.texts
    assert "Colour?\n\nAnswer in a few words." in judge.texts
    assert ask(questions=questions, repeats=1, mean="geometric")[0] == [0.0, 0.0]
    assert ask(questions=questions[:2], repeats=1, mean="geometric")[0] == [1.0, 1.0]
    assert len(judge.bodies) == 10  # each question about each picture once, whatever the judge is called


def test_questions_of_a_column_are_those_of_the_trial(ask, judge):
    judge.reply = lambda body: "no" if "snow" in get_text(body) else "yes"
    lists = [[["Is there a fox?", "Yes"], ["Is there snow?", "Yes"]], '["Is there a {{ tower }}?"]']
    grid = {"zip": [{"prompt": ["a red fox", "a lighthouse"], "vqa_list": lists}]}
    assert ask(questions="vqa_list", repeats=1, keys={"sweep": grid})[0] == [0.5, 1.0]
    assert any("{{ tower }}" in text for text in judge.texts)  # data is not rendered
    assert len(judge.bodies) == 3
    lists[1] = ["Is there snow?", "Is there a {{ tower }}?"]
    assert ask(questions="vqa_list", repeats=1, keys={"sweep": grid})[0] == [0.5, 0.5]
    assert len(judge.bodies) == 4
    params = {**EXPERIMENT["params"], "vqa_list": ["Is there snow?"]}
    assert ask(questions="vqa_list", repeats=1, keys={"params": params})[0] == [0.0, 0.0]
    assert len(judge.bodies) == 4  # both have been asked about snow


def test_axis_of_the_question_alone_is_judged_again_when_it_changes(ask, judge):
    zipped = {"prompt": ["a red fox", "a lighthouse"], "animal": ["fox", "gull"]}
    assert ask(question="A {{ animal }}?", repeats=1, keys={"sweep": {"zip": [zipped]}})[0] == [1.0, 1.0]
    judge.reply = lambda body: "no"
    zipped["animal"] = ["fox", "tern"]
    assert ask(question="A {{ animal }}?", repeats=1, keys={"sweep": {"zip": [zipped]}})[0] == [1.0, 0.0]
    assert len(judge.bodies) == 3


def test_trials_that_share_a_picture_have_no_two_questions(project, judge, tmp_path):
    settings = {"question": "A {{ animal }}?", "url": judge.url, "model": "tiny", "repeats": 1}
    experiment = {**EXPERIMENT, "sweep": {"grid": {"animal": ["fox", "gull"]}}, "metrics": [{"judge": settings}]}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(experiment))
    events = []
    sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out", progress=events.append)
    (notice,) = [event.message for event in events if isinstance(event, Notice)]
    assert notice.startswith("metric 'judge': trials that differ only in animal share their pictures")
    assert (judge.bodies, sweeper.results(tmp_path / "out")["judge"].isna().all()) == ([], True)


@pytest.mark.parametrize("value", [{"a": 1}, [], [["only", "two", "parts"]], 7, "", "[" * 100_000, ["?"] * 101])
def test_a_column_without_questions_leaves_the_cell_empty(ask, judge, value):
    params = {**EXPERIMENT["params"], "vqa_list": value}
    column, (message,), _ = ask(questions="vqa_list", keys={"params": params})
    assert column == [None, None]
    assert "metric 'judge': the column 'vqa_list' " in message
    assert judge.bodies == []


def test_marks_are_averaged_and_must_be_on_the_scale(ask, judge):
    marks = {"a red fox": iter(["4", "**5**/5", "3."]), "a lighthouse": iter(["4", "7", "5 of 4"])}
    judge.reply = lambda body: next(next(marks[prompt] for prompt in marks if prompt in get_text(body)))
    column, (message,), _ = ask(question="How good is {{ prompt }}?", score="scale")
    assert column == [4.0, 4.0]
    assert "2 of 3 answers not counted: not a number from 1 to 5; word the question so that one number" in message
    with Store.open(ask.out, readonly=True) as store:
        facts = store.load_cached_metrics("judge judge")[""]
    assert facts["questions"] == "How good is {{ prompt }}?"  # and no right answer, which it does not have
    assert judge.texts[0].endswith("Answer with one number, from 1 (worst) to 5 (best).")


def test_probability_is_that_of_all_tokens_that_spell_the_right_answer(ask, judge):
    replies = {
        "One fox?": answer_with(
            ("Yes", 0.5), (" yes", 0.125), ("no", 0.25), ("\u2581YES", 0.0625), ("yesterday", 0.01)
        ),
        "Night?": answer_with(("Yes", 0.75), ("No", 0.25)),
        "How many?": answer_with(("two", 0.5), ("2", 0.25), ("four", 0.25), content="two"),
    }
    judge.reply = lambda body: next(reply for start, reply in replies.items() if get_text(body).startswith(start))
    column, messages, _ = ask(score="probability")
    assert (column, messages) == (pytest.approx([0.6875, 0.6875]), [])
    assert sweeper.results(ask.out)["judge.by"].tolist() == ["log-probabilities"] * 2
    assert all(body["logprobs"] is True and body["top_logprobs"] == 20 for body in judge.bodies)
    assert len(judge.bodies) == 2
    assert ask(score="probability", questions=[["Night?", "no"], ["How many?", "Two"]])[0] == pytest.approx([0.5, 0.5])
    assert len(judge.bodies) == 6
    ask(score="probability", questions=[["Night?", "no"], ["How many?", "Two"]])
    assert len(judge.bodies) == 6


def test_right_answer_that_no_token_spells_has_the_probability_zero(ask, judge):
    judge.reply = lambda body: answer_with(("yes", 0.75), ("no", 0.25))
    column, messages, _ = ask(score="probability", mean="geometric", questions=["One fox?", ["How many?", "two"]])
    assert (column, messages) == ([0.0, 0.0], [])
    assert sweeper.results(ask.out)["judge.by"].tolist() == ["log-probabilities"] * 2


@pytest.mark.parametrize(
    ("refusal", "tops"),
    [
        ((400, {}, {"error": {"message": "greater than max allowed: 5"}}), [20, 5, 5]),  # vLLM with --max-logprobs 5
        ((403, {}, {"error": {"message": "not allowed to request logprobs"}}), [20, 5, *[None] * 6]),
        ((501, {}, {"error": {"message": "not supported"}}), [20, 5, *[None] * 6]),
        (None, [20] * 6),  # the option is ignored, as by Ollama before 0.12.11
    ],
)
def test_without_log_probabilities_the_question_is_asked_again(ask, judge, monkeypatch, refusal, tops):
    monkeypatch.setattr(ask_judges, "_AT_ONCE", 1)
    is_limited = refusal is not None and refusal[0] == 400
    answers = iter(["yes", "no", "no", "yes", "yes", "no"])

    def reply(body):
        if refusal is None or "logprobs" not in body:
            return next(answers)
        return answer_with(("yes", 0.25)) if is_limited and body["top_logprobs"] == 5 else refusal

    judge.reply = reply
    column, messages, _ = ask(score="probability")
    assert [body.get("top_logprobs") for body in judge.bodies] == tops
    assert (column, messages) == (pytest.approx([0.25, 0.25] if is_limited else [1 / 3, 2 / 3]), [])
    by = "log-probabilities" if is_limited else "samples of 3"
    assert sweeper.results(ask.out)["judge.by"].tolist() == [by, by]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer_with(("The", 0.9), ("yes", 0.01), content="The picture shows a fox."), "neither yes nor no"),
        ((200, {}, {"choices": [{"message": {"content": None, "refusal": "I cannot"}}]}), "neither yes nor no"),
        (answer_with(("yes", 0.5), tokens=[{"token": "yes", "logprob": -0.1, "top_logprobs": []}]), "samples"),
        (answer_with(("yes", 0.5), tokens=[{"token": "yes", "logprob": 0.0, "top_logprobs": [
            {"token": "yes", "logprob": "high"}]}]), "samples"),
        (answer_with(("yes", 0.5), tokens=[{"token": "yes", "logprob": 0.0, "top_logprobs": [
            {"token": "yes", "logprob": 2.5}]}]), "neither yes nor no"),
        (answer_with(("yes", 0.5), tokens=[{"token": "yes", "logprob": float("nan"), "top_logprobs": [
            {"token": "yes", "logprob": float("nan")}]}]), "impossible log-probabilities"),
        (answer_with(("yes", 0.5), tokens=[7, None]), "samples"),
        (answer_with(("yes", 0.5), tokens={"tokens": ["yes"]}), "samples"),
    ],
)  # fmt: skip
def test_answers_that_are_no_probability_have_a_message_and_no_number(ask, judge, reply, words):
    judge.reply = lambda body: reply
    column, messages, _ = ask(score="probability", repeats=2)
    by = sweeper.results(ask.out)["judge.by"].tolist()
    if words == "samples":
        assert (column, messages, by) == ([1.0, 1.0], [], ["samples of 2"] * 2)
    else:
        assert column == [None, None]
        assert words in messages[0]


def test_thoughts_and_marks_before_an_answer_are_no_part_of_it():
    def token(text, *tops):
        listed = [{"token": each, "logprob": math.log(chance)} for each, chance in tops or [(text, 0.5)]]
        return {"token": text, "logprob": listed[0]["logprob"], "top_logprobs": listed}

    thoughts = [token("<think>"), token("yes"), token("</think>"), token("\n\n")]
    found = {"logprobs": {"content": [*thoughts, token("**"), token("No", ("No", 0.75), ("Yes", 0.25))]}}
    assert judge_messages.read_probability(found, "yes") == pytest.approx(0.25)
    light = token(" light", (" light", 0.5), ("lighthouse", 0.25))
    found = {"logprobs": {"content": [light, token("house", ("house", 0.5)), token(".")]}}
    assert judge_messages.read_probability(found, "lighthouse") == pytest.approx(0.25 + 0.5 * 0.5)
    huge = {"logprobs": {"content": [token("a")] * 30_000}}
    assert judge_messages.read_probability(huge, "yes") == 0.0


def test_reference_is_part_of_each_question(ask, judge):
    ask(question="One fox?", repeats=1, reference="It stands in {{ width }} flowers.")
    assert set(judge.texts) == {"One fox?\n\nReference: It stands in 64 flowers.\n\nAnswer with one word: yes or no."}


def test_two_judges_with_the_same_question_ask_once(project, judge, tmp_path):
    settings = {"question": "One fox?", "url": judge.url, "model": "tiny", "repeats": 1}
    judges = [{"judge": settings}, {"judge": {**settings, "name": "again"}}]
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "metrics": judges}))
    sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out")
    table = sweeper.results(tmp_path / "out")
    assert (table["judge"].tolist(), table["again"].tolist(), len(judge.bodies)) == ([1.0, 1.0], [1.0, 1.0], 2)


def test_source_pictures_go_along_before_the_result(judge, tmp_path):
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    experiment = {
        "template": str(ROOT / "templates" / "img2img.json"),
        "params": {"steps": 1, "denoise": 0.5, "prompt": "a fox"},
        "sweep": {"grid": {"image": ["red.png", "blue.png"]}},
    }
    settings = {"question": "Was it edited?", "url": judge.url, "model": "tiny", "repeats": 1, "pictures": ["image"]}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**experiment, "metrics": [{"judge": settings}]}))
    (need,) = find_trust_needs(sweeper.load(tmp_path / "e.yaml"))
    assert "sends its pictures, and the files of image, and a question about them, to http" in need.problem.message
    sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out")
    assert sweeper.results(tmp_path / "out")["judge"].tolist() == [1.0, 1.0]
    assert {text.split(". ")[0] for text in judge.texts} == {"You see the source picture, then the result"}
    firsts = {read_colour(body["messages"][0]["content"][1]) for body in judge.bodies}
    assert firsts == {"red", "blue"}
    sweeper.run(tmp_path / "e.yaml", out=tmp_path / "out")
    assert len(judge.bodies) == 2


def read_colour(part):
    return "red" if read_red(part["image_url"]["url"]) > 100 else "blue"


def get_text(body):
    return body["messages"][0]["content"][0]["text"]


# --- servers that lie


def test_slow_judge_is_given_up(ask, judge, monkeypatch):
    is_over = threading.Event()
    monkeypatch.setattr(ask_judges, "JUDGE_POLICY", RetryPolicy(attempts=1, stall_seconds=0.2))
    judge.reply = lambda body: is_over.wait(60) and "yes"
    column, (message,), _ = ask(repeats=1)
    is_over.set()
    assert column == [None, None]
    assert "no more questions are asked now; run the experiment again to ask the rest" in message


@pytest.mark.parametrize("score", ["yes-no", "scale", "probability"])
def test_an_answer_of_megabytes_with_the_key_is_not_kept(ask, judge, score):
    judge.reply = lambda body: answer_with(("yes", 0.5), content=f"{KEY} " * 120_000)
    column, messages, _ = ask(repeats=1, score=score)
    assert column == [None, None]
    assert len(messages) == 1
    assert KEY not in messages[0]
    assert len(messages[0]) < 500
    files = [file.read_bytes() for file in ask.out.rglob("*") if file.is_file()]
    assert not any(KEY.encode() in content for content in files)
    assert sum(map(len, files)) < 1_000_000


def test_frames_of_a_film_are_evenly_spaced(judge, tmp_path):
    shades = [Image.new("RGB", (32, 32), (index * 20, 0, 0)) for index in range(12)]
    shades[0].save(tmp_path / "film.webp", save_all=True, append_images=shades[1:], lossless=True)
    urls = judge_messages.make_frame_urls(tmp_path / "film.webp", 3)
    assert [round(read_red(url) / 20) for url in urls] == [2, 6, 10]
    assert len(judge_messages.make_frame_urls(tmp_path / "film.webp", 64)) == 12
    shades[3].convert("L").save(tmp_path / "still.png")
    assert len(judge_messages.make_frame_urls(tmp_path / "still.png", 8)) == 1


def test_frames_of_a_video_are_evenly_spaced(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), mode="w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 64
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), (index * 20, 0, 0), dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    urls = judge_messages.make_frame_urls(tmp_path / "film.mp4", 3)
    assert [round(read_red(url) / 20) for url in urls] == [2, 6, 10]
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(ImageError):
        judge_messages.make_frame_urls(tmp_path / "broken.mp4", 3)


def read_red(url):
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return image.getpixel((5, 5))[0]
