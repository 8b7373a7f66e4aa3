"""`/api/v2`: the jobs and assets of Comfy API v2, over the same queue and files as `/api`.

It follows the published specification (version 2.0.0), and comfy-api-proxy 0.1.6 and the documentation of comfy-sdk 0.5
where that is silent. The dialect v2 serves it alone, as a deployment (`https://NAME.run.comfy.app`) does: it keeps
labels and lists its jobs. The Cloud dialect serves it beside `/api`, and refuses both, as Comfy Cloud does.

An asset is a file by id and by the BLAKE3 hash of its content. The folders of the server and the outputs of its jobs
are the store. An upload is named by its hash, and the id of an asset is a hash of its place, so that all assets keep
their ids over a restart.
"""

from __future__ import annotations

import asyncio
import base64
import json
import mimetypes
import re
import struct
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid4, uuid5

from blake3 import blake3
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, Router

from sweeper.embedded.app_comfyui import CommonRoutes
from sweeper.embedded.event_streams import PREVIEW_IMAGE_WITH_METADATA, Connection
from sweeper.embedded.folders import hash_file, is_file
from sweeper.embedded.http_helpers import (
    DropError,
    RequestRefusedError,
    RouteRow,
    format_time,
    json_response,
    read_form,
    read_integer,
    read_object,
    refuse,
)
from sweeper.embedded.jobs import CANCEL_REQUESTED, LOST, Location, ServerJob, now_ms
from sweeper.embedded.media_routes import URL_SECONDS, UrlSigner, find_upload, is_upload, store_by_content
from sweeper.embedded.service import Service, make_credits_header

# What the status of `/api/jobs` is called here, unless the state has a name of its own.
_STATUS_BY_WORD = {
    "pending": "queued", "in_progress": "running", "completed": "succeeded", "failed": "failed", "cancelled": "canceled"
}  # fmt: skip
_STATUS_BY_STATE = {CANCEL_REQUESTED: "canceling", LOST: "expired"}
RETENTION_MS: Final = 30 * 86_400_000  # for `expires_at`; nothing is removed here
PAGE_SIZE, MAX_PAGE_SIZE = 50, 100  # jobs of a list
MAX_JOB_BYTES: Final = 10 * 2**20
_MAX_KEY_LENGTH: Final = 255
_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)
MAX_STREAMS: Final = 8
HEARTBEAT_SECONDS: Final = 15.0
_DROP_DELAY: Final = 0.05  # seconds from the greeting to the end of a stream that a fault drops
_FIELDS: Final = frozenset({"workflow", "extra_data", "metadata"})


def make_v2_app(service: Service, sign_url: UrlSigner) -> Router:
    """Make the ASGI app of a deployment; `sign_url` makes the URLs to which contents redirect."""
    routes = V2Routes(service, sign_url, is_deployment=True)
    paths = [Route("/api" + path, endpoint, methods=[method]) for path, endpoint, method in routes.list_routes()]
    return Router(paths, redirect_slashes=False)


class V2Routes(CommonRoutes):
    """Endpoints below /api/v2. `is_deployment`: keep labels and list the jobs."""

    sign_url: UrlSigner

    def __init__(self, service: Service, sign_url: UrlSigner, *, is_deployment: bool = False) -> None:
        super().__init__(service, sign_url)
        self.is_deployment = is_deployment
        self._open_streams = 0
        self._used_keys = {job.idempotency_key for job in self.queue.list_jobs()}  # also before a restart

    def list_routes(self) -> list[RouteRow]:
        return [
            ("/v2/jobs", self.create_job, "POST"),
            ("/v2/jobs", self.list_jobs, "GET"),
            ("/v2/jobs/{job_id}", self.get_job, "GET"),
            ("/v2/jobs/{job_id}/workflow", self.get_workflow, "GET"),
            ("/v2/jobs/{job_id}/events", self.open_events, "GET"),
            ("/v2/jobs/{job_id}/cancel", self.cancel_job, "POST"),
            ("/v2/assets", self.upload_asset, "POST"),
            ("/v2/assets/from-hash", self.find_content, "POST"),
            ("/v2/assets/by-hash/{hash}", self.check_hash, "HEAD"),
            ("/v2/assets/{id}", self.get_asset, "GET"),
            ("/v2/assets/{id}", self.delete_asset, "DELETE"),
            ("/v2/assets/{id}/content", self.get_content, "GET"),
        ]

    # --- submitting --------------------------------------------------------------------------------------------------

    async def create_job(self, request: Request) -> Response:
        """POST /api/v2/jobs: 201, or 422 with the reason. A used Idempotency-Key is refused, never replayed."""
        self.seen.count(submits=1)
        size = request.headers.get("content-length", "")
        if size.isdecimal() and int(size) > MAX_JOB_BYTES:
            raise refuse(f"A job has at most {MAX_JOB_BYTES} bytes.", 413, "payload_too_large")
        if self.faults.stopped:
            raise refuse("The deployment is stopped.", 422, "deployment_stopped")
        data = await read_object(request)
        _check_submission(data, keeps_labels=self.is_deployment)
        fields: dict[str, Any] = {"labels": data.get("metadata") or {}}
        submitted = {"prompt": self._resolve_assets(data["workflow"]), "extra_data": data.get("extra_data", {})}
        key = request.headers.get("idempotency-key")
        if key is None:
            return self._submit(submitted, fields)
        if not 0 < len(key) <= _MAX_KEY_LENGTH:
            raise refuse(f"An Idempotency-Key has 1 to {_MAX_KEY_LENGTH} characters.", 422, "invalid_request")
        if key in self._used_keys and not self.faults.forget_keys:
            raise refuse("This Idempotency-Key was used before.", 422, "idempotency_key_reuse")
        self._used_keys.add(key)
        accepted = self.seen.accepted
        try:
            return self._submit(submitted, {**fields, "idempotency_key": key})
        except (RequestRefusedError, DropError):
            if self.seen.accepted == accepted:  # a definite refusal frees the key
                self._used_keys.discard(key)
            raise

    def _submit(self, data: dict[str, Any], fields: dict[str, Any]) -> Response:
        status, body = self.submit_with_faults(data, **fields)
        if status != 200:
            code = "invalid_workflow" if status == 400 else "upstream_error"
            message = "{message} {details}".format_map(body["error"]).strip()
            error = {"code": code, "message": message, "details": body}
            raise RequestRefusedError(json_response({"error": error}, 422 if status == 400 else status))
        job = self.queue.find(body["prompt_id"])
        return json_response(self._job_json(job) if job else {}, 201)

    def _resolve_assets(self, value: Any) -> Any:
        """Replace each asset reference in a graph by the file name that the node class expects."""
        if isinstance(value, dict) and value.get("__type") == "core/ASSET":
            info = value.get("info")
            asset = self._find_asset(str(info.get("id"))) if isinstance(info, dict) else None
            if asset is None:
                raise refuse(f"There is no such asset: {info!r}", 422, "missing_asset")
            kind, subfolder, name = asset[0]
            return "/".join(filter(None, (subfolder, name))) + ("" if kind == "input" else f" [{kind}]")
        if isinstance(value, dict):
            return {name: self._resolve_assets(part) for name, part in value.items()}
        return [self._resolve_assets(part) for part in value] if isinstance(value, list) else value

    # --- looking -----------------------------------------------------------------------------------------------------

    async def get_job(self, request: Request) -> Response:
        """GET /api/v2/jobs/{id}: the state of a job, with its outputs.

        Its charge stands in a header only, because comfy-sdk takes nothing but whole numbers in `metrics`.
        """
        self.drop_if("drop_status_times")
        job = self.find_job(request)
        described = await asyncio.to_thread(self._job_json, job)
        body = {**described, "status": self.faults.pop_odd_state() or described["status"]}
        return json_response(body, headers=make_credits_header(self.service.account.get_reported_credits(job)))

    async def get_workflow(self, request: Request) -> Response:
        return json_response({"workflow": self.find_job(request).graph, "format": "api"})

    async def list_jobs(self, request: Request) -> Response:
        """GET /api/v2/jobs: the newest jobs first, by pages; `metadata[KEY]=VALUE` selects by labels."""
        if not self.is_deployment:
            raise refuse("Comfy Cloud lists no jobs in API v2.", 501, "not_implemented")
        limit = min(read_integer(request, "limit", PAGE_SIZE, minimum=1), MAX_PAGE_SIZE)
        query = request.query_params.multi_items()
        wanted = {(match[1], text) for name, text in query if (match := _FILTER.fullmatch(name))}
        jobs = [job for job in self.list_jobs_shown() if wanted <= job.labels.items()]
        cursor = request.query_params.get("cursor")
        if cursor:
            start = next((index for index, job in enumerate(jobs, 1) if job.id == cursor), None)
            if start is None:
                raise refuse("This server did not issue the cursor.", 422, "invalid_cursor")
            jobs = jobs[start:]
        page: dict[str, Any] = {"jobs": [self._row_json(job) for job in jobs[:limit]]}
        return json_response({**page, "next_cursor": jobs[limit - 1].id} if len(jobs) > limit else page)

    async def cancel_job(self, request: Request) -> Response:
        """POST /api/v2/jobs/{id}/cancel: cancel a waiting or running job. Returns the state of the job."""
        job = self.find_job(request)
        self.service.cancel(job.id)
        return json_response(self._job_json(job))

    def _job_json(self, job: ServerJob) -> dict[str, Any]:
        ended = job.ended  # read first: if the job ends meanwhile, it must not be reported as ended without its outputs
        status = _get_status(job)
        position = self.queue.get_position(job)
        path = f"/api/v2/jobs/{job.id}"
        return {
            "id": job.id,
            "status": status,
            "created_at": format_time(job.created),
            "started_at": None if job.started is None else format_time(job.started),
            "completed_at": None if ended is None else format_time(ended),
            "expires_at": format_time(job.created + RETENTION_MS),
            "queue_position": None if position is None else position - 1,
            "progress": None,
            "outputs": list(self._list_outputs(job)),
            "error": _error_json(job) if status == "failed" else None,
            "metadata": job.labels,
            "metrics": {
                "queue_ms": job.started and job.started - job.created,
                "execution_ms": job.started and ended and ended - job.started,
            },
            "urls": {"self": path, "events": f"{path}/events", "cancel": f"{path}/cancel"},
        }

    def _list_outputs(self, job: ServerJob) -> Iterator[dict[str, Any]]:
        for location, file in job.output_files if job.has_ended else ():
            with suppress(OSError):  # the file is gone
                asset = self._describe_asset(location, job.id)
                family = asset["content_type"].partition("/")[0]
                kind = family if family in {"image", "video", "audio", "text"} else "file"
                yield asset | {"node_id": file["nodeId"], "name": location[2], "type": kind}

    def _row_json(self, job: ServerJob) -> dict[str, Any]:
        return {
            "id": job.id,
            "status": _get_status(job),
            "create_time": format_time(job.created),
            "update_time": format_time(job.changed or job.created),
            "deployment_id": "embedded",
            "metadata": job.labels,
        }

    # --- assets ------------------------------------------------------------------------------------------------------

    def _iter_assets(self) -> Iterator[tuple[Location, str | None]]:
        """All uploads, and all outputs with the ids of their jobs, whether their files still exist or not."""
        yield from ((("input", "", path.name), None) for path in self.folders.input_dir.iterdir() if is_upload(path))
        for job in self.queue.list_jobs():
            if job.has_ended:
                yield from ((location, job.id) for location, _ in job.output_files)

    def _find_asset(self, asset_id: str) -> tuple[Location, str | None] | None:
        """Where the asset with this id is, and the job that made it; None without a file."""
        found = next((asset for asset in self._iter_assets() if _make_id(asset[0]) == asset_id.lower()), None)
        return found if found and is_file(self.folders.resolve(*found[0])) else None

    def _describe_asset(self, location: Location, prompt_id: str | None) -> dict[str, Any]:
        """The record of an asset. Raises OSError without a file."""
        path = self.folders.resolve(*location)
        facts = path.stat()
        digest = path.name[:64] if is_upload(path) else hash_file(path)
        return {
            "id": _make_id(location),
            "hash": f"blake3:{digest}",
            "size_bytes": facts.st_size,
            "content_type": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
            "file_path": path.name,
            "created_at": format_time(facts.st_mtime_ns // 1_000_000),
            "url": self.sign_url(*location),
            "url_expires_at": format_time(now_ms() + URL_SECONDS * 1000),
            "expires_at": None,
            "job_id": prompt_id,
        }

    async def upload_asset(self, request: Request) -> Response:
        """POST /api/v2/assets: 201, or 200 if the content is stored already; 409 if it has not the expected hash."""
        form = await read_form(request, "file")
        name, expected = form.texts.get("file_path") or form.filename, form.texts.get("expected_hash")
        if not name:
            raise refuse("'file_path' is missing.", 422, "invalid_request")
        digest = blake3(form.data).hexdigest()
        if expected and expected != f"blake3:{digest}":
            raise refuse("The content has another hash.", 409, "hash_mismatch")
        kind = form.texts.get("content_type") or form.content_type
        stored, new = await asyncio.to_thread(store_by_content, self.folders, form.data, name, kind)
        self.seen.uploads.append(stored)
        self.seen.count(written=int(new))
        body = {**self._describe_asset(("input", "", stored), None), "file_path": name, "created_new": new}
        return json_response(body, 201 if new else 200)

    async def find_content(self, request: Request) -> Response:
        """POST /api/v2/assets/from-hash: the stored asset with this content."""
        stored = find_upload(self.folders, (await read_object(request)).get("hash"))
        if stored is None:
            raise refuse("No asset has this hash.", 404, "blob_not_found")
        return json_response({**self._describe_asset(("input", "", stored), None), "created_new": False})

    async def check_hash(self, request: Request) -> Response:
        """HEAD /api/v2/assets/by-hash/{hash}: 200 if an asset has this content, else 404."""
        return Response(status_code=404 if find_upload(self.folders, request.path_params["hash"]) is None else 200)

    async def get_asset(self, request: Request) -> Response:
        return json_response(await asyncio.to_thread(self._describe_asset, *self._require_asset(request)))

    async def get_content(self, request: Request) -> Response:
        """GET /api/v2/assets/{id}/content: 302 to the file on the storage host."""
        if self.faults.take("missing_download_times"):
            raise refuse("Asset not found", 404, "not_found")
        location, _ = self._require_asset(request)
        self.seen.count(redirects=1)
        return Response(status_code=302, headers={"location": self.sign_url(*location)})

    async def delete_asset(self, request: Request) -> Response:
        self.folders.resolve(*self._require_asset(request)[0]).unlink(missing_ok=True)
        return Response(status_code=204)

    def _require_asset(self, request: Request) -> tuple[Location, str | None]:
        asset = self._find_asset(request.path_params["id"])
        if asset is None:
            raise refuse("Asset not found", 404, "not_found")
        return asset

    # --- events ------------------------------------------------------------------------------------------------------

    async def open_events(self, request: Request) -> Response:
        """GET /api/v2/jobs/{id}/events: the events of a job as Server-Sent Events; 429 if too many streams are open."""
        job = self.find_job(request)
        if self.faults.refuse_events or self._open_streams >= MAX_STREAMS:
            refused = refuse("Too many event streams are open; poll the job instead.", 429, "too_many_streams")
            refused.response.headers["retry-after"] = "5"
            raise refused
        self.seen.count(connections=1)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(self._stream(job), headers=headers, media_type="text/event-stream")

    async def _stream(self, job: ServerJob) -> AsyncGenerator[bytes, None]:
        self._open_streams += 1
        connection = self.service.hub.attach(uuid4().hex, None)
        connection.wants_metadata = True
        try:
            has_ended = job.has_ended
            yield self._format_status(job)
            if self.faults.take("drop_events_times"):
                await asyncio.sleep(_DROP_DELAY)
                return
            while not job.has_ended or self.faults.mute_events or not await _is_drained(connection):
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        message = await connection.queue.get()
                except TimeoutError:
                    yield b": keepalive\n\n"
                    continue
                if message is None:  # the server stops
                    return
                for event, data in _translate(message, job):
                    yield _format(event, data)
            if not has_ended:
                yield self._format_status(job)
            for output in (await asyncio.to_thread(self._job_json, job))["outputs"]:
                yield _format("output", output)
        finally:
            self._open_streams -= 1
            self.service.hub.detach(connection)

    def _format_status(self, job: ServerJob) -> bytes:
        described = self._job_json(job)
        return _format("status", {name: described[name] for name in ("status", "queue_position")})


@lru_cache(maxsize=10_000)
def _make_id(location: Location) -> str:
    return str(uuid5(NAMESPACE_URL, "/".join(location)))


def _get_status(job: ServerJob) -> str:
    return _STATUS_BY_STATE.get(job.state) or _STATUS_BY_WORD[job.status]


def _check_submission(data: dict[str, Any], *, keeps_labels: bool) -> None:
    unknown = sorted(set(data) - _FIELDS)
    if unknown:
        raise refuse(f"Unknown fields: {', '.join(unknown)}.", 422, "invalid_workflow")
    extra = data.get("extra_data")
    if extra is not None and not (isinstance(extra, dict) and set(extra) == {"api_key_comfy_org"}):
        raise refuse("'extra_data' holds only 'api_key_comfy_org'.", 422, "invalid_request")
    workflow, labels = data.get("workflow"), data.get("metadata")
    if not isinstance(workflow, dict):
        raise refuse("'workflow' must be an API-format graph.", 422, "invalid_workflow")
    if isinstance(workflow.get("nodes"), list):
        raise refuse("This workflow is in UI format; export it in API format.", 422, "workflow_format_ui")
    if labels is not None and not keeps_labels:
        raise refuse("Comfy Cloud keeps no labels.", 422, "metadata_not_supported")
    if labels is not None and not (isinstance(labels, dict) and all(isinstance(text, str) for text in labels.values())):
        raise refuse("'metadata' must be an object of texts.", 422, "metadata_invalid")


def _error_json(job: ServerJob) -> dict[str, Any]:
    error = job.error
    assert error is not None
    account = error["exception_type"] in {"InsufficientFundsError", "InactiveSubscriptionError"}
    return {
        "code": "insufficient_credits" if account else "node_execution_error",
        "message": error["exception_message"].rstrip("\n"),
        "node_id": error["node_id"],
        "class_type": error["node_type"],
        # As Python prints it, with the exception in the last line.
        "traceback": "".join([*error["traceback"], f"{error['exception_type']}: {error['exception_message']}"]),
    }


def make_v2_refusal(status: int, body: dict[str, Any] | None) -> Response:
    """Make a refusal in v2's form. `body` has v1's form, or v2's already; None: the refusal has no JSON."""
    status = 422 if status == 400 else status
    if body is None:
        code = "payload_too_large" if status == 413 else "upstream_error"
        body = {"code": code, "message": code.replace("_", " ")}
    if "code" in body:
        code = {401: "unauthorized", 402: "insufficient_credits"}.get(status, body["code"])
        body = {"error": {"code": code, "message": body["message"]}}
    return json_response(body, status)


async def _is_drained(connection: Connection) -> bool:
    """Whether no message is left. One that was sent before the job ended may be in this round of the loop."""
    await asyncio.sleep(0)
    return connection.queue.empty()


def _translate(message: str | bytes, job: ServerJob) -> list[tuple[str, dict[str, Any]]]:
    """The events that a message of `/ws` becomes: none if it is about another job."""
    if isinstance(message, bytes):
        kind, length = struct.unpack(">II", message[:8])
        metadata = json.loads(message[8 : 8 + length]) if kind == PREVIEW_IMAGE_WITH_METADATA else {}
        if metadata.get("prompt_id") != job.id:
            return []
        picture = base64.b64encode(message[8 + length :]).decode()
        names = {"node_id": metadata["node_id"], "content_type": metadata["image_type"]}
        return [("preview", {**names, "data_base64": picture})]
    parsed = json.loads(message)
    data = parsed["data"]
    if data.get("prompt_id") != job.id:
        return []
    if parsed["type"] == "execution_start":
        return [("status", {"status": "running", "queue_position": None})]
    return [("progress", _summarise(data["nodes"], job))] if parsed["type"] == "progress_state" else []


def _summarise(nodes: dict[str, dict[str, Any]], job: ServerJob) -> dict[str, Any]:
    """The progress of the whole job from the states of its nodes. A running node counts by its steps."""
    graph = job.graph
    done = sum(node["state"] == "finished" for node in nodes.values())
    running = next((node for node in reversed(nodes.values()) if node["state"] == "running"), None)
    step, steps = (0, 0) if running is None else (int(running["value"]), int(running["max"]))
    node_id = None if running is None else running["node_id"]
    return {
        "value": min(1.0, (done + (step / steps if steps else 0)) / max(1, len(graph))),
        "nodes_done": done,
        "nodes_total": len(graph),
        "current_node": node_id,
        "current_node_class": graph[node_id]["class_type"] if node_id in graph else None,
        "step": step if running else None,
        "steps": steps if running else None,
        "message": None,
    }


def _format(event: str, data: dict[str, Any]) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
