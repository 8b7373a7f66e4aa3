"""Every field of `Faults`, over HTTP."""

from __future__ import annotations

from dataclasses import fields

import httpx
import pytest

from sweeper.embedded import Faults
from tests.embedded.clients import job_id
from tests.embedded.probes import chain
from tests.waiting import wait_until


def post(client, graph=None, **more):
    return client.http.post("/api/prompt", json={"prompt": graph or chain(), **more})


@pytest.mark.parametrize("dialect", ["cloud", "comfyui"])
def test_connection_dropped_before_the_job_is_accepted(serve, dialect):
    client = serve(dialect)
    client.server.faults.drop_before_accept = 1
    with pytest.raises(httpx.RemoteProtocolError):
        post(client)
    assert (client.server.seen.submits, client.server.seen.accepted) == (1, 0)
    assert post(client).status_code == 200


@pytest.mark.parametrize("dialect", ["cloud", "comfyui"])
def test_connection_dropped_after_the_job_is_accepted(serve, dialect):
    client = serve(dialect)
    client.server.faults.drop_after_accept = 1
    with pytest.raises(httpx.RemoteProtocolError):
        post(client, prompt_id=job_id("mine"))
    assert (client.server.seen.submits, client.server.seen.accepted) == (1, 1)
    if dialect == "comfyui":
        assert client.wait_for_end(job_id("mine"))["status"]["status_str"] == "success"
    else:
        (row,) = client.http.get("/api/jobs").json()["jobs"]
        assert client.wait_for_end(row["id"])["workflow"]["prompt"] == chain()


def test_full_queue_sends_retry_after(cloud):
    cloud.server.faults.queue_full_times = 2
    cloud.server.faults.retry_after = 7
    for _ in range(2):
        answer = post(cloud)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert answer.json()["code"] == "queue_full"
    assert post(cloud).status_code == 200
    assert cloud.server.seen.accepted == 1


def test_missing_credits_and_subscription_last_until_reset(cloud):
    cloud.server.faults.refusal = "PAYMENT_REQUIRED"
    assert [post(cloud).status_code for _ in range(2)] == [402, 402]
    cloud.server.faults.refusal = "CLOUD_SUBSCRIPTION_REQUIRED"
    answer = post(cloud)
    assert (answer.status_code, answer.json()["error"]["type"]) == (402, "CLOUD_SUBSCRIPTION_REQUIRED")
    assert "retry-after" not in answer.headers
    cloud.server.faults.reset()
    assert post(cloud).status_code == 200


def test_general_errors_end_with_their_budget(cloud):
    faults, cloud.trusting = cloud.server.faults, True
    faults.error_500_times, faults.error_503_times, faults.garbage_times = 1, 1, 1
    answers = [cloud.http.get("/api/user") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [500, 503, 200, 200]
    assert answers[1].headers["retry-after"] == "1"
    assert answers[2].text.startswith("<html>")
    assert answers[3].json()["status"] == "active"


def test_lost_job_is_lost_on_cloud_and_unknown_to_comfyui(serve):
    cloud = serve("cloud")
    cloud.server.faults.lose_times = 1
    lost = cloud.submit(chain())
    assert cloud.status(lost) == "lost"
    assert cloud.wait_for_end(lost)["status"] == "failed"
    comfy = serve("comfyui")
    comfy.server.faults.lose_times = 1
    gone = comfy.submit(chain())
    comfy.run(chain(seed=1))
    assert comfy.http.get(f"/history/{gone}").json() == {}


@pytest.mark.parametrize("dialect", ["cloud", "comfyui"])
def test_status_request_can_be_dropped(serve, dialect):
    client = serve(dialect)
    prompt_id = client.submit(chain())
    client.server.faults.drop_status_times = 1
    path = f"/api/job/{prompt_id}/status" if dialect == "cloud" else f"/history/{prompt_id}"
    with pytest.raises(httpx.RemoteProtocolError):
        client.http.get(path)
    client.wait_for_end(prompt_id)


def test_undocumented_states_are_reported_once_each(cloud):
    prompt_id = cloud.run(chain())["id"]
    cloud.server.faults.odd_states = ("allocated", "never_heard_of")
    assert [cloud.status(prompt_id) for _ in range(3)] == ["allocated", "never_heard_of", "success"]


def location(cloud):
    file = cloud.run(chain())["outputs"]["9"]["images"][0]
    return cloud.http.get("/api/view", params=file).headers["location"]


def test_downloads_can_stop_halfway(serve):
    cloud = serve("cloud")
    url = location(cloud)
    cloud.server.faults.truncate_download_times = 1
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url)
    assert httpx.get(url).status_code == 200
    comfy = serve("comfyui")
    file = comfy.run(chain())["outputs"]["9"]["images"][0]
    comfy.server.faults.truncate_download_times = 1
    with pytest.raises(httpx.RemoteProtocolError):
        comfy.http.get("/view", params=file)
    assert comfy.http.get("/view", params=file).status_code == 200


def test_signed_urls_can_expire(cloud):
    url = location(cloud)
    cloud.server.faults.expire_download_times = 1
    assert httpx.get(url).status_code == 403
    assert httpx.get(url).status_code == 200


def test_files_can_be_missing(comfy):
    file = comfy.run(chain())["outputs"]["9"]["images"][0]
    comfy.server.faults.missing_download_times = 1
    assert comfy.http.get("/view", params=file).status_code == 404
    assert comfy.http.get("/view", params=file).status_code == 200


@pytest.mark.parametrize("which", ["3", "ProbeSampler"])
def test_nodes_fail_by_id_or_class_with_any_exception_name(cloud, which):
    faults = cloud.server.faults
    faults.fail_nodes = {which}
    faults.fail_type, faults.fail_message = "InsufficientFundsError", "no more credits"
    error = cloud.run(chain())["execution_error"]
    assert (error["node_id"], error["exception_type"]) == ("3", "InsufficientFundsError")
    assert error["exception_message"] == "no more credits\n"
    faults.reset()
    assert cloud.run(chain())["status"] == "completed"


def test_nodes_fail_a_given_number_of_times(cloud):
    cloud.server.faults.fail_nodes = {"3"}
    cloud.server.faults.fail_node_times = 2
    assert [cloud.run(chain())["status"] for _ in range(3)] == ["failed", "failed", "completed"]


def test_nodes_stall_until_released_or_interrupted(cloud):
    faults = cloud.server.faults
    faults.stall_nodes = {"3"}
    first = cloud.submit(chain())
    wait_until(lambda: cloud.status(first) == "executing")
    cloud.cancel_all()
    assert cloud.wait_for_end(first)["status"] == "cancelled"
    second = cloud.submit(chain())
    wait_until(lambda: cloud.status(second) == "executing")
    faults.release()
    assert cloud.wait_for_end(second)["status"] == "completed"
    assert cloud.run(chain(seed=1))["status"] == "completed"


def test_slow_nodes_can_be_interrupted(cloud):
    cloud.server.faults.node_seconds = 3600
    job = cloud.submit(chain())
    wait_until(lambda: cloud.status(job) == "executing")
    cloud.cancel_all()
    assert cloud.wait_for_end(job)["status"] == "cancelled"


def test_latency_delays_answers(cloud):
    cloud.server.faults.latency = 0.5
    with pytest.raises(httpx.ReadTimeout):
        cloud.http.get("/api/user", timeout=0.05)
    cloud.server.faults.reset()
    assert cloud.http.get("/api/user").status_code == 200


def test_reset_switches_every_fault_off():
    off = Faults()
    faults = Faults(fail_nodes={"1"}, latency=3, lose_times=2, odd_states=("x",), mute_events=True)
    faults.reset()
    for knob in fields(off):
        if not knob.name.startswith("_"):
            assert getattr(faults, knob.name) == getattr(off, knob.name), knob.name
