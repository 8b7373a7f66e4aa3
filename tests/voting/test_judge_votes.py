"""`sweeper votes judge`, with a small server in place of a vision model."""

from __future__ import annotations

import json

import pytest
import yaml

import sweeper
from sweeper.cli import main
from sweeper.comfy.retry import RetryPolicy
from sweeper.running import judge_client
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
    monkeypatch.setattr(judge_client, "JUDGE_POLICY", RetryPolicy(attempts=2, base_wait=0.01, max_wait=0.02))
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
