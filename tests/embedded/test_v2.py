"""Comfy API v2, beside the Cloud dialect's API and alone as a deployment serves it: jobs, assets, labels, events."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from blake3 import blake3
from PIL import Image

from tests.embedded.clients import Cloud
from tests.embedded.probes import chain, waiting
from tests.waiting import wait_until

KEY = "s3cret"


def start(serve: Any, dialect: str, **options: Any) -> Cloud:
    client: Cloud = serve(dialect, api_key=KEY, **options)
    client.http.headers["Authorization"] = f"Bearer {KEY}"
    return client


@pytest.fixture
def cloud(serve: Any) -> Cloud:
    return start(serve, "cloud")


@pytest.fixture
def deployment(serve: Any) -> Cloud:
    return start(serve, "v2")


def submit(cloud: Cloud, workflow: Any, metadata: Any = None, **headers: str) -> httpx.Response:
    body = {"workflow": workflow} | ({} if metadata is None else {"metadata": metadata})
    return cloud.http.post("/api/v2/jobs", json=body, headers=headers)


def read_events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-Sent Events, until the server ends the stream."""
    event = ""
    for line in lines:
        name, _, value = line.partition(": ")
        event = value if name == "event" else event
        if name == "data":
            yield event, json.loads(value)


def wait_for_end(cloud: Cloud, job: dict[str, Any]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = cloud.http.get(job["urls"]["self"]).json()
        return found if found["completed_at"] is not None else None

    return wait_until(look)


def code(answer: httpx.Response) -> tuple[int, str]:
    assert set(answer.json()) == {"error"}
    return answer.status_code, answer.json()["error"]["code"]


def test_job_runs_and_its_output_is_an_asset(cloud):
    answer = submit(cloud, chain(text="a lighthouse"))
    assert answer.status_code == 201
    job = answer.json()
    assert job["status"] in {"queued", "running", "succeeded"}
    done = wait_for_end(cloud, job)
    assert (done["status"], done["error"], done["queue_position"]) == ("succeeded", None, None)
    (output,) = done["outputs"]
    assert (output["node_id"], output["name"], output["type"], output["job_id"]) == (
        "9", "probe_00001_.txt", "text", job["id"]
    )  # fmt: skip
    data = httpx.get(output["url"]).content
    assert (output["hash"], output["size_bytes"]) == (f"blake3:{blake3(data).hexdigest()}", len(data))
    content = cloud.http.get(f"/api/v2/assets/{output['id']}/content")
    assert (content.status_code, httpx.get(content.headers["location"]).content) == (302, data)
    assert cloud.http.get(f"{job['urls']['self']}/workflow").json() == {
        "workflow": chain(text="a lighthouse"),
        "format": "api",
    }
    assert cloud.http.get(f"/api/jobs/{job['id']}").json()["status"] == "completed"  # the same job
    assert code(cloud.http.get("/api/v2/jobs")) == (501, "not_implemented")
    assert code(submit(cloud, chain(), {"a": "b"})) == (422, "metadata_not_supported")


def test_failed_job_reports_its_node(cloud):
    job = wait_for_end(cloud, submit(cloud, chain(fail=True)).json())
    assert job["status"] == "failed"
    error = job["error"]
    assert (error["code"], error["node_id"], error["class_type"], error["message"]) == (
        "node_execution_error", "4", "ProbeFail", "the switch is on"
    )  # fmt: skip


def test_waiting_and_running_jobs_are_cancelled_one_by_one(cloud, gate):
    running = submit(cloud, waiting()).json()
    assert gate.entered.wait(60)
    first, second = (submit(cloud, chain(seed=seed)).json() for seed in range(2))
    assert [job["queue_position"] for job in (first, second)] == [0, 1]
    assert cloud.http.post(first["urls"]["cancel"]).json()["status"] == "canceled"
    assert cloud.http.post(running["urls"]["cancel"]).json()["status"] in {"canceling", "canceled"}
    assert wait_for_end(cloud, running)["status"] == "canceled"
    done = wait_for_end(cloud, second)
    assert done["status"] == "succeeded"
    assert cloud.http.post(second["urls"]["cancel"]).json()["status"] == "succeeded"  # it has no effect


def test_used_idempotency_key_is_refused(serve, tmp_path):
    mine, lost = {"Idempotency-Key": "mine"}, {"Idempotency-Key": "lost"}
    deployment = start(serve, "v2", data=tmp_path)
    faults = deployment.server.faults
    assert code(submit(deployment, {}, **mine)) == (422, "invalid_workflow")
    faults.queue_full_times, faults.drop_before_accept = 1, 1
    assert code(submit(deployment, chain(), **mine)) == (429, "queue_full")
    with pytest.raises(httpx.RemoteProtocolError):  # the request never reaches the server
        submit(deployment, chain(), **mine)
    assert submit(deployment, chain(), **mine).status_code == 201  # each refusal freed the key
    faults.drop_after_accept = 1
    with pytest.raises(httpx.RemoteProtocolError):
        submit(deployment, chain(), **lost)
    deployment.server.stop()
    deployment.server.start()
    for used in (mine, lost):  # also after a restart
        assert code(submit(deployment, chain(), **used)) == (422, "idempotency_key_reuse")
    assert code(submit(deployment, chain(), **{"Idempotency-Key": 256 * "k"})) == (422, "invalid_request")
    assert deployment.server.seen.accepted == 0


def test_jobs_are_listed_by_labels_and_pages(deployment):
    jobs = [submit(deployment, chain(seed=seed), {"run": "a", "seed": str(seed)}).json() for seed in range(3)]
    jobs.append(submit(deployment, chain(seed=9)).json())
    wait_for_end(deployment, jobs[-1])

    def list_jobs(**query: Any) -> Any:
        return deployment.http.get("/api/v2/jobs", params=query).json()

    first = list_jobs(limit=3)
    assert [row["id"] for row in first["jobs"]] == [job["id"] for job in jobs[:0:-1]]
    assert {"id", "status", "create_time", "update_time", "deployment_id", "metadata"} == set(first["jobs"][0])
    rest = list_jobs(limit=3, cursor=first["next_cursor"])
    assert [row["id"] for row in rest["jobs"]] == [jobs[0]["id"]]
    assert "next_cursor" not in rest
    (row,) = list_jobs(**{"metadata[run]": "a", "metadata[seed]": "1"})["jobs"]
    assert (row["id"], row["metadata"]) == (jobs[1]["id"], {"run": "a", "seed": "1"})
    assert deployment.http.get(jobs[1]["urls"]["self"]).json()["metadata"] == {"run": "a", "seed": "1"}
    get = deployment.http.get
    assert code(get("/api/v2/jobs", params={"cursor": "none"})) == (422, "invalid_cursor")
    for labels in ("text", {"a": 1}):
        assert code(submit(deployment, chain(), labels)) == (422, "metadata_invalid")


@pytest.mark.parametrize("dialect", ["cloud", "v2"])
def test_events_tell_the_progress_of_a_job_and_its_end(serve, gate, dialect):
    cloud = start(serve, dialect)
    job = submit(cloud, waiting()).json()
    assert gate.entered.wait(60)
    with cloud.http.stream("GET", job["urls"]["events"]) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        events = read_events(answer.iter_lines())
        assert next(events) == ("status", {"status": "running", "queue_position": None})
        gate.opened.set()
        received = list(events)
    kinds = [kind for kind, _ in received]
    assert kinds[-2:] == ["status", "output"]
    assert received[-2][1]["status"] == "succeeded"
    assert received[-1][1] == cloud.http.get(job["urls"]["self"]).json()["outputs"][0] | {
        "url": received[-1][1]["url"], "url_expires_at": received[-1][1]["url_expires_at"]
    }  # fmt: skip
    progress = [data for kind, data in received if kind == "progress"]
    assert progress
    assert all(0 <= data["value"] <= 1 and data["nodes_total"] == len(waiting()) for data in progress)
    with cloud.http.stream("GET", job["urls"]["events"]) as answer:  # of a job that has ended
        assert [kind for kind, _ in read_events(answer.iter_lines())] == ["status", "output"]


def test_events_carry_previews(deployment, gate):
    submit(deployment, waiting())
    assert gate.entered.wait(60)
    graph = {"1": {"class_type": "ProbePicture", "inputs": {}}, "9": chain()["9"]}
    graph["9"]["inputs"]["images"] = ["1", 0]
    job = submit(deployment, graph).json()
    with deployment.http.stream("GET", job["urls"]["events"]) as answer:
        events = read_events(answer.iter_lines())
        assert next(events) == ("status", {"status": "queued", "queue_position": 0})
        gate.opened.set()
        (preview,) = [data for kind, data in events if kind == "preview"]
    assert (preview["node_id"], preview["content_type"]) == ("1", "image/jpeg")
    assert Image.open(io.BytesIO(base64.b64decode(preview["data_base64"]))).size == (512, 512)


def test_number_of_event_streams_is_limited(deployment, gate, monkeypatch):
    monkeypatch.setattr("sweeper.serving.hosting.GRACE_SECONDS", 60)
    job = submit(deployment, waiting()).json()
    assert gate.entered.wait(60)
    with ExitStack() as stack:
        answers = [stack.enter_context(deployment.http.stream("GET", job["urls"]["events"])) for _ in range(8)]
        streams = [answer.iter_lines() for answer in answers]
        assert {next(lines) for lines in streams} == {"event: status"}
        refused = deployment.http.get(job["urls"]["events"])
        assert (code(refused), refused.headers["retry-after"]) == ((429, "too_many_streams"), "5")
        began = time.monotonic()
        deployment.server.stop()  # open streams do not delay it
        assert time.monotonic() - began < 20


def test_workflows_may_refer_to_assets_by_id(cloud):
    form = {"content_type": "text/plain", "file_path": "note.txt", "tags": ["a", "b"]}
    sent = cloud.http.post("/api/v2/assets", data=form, files={"file": ("note.txt", b"a note")})
    assert sent.status_code == 201
    asset = sent.json()
    assert (asset["hash"], asset["created_new"]) == (f"blake3:{blake3(b'a note').hexdigest()}", True)
    again = cloud.http.post("/api/v2/assets", data=form, files={"file": ("other.txt", b"a note")})
    assert (again.status_code, again.json()["id"]) == (200, asset["id"])
    reference = {"__type": "core/ASSET", "info": {"id": asset["id"]}}
    graph = {"1": {"class_type": "ProbeFile", "inputs": {"file": reference}}, "9": chain()["9"]}
    graph["9"]["inputs"]["images"] = ["1", 0]
    done = wait_for_end(cloud, submit(cloud, graph).json())
    assert httpx.get(done["outputs"][0]["url"]).content == b"a note"
    for broken in ({"__type": "core/ASSET"}, {"__type": "core/ASSET", "info": {"id": "nobody"}}):
        graph["1"]["inputs"]["file"] = broken
        assert code(submit(cloud, graph)) == (422, "missing_asset")
    assert cloud.http.post("/api/v2/assets/from-hash", json={"hash": asset["hash"]}).json()["id"] == asset["id"]
    assert cloud.http.head(f"/api/v2/assets/by-hash/{asset['hash']}").status_code == 200
    assert cloud.http.get(f"/api/v2/assets/{asset['id']}").json()["size_bytes"] == 6
    other = cloud.http.post("/api/v2/assets", data=form, files={"file": ("other.txt", b"another")}).json()
    assert cloud.http.delete(f"/api/v2/assets/{other['id']}").status_code == 204
    assert cloud.http.head(f"/api/v2/assets/by-hash/{other['hash']}").status_code == 404
    assert code(cloud.http.get(f"/api/v2/assets/{other['id']}")) == (404, "not_found")
    wrong = {**form, "expected_hash": f"blake3:{64 * '0'}"}
    answer = cloud.http.post("/api/v2/assets", data=wrong, files={"file": ("x", b"x")})
    assert code(answer) == (409, "hash_mismatch")
    unknown = cloud.http.post("/api/v2/assets/from-hash", json={"hash": f"blake3:{64 * '0'}"})
    assert code(unknown) == (404, "blob_not_found")


def test_invalid_requests_are_refused(cloud):
    post = cloud.http.post
    assert code(submit(cloud, {"nodes": [], "links": []})) == (422, "workflow_format_ui")
    assert code(submit(cloud, [])) == (422, "invalid_workflow")
    assert code(post("/api/v2/jobs", json={"workflow": chain(), "webhook_url": "x"})) == (422, "invalid_workflow")
    assert code(post("/api/v2/jobs", content=b"nope")) == (422, "invalid_request")
    answer = submit(cloud, chain(steps=0))
    assert code(answer) == (422, "invalid_workflow")
    (wrong,) = answer.json()["error"]["details"]["node_errors"]["3"]["errors"]
    assert (wrong["message"], wrong["details"]) == ("Value 0 smaller than min of 1", "steps")
    assert code(cloud.http.get("/api/v2/jobs/none")) == (404, "not_found")
    extra = {"workflow": chain(), "extra_data": {"api_key_comfy_org": "k", "client_id": "x"}}
    assert code(post("/api/v2/jobs", json=extra)) == (422, "invalid_request")
    large = {"workflow": {"1": {"class_type": "x", "inputs": {"text": 10 * 2**20 * "x"}}}}
    assert code(post("/api/v2/jobs", json=large)) == (413, "payload_too_large")
    faults = cloud.server.faults
    faults.refusal = "PAYMENT_REQUIRED"
    assert code(submit(cloud, chain())) == (402, "insufficient_credits")
    faults.reset()
    faults.queue_full_times = 1
    full = submit(cloud, chain())
    assert (code(full), full.headers["retry-after"]) == ((429, "queue_full"), "1")
    faults.error_503_times = 1
    assert code(cloud.http.get("/api/v2/jobs/none")) == (503, "upstream_error")
    for key in ("", "Bearer wrong"):
        answer = cloud.http.get("/api/v2/jobs/none", headers={"Authorization": key})
        assert code(answer) == (401, "unauthorized")
    assert cloud.server.seen.accepted == 0
