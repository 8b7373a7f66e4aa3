"""The commands with a RunPod endpoint as the target: what they say before, after a lost answer, and of trust."""

from __future__ import annotations

import json

import pytest
from starlette.responses import Response

from sweeper.comfy.target import resolve_targets
from tests.comfy.runpod_endpoint import KEY, Endpoint, paint_png
from tests.running.servers import WITH_UPLOAD, colour


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("RUNPOD_KEY", KEY)
    with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def write(tmp_path):
    """Write an experiment of two trials whose picture has so many bytes."""

    def make(target=None, size=200):
        folder = tmp_path / "work"
        (folder / "t.json").write_text(json.dumps(WITH_UPLOAD))
        (folder / "t.slots.yaml").write_text('{"slots": {"photo": {"at": "3.image", "kind": "file"}}}')
        (folder / "photo.png").write_bytes(paint_png(1) + bytes(size))
        colours = [colour(0), colour(1)]
        body = {"template": "t.json", "params": {"photo": "photo.png"}, "sweep": {"grid": {"color": colours}}}
        (folder / "e.yaml").write_text(json.dumps(body | ({} if target is None else {"target": target})))
        return folder / "e.yaml"

    return make


@pytest.fixture
def pod(endpoint, tmp_path):
    """The name of the endpoint in the user's targets file, which needs no trust."""
    folder = tmp_path / "config" / "sweeper"
    folder.mkdir(parents=True)
    settings = {"url": endpoint.url, "dialect": "runpod", "api_key_env": "RUNPOD_KEY"}
    (folder / "targets.yaml").write_text(json.dumps({"pod": settings}))
    return "pod"


SIZE = (
    "2 trials: the submission has 10.7 MB with its files as Base64, and RunPod accepts 10 MB; make its pictures "
    "smaller, such as JPEG or WebP"
)


def test_before_a_run_it_says_what_is_unchecked_or_too_large(pod, endpoint, write, sweeper):
    for command in ("plan", "validate"):
        found = sweeper(command, write(size=8_000_000), "--target", pod)
        unchecked = "warning: not checked against pod (it does not list its node classes)"
        assert (found.code, found.err.splitlines()) == (0, [unchecked, f"warning: {SIZE}"])
    doctor = sweeper("doctor", write(size=8_000_000), "--target", pod)
    assert "dialect runpod, uploads up to 7 MiB, key accepted (from RUNPOD_KEY)" in doctor.out
    assert "photo.png: 8 MiB; an upload there may have at most 7 MiB" in doctor.err
    assert endpoint.jobs == {}
    run = sweeper("run", write(size=8_000_000), "--target", pod)
    warnings = [line for line in run.err.splitlines() if line.startswith("warning")]
    assert warnings == [
        f"warning: pod: {SIZE}", "warning: pod: the plan was not checked: it does not list its node classes",
    ]  # fmt: skip
    assert (run.code, "pod: RunPod, 4 at a time" in run.err) == (1, True)


def test_a_run_with_a_lost_answer_ends_with_code_1_and_names_the_option(pod, endpoint, write, sweeper):
    endpoint.after = lambda operation, _: Response("", 502) if operation == "run" else None
    for _ in range(2):
        run = sweeper("run", write(), "--target", pod)
        assert (run.code, len(endpoint.jobs)) == (1, 2)
        assert "error: 2 trials of unknown outcome" in run.err
        assert "`sweeper run --retry-unknown` submits such trials again" in run.err
    plan = sweeper("plan", write(), "--target", pod)
    assert "open      2  (submitted earlier, outcome unknown; checked before submitting)" in plan.out
    endpoint.after = lambda *_: None
    run = sweeper("run", write(), "--target", pod, "--retry-unknown", "--json")
    assert (run.code, run.json["succeeded"], len(endpoint.jobs)) == (0, 2, 4)


def test_an_experiment_needs_trust_to_send_a_key_to_runpod(write, sweeper):
    run = sweeper("run", write({"url": "https://api.runpod.ai/v2/fox", "api_key_env": "RUNPOD_KEY"}))
    assert run.code == 2
    assert "sends the value of the environment variable RUNPOD_KEY to https://api.runpod.ai/v2/fox" in run.err


def test_runpods_own_address_needs_no_dialect():
    (target,) = resolve_targets("https://api.runpod.ai/v2/fox", environ={})
    assert (target.dialect, target.key_source) == ("runpod", None)
    for other in ("https://api.runpod.ai.example/v2/fox", "https://fox.api.runpod.ai", "http://gpu/v2/fox"):
        assert resolve_targets(other, environ={})[0].dialect is None
    (named,) = resolve_targets({"url": "https://api.runpod.ai/v2/fox", "dialect": "comfyui"}, environ={})
    assert named.dialect == "comfyui"
