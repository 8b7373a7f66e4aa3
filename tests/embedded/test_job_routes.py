"""`/api/jobs` in both dialects: listing, details, output files, cancelling; and the calls that it replaces."""

from __future__ import annotations

import uuid

import httpx
import pytest

from sweeper.embedded import Faults, Scenario
from sweeper.embedded.faults import REFUSALS
from tests.embedded.probes import chain, waiting
from tests.waiting import wait_until

NOBODY = str(uuid.uuid4())


def list_ids(client, **query):
    return [row["id"] for row in client.http.get("/api/jobs", params=query).json()["jobs"]]


def walk(client, **query):
    """Follow the cursors. Returns the ids of every page."""
    pages, after = [], {}
    while True:
        answer = client.http.get("/api/jobs", params=query | after).json()
        pages.append([row["id"] for row in answer["jobs"]])
        if "next_cursor" not in answer["pagination"]:
            assert not answer["pagination"]["has_more"]
            return pages
        after = {"after": answer["pagination"]["next_cursor"]}


def test_cursors_lead_through_all_jobs_although_new_ones_arrive(cloud):
    jobs = [cloud.run(chain(seed=seed))["id"] for seed in range(5)]
    assert walk(cloud, limit=2) == [[jobs[4], jobs[3]], [jobs[2], jobs[1]], [jobs[0]]]
    first = cloud.http.get("/api/jobs", params={"limit": 2}).json()["pagination"]
    assert (first["total"], first["has_more"]) == (5, True)
    new = cloud.run(chain(seed=9))["id"]
    page = cloud.http.get("/api/jobs", params={"limit": 9, "after": first["next_cursor"]}).json()
    assert [row["id"] for row in page["jobs"]] == [jobs[2], jobs[1], jobs[0]]
    assert page["pagination"] == {"offset": 0, "limit": 9, "total": 0, "has_more": False}
    assert list_ids(cloud, limit=1) == [new]
    for after in ("nonsense", "e30", "eyJ2IjoieCJ9", "é"):
        assert cloud.http.get("/api/jobs", params={"after": after}).status_code == 400, after


def test_waiting_job_says_why_it_waits(cloud, gate):
    running = cloud.submit(waiting())
    assert gate.entered.wait(60)
    jobs = [cloud.submit(chain(seed=seed)) for seed in range(2)]
    details = [cloud.http.get(f"/api/jobs/{job}").json() for job in (running, *jobs)]
    told = [(detail["status"], detail["queue_reason"], detail["queue_position"]) for detail in details]
    assert told == [("in_progress", None, None), *(("pending", "concurrency_limit", place) for place in (1, 2))]
    gate.opened.set()
    ended = cloud.wait_for_end(jobs[1])
    assert (ended["queue_reason"], ended["queue_position"]) == (None, None)


def test_preview_of_a_job_names_its_node_and_output(cloud):
    job = cloud.run(chain())
    assert job["preview_output"] | {"nodeId": "9", "mediaType": "images"} == job["preview_output"]
    assert (job["outputs_count"], job["previewable_outputs_count"]) == (1, 1)


def test_cloud_cancels_waiting_and_running_jobs(cloud, gate):
    running = cloud.submit(waiting())
    assert gate.entered.wait(60)
    first, second, third = (cloud.submit(chain(seed=seed)) for seed in range(3))

    def cancel(*ids):
        return cloud.http.post("/api/jobs/cancel", json={"job_ids": list(ids)})

    assert cancel(first, NOBODY, running).status_code == 404
    assert {cloud.status(job) for job in (first, second, third)} == {"queued_limited"}  # none was cancelled
    assert cloud.status(running) == "executing"
    assert cancel(first).json() == {"cancelled": [first]}
    assert cloud.http.post(f"/api/jobs/{second}/cancel").json() == {"cancelled": True}
    assert cancel(first, second, running).json() == {"cancelled": [running]}
    assert {cloud.wait_for_end(job)["status"] for job in (running, first, second)} == {"cancelled"}
    assert cloud.wait_for_end(third)["status"] == "completed"
    for job in (first, running, third):
        assert cloud.http.post(f"/api/jobs/{job}/cancel").json() == {"cancelled": False}
    assert cloud.http.post(f"/api/jobs/{NOBODY}/cancel").status_code == 404
    assert cloud.http.post("/api/jobs/nobody/cancel").status_code == 400
    for body in ({}, {"job_ids": []}, {"job_ids": ["x"]}, {"job_ids": [first] * 101}, {"job_ids": [first], "all": 1}):
        assert cloud.http.post("/api/jobs/cancel", json=body).status_code == 400, body
    assert cloud.server.seen.cancelled == [first, second]
    assert cloud.server.seen.interrupts == [running]


def test_features_show_what_the_account_may_do_with_a_key_only(serve):
    client = serve("cloud", api_key="s3cret", workers=3)
    features = client.http.get("/api/features").json()
    assert (features["max_concurrent_jobs"], features["can_run_partner_nodes"]) == (3, True)
    assert "max_concurrent_jobs" not in httpx.get(f"{client.server.url}/api/features").json()
    bearer = {"Authorization": "Bearer s3cret"}
    assert httpx.get(f"{client.server.url}/api/features", headers=bearer).json() == features
    assert httpx.get(f"{client.server.url}/api/jobs", headers=bearer).status_code == 200
    free = serve("cloud", faults=Faults(scenario=Scenario(tier="free", credits=2)))
    features = free.http.get("/api/features").json()
    assert (features["max_concurrent_jobs"], features["can_run_partner_nodes"]) == (1, False)


@pytest.mark.parametrize("kind", REFUSALS)
def test_submission_can_be_refused_with_every_error_type(cloud, kind):
    faults = cloud.server.faults
    faults.refusal, faults.refusal_times, faults.retry_after = kind, 1, 7
    answer = cloud.http.post("/api/prompt", json={"prompt": chain()})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (REFUSALS[kind][0], kind)
    assert answer.headers.get("retry-after") == ("7" if kind in {"QUEUE_LIMIT", "BILLING_UNAVAILABLE"} else None)
    assert ("ProbeSave" in error.get("class_types", [])) == (kind == "PARTNER_NODE_DISABLED")
    assert cloud.run(chain())["status"] == "completed"


def test_keys_for_partner_nodes_are_never_shown(cloud, comfy):
    extra = {"api_key_comfy_org": "s3cret", "mine": 1}
    assert cloud.run(chain(), extra_data=extra)["workflow"]["extra_data"] == extra | {"api_key_comfy_org": "[REDACTED]"}
    prompt_id = comfy.submit(chain(), extra_data=extra)
    created = comfy.http.get(f"/api/jobs/{prompt_id}").json()["create_time"]
    shown = comfy.wait_for_end(prompt_id)["prompt"][3]
    assert shown == {"mine": 1, "create_time": created}


def test_local_server_lists_waiting_running_and_ended_jobs(comfy, gate):
    good, bad = (comfy.submit(chain(seed=seed, fail=seed == 1)) for seed in range(2))
    comfy.wait_for_end(bad)
    running = comfy.submit(waiting(), extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}})
    assert gate.entered.wait(60)
    pending = comfy.submit(chain(seed=5))
    answer = comfy.http.get("/api/jobs").json()
    assert answer["pagination"] == {"offset": 0, "limit": None, "total": 4, "has_more": False}
    rows = {row["id"]: row for row in answer["jobs"]}
    words = {pending: "pending", running: "in_progress", bad: "failed", good: "completed"}
    assert {name: row["status"] for name, row in rows.items()} == words
    assert set(rows[pending]) == {"id", "status", "priority", "create_time", "outputs_count",
                                  "previewable_outputs_count"}  # fmt: skip
    assert rows[running]["workflow_id"] == "w"
    assert rows[bad]["execution_error"]["exception_type"] == "ValueError"
    assert rows[good]["preview_output"] | {"nodeId": "9", "mediaType": "images"} == rows[good]["preview_output"]
    assert list_ids(comfy, status="pending, FAILED") == [pending, bad]
    assert list_ids(comfy, workflow_id="w") == [running]
    assert list_ids(comfy, limit=1, offset=3) == [good]
    assert len(list_ids(comfy, offset=-1)) == 4
    for query in ("limit=0", "limit=x", "offset=x", "status=done"):
        assert set(comfy.http.get(f"/api/jobs?{query}").json()) == {"error"}, query
    gate.opened.set()


def test_local_details_hold_the_workflow_of_an_ended_job_only(comfy, gate):
    running = comfy.submit(waiting())
    assert gate.entered.wait(60)
    assert not {"outputs", "workflow", "execution_status"} & set(comfy.http.get(f"/api/jobs/{running}").json())
    gate.opened.set()
    entry = comfy.wait_for_end(running)
    detail = comfy.http.get(f"/api/jobs/{running}").json()
    assert (detail["outputs"], detail["execution_status"]) == (entry["outputs"], entry["status"])
    assert (detail["workflow"]["prompt"], detail["workflow"]["extra_data"]) == (entry["prompt"][2], entry["prompt"][3])
    unknown = comfy.http.get(f"/api/jobs/{NOBODY}")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "Job not found"})
    assert comfy.http.get("/jobs").status_code == 404  # below /api only


def test_local_server_ignores_unknown_jobs_when_it_cancels(comfy, gate):
    running = comfy.submit(waiting())
    assert gate.entered.wait(60)
    first, second = (comfy.submit(chain(seed=seed)) for seed in range(2))

    def cancel(body):
        answer = comfy.http.post("/api/jobs/cancel", json=body)
        return answer.status_code, answer.json()

    assert cancel({"job_ids": [NOBODY, first]}) == (200, {"cancelled": True})
    assert comfy.http.get(f"/api/jobs/{first}").status_code == 404  # it is forgotten
    assert cancel({"job_ids": [NOBODY]}) == (200, {"cancelled": False})
    assert comfy.http.post(f"/api/jobs/{running}/cancel").json() == {"cancelled": True}
    wait_until(lambda: comfy.http.get(f"/api/jobs/{running}").json()["status"] == "cancelled")
    assert comfy.wait_for_end(second)["status"]["completed"]
    for name in (running, second, "nobody"):
        assert comfy.http.post(f"/api/jobs/{name}/cancel").json() == {"cancelled": False}
    status, body = cancel({"job_ids": ["x", 3]})
    assert (status, body["invalid_ids"]) == (400, ["x", "3"])
    for wrong in ({}, [], {"job_ids": None}):
        assert cancel(wrong) == (400, {"error": "job_ids must be a list"})
    assert comfy.http.post("/api/jobs/cancel", content=b"").status_code == 400
