"""The cloud dialect over HTTP: key, ids, states, jobs, cancelling, signed URLs, workers."""

from __future__ import annotations

import re
import uuid

import httpx
import pytest

from sweeper.embedded import Faults, Scenario
from tests.embedded.probes import chain, waiting
from tests.waiting import wait_until


def test_job_runs_and_storage_host_serves_its_file(cloud):
    job = cloud.run(chain(text="a lighthouse"))
    assert job["status"] == "completed"
    answer = cloud.http.get("/api/view", params=job["outputs"]["9"]["images"][0])
    assert (answer.status_code, answer.content) == (302, b"")
    location = httpx.URL(answer.headers["location"])
    assert (location.host, location.port) != (cloud.http.base_url.host, cloud.http.base_url.port)
    assert str(location).startswith(cloud.server.storage_url)
    assert httpx.get(location).text == "alpha|alpha:a lighthouse|0|4|7.0|euler"
    assert cloud.server.seen.foreign_keys == 0


def test_all_paths_are_below_api(cloud):
    for path in ("/prompt", "/queue", "/history", "/object_info", "/view", "/user"):
        assert cloud.http.get(path).status_code == 404, path
    for path in ("prompt", "queue", "jobs", "object_info", "features", "system_stats", "user",
                 "experiment/models"):  # fmt: skip
        assert cloud.http.get(f"/api/{path}").status_code == 200, path


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}, {b"X-API-Key": b"\xfc"}])
def test_private_paths_need_the_right_key(serve, headers):
    server = serve("cloud", api_key="s3cret").server
    with httpx.Client(base_url=server.url, headers=headers) as stranger:
        answer = stranger.post("/api/prompt", json={"prompt": chain()})
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthorized"
        for path in ("queue", "jobs", "object_info", "user", "view"):
            assert stranger.get(f"/api/{path}").status_code == 401, path
        for path in ("features", "system_stats", "experiment/models"):
            assert stranger.get(f"/api/{path}").status_code == 200, path
    assert server.seen.submits == 0


def test_key_is_in_no_answer_or_repr(serve):
    client = serve("cloud", api_key="s3cret")
    client.run(chain())
    for text in (repr(client.server), repr(client.server.settings), repr(client.server.seen)):
        assert "s3cret" not in text
    assert client.http.get("/api/user").json()["status"] == "active"


def test_key_sent_to_the_storage_host_is_counted(serve):
    client = serve("cloud", api_key="s3cret")
    file = client.run(chain())["outputs"]["9"]["images"][0]
    followed = client.http.get("/api/view", params=file, follow_redirects=True)  # a common mistake of clients
    assert followed.status_code == 200
    assert client.server.seen.foreign_keys == 1


def test_forged_or_altered_signed_urls_are_refused(cloud):
    file = cloud.run(chain())["outputs"]["9"]["images"][0]
    good = httpx.URL(cloud.http.get("/api/view", params=file).headers["location"])
    later = good.copy_merge_params({"X-Expires": int(good.params["X-Expires"]) + 1})
    bent = good.copy_with(path="/output/%2e%2e/jobs.sqlite")
    bare = good.copy_with(query=None)
    for url in (later, bent, bare, good.copy_set_param("X-Signature", "é")):
        assert httpx.get(url).status_code == 403, url
    (cloud.server.folders.output_dir / file["filename"]).unlink()
    assert httpx.get(good).status_code == 404


def test_server_chooses_ids_and_order(cloud, gate):
    cloud.submit(waiting())
    assert gate.entered.wait(60)
    answers = [
        cloud.http.post(
            "/api/prompt", json={"prompt": chain(seed=seed), "prompt_id": "mine", "number": -seed, "front": True}
        ).json()
        for seed in range(3)
    ]
    assert len({str(uuid.UUID(answer["prompt_id"])) for answer in answers}) == 3
    pending = cloud.http.get("/api/queue").json()["queue_pending"]
    assert [item[1] for item in pending] == [answer["prompt_id"] for answer in answers]
    position, prompt_id, graph, outputs, meta = pending[0]
    assert (position, prompt_id, graph, outputs) == (2, answers[0]["prompt_id"], chain(seed=0), ["9"])
    assert set(meta) == {"create_time"}


def test_states_are_reported_as_they_change(cloud, gate):
    first = cloud.submit(waiting())
    assert gate.entered.wait(60)
    second = cloud.submit(chain())
    answer = cloud.http.get(f"/api/job/{first}/status").json()
    assert answer["status"] == "executing"
    assert answer["id"] == first
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", answer["created_at"])
    assert cloud.status(second) == "queued_limited"
    assert [row["status"] for row in cloud.http.get("/api/jobs").json()["jobs"]] == ["pending", "in_progress"]
    assert cloud.http.get(f"/api/jobs/{first}").json().get("outputs") is None
    gate.opened.set()
    assert cloud.wait_for_end(second)["status"] == "completed"
    assert cloud.status(first) == "success"
    for path in ("job/{}/status", "jobs/{}"):
        assert cloud.http.get("/api/" + path.format(uuid.uuid4())).status_code == 404


def test_only_details_of_a_job_hold_its_workflow(cloud):
    job = cloud.run(chain(), extra_data={"extra_pnginfo": {"sweeper": 1}})
    assert job["workflow"] == {"prompt": chain(), "extra_data": {"extra_pnginfo": {"sweeper": 1}}}
    assert job["outputs_count"] == 1
    assert job["preview_output"] == job["outputs"]["9"]["images"][0] | {"nodeId": "9", "mediaType": "images"}
    assert job["execution_status"]["status_str"] == "success"
    assert job["execution_start_time"] <= job["execution_end_time"]
    assert 10**12 < job["create_time"] <= job["execution_start_time"] <= job["update_time"]  # milliseconds
    row = cloud.http.get("/api/jobs").json()["jobs"][0]
    assert not {"workflow", "outputs"} & set(row)
    assert row["id"] == job["id"]


def test_job_list_can_be_paged_and_filtered(cloud):
    good = [cloud.run(chain(seed=seed))["id"] for seed in range(3)]
    bad = cloud.run(chain(fail=True))["id"]

    def ids(**query):
        return [row["id"] for row in cloud.http.get("/api/jobs", params=query).json()["jobs"]]

    assert ids() == [bad, *reversed(good)]
    assert ids(status="completed", limit=2) == [good[2], good[1]]
    assert ids(status="completed", limit=2, offset=2) == [good[0]]
    assert ids(status="failed,cancelled") == [bad]
    page = cloud.http.get("/api/jobs", params={"limit": 2, "offset": 1}).json()["pagination"]
    assert page.pop("next_cursor")
    assert page == {"offset": 1, "limit": 2, "total": 4, "has_more": True}
    for query in ("limit=0", "limit=1001", "offset=-1", "status=nonsense", "limit=x"):
        assert cloud.http.get(f"/api/jobs?{query}").status_code == 400, query


def test_failed_job_reports_its_error_in_every_listing(cloud):
    job = cloud.run(chain(fail=True))
    assert job["status"] == "failed"
    error = job["execution_error"]
    assert (error["node_id"], error["node_type"], error["exception_type"]) == ("4", "ProbeFail", "ValueError")
    assert error["exception_message"] == "the switch is on\n"
    assert error["current_inputs"]["fail"] == [True]
    assert cloud.http.get("/api/jobs").json()["jobs"][0]["execution_error"] == error
    status = cloud.http.get(f"/api/job/{job['id']}/status").json()
    assert (status["status"], status["error_message"]) == ("error", "the switch is on\n")


def test_cancelled_waiting_job_is_remembered(cloud, gate):
    running = cloud.submit(waiting())
    assert gate.entered.wait(60)
    first, second, third = (cloud.submit(chain(seed=seed)) for seed in range(3))
    answer = cloud.http.post("/api/queue", json={"delete": [first, "nobody"]})
    assert answer.json() == {"deleted": [first]}
    assert cloud.status(first) == "cancelled"
    assert cloud.http.post("/api/queue", json={"clear": True}).json() == {"deleted": [], "cleared": True}
    gate.opened.set()
    assert cloud.wait_for_end(running)["status"] == "completed"
    assert {cloud.wait_for_end(job)["status"] for job in (second, third)} == {"cancelled"}
    assert sum(cloud.server.seen.executions.values()) == 1


def test_deprecated_calls_cancel_running_jobs_too(serve):
    client = serve("cloud", workers=2)
    running = [client.submit(waiting(seed=seed, prefix=f"w{seed}")) for seed in range(2)]
    wait_until(lambda: [client.status(job) for job in running] == ["executing"] * 2)
    waits = [client.submit(waiting(seed=seed, prefix=f"w{seed}")) for seed in (2, 3, 4)]

    def interrupt(body):
        return client.http.post("/api/interrupt", content=body).status_code

    assert interrupt(f'{{"prompt_id": "{waits[2]}"}}') == 200  # the named job and no other
    assert interrupt(b'{"prompt_id": "nobody"}') == 404
    assert client.status(waits[2]) == "cancelled"
    assert interrupt(b"not json") == 200  # the oldest running one
    assert client.wait_for_end(running[0])["status"] == "cancelled"
    wait_until(lambda: client.status(waits[0]) == "executing")
    assert client.http.post("/api/queue", json={"delete": [running[1], waits[1]]}).json() == {
        "deleted": [running[1], waits[1]]
    }
    assert client.wait_for_end(running[1])["status"] == "cancelled"
    assert client.status(waits[0]) == "executing"
    assert client.server.seen.most_running == 2


def test_interrupt_cancels_a_waiting_job_if_none_runs(serve):
    client = serve("cloud", faults=Faults(scenario=Scenario(capacity_seconds=(3600, 3600))))
    job = client.submit(chain())
    wait_until(lambda: client.status(job) == "allocated")
    assert client.http.post("/api/interrupt").status_code == 200
    assert client.wait_for_end(job)["status"] == "cancelled"
    assert client.http.post("/api/interrupt").status_code == 200  # nothing to cancel


def test_deleted_history_is_forgotten(cloud):
    first, second = (cloud.run(chain(seed=seed))["id"] for seed in range(2))
    cloud.http.post("/api/history", json={"delete": [first]})
    assert cloud.http.get(f"/api/jobs/{first}").status_code == 404
    cloud.http.post("/api/history", json={"clear": True})
    assert cloud.http.get(f"/api/jobs/{second}").status_code == 404


def test_each_worker_runs_one_job_with_its_own_cache(serve, gate):
    client = serve("cloud", workers=2)
    jobs = [client.submit(waiting(seed=seed, prefix=f"w{seed}")) for seed in range(3)]
    wait_until(lambda: sorted(client.status(job) for job in jobs) == ["executing", "executing", "queued_limited"])
    gate.opened.set()
    assert {client.wait_for_end(job)["status"] for job in jobs} == {"completed"}
    assert client.server.seen.most_running == 2
    assert client.server.seen.nodes["ProbeLoader"] == 2


def test_models_are_listed_by_folder_and_any_name_is_accepted(cloud):
    assert cloud.http.get("/api/experiment/models").json() == [
        {"name": "upscale_models", "folders": ["upscale_models"]}
    ]
    files = cloud.http.get("/api/experiment/models/upscale_models").json()
    assert [(file["name"], file["pathIndex"]) for file in files] == [(name, 0) for name in ("alpha", "beta", "gamma")]
    assert cloud.http.get("/api/experiment/models/nothing").status_code == 404
    assert cloud.run(chain(model="my own/model.safetensors"))["status"] == "completed"
