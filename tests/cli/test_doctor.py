"""`sweeper doctor EXPERIMENT`: what each target lacks, and the next step for each problem."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from sweeper.embedded import EmbeddedServer, Faults, Scenario

PLAIN = "template: t.json\nsweep: {grid: {seed: [1, 2]}}\nparams: {prompt: a}\n"
KEY = "sk-live-0123456789-SECRET"


@pytest.fixture(params=["cloud", "comfyui"])
def server(request):
    with EmbeddedServer(dialect=request.param, strict_models=True) as server:
        yield server


def test_doctor_passes_a_target_that_can_run_the_experiment(sweeper, write):
    with EmbeddedServer() as server:
        outcome = sweeper("doctor", write(PLAIN), "-t", server.url, "--json")
        people = sweeper("doctor", "shop.yaml", "-t", server.url)
    assert (outcome.code, people.code) == (0, 0)
    (target,) = outcome.json["targets"]
    assert target["experiment"] == {"file": "shop.yaml", "trials": 2, "checked": True, "lacks": [], "notes": []}
    assert (target["ok"], target["upload_limit"]) == (True, 100 * 2**20)
    assert "  has what the 2 trials of shop.yaml need\n" in people.out
    assert server.seen.submits == 0


def test_doctor_lists_what_a_target_lacks_with_near_names(sweeper, server, write):
    file = write(PLAIN)
    graph = json.loads(Path("t.json").read_text())
    graph["3"]["class_type"] = "KSamplr"
    graph["4"]["inputs"]["ckpt_name"] = "nowhere.safetensors"
    Path("t.json").write_text(json.dumps(graph))
    outcome = sweeper("doctor", file, "-t", server.url)
    target = sweeper("doctor", file, "-t", server.url, "--json").json["targets"][0]
    assert outcome.code == 3
    assert f"{server.url}: not usable: " in outcome.out
    assert "the server has no class 'KSamplr'; did you mean 'KSampler'?" in outcome.err
    assert "nowhere.safetensors" in outcome.err
    assert "next: install what is missing on that server" in outcome.err
    assert (target["ok"], len(target["experiment"]["lacks"])) == (False, 2)


def test_doctor_shows_what_is_left_on_the_account(sweeper):
    with EmbeddedServer(faults=Faults(scenario=Scenario.from_mapping({"balance": "12.5 USD"}))) as server:
        outcome = sweeper("doctor", "-t", server.url)
        target = sweeper("doctor", "-t", server.url, "--json").json["targets"][0]
    assert "uploads up to 100 MiB, 1 job at once, 12.50 USD left on the account\n" in outcome.out
    assert target["balance_usd"] == 12.5


@pytest.fixture
def cloud(monkeypatch):
    """Comfy Cloud, by a function that maps a path to an answer and its headers."""
    answers = {"/api/user": ({"status": "active"}, {}), "/api/features": ({"max_concurrent_jobs": 5}, {})}

    def reply(request):
        answer, headers = answers.get(request.url.path, (None, {}))
        return httpx.Response(404 if answer is None else 200, json=answer or {}, headers=headers)

    monkeypatch.setattr("sweeper.comfy.client.make_transport", lambda *_: httpx.MockTransport(reply))
    monkeypatch.setenv("COMFY_CLOUD_API_KEY", KEY)
    return answers


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Deprecation": "@1751328000"}, "deprecated from 1 Jul 2025 on"),
        ({"Deprecation": "true"}, "deprecated"),
        (
            {"Deprecation": "Tue, 01 Jul 2025 12:00:00 GMT", "Sunset": "Thu, 31 Dec 2026 12:00:00 GMT"},
            "deprecated from 1 Jul 2025 on, ends on 31 Dec 2026",
        ),
        ({"Sunset": "Thu, 31 Dec 2026 12:00:00 GMT"}, "ends on 31 Dec 2026"),
    ],
)
def test_doctor_names_the_calls_that_a_server_announces_to_end(sweeper, cloud, headers, words):
    cloud["/api/user"] = {"status": "active"}, headers
    outcome = sweeper("doctor", "-t", "cloud")
    assert outcome.code == 0
    assert f"warning: cloud: Comfy Cloud says of /api/user: {words}; look for a newer sweeper" in outcome.err


def test_doctor_names_an_ended_call_beside_the_failure(sweeper, monkeypatch, cloud):
    gone = httpx.Response(410, json={"message": "use v2"}, headers={"Sunset": "Mon, 02 Nov 2026 12:00:00 GMT"})
    monkeypatch.setattr("sweeper.comfy.client.make_transport", lambda *_: httpx.MockTransport(lambda _: gone))
    outcome = sweeper("doctor", "-t", "cloud")
    assert outcome.code == 3
    assert "warning: cloud: Comfy Cloud says of /api/user: ends on 2 Nov 2026" in outcome.err


@pytest.mark.parametrize(
    "headers", [{"Deprecation": "false"}, {"Deprecation": "@x", "Sunset": "soon"}, {"Deprecation": "@" + "9" * 5000}]
)
def test_doctor_ignores_an_announcement_that_it_cannot_read(sweeper, cloud, headers):
    cloud["/api/user"] = {"status": "active"}, headers
    outcome = sweeper("doctor", "-t", "cloud")
    assert (outcome.code, "says of" in outcome.err) == (0, False)


@pytest.mark.parametrize(("jobs", "longest"), [(1, 1800), (3, 1800), (5, 3600), (12, None)])
def test_doctor_shows_the_limits_of_an_account_beside_the_timeout(sweeper, write, cloud, jobs, longest):
    cloud["/api/features"] = {"max_concurrent_jobs": jobs}, {}
    file = write(PLAIN + "run: {timeout: 7200, concurrency: 8}\n")
    outcome = sweeper("doctor", file, "-t", "cloud")
    (target,) = sweeper("doctor", file, "-t", "cloud", "--json").json["targets"]
    assert (target["max_jobs"], target.get("longest_run_s"), target["timeout_s"]) == (jobs, longest, 7200)
    assert ("concurrency: 8, but the account runs" in outcome.err) == (jobs < 8)
    assert (f"each for {longest} s at most (`timeout` is 7200 s)" in outcome.out) == (longest is not None)
    assert (f"timeout: 7200 s, but Comfy Cloud cancels a job after {longest} s" in outcome.err) == (longest is not None)


def test_unreachable_target_comes_with_a_next_step(sweeper, write):
    outcome = sweeper("doctor", write(PLAIN + 'target: [embedded, "http://127.0.0.1:9"]\n'))
    assert outcome.code == 3
    assert "http://127.0.0.1:9: not usable: url http://127.0.0.1:9" in outcome.out
    assert "error: http://127.0.0.1:9: cannot be reached: " in outcome.err
    assert "next: start the server, or correct the port" in outcome.err
    assert outcome.out.index("http://127.0.0.1:9: not usable") < outcome.out.index("embedded: dialect cloud")


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({}, "the target has no key: write it as {url: ..., api_key_env: NAME}, and set NAME to the server's key"),
        ({"api_key_env": "WRONG"}, "its key is from the variable WRONG (`api_key_env`): look for a typo, or create"),
    ],
)
def test_rejected_key_comes_with_a_next_step(sweeper, write, monkeypatch, settings, step):
    monkeypatch.setenv("WRONG", "wrong")
    with EmbeddedServer(api_key=KEY) as server:
        target = {"url": server.url, "dialect": "cloud", **settings}
        file = write(PLAIN + f"target: {json.dumps(target)}\n")
        outcomes = sweeper("doctor", file, "--trust"), sweeper("run", file, "--trust")
    for outcome in outcomes:
        assert outcome.code == 3
        assert step in outcome.err


def test_an_empty_variable_of_a_key_is_called_empty(sweeper, write, monkeypatch):
    monkeypatch.setenv("EMPTY", "")
    file = write(PLAIN + 'target: {url: "http://127.0.0.1:9", api_key_env: EMPTY}\n')
    outcome = sweeper("run", file, "--trust")
    assert "its key is expected in the environment variable EMPTY, which is empty" in outcome.err


def test_wrong_experiment_is_reported_before_any_request(sweeper, server, write):
    outcome = sweeper("doctor", write(PLAIN + "stps: 3\n"), "-t", server.url)
    assert (outcome.code, outcome.out) == (2, "")
    assert "unknown key 'stps'" in outcome.err


def test_doctor_without_arguments_checks_every_named_target(sweeper, tmp_path, monkeypatch):
    (tmp_path / "config" / "sweeper").mkdir(parents=True)
    (tmp_path / "config" / "sweeper" / "targets.yaml").write_text("lab: http://127.0.0.1:9\n")
    outcome = sweeper("doctor", "--json")
    assert outcome.code == 3
    assert [(target["target"], target["ok"]) for target in outcome.json["targets"]] == [
        ("embedded", True),
        ("lab", False),
    ]


def test_doctor_reports_a_file_too_large_to_upload(sweeper, write, server):
    file = write("template: p.json\nparams: {image: big.png}\n")
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "p"}},
    }
    Path("p.json").write_text(json.dumps(graph))
    Path("p.slots.yaml").write_text('slots: {image: {at: "1.image", kind: file}}')
    with Path("big.png").open("wb") as big:
        big.truncate(101 * 2**20)
    outcome = sweeper("doctor", file, "-t", server.url)
    assert outcome.code == 3
    assert "big.png: 101 MiB; an upload there may have at most 100 MiB" in outcome.err


def test_doctor_warns_of_another_distribution_with_our_package(sweeper, tmp_path, monkeypatch):
    assert "uninstall sweeper" not in sweeper("doctor", "-t", "embedded").err
    (tmp_path / "sweeper-0.9.0.dist-info").mkdir()
    (tmp_path / "sweeper-0.9.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: sweeper\nVersion: 0.9.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = sweeper("doctor", "-t", "embedded")
    assert "the distribution 'sweeper' 0.9.0 is installed, and so is ours, 'comfy-sweeper'" in outcome.err
    assert outcome.code == 0


def test_doctor_warns_of_a_key_sent_unencrypted(sweeper, tmp_path, monkeypatch):
    entry = {"url": "http://nowhere.invalid", "dialect": "cloud", "api_key_env": "MY_KEY"}
    (tmp_path / "targets.yaml").write_text(json.dumps({"far": entry}))
    monkeypatch.setenv("SWEEPER_TARGETS", str(tmp_path / "targets.yaml"))
    monkeypatch.setenv("MY_KEY", KEY)
    outcome = sweeper("doctor", "-t", "far")
    assert outcome.code == 3
    assert "warning: far: sweeper sends its key unencrypted" in outcome.err
    assert "next: check host and port" in outcome.err


@pytest.mark.parametrize(
    ("address", "warns"),
    [
        ("tcp://scheduler.example:8786", True),
        ("ws://10.0.0.7:8786", True),
        ("tls://scheduler.example:8786", False),
        ("tcp://127.0.0.1:8786", False),
        ("local:4", False),
    ],
)
@pytest.mark.parametrize("way", ["option", "environment", "file"])
def test_doctor_warns_of_a_dask_scheduler_without_tls(sweeper, monkeypatch, address, warns, way):
    arguments = ["--dask", address]
    if way == "environment":
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        arguments = []
    elif way == "file" and address != "local:4":
        Path("scheduler.json").write_text(json.dumps({"address": address}))
        arguments = ["--dask", "scheduler.json"]
    outcome = sweeper("doctor", "--target", "embedded", *arguments)
    assert outcome.code == 0
    assert (f"the Dask scheduler at {address} uses no TLS" in outcome.err) == warns
