"""`sweeper votes judge`, with a small server in place of a vision model."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import uuid
from dataclasses import replace

import pytest
import yaml

import sweeper
from sweeper.cli import main
from sweeper.comfy.retry import RetryPolicy
from sweeper.running import ask_judges
from sweeper.store import Store
from sweeper.store.votes import Vote
from tests import ROOT
from tests.running.judge_server import serve_judge

KEY = "sk-judge-0123456789abcdef"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    experiment = {
        "template": str(ROOT / "templates" / "txt2img.json"),
        "params": {"width": 64, "height": 64},
        "sweep": {"grid": {"prompt": ["a red fox", "a lighthouse"], "steps": [1, 2, 3]}},
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(experiment))
    assert sweeper.run(folder / "e.yaml", out=folder / "out").succeeded == 6
    return folder / "out"


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setattr(ask_judges, "JUDGE_POLICY", RetryPolicy(attempts=2, base_wait=0.01, max_wait=0.02))
    with serve_judge() as server:
        yield server


@pytest.fixture
def let_vote(results, judge, capsys):
    def run(model, *options):
        capsys.readouterr()
        arguments = ["--url", judge.url, "--model", model, "--key-env", "JUDGE_KEY", "--json", *options]
        code = main(["votes", "judge", str(results), *arguments])
        streams = capsys.readouterr()
        return code, json.loads(streams.out) if streams.out else None, streams.err

    return run


def prefer_larger(body):
    left, right = (len(part["image_url"]["url"]) for part in body["messages"][0]["content"][1:])
    return "left" if left > right else "right"


def test_votes_of_a_judge_are_stored_and_no_pair_is_asked_about_twice(let_vote, judge, results, capsys):
    judge.reply = prefer_larger
    code, first, _ = let_vote("larger", "--limit", "4")
    assert (code, first["answers"].get("tie"), first["voter"]) == (0, None, "judge:larger")
    assert len(judge.bodies) == 8
    assert "The prompt: a red fox" in "".join(judge.texts)
    code, rest, _ = let_vote("larger")
    assert (code, sum(rest["answers"].values()), len(judge.bodies)) == (0, 2, 12)
    assert let_vote("larger")[1]["answers"] == {}
    assert len(judge.bodies) == 12
    main(["votes", "list", str(results), "--json"])
    assert json.loads(capsys.readouterr().out)["voters"]["judge:larger"] == 6
    assert {headers["authorization"] for headers in judge.headers} == {f"Bearer {KEY}"}


def test_judge_that_prefers_a_side_gives_ties(let_vote, judge):
    judge.reply = lambda body: "left"
    assert let_vote("leftist")[1]["answers"] == {"tie": 6}


def test_unclear_answers_are_ties_until_there_are_many(let_vote, judge):
    judge.reply = lambda body: "Both are nice."
    code, votes, err = let_vote("vague")
    assert (code, votes["answers"], votes["unclear"]) == (1, {"tie": 2}, 2)
    assert "3 answers in a row are neither left, right nor tie" in err


def test_refused_picture_has_no_vote(let_vote, judge):
    refusal = 400, {}, {"error": {"message": "unsafe"}}
    judge.reply = lambda body: refusal if "fox" in body["messages"][0]["content"][0]["text"] else prefer_larger(body)
    code, votes, _ = let_vote("prudish", "--limit", "3")
    assert (code, sum(votes["answers"].values())) == (0, 3)


def test_failing_judge_keeps_the_votes_so_far_and_shows_no_key(let_vote, judge):
    answers = iter(["left", "right"])
    refusal = 401, {}, {"error": {"message": f"no credit for {KEY}"}}
    judge.reply = lambda body: next(answers, refusal)
    code, votes, err = let_vote("poor")
    assert (code, votes["answers"]) == (1, {"left": 1})
    assert "HTTP 401): no credit for ***" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--key-env", KEY], "never the key itself"),
        (["--key-env", "COMFY_API_KEY"], "the key in COMFY_API_KEY belongs to https://cloud.comfy.org"),
        (["--key-env", "UNSET_KEY"], "needs its key in the environment variable UNSET_KEY, which is not set"),
        (["--url", "localhost:1"], "is not a URL of a server"),
        (["--between", "stepps"], "did you mean 'steps'?"),
    ],
)
def test_wrong_options_ask_nothing(let_vote, judge, options, message):
    code, votes, err = let_vote("larger", *options)
    assert (code, votes, judge.bodies) == (2, None, [])
    assert message in err
    assert KEY not in err


# --- is the judge right?


@pytest.fixture
def scored(results, tmp_path):
    """A copy of the results with a judge's numbers: the more steps, the better."""
    out = tmp_path / "copy"
    shutil.copytree(results, out)
    with Store.open(out) as store:
        rows = list(store.results())
        known = {row.sha256[0]: row.columns["steps"] / 3 for row in rows}
        store.cache_metrics([(sha256, "shows_it", number) for sha256, number in known.items()])
        store.cache_metrics([("", "judge shows_it", {"model": "tiny", "questions": [["A fox?", "yes"]]})])
        layout = replace(store.layout(), metrics=("shows_it",))
        store.extend_run(store.latest_run_id(), layout)
    return out, known


def cast(out, known, answers, *, voter="ana", prompts=("a red fox", "a lighthouse")):
    """Vote about pairs of steps, in turn: `better` is the picture with more steps, `worse` the other."""
    with Store.open(out) as store:
        rows = [row for row in store.results() if row.columns["prompt"] in prompts]
        pairs = [(a, b) for a, b in itertools.combinations(rows, 2) if a.columns["prompt"] == b.columns["prompt"]]
        for number, answer in enumerate(answers):
            left, right = pairs[number % len(pairs)][:: -1 if number % 2 else 1]
            is_left = known[left.sha256[0]] > known[right.sha256[0]]
            word = {"better": ("right", "left")[is_left], "worse": ("left", "right")[is_left]}.get(answer, answer)
            store.votes.add(Vote(str(uuid.uuid4()), f"{voter}{number // 6}", "steps", left.digest, left.sha256[0],
                                 right.digest, right.sha256[0], float(number), float(number), word))  # fmt: skip


@pytest.fixture
def ask_about(scored, capsys):
    def run(*options):
        capsys.readouterr()
        code = main(["votes", str(scored[0]), "--judge", *options])
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


def test_agreement_with_a_judge_counts_the_votes_of_people_for_a_side(scored, ask_about):
    cast(*scored, ["better"] * 9 + ["worse"] * 3 + ["tie", "bad"])
    cast(*scored, ["worse"] * 5, voter="judge:")
    code, text, _ = ask_about("shows_it", "--json")
    found = json.loads(text)
    assert (code, found["votes"], found["ties"], found["share"]) == (0, 12, 2, 0.75)
    assert 0.3 < found["low"] < 0.5
    assert 0.8 < found["high"] < 1
    assert -1 < found["alpha"] < 1
    _, text, _ = ask_about("shows_it")
    assert text.startswith("shows_it agrees with people in 75% of 12 votes (")
    assert "for these 2 prompts, by these 2 voters: not surely more than by chance, which is 50%" in text


def test_equal_numbers_are_half_right(scored, ask_about):
    with Store.open(scored[0]) as store:
        store.cache_metrics([(sha256, "shows_it", 1.0) for sha256 in scored[1]])
    cast(*scored, ["better"] * 6)
    found = json.loads(ask_about("shows_it", "--json")[1])
    assert (found["share"], found["metric_ties"]) == (0.5, 6)


def test_votes_without_numbers_are_not_counted(scored, ask_about):
    cast(*scored, ["better"] * 12)
    with Store.open(scored[0]) as store:
        store.cache_metrics([(next(iter(scored[1])), "shows_it", 0.5)], discard=["shows_it"])
    code, text, err = ask_about("shows_it")
    assert (code, text) == (0, "")
    assert "12 votes are about pictures without a number of shows_it; not counted" in err
    assert "no votes of people for a side are about pictures with numbers of shows_it" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["shows_its"], "did you mean 'shows_it'?"),
        (["votes"], "--judge: there is no metric 'votes'"),
        (["shows_it", "--pictures"], "leave out --axis and --pictures"),
    ],
)
def test_wrong_questions_about_a_judge_are_refused(scored, ask_about, options, message):
    cast(*scored, ["better"])
    code, text, err = ask_about(*options)
    assert (code, text) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("answers", "is_doubtful"),
    [
        (["better"] * 36, False),
        (["worse"] * 12, True),  # surely worse than chance
        (["better", "worse"] * 9, False),  # few votes prove nothing
        (["better", "worse"] * 18, False),  # each pair got one answer again and again, which says no more
        (random.Random(7).choices(["better", "worse"], k=60), True),  # enough to show that a good judge agrees
    ],
)
def test_verdict_and_effects_of_a_judge_that_disagrees_say_so_first(scored, capsys, answers, is_doubtful):
    cast(*scored, answers)
    capsys.readouterr()
    report = scored[0] / "report.md"
    options = ["--verdict", "--metric", "shows_it", "--maximize", "shows_it", "-o", str(report)]
    main(["compare", str(scored[0]), "--axis", "steps=1,3", *options])
    words = "by a judge that the votes of people do not confirm: shows_it agrees with people in"
    assert (words in capsys.readouterr().out.splitlines()[0]) is is_doubtful
    text = report.read_text().replace("\\", "")
    assert (words in text.splitlines()[0]) is is_doubtful
    assert "- 1: run 1 of copy" in text
    assert "### Judge shows_it" in text
    assert '[["A fox?", "yes"]]' in text
    main(["effects", str(scored[0]), "--metric", "shows_it"])
    lines = capsys.readouterr().out.splitlines()
    is_reversed = set(answers) == {"worse"}  # lower numbers may be meant to be better
    assert (words in lines[lines.index("shows_it") + 1]) is (is_doubtful and not is_reversed)
