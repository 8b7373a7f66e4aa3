"""Scenarios: strict reading, decisions by the seed, and their effect over HTTP."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import httpx
import pytest
import yaml

from sweeper.embedded import EmbeddedServer, Faults, Scenario
from sweeper.errors import UsageError
from sweeper.loading.load import read_yaml_file
from tests import ROOT
from tests.embedded.probes import chain, waiting
from tests.waiting import wait_until


def read_scenario(path: Path) -> Scenario:
    return Scenario.from_source(read_yaml_file(path))


def test_scenario_is_read_from_a_file(tmp_path):
    path = tmp_path / "slow.yaml"
    path.write_text(
        "seed: 7\nlatency: [0.02, 0.2]\nnode_seconds: 0.5\njob_seconds: [2, 3]\nconcurrency: 3\nqueue_bound: 20\n"
        "failure_rate: 0.05\nfailure_type: OOMError\nerror_rate: 0.02\ndrop_rate: 0.01\nnoise: 0.5\n"
    )
    assert read_scenario(path) == Scenario(
        seed=7, latency=(0.02, 0.2), node_seconds=(0.5, 0.5), job_seconds=(2.0, 3.0), concurrency=3,
        queue_bound=20, failure_rate=0.05, failure_type="OOMError", error_rate=0.02, drop_rate=0.01, noise=0.5,
    )  # fmt: skip
    path.write_text("")
    assert read_scenario(path) == Scenario()


def test_scenario_in_the_readme_is_valid():
    readme = (ROOT / "sweeper/embedded/README.md").read_text("utf-8")
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "queue_bound" in block]
    assert Scenario.from_mapping(yaml.safe_load(text)).jobs_at_once == 3


def test_scenario_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Scenario().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("failurerate: 0.1", ":1: failurerate: unknown key 'failurerate'; did you mean 'failure_rate'?"),
        ("zzz: 1", ":1: zzz: unknown key 'zzz'; allowed: seed, tier, concurrency"),
        ("failure_rate: 5%", "failure_rate: found '5%'; allowed: a share from 0 to 1"),
        ("error_rate: 1.5", "error_rate: found 1.5, but at most 1 is needed"),
        ("drop_rate: true", "drop_rate: found true; allowed: a share from 0 to 1"),
        ("latency: -1", "latency: found -1, but at least 0 is needed"),
        ("latency: .inf", "latency: found Infinity, but at most 1000000000 is needed"),
        ("latency: [1]", "latency: found a list of 1 items, but at least 2 are needed"),
        ("latency: [2, 1]", r"latency: must be a range \[from, to\] in seconds"),
        ("node_seconds: {KSampler: [2, 1]}", r"node_seconds: KSampler: must be a range \[from, to\] in seconds"),
        ("concurrency: 0", "concurrency: found 0, but at least 1 is needed"),
        ("queue_bound: x", "queue_bound: found 'x'; allowed: a whole number, 0 or more"),
        ("failure_type: two words", "failure_type: found 'two words'; allowed: the name of an exception"),
        ("tier: [gold]", "tier: found a list; allowed: free, standard, creator, pro"),
        ("tier: gold", "tier: found 'gold'; allowed: free, standard, creator, pro"),
        ("{tier: pro, concurrency: 2}", "`tier` and `concurrency` both say how many jobs run at once"),
        ("refusal: NO_MONEY", "refusal: found 'NO_MONEY'; allowed: PAYMENT_REQUIRED, "),
        ("credits: -1", "credits: found -1, but at least 0 is needed"),
        ("- 1", "is not a scenario: give a mapping such as 'latency: 0.1', not list"),
        ("a: [", ":2: is not YAML: while parsing a flow node did not find expected node content"),
    ],
)
def test_mistake_in_a_file_is_reported_with_its_line(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as raised:
        read_scenario(path)
    assert str(raised.value).startswith(str(path))


def test_all_mistakes_in_a_file_are_reported_with_their_lines(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("seed: 7\nlatncy: 0.1\nfailure_rate: 5%\n\ntier: pro\nconcurrency: 0\n")
    with pytest.raises(UsageError) as raised:
        read_scenario(path)
    assert [str(problem).removeprefix(str(path)) for problem in raised.value.problems] == [
        ":2: latncy: unknown key 'latncy'; did you mean 'latency'?",
        ":3: failure_rate: found '5%'; allowed: a share from 0 to 1",
        ":5: tier: `tier` and `concurrency` both say how many jobs run at once; give one",
        ":6: concurrency: found 0, but at least 1 is needed",
    ]


def test_missing_file_is_reported_with_the_nearest_name(tmp_path):
    (tmp_path / "slow.yaml").write_text("seed: 1\n")
    with pytest.raises(UsageError, match=r"slo\.yaml: there is no such file; did you mean '.*slow\.yaml'\?"):
        read_scenario(tmp_path / "slo.yaml")
    with pytest.raises(UsageError, match=r"none\.yaml: there is no such file; there is no folder '.*gone' either"):
        read_scenario(tmp_path / "gone" / "none.yaml")


@pytest.mark.parametrize(("data", "said"), [(b"\xff", "is not UTF-8 text (byte 0)"), (None, "is a folder")])
def test_unreadable_file_is_reported(tmp_path, data, said):
    path = tmp_path / "odd.yaml"
    path.mkdir() if data is None else path.write_bytes(data)
    with pytest.raises(UsageError) as raised:
        read_scenario(path)
    assert str(raised.value).startswith(f"{path}: {said}")


def test_decisions_depend_on_seed_and_rate_only():
    def draw(**changes):
        faults = Faults(scenario=Scenario(failure_rate=0.25, latency=(1.0, 2.0), **changes))
        return [faults.should_inject("failure") for _ in range(2000)], [
            faults.draw_seconds("latency") for _ in range(99)
        ]

    struck, delays = draw(seed=3)
    assert (struck, delays) == draw(seed=3)
    assert 400 < sum(struck) < 600
    assert struck != draw(seed=4)[0]
    assert all(1.0 <= delay <= 2.0 for delay in delays)
    assert len(set(delays)) == 99
    assert Faults(scenario=Scenario(latency=(0.5, 0.5))).draw_seconds("latency") == 0.5


def test_same_share_of_jobs_fails_in_every_run(serve):
    def outcomes():
        scenario = Scenario(seed=1, failure_rate=0.4, failure_type="OOMError")
        cloud = serve("cloud", faults=Faults(scenario=scenario))
        return [cloud.run(chain(seed=seed)) for seed in range(12)]

    first, second = outcomes(), outcomes()
    words = [job["status"] for job in first]
    assert words == [job["status"] for job in second]
    assert set(words) == {"completed", "failed"}
    error = next(job for job in first if job["status"] == "failed")["execution_error"]
    assert error["exception_type"] == "OOMError"


def test_bounded_queue_refuses_jobs(serve, gate):
    cloud = serve("cloud", faults=Faults(scenario=Scenario(queue_bound=1)))
    cloud.submit(waiting())
    assert gate.entered.wait(60)
    cloud.submit(chain())
    assert cloud.http.post("/api/prompt", json={"prompt": chain()}).status_code == 429


def test_concurrency_of_the_scenario_overrides_workers(serve, gate):
    cloud = serve("cloud", workers=1, faults=Faults(scenario=Scenario(concurrency=2)))
    jobs = [cloud.submit(waiting(seed=seed, prefix=f"w{seed}")) for seed in range(3)]
    wait_until(lambda: sorted(cloud.status(job) for job in jobs) == ["executing", "executing", "queued_limited"])


@pytest.mark.parametrize(("tier", "at_once"), [("standard", 1), ("creator", 3), ("pro", 5)])
def test_tier_sets_how_many_jobs_run_at_once(serve, gate, tier, at_once):
    cloud = serve("cloud", faults=Faults(scenario=Scenario(tier=tier)))
    jobs = [cloud.submit(waiting(seed=seed, prefix=f"w{seed}")) for seed in range(6)]
    states = ["executing"] * at_once + ["queued_limited"] * (6 - at_once)
    wait_until(lambda: sorted(cloud.status(job) for job in jobs) == states)


def test_credits_run_out(serve, gate):
    cloud = serve("cloud", faults=Faults(scenario=Scenario(credits=2)))
    first = cloud.submit(waiting())
    assert gate.entered.wait(60)
    second, third = (
        cloud.submit(chain(seed=seed)) for seed in range(2)
    )  # accepted, because their cost is not known yet
    gate.opened.set()
    assert [cloud.wait_for_end(job)["status"] for job in (first, second, third)] == ["completed", "completed", "failed"]
    assert cloud.wait_for_end(third)["execution_error"]["exception_type"] == "InsufficientFundsError"
    answer = cloud.http.post("/api/prompt", json={"prompt": chain()})
    assert (answer.status_code, answer.json()["error"]["type"]) == (402, "PAYMENT_REQUIRED")


def test_models_load_slowly(serve):
    cloud = serve("cloud", faults=Faults(scenario=Scenario(model_seconds=(3600, 3600))))
    graph = {"1": {"class_type": "ProbeCombo", "inputs": {"mode": "normal"}}, "9": chain()["9"]}
    graph["9"]["inputs"]["images"] = ["1", 0]
    assert cloud.run(graph)["status"] == "completed"  # it loads no model
    job = cloud.submit(chain())
    wait_until(lambda: cloud.status(job) == "executing")
    cloud.cancel_all()
    assert cloud.wait_for_end(job)["status"] == "cancelled"
    assert cloud.server.seen.nodes["ProbeLoader"] == 0


def test_free_tier_ends_with_its_own_error(serve):
    cloud = serve("cloud", faults=Faults(scenario=Scenario(tier="free", credits=1)))
    cloud.run(chain())
    answer = cloud.http.post("/api/prompt", json={"prompt": chain()})
    assert (answer.status_code, answer.json()["error"]["type"]) == (402, "FREE_TIER_EXHAUSTED")


def test_share_of_the_submissions_is_refused(serve):
    scenario = Scenario(seed=4, refusal_rate=0.5, refusal="FREE_TIER_UNAVAILABLE")
    cloud = serve("cloud", faults=Faults(scenario=scenario))
    answers = [cloud.http.post("/api/prompt", json={"prompt": chain()}) for _ in range(12)]
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.json()["error"]["type"] for answer in refused} == {"FREE_TIER_UNAVAILABLE"}
    again = Faults(scenario=scenario)
    assert len(refused) == sum(again.should_inject("refusal") for _ in range(12))


def test_job_waits_for_a_machine_although_the_account_may_run_it(serve):
    cloud = serve("cloud", faults=Faults(scenario=Scenario(capacity_seconds=(3600, 3600))))
    first, second = (cloud.submit(chain(seed=seed)) for seed in range(2))
    wait_until(lambda: cloud.status(first) == "allocated")
    details = [cloud.http.get(f"/api/jobs/{job}").json() for job in (first, second)]
    told = [(detail["status"], detail["queue_reason"], detail["queue_position"]) for detail in details]
    assert told == [("pending", "capacity", None), ("pending", "concurrency_limit", 1)]
    assert cloud.http.post("/api/jobs/cancel", json={"job_ids": [first, second]}).json() == {
        "cancelled": [first, second]
    }
    assert {cloud.wait_for_end(job)["status"] for job in (first, second)} == {"cancelled"}
    assert cloud.server.seen.nodes.total() == 0


@pytest.mark.parametrize("dialect", ["cloud", "comfyui"])
def test_others_cancel_a_share_of_the_jobs(serve, dialect):
    client = serve(dialect, faults=Faults(scenario=Scenario(seed=4, cancel_rate=0.5)))
    jobs = [client.submit(chain(seed=seed)) for seed in range(12)]
    for job in jobs:
        client.wait_for_end(job)
    words = {client.http.get(f"/api/jobs/{job}").json()["status"] for job in jobs}
    assert words == {"cancelled", "completed"}


@pytest.mark.parametrize("setting", [{"tier": "pro"}, {"credits": 5}, {"refusal_rate": 0.5}])
def test_comfyui_refuses_account_settings(setting):
    with pytest.raises(UsageError, match="use the cloud dialect or v2"):
        EmbeddedServer("comfyui", faults=Faults(scenario=Scenario(**setting)))


def test_answers_can_be_errors_or_get_lost(serve):
    cloud = serve("cloud", faults=Faults(scenario=Scenario(error_rate=1)))
    assert cloud.http.get("/api/user").status_code == 503
    cloud = serve("cloud", faults=Faults(scenario=Scenario(drop_rate=1)))
    with pytest.raises(httpx.RemoteProtocolError):
        cloud.http.post("/api/prompt", json={"prompt": chain()})
    assert cloud.server.seen.accepted == 1


def test_answers_and_nodes_can_be_slow(serve):
    cloud = serve("cloud", faults=Faults(scenario=Scenario(latency=(0.5, 0.6))))
    with pytest.raises(httpx.ReadTimeout):
        cloud.http.get("/api/user", timeout=0.05)
    cloud = serve("cloud", faults=Faults(scenario=Scenario(node_seconds=(3600, 3600))))
    job = cloud.submit(chain())
    wait_until(lambda: cloud.status(job) == "executing")
    cloud.cancel_all()
    assert cloud.wait_for_end(job)["status"] == "cancelled"


def test_nodes_can_be_slow_by_class(serve):
    seconds = Scenario.from_mapping({"node_seconds": {"ProbeSampler": 3600, "default": 0}})
    cloud = serve("cloud", faults=Faults(scenario=seconds))
    job = cloud.submit(chain())
    wait_until(lambda: "ProbeSampler" not in cloud.server.seen.nodes and cloud.server.seen.nodes)
    cloud.cancel_all()
    assert cloud.wait_for_end(job)["status"] == "cancelled"
    misspelt = Scenario.from_mapping({"node_seconds": {"ProbeSampla": 1}})
    with pytest.raises(UsageError, match="node_seconds: this server has no class 'ProbeSampla'; did you mean"):
        serve("cloud", faults=Faults(scenario=misspelt))


def test_job_seconds_apply_even_if_all_nodes_are_cached(serve):
    cloud = serve("cloud", faults=Faults(scenario=Scenario(job_seconds=(0.05, 0.05))))
    for _ in range(2):
        job = cloud.run(chain())
        assert job["execution_end_time"] - job["execution_start_time"] >= 50
    cloud = serve("cloud", faults=Faults(scenario=Scenario(job_seconds=(3600, 3600))))
    waits = cloud.submit(chain())
    wait_until(lambda: cloud.status(waits) == "executing")
    cloud.cancel_all()
    assert cloud.wait_for_end(waits)["status"] == "cancelled"
