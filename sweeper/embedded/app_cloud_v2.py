"""`/api/v2` of the Cloud dialect: the jobs and assets of Comfy API v2, over the same queue and assets as `/api`.

It follows the published specification (version 2.0.0). There is no live event stream: `events` answers with the
documented 501, and clients poll. Jobs of both APIs are visible in both.
"""

from __future__ import annotations

import asyncio
import mimetypes
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from sweeper.embedded.asset_fields import read_fields, read_form_tags, read_tags, read_text
from sweeper.embedded.asset_routes import HASH
from sweeper.embedded.assets import Asset, AssetStore, make_id
from sweeper.embedded.common_routes import CommonRoutes
from sweeper.embedded.http_helpers import RequestRefusedError, error_response, format_time, json_response, read_object
from sweeper.embedded.jobs import (
    CANCEL_REQUESTED,
    CANCELLED,
    ERROR,
    LOST,
    SUBMITTED,
    SUCCESS,
    WAITING,
    ServerJob,
    now_ms,
)
from sweeper.embedded.request_parsing import read_form
from sweeper.embedded.storage import URL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request

    from sweeper.embedded.media_routes import UrlSigner
    from sweeper.embedded.service import Service

_STATUS_BY_STATE = {
    SUBMITTED: "queued",
    WAITING: "queued",
    CANCEL_REQUESTED: "canceling",
    SUCCESS: "succeeded",
    CANCELLED: "canceled",
    ERROR: "failed",
    LOST: "failed",
}
KEY_SECONDS = 86_400  # how long an Idempotency-Key cannot be used again
RETENTION_MS = 30 * 86_400_000  # for `expires_at`; nothing is removed here


class V2Routes(CommonRoutes):
    """Endpoints below /api/v2; `sign_url` makes the URLs of outputs."""

    def __init__(self, service: Service, asset_store: AssetStore, sign_url: UrlSigner) -> None:
        super().__init__(service)
        self.asset_store = asset_store
        self.sign_url = sign_url
        self._used_keys: dict[str, float] = {}

    def list_routes(self) -> list[tuple[str, Callable[..., Any], str]]:
        """All routes: (path below /api, endpoint, method)."""
        return [
            ("/v2/jobs", self.create_job, "POST"),
            ("/v2/jobs/{id}", self.get_job, "GET"),
            ("/v2/jobs/{id}/workflow", self.get_workflow, "GET"),
            ("/v2/jobs/{id}/events", self.refuse_events, "GET"),
            ("/v2/jobs/{id}/cancel", self.cancel_job, "POST"),
            ("/v2/assets", self.upload_asset, "POST"),
            ("/v2/assets/from-hash", self.create_from_hash, "POST"),
            ("/v2/assets/by-hash/{hash}", self.check_hash, "HEAD"),
            ("/v2/assets/{id}", self.get_asset, "GET"),
            ("/v2/assets/{id}", self.delete_asset, "DELETE"),
            ("/v2/assets/{id}/content", self.get_content, "GET"),
        ]

    # --- jobs --------------------------------------------------------------------------------------------------------

    async def create_job(self, request: Request) -> Response:
        """POST /api/v2/jobs: 201, or 422 with the reason. A used Idempotency-Key is refused, never replayed."""
        data = await read_object(request)
        key = request.headers.get("idempotency-key")
        if key is not None and self._used_keys.get(key, 0) > time.monotonic():
            raise RequestRefusedError(
                error_response(422, "idempotency_key_reuse", "This Idempotency-Key was used before.")
            )
        workflow = data.get("workflow")
        _check_workflow(data, workflow)
        submitted = {"prompt": self._resolve_assets(workflow), "extra_data": data.get("extra_data", {})}
        status, body = self.submit_with_faults(submitted)
        if status != 200:
            code = "invalid_workflow" if status == 400 else "upstream_error"
            error = {"code": code, "message": _summarise_errors(body), "details": body}
            raise RequestRefusedError(json_response({"error": error}, 422 if status == 400 else status))
        if key is not None:
            now = time.monotonic()
            self._used_keys = {used: until for used, until in self._used_keys.items() if until > now}
            self._used_keys[key] = now + KEY_SECONDS
        job = self.queue.find(body["prompt_id"])
        return json_response(self._job_json(job) if job else {}, 201)

    def _resolve_assets(self, value: Any) -> Any:
        """Replace each asset reference in a graph by the file name that the node class expects."""
        if isinstance(value, dict) and value.get("__type") == "core/ASSET":
            info = value.get("info")
            asset = self.asset_store.get(str(info.get("id"))) if isinstance(info, dict) else None
            if asset is None:
                raise RequestRefusedError(error_response(422, "missing_asset", f"There is no such asset: {info!r}"))
            kind, subfolder, name = asset.location
            return "/".join(filter(None, (subfolder, name))) + ("" if kind == "input" else f" [{kind}]")
        if isinstance(value, dict):
            return {name: self._resolve_assets(part) for name, part in value.items()}
        return [self._resolve_assets(part) for part in value] if isinstance(value, list) else value

    async def get_job(self, request: Request) -> Response:
        """GET /api/v2/jobs/{id}: the state of a job, with its outputs."""
        job = self._find_job(request)
        await asyncio.to_thread(self.asset_store.import_outputs, [job])
        return json_response(self._job_json(job))

    async def get_workflow(self, request: Request) -> Response:
        """GET /api/v2/jobs/{id}/workflow: the graph of a job."""
        return json_response({"workflow": self._find_job(request).graph, "format": "api"})

    async def refuse_events(self, request: Request) -> Response:
        """GET /api/v2/jobs/{id}/events: 501, as documented for a server without live events."""
        self._find_job(request)
        raise RequestRefusedError(
            error_response(501, "not_implemented", "This server has no live events; poll the job.")
        )

    async def cancel_job(self, request: Request) -> Response:
        """POST /api/v2/jobs/{id}/cancel: cancel a waiting or running job. Returns the state of the job."""
        job = self._find_job(request)
        self.service.cancel_waiting([job.id])
        self.service.interrupt(job.id)
        return json_response(self._job_json(job))

    def _find_job(self, request: Request) -> ServerJob:
        job = self.queue.find(request.path_params["id"])
        if job is None:
            raise RequestRefusedError(error_response(404, "not_found", "Job not found"))
        return job

    def _job_json(self, job: ServerJob) -> dict[str, Any]:
        ended = job.ended  # read first: if the job ends meanwhile, it must not be reported as ended without its outputs
        status = _STATUS_BY_STATE.get(job.state, "running")
        waiting = [other.id for other in self.queue.snapshot()[1]] if status == "queued" else []
        path = f"/api/v2/jobs/{job.id}"
        return {
            "id": job.id,
            "status": status,
            "created_at": format_time(job.created),
            "started_at": None if job.started is None else format_time(job.started),
            "completed_at": None if ended is None else format_time(ended),
            "expires_at": format_time(job.created + RETENTION_MS),
            "queue_position": waiting.index(job.id) if job.id in waiting else None,
            "progress": None,
            "outputs": list(self._list_outputs(job)),
            "error": _error_json(job) if status == "failed" else None,
            "urls": {"self": path, "events": f"{path}/events", "cancel": f"{path}/cancel"},
        }

    def _list_outputs(self, job: ServerJob) -> Iterator[dict[str, Any]]:
        self.asset_store.import_outputs([job])
        by_location = {asset.location: asset for asset in self.asset_store.list_assets()} if job.results else {}
        for node_id, ui in job.results.items():
            for file in (file for kind in ui.values() for file in kind if isinstance(file, dict)):
                asset = by_location.get((file.get("type", ""), file.get("subfolder", ""), file.get("filename", "")))
                if asset is not None:
                    family = asset.mime_type.partition("/")[0]
                    kind = family if family in {"image", "video", "audio", "text"} else "file"
                    yield {**self._asset_json(asset), "node_id": node_id, "name": asset.location[2], "type": kind}

    # --- assets ------------------------------------------------------------------------------------------------------

    async def upload_asset(self, request: Request) -> Response:
        """POST /api/v2/assets: 201, or 200 if the content is stored already; 422 if it has not the expected hash."""
        form = await read_form(request, "file")
        path, expected = form.get("file_path") or form.filename, form.get("expected_hash")
        if not path:
            raise RequestRefusedError(error_response(422, "invalid_request", "'file_path' is missing."))
        kind = form.get("content_type") or form.content_type or "application/octet-stream"
        asset = Asset(make_id(), path, ("input", "", ""), "", "", 0, kind, now_ms(), now_ms(), read_form_tags(form))
        if expected and expected != f"blake3:{self.asset_store.hash_content(form.data)}":
            raise RequestRefusedError(error_response(422, "hash_mismatch", "The content has another hash."))
        stored, new = await asyncio.to_thread(self.asset_store.store, form.data, asset)
        return json_response({**self._asset_json(stored), "created_new": new}, 201 if new else 200)

    async def create_from_hash(self, request: Request) -> Response:
        """POST /api/v2/assets/from-hash: the stored asset with this content."""
        fields = await read_fields(request, ("hash", "file_path", "tags"), ("hash",))
        if "tags" in fields:
            read_tags(fields)
        asset = self._find_by_hash(read_text(fields, "hash"))
        if asset is None:
            raise RequestRefusedError(error_response(404, "not_found", "No asset has this hash."))
        return json_response({**self._asset_json(asset), "created_new": False})

    async def check_hash(self, request: Request) -> Response:
        """HEAD /api/v2/assets/by-hash/{hash}: 200 if an asset has this content, else 404."""
        return Response(status_code=404 if self._find_by_hash(request.path_params["hash"]) is None else 200)

    def _find_by_hash(self, text: str) -> Asset | None:
        return self.asset_store.find_by_hash(text) if HASH.fullmatch(text) else None

    async def get_asset(self, request: Request) -> Response:
        """GET /api/v2/assets/{id}: the record of an asset."""
        return json_response(self._asset_json(self._find_asset(request)))

    async def delete_asset(self, request: Request) -> Response:
        """DELETE /api/v2/assets/{id}: 204."""
        self.asset_store.delete(self._find_asset(request).id)
        return Response(status_code=204)

    async def get_content(self, request: Request) -> Response:
        """GET /api/v2/assets/{id}/content: 302 to the file on the storage host."""
        self.seen.count(redirects=1)
        return Response(status_code=302, headers={"location": self.sign_url(*self._find_asset(request).location)})

    def _find_asset(self, request: Request) -> Asset:
        asset = self.asset_store.get(request.path_params["id"].lower())
        if asset is None:
            raise RequestRefusedError(error_response(404, "not_found", "Asset not found"))
        return asset

    def _asset_json(self, asset: Asset) -> dict[str, Any]:
        return {
            "id": asset.id,
            "hash": f"blake3:{asset.blake3}",
            "size_bytes": asset.size,
            "content_type": asset.mime_type or mimetypes.guess_type(asset.name)[0],
            "file_path": asset.name,
            "created_at": format_time(asset.created),
            "url": self.sign_url(*asset.location),
            "url_expires_at": format_time(now_ms() + URL_SECONDS * 1000),
            "expires_at": None,
            "job_id": asset.prompt_id,
        }


def _check_workflow(data: dict[str, Any], workflow: Any) -> None:
    unknown = sorted(set(data) - {"workflow", "extra_data"})
    if unknown:
        raise RequestRefusedError(error_response(422, "invalid_workflow", f"Unknown fields: {', '.join(unknown)}."))
    if not isinstance(workflow, dict):
        raise RequestRefusedError(error_response(422, "invalid_workflow", "'workflow' must be an API-format graph."))
    if isinstance(workflow.get("nodes"), list):
        message = "This workflow is in UI format; export it in API format."
        raise RequestRefusedError(error_response(422, "workflow_format_ui", message))


def _summarise_errors(body: dict[str, Any]) -> str:
    """Join ComfyUI's `error` and `node_errors` to one message."""
    lines = [
        f"node {node_id}: {error['message']}: {error['details']}"
        for node_id, node in body["node_errors"].items()
        for error in node["errors"]
    ]
    return "; ".join(lines) or f"{body['error']['message']} {body['error']['details']}".strip()


def _error_json(job: ServerJob) -> dict[str, Any]:
    error = job.error
    if error is None:
        return {"code": "job_lost", "message": "The server stopped while this job ran."}
    return {
        "code": "node_execution_error",
        "message": error["exception_message"].rstrip("\n"),
        "node_id": error["node_id"],
        "class_type": error["node_type"],
        "traceback": "".join(error["traceback"]),
    }


def wrap_error(body: dict[str, Any], status: int) -> dict[str, Any]:
    """Convert the body of a refusal to v2's form. `body` has v1's form, or v2's already."""
    if "code" not in body:
        return body
    code = {401: "unauthorized", 402: "insufficient_credits"}.get(status, body["code"])
    return {"error": {"code": code, "message": body["message"]}}
