"""Comfy API v2 of the cloud dialect: jobs and assets by its published specification."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from blake3 import blake3

from tests.embedded.clients import Cloud
from tests.embedded.probes import chain, waiting
from tests.waiting import wait_until

KEY = "s3cret"


@pytest.fixture
def cloud(serve: Any) -> Cloud:
    client: Cloud = serve("cloud", api_key=KEY)
    client.http.headers["Authorization"] = f"Bearer {KEY}"
    return client


def submit(cloud: Cloud, workflow: Any, **headers: str) -> httpx.Response:
    return cloud.http.post("/api/v2/jobs", json={"workflow": workflow}, headers=headers)


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
    assert code(cloud.http.get(job["urls"]["events"])) == (501, "not_implemented")


def test_failed_job_reports_its_node(cloud):
    job = wait_for_end(cloud, submit(cloud, chain(fail=True)).json())
    assert job["status"] == "failed"
    error = job["error"]
    assert (error["code"], error["node_id"], error["class_type"], error["message"]) == (
        "node_execution_error", "4", "ProbeFail", "the switch is on"
    )  # fmt: skip


def test_waiting_and_running_jobs_are_cancelled_one_by_one(cloud, gate):
    running = submit(cloud, waiting()).json()
    assert gate.entered.wait(10)
    first, second = (submit(cloud, chain(seed=seed)).json() for seed in range(2))
    assert [job["queue_position"] for job in (first, second)] == [0, 1]
    assert cloud.http.post(first["urls"]["cancel"]).json()["status"] == "canceled"
    assert cloud.http.post(running["urls"]["cancel"]).json()["status"] in {"canceling", "canceled"}
    assert wait_for_end(cloud, running)["status"] == "canceled"
    done = wait_for_end(cloud, second)
    assert done["status"] == "succeeded"
    assert cloud.http.post(second["urls"]["cancel"]).json()["status"] == "succeeded"  # it has no effect


def test_used_idempotency_key_is_refused(cloud):
    mine = {"Idempotency-Key": "mine"}
    assert code(submit(cloud, {}, **mine)) == (422, "invalid_workflow")
    assert submit(cloud, chain(), **mine).status_code == 201
    assert code(submit(cloud, chain(), **mine)) == (422, "idempotency_key_reuse")
    assert cloud.server.seen.accepted == 1


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
    assert code(answer) == (422, "hash_mismatch")


def test_invalid_requests_are_refused(cloud):
    post = cloud.http.post
    assert code(submit(cloud, {"nodes": [], "links": []})) == (422, "workflow_format_ui")
    assert code(submit(cloud, [])) == (422, "invalid_workflow")
    assert code(post("/api/v2/jobs", json={"workflow": chain(), "webhook_url": "x"})) == (422, "invalid_workflow")
    assert code(post("/api/v2/jobs", content=b"nope")) == (422, "invalid_request")
    answer = submit(cloud, chain(steps=0))
    assert code(answer) == (422, "invalid_workflow")
    assert "node 3: Value 0 smaller than min of 1: steps" in answer.json()["error"]["message"]
    assert code(cloud.http.get("/api/v2/jobs/none")) == (404, "not_found")
    faults = cloud.server.faults
    faults.no_credits = True
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
