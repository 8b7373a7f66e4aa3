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
from blake3 import blake3
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
    200: ["GET /api/global_subgraphs/{id}", "GET /api/assets/{id}/content"],  # none; it redirects
    409: ["DELETE /api/assets/{id}"],  # nothing else uses assets
    422: ["POST /api/assets", "POST /api/assets/from-hash", "POST /api/assets/{id}/tags",
          "DELETE /api/assets/{id}/tags"],  # any tag is allowed
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
    assets(account)
    userdata(account)
    reference(account)
    send_without_key(account)
    documented = {(name, status) for name, statuses in table()["answers"].items() for status in statuses}
    never = {(name, status) for status, names in NEVER.items() for name in names}
    faults = {(name, 500) for name, _ in documented}  # only a broken server sends this
    assert never <= documented
    assert documented - account.answered - faults == never


def jobs(account: Cloud, gate: Any) -> None:
    http = account.http
    for path in ("/api/jobs", "/api/history_v2", "/api/prompt"):
        assert http.get(path).status_code == 200
    job = account.run(chain(), extra_data={"extra_pnginfo": {"workflow": {"id": NOBODY}}})
    failed = account.run(chain(fail=True))
    running = account.submit(waiting())
    assert gate.entered.wait(10)
    pending = account.submit(chain(seed=9))
    assert http.get("/api/queue").status_code == 200
    for prompt_id in (job["id"], failed["id"], running, pending):
        for path in (f"/api/job/{prompt_id}/status", f"/api/jobs/{prompt_id}", f"/api/history_v2/{prompt_id}"):
            assert http.get(path).status_code == 200
    for path in (f"/api/job/{NOBODY}/status", f"/api/jobs/{NOBODY}", f"/api/history_v2/{NOBODY}"):
        assert http.get(path).status_code == 404
    assert http.get("/api/jobs").json()["pagination"]["total"] == 4
    assert [row["id"] for row in http.get("/api/jobs", params={"workflow_id": NOBODY}).json()["jobs"]] == [job["id"]]
    assert http.get("/api/jobs", params={"output_type": "image"}).json()["jobs"] == []  # probe nodes write text
    for query in ("sort_by=colour", "sort_order=up", "output_type=text", "limit=0", "after=x"):
        assert http.get(f"/api/jobs?{query}").status_code == 400
    page = http.get("/api/jobs", params={"limit": 1}).json()["pagination"]
    assert http.get("/api/jobs", params={"limit": 1, "after": page["next_cursor"]}).status_code == 200
    for path, status in ((f"{job['id']}/assets", 200), (f"{NOBODY}/assets", 404), (f"{job['id']}/assets?limit=0", 400)):
        assert http.get(f"/api/jobs/{path}").status_code == status
    cancel_jobs(account, job["id"])
    assert http.post("/api/queue", json={"delete": [pending]}).json() == {"deleted": [pending]}
    assert http.post("/api/queue", content=b"[]").status_code == 400
    assert http.post("/api/interrupt").status_code == 200
    wait_until(lambda: account.status(running) == "cancelled")
    assert http.get("/api/history_v2").json()["history"]
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
    for knob, value, status in (("no_credits", True, 402), ("queue_full_times", 1, 429), ("error_503_times", 1, 503)):
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
    assert http.post("/api/upload/image", files={"image": ("a.png", b"no picture")}).status_code == 400
    reference = json.dumps({"filename": sent["name"], "type": "input"})
    mask = http.post(
        "/api/upload/mask", data={"original_ref": reference}, files={"image": ("m.png", png((0, 0, 0, 7)))}
    )
    assert http.post("/api/upload/mask", files={"image": ("m.png", png())}).status_code == 400
    layers = http.get("/api/files/mask-layers", params={"filename": mask.json()["name"]}).json()
    assert layers["painted_masked"] == mask.json()["name"]
    assert http.get("/api/files/mask-layers", params={"filename": layers["mask"]}).json() == layers
    assert http.get("/api/files/mask-layers", params={"filename": sent["name"]}).status_code == 404
    reference_ = {"filename": sent["name"], "type": "input"}
    assert http.get("/api/view", params=reference_).status_code == 302
    for channel, mode, pixel in (("rgb", "RGB", (1, 2, 3)), ("a", "L", 128), ("alpha", "L", 128)):
        answer = http.get("/api/view", params={**reference_, "channel": channel})
        picture = Image.open(io.BytesIO(answer.content))
        assert (answer.status_code, picture.mode, picture.getpixel((0, 0))) == (200, mode, pixel)
    assert http.get("/api/view", params={"filename": "none.png"}).status_code == 404
    assert http.get("/api/view", params={"filename": "../x"}).status_code == 400
    assert http.get("/api/view", params={"filename": "x", "subfolder": "../.."}).status_code == 403


def assets(account: Cloud) -> None:
    http = account.http
    form: dict[str, Any] = {"tags": ["input", "foxes"], "user_metadata": '{"rating": 5}', "name": "fox.png"}
    created = http.post("/api/assets", data=form, files={"file": ("x.png", png((9, 9, 9, 9)), "image/png")})
    assert created.status_code == 201
    fox = created.json()
    assert (fox["tags"], fox["user_metadata"], fox["created_new"]) == (["input", "foxes"], {"rating": 5}, True)
    assert fox["hash"] == f"blake3:{blake3(png((9, 9, 9, 9))).hexdigest()}"
    again = http.post("/api/assets", files={"file": ("y.png", png((9, 9, 9, 9)))})
    assert (again.status_code, again.json()["id"], again.json()["created_new"]) == (200, fox["id"], False)
    send_refused_uploads(account)
    record = http.get(f"/api/assets/{fox['id']}").json()
    fields = set(fox) - {"created_new", "preview_url"}  # the URL is signed anew each time
    assert {name: record[name] for name in fields} == {name: fox[name] for name in fields}
    copy = {"hash": fox["hash"], "tags": ["copy"], "name": "same fox.png"}
    assert [http.post("/api/assets/from-hash", json=copy).status_code for _ in range(2)] == [201, 200]
    assert http.post("/api/assets/from-hash", json={**copy, "hash": f"sha256:{64 * '0'}"}).status_code == 404
    assert http.post("/api/assets/from-hash", json={**copy, "tags": []}).status_code == 400
    assert http.head(f"/api/assets/hash/{fox['hash']}").status_code == 200
    assert http.head(f"/api/assets/hash/blake3:{64 * '0'}").status_code == 404
    assert http.head("/api/assets/hash/nonsense").status_code == 400
    list_and_change_assets(account, fox)


def send_refused_uploads(account: Cloud) -> None:
    http = account.http
    assert http.post("/api/assets", json={"url": "http://127.0.0.1:9/x.png", "name": "x.png"}).status_code == 415
    assert http.post("/api/assets", files={"file": ("big", bytes(1_100_000))}).status_code == 413
    for field in ({"id": "7"}, {"user_metadata": "[]"}, {"user_metadata": '{"a": NaN}'}):
        assert http.post("/api/assets", data=field, files={"file": ("x", b"x")}).status_code == 400


def list_and_change_assets(account: Cloud, fox: dict[str, Any]) -> None:
    http, path = account.http, f"/api/assets/{fox['id']}"

    def names(**query: Any) -> list[str]:
        return [asset["name"] for asset in http.get("/api/assets", params=query).json()["assets"]]

    assert set(names(include_tags="output,text")) == {"probe_00001_.txt"}  # the output of the job
    assert names(include_tags="input,foxes") == ["fox.png"]
    assert names(name_contains="FOX", sort="name", order="asc") == ["fox.png", "same fox.png"]
    assert names(name_contains="FOX", exclude_tags="copy") == ["fox.png"]
    assert names(metadata_filter='{"rating": 5}') == ["fox.png"]
    assert names(hash=fox["hash"], sort="name") == ["same fox.png", "fox.png"]
    assert names(tags_any="copy,foxes", tags_none="copy", tags_all="input") == ["fox.png"]
    list_by_cursor(account)
    wrong = ("limit=501", "sort=colour", "metadata_filter=5", "include_public=maybe", "after=x",
             "include_tags=a&tags_all=b", "tags_all=a&tags_none=a",
             f"tags_any={','.join(map(str, range(101)))}")  # fmt: skip
    for query in wrong:
        assert http.get(f"/api/assets?{query}").status_code == 400, query
    assert http.get(f"{path}/content").headers["location"].startswith(str(account.server.storage_url))
    assert http.get(f"/api/assets/{NOBODY}/content").status_code == 404
    tags = http.request("POST", f"{path}/tags", json={"tags": ["foxes", "red"]}).json()
    assert tags == {"added": ["red"], "already_present": ["foxes"], "total_tags": ["input", "foxes", "red"]}
    tags = http.request("DELETE", f"{path}/tags", json={"tags": ["foxes", "blue"]}).json()
    assert tags == {"removed": ["foxes"], "not_present": ["blue"], "total_tags": ["input", "red"]}
    assert {"name": "red", "count": 1} in http.get("/api/tags").json()["tags"]
    assert http.get("/api/tags", params={"prefix": "re"}).json()["total"] == 1
    assert http.get("/api/assets/tags/refine", params={"include_tags": "red"}).json()["tag_counts"] == {
        "input": 1,
        "red": 1,
    }
    assert http.put(path, json={"name": "vixen.png", "tags": ["x"]}).json()["tags"] == ["input", "red"]
    assert http.put(path, json={"preview_id": NOBODY}).status_code == 404
    for method in ("GET", "PUT", "DELETE"):
        assert http.request(method, f"/api/assets/{NOBODY}", json={"name": "x"}).status_code == 404
    for method in ("POST", "DELETE"):
        assert http.request(method, f"/api/assets/{NOBODY}/tags", json={"tags": ["x"]}).status_code == 404
        assert http.request(method, f"{path}/tags", json={"tags": []}).status_code == 400
    assert http.put(path, json={}).status_code == 400
    for query in ("/api/tags?limit=0", "/api/assets/tags/refine?limit=x"):
        assert http.get(query).status_code == 400
    assert http.delete(path).status_code == 204
    assert http.head(f"/api/assets/hash/{fox['hash']}").status_code == 200  # the copy still has the content


def list_by_cursor(account: Cloud) -> None:
    """Follow the cursors of the list of assets, in every order that has them."""
    http = account.http
    everything = http.get("/api/assets", params={"limit": 500}).json()
    assert "next_cursor" not in everything
    for sort in ("name", "created_at", "updated_at", "size"):
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 1, "sort": sort}
        while True:
            page = http.get("/api/assets", params=query).json()
            seen += [asset["id"] for asset in page["assets"]]
            if not page["has_more"]:
                break
            query["after"] = page["next_cursor"]
        assert sorted(seen) == sorted(asset["id"] for asset in everything["assets"])
    assert http.get("/api/assets", params={**query, "sort": "name"}).status_code == 400
    assert "next_cursor" not in http.get("/api/assets", params={"limit": 1, "sort": "last_access_time"}).json()


def userdata(account: Cloud) -> None:
    http = account.http
    written = http.post("/api/userdata/workflows%2Ffox.json", content=b"{}").json()
    assert (written["path"], written["size"]) == ("workflows/fox.json", 2)
    assert http.post("/api/userdata/workflows%2Ffox.json?overwrite=false", content=b"[]").status_code == 409
    assert http.get("/api/userdata/workflows%2Ffox.json").content == b"{}"
    assert [file["path"] for file in http.get("/api/userdata?dir=workflows/").json()] == ["fox.json"]
    assert http.get("/api/userdata").status_code == 400
    assert http.get("/api/userdata?dir=nowhere/").status_code == 404
    assert http.get("/api/userdata/none.json").status_code == 404
    assert http.get(f"/api/userdata/{300 * 'a'}").status_code == 400
    assert http.post(f"/api/userdata/{300 * 'a'}", content=b"x").status_code == 400
    assert http.post("/api/userdata/%2e%2e%2fjobs.sqlite", content=b"x").status_code == 403
    assert http.post("/api/userdata/workflows%2Ffox.json/move/cub.json").json()["path"] == "cub.json"
    assert http.post("/api/userdata/cub.json/move/cub.json?overwrite=false").status_code == 409
    assert http.post("/api/userdata/none.json/move/cub.json").status_code == 404
    assert http.post(f"/api/userdata/cub.json/move/{300 * 'a'}").status_code == 400
    assert http.post("/api/userdata/cub.json/move/workflows%2Ffox.json").status_code == 200
    assert http.delete("/api/userdata/workflows%2Ffox.json").status_code == 204
    assert http.delete("/api/userdata/workflows%2Ffox.json").status_code == 404


def reference(account: Cloud) -> None:
    http = account.http
    for path in ("object_info", "features", "system_stats", "user", "workflow_templates", "global_subgraphs",
                 "experiment/models", "experiment/models/upscale_models"):  # fmt: skip
        assert http.get(f"/api/{path}").status_code == 200
    for path in ("global_subgraphs/x", "experiment/models/x"):
        assert http.get(f"/api/{path}").status_code == 404


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
                message = json.loads(socket.recv(timeout=20))
                if message["type"] == "notification":  # the service sends it, but does not document it
                    continue
                kinds[message["type"]].validate(message)
                answered_.add(message["type"])
                if message["type"] == "executing" and message["data"] == {"node": None, "prompt_id": prompt_id}:
                    break
    assert set(kinds) - answered_ == {"execution_interrupted"}
