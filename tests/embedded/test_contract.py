"""Requests that lead to every documented answer of Comfy Cloud which the embedded server can give.

The client (`clients.Cloud`) checks that each answer conforms to the contract, also in all other tests of the dialect.
"""

from __future__ import annotations

import io
import json
import uuid
from typing import Any

import jsonschema
import pytest
from PIL import Image
from websockets.sync.client import connect

from tests.embedded.clients import Cloud
from tests.embedded.cloud_contract import schema_of, table
from tests.embedded.probes import chain, waiting
from tests.waiting import wait_until

KEY = "s3cret"
NOBODY = str(uuid.uuid4())

# Documented statuses that this server never sends.
NEVER = {
    403: ["GET /api/job/{job_id}/status", "GET /api/jobs/{job_id}"],  # there is only one account
    200: ["GET /api/view"],  # it redirects
    400: ["GET /api/queue"],  # it takes no parameters
    401: ["GET /api/system_stats"],  # it is public
}  # fmt: skip


def png(colour: tuple[int, ...] = (1, 2, 3, 128), size: tuple[int, int] = (4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def account(serve: Any, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setattr("sweeper.embedded.http_helpers.MAX_BODY", 1_000_000)
    client: Cloud = serve("cloud", api_key=KEY)
    return client


def test_every_documented_answer_conforms_to_the_contract(account, gate):
    jobs(account, gate)
    send_refused_jobs(account)
    files(account)
    reference(account)
    send_without_key(account)
    documented = {(name, status) for name, statuses in table()["answers"].items() for status in statuses}
    never = {(name, status) for status, names in NEVER.items() for name in names}
    faults = {(name, 500) for name, _ in documented}  # only a broken server sends this
    assert never <= documented
    assert documented - account.answered - faults == never


def jobs(account: Cloud, gate: Any) -> None:
    http = account.http
    for path in ("/api/jobs", "/api/prompt"):
        assert http.get(path).status_code == 200
    job = account.run(chain(), extra_data={"extra_pnginfo": {"workflow": {"id": NOBODY}}})
    failed = account.run(chain(fail=True))
    running = account.submit(waiting())
    assert gate.entered.wait(60)
    pending = account.submit(chain(seed=9))
    assert http.get("/api/queue").status_code == 200
    for prompt_id in (job["id"], failed["id"], running, pending):
        for path in (f"/api/job/{prompt_id}/status", f"/api/jobs/{prompt_id}"):
            assert http.get(path).status_code == 200
    for path in (f"/api/job/{NOBODY}/status", f"/api/jobs/{NOBODY}"):
        assert http.get(path).status_code == 404
    assert http.get("/api/jobs").json()["pagination"]["total"] == 4
    assert [row["id"] for row in http.get("/api/jobs", params={"workflow_id": NOBODY}).json()["jobs"]] == [job["id"]]
    for query in ("limit=0", "after=x"):
        assert http.get(f"/api/jobs?{query}").status_code == 400
    page = http.get("/api/jobs", params={"limit": 1}).json()["pagination"]
    assert http.get("/api/jobs", params={"limit": 1, "after": page["next_cursor"]}).status_code == 200
    cancel_jobs(account, job["id"])
    assert http.post("/api/queue", json={"delete": [pending]}).json() == {"deleted": [pending]}
    assert http.post("/api/queue", content=b"[]").status_code == 400
    assert http.post("/api/interrupt").status_code == 200
    wait_until(lambda: account.status(running) == "cancelled")
    assert http.post("/api/history", json={"delete": "all"}).status_code == 400
    assert http.post("/api/history", json={"delete": [failed["id"]]}).status_code == 200


def cancel_jobs(account: Cloud, ended: str) -> None:
    http = account.http
    for name, status in ((ended, 200), (NOBODY, 404), ("x", 400)):
        assert http.post(f"/api/jobs/{name}/cancel").status_code == status
        assert http.post("/api/jobs/cancel", json={"job_ids": [name]}).status_code == status


def send_refused_jobs(account: Cloud) -> None:
    faults, http = account.server.faults, account.http
    assert http.post("/api/prompt", json={"prompt": {}}).status_code == 400
    for knob, value, status in (
        ("refusal", "PAYMENT_REQUIRED", 402),
        ("queue_full_times", 1, 429),
        ("error_503_times", 1, 503),
    ):
        setattr(faults, knob, value)
        answer = http.post("/api/prompt", json={"prompt": chain()})
        assert answer.status_code == status
        assert ("retry-after" in answer.headers) == (status != 402)
        faults.reset()
    for kind, status in (("PARTNER_NODE_DISABLED", 403), ("WORKFLOW_TOO_LARGE", 413)):
        faults.refusal, faults.refusal_times = kind, 1
        assert http.post("/api/prompt", json={"prompt": chain()}).status_code == status


def files(account: Cloud) -> None:
    http = account.http
    sent = http.post("/api/upload/image", files={"image": ("a.png", png())}).json()
    assert http.post("/api/upload/image", files={"pic": ("a.png", png())}).status_code == 400
    reference = json.dumps({"filename": sent["name"], "type": "input"})
    mask = http.post(
        "/api/upload/mask", data={"original_ref": reference}, files={"image": ("m.png", png((0, 0, 0, 7)))}
    )
    assert mask.status_code == 200
    assert http.post("/api/upload/mask", files={"image": ("m.png", png())}).status_code == 400
    reference_ = {"filename": sent["name"], "type": "input"}
    assert http.get("/api/view", params=reference_).status_code == 302
    assert http.get("/api/view", params={"filename": "none.png"}).status_code == 404
    assert http.get("/api/view", params={"filename": "../x"}).status_code == 400
    assert http.get("/api/view", params={"filename": "x", "subfolder": "../.."}).status_code == 403


def reference(account: Cloud) -> None:
    http = account.http
    for path in ("object_info", "features", "system_stats", "user", "experiment/models", "assets",
                 "experiment/models/upscale_models"):  # fmt: skip
        assert http.get(f"/api/{path}").status_code == 200
    assert http.get("/api/experiment/models/x").status_code == 404
    assert http.get("/api/assets?limit=0").status_code == 400


def send_without_key(account: Cloud) -> None:
    """Send every operation for which 401 is documented without the key."""
    key = account.http.headers.pop("X-API-Key")
    for name, statuses in table()["answers"].items():
        method, path = name.split(" ")
        if 401 in statuses and (name, 401) not in {(never, 401) for never in NEVER[401]}:
            assert account.http.request(method, path.replace("{", "").replace("}", "")).status_code == 401
    account.http.headers["X-API-Key"] = key


def test_node_classes_of_the_real_server_conform_to_the_contract(serve):
    answer = serve("cloud", nodes=None).http.get("/api/object_info")
    assert len(answer.json()) > 200


def test_events_conform_to_the_contract(account):
    kinds = {
        schema["type"]["one of"][0]: jsonschema.Draft202012Validator(schema_of(name))
        for name, schema in table()["types"].items()
        if name.startswith("WebSocket") and isinstance(schema, dict) and "data" in schema and name != "WebSocketMessage"
    }
    url = account.server.url.replace("http", "ws") + f"/ws?clientId=me&token={KEY}"
    answered_ = set()
    with connect(url, max_size=None) as socket:
        for graph in (chain(), chain(), chain(fail=True)):
            prompt_id = account.submit(graph, client_id="me")
            while True:
                message = json.loads(socket.recv(timeout=60))
                if message["type"] == "notification":  # the service sends it, but does not document it
                    continue
                kinds[message["type"]].validate(message)
                answered_.add(message["type"])
                if message["type"] == "executing" and message["data"] == {"node": None, "prompt_id": prompt_id}:
                    break
    assert set(kinds) - answered_ == {"execution_interrupted"}
