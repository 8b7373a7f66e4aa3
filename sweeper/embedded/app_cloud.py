"""The routes of the `cloud` dialect: Comfy Cloud's API below `/api`, and `/ws`.

It follows the published specification (the `openapi.yaml` of Comfy-Org/ComfyUI, August to November 2026), of which it
has the calls that clients make. Unlike in ComfyUI, the server chooses ids and order of jobs and remembers cancelled
jobs, and pictures come from the storage host.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from sweeper.embedded.app_cloud_v2 import V2Routes, make_v2_refusal
from sweeper.embedded.app_comfyui import FEATURES, CommonRoutes
from sweeper.embedded.folders import ServerFolders, hash_file, hash_name
from sweeper.embedded.http_helpers import (
    RouteRow,
    cut_page,
    format_time,
    is_right_key,
    json_response,
    read_bearer,
    read_integer,
    read_object,
    refuse,
)
from sweeper.embedded.jobs import ERROR, LIMITED, LOST, STATUS_WORDS, ServerJob, select_jobs
from sweeper.embedded.media_routes import UrlSigner
from sweeper.embedded.service import Service, make_credits_header
from sweeper.embedded.validation import is_canonical_id
from sweeper.model.bounded_json import parse_json

# By the specification.
PAGE_SIZE, MAX_PAGE_SIZE = 100, 1000  # jobs
ASSET_PAGE_SIZE, MAX_ASSET_PAGE_SIZE = 20, 500
MAX_CANCELLED_JOBS = 100  # in one request


def is_public(path: str) -> bool:
    """Whether a path needs no key by the specification."""
    return path.startswith(("/api/features", "/api/system_stats", "/api/experiment/models"))


def shape_refusal(path: str, response: Response) -> Response:
    """Convert a refusal to the form of the specification, `code` and `message`, or to that of API v2."""
    status = response.status_code
    json_body = response.headers.get("content-type", "").startswith("application/json")
    text = bytes(response.body).decode("utf-8", "replace")
    code = HTTPStatus(status).phrase
    if status >= 400 and path.startswith("/api/v2/"):
        shaped = make_v2_refusal(status, json.loads(text) if json_body else None)
    elif status < 400 or json_body:
        return response
    else:
        shaped = refuse(text or code, status, code.lower().replace(" ", "_")).response
    for name in ("retry-after", "connection"):
        if name in response.headers:
            shaped.headers[name] = response.headers[name]
    return shaped


def make_cloud_app(service: Service, sign_url: UrlSigner) -> Router:
    """Make the ASGI app of this dialect; `sign_url` makes the URLs to which /api/view redirects."""
    routes = CloudRoutes(service, sign_url)
    table: list[RouteRow] = [
        *routes.list_shared_routes(),
        ("/queue", routes.get_queue, "GET"),
        ("/queue", routes.change_queue, "POST"),
        ("/interrupt", routes.interrupt, "POST"),
        ("/history", routes.change_history, "POST"),
        ("/user", json_response({"id": "embedded", "status": "active"}), "GET"),
        ("/billing/balance", routes.get_balance, "GET"),
        ("/assets", routes.list_assets, "GET"),
        ("/jobs", routes.list_jobs, "GET"),
        ("/jobs/cancel", routes.cancel_jobs, "POST"),
        ("/jobs/{job_id}", routes.get_job, "GET"),
        ("/jobs/{job_id}/cancel", routes.cancel_job, "POST"),
        ("/job/{job_id}/status", routes.get_status, "GET"),
        *V2Routes(service, sign_url).list_routes(),
    ]
    paths: list[BaseRoute] = [Route("/api" + path, endpoint, methods=[method]) for path, endpoint, method in table]
    stream = WebSocketRoute("/ws", routes.stream_events)
    return Router([*paths, stream], redirect_slashes=False, default=respond_not_found)


async def respond_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 404 for an unknown path, also to a request for an event stream."""
    await shape_refusal(scope["path"], refuse("Not found", 404, "not_found").response)(scope, receive, send)


class CloudRoutes(CommonRoutes):
    async def list_jobs(self, request: Request) -> Response:
        """GET /api/jobs: short descriptions of jobs, newest first.

        A page ends with `next_cursor`, which `after` takes: the number of its last job. A page after a cursor reports 0
        as `offset` and `total`, as the specification allows.
        """
        limit, offset = _read_page(request, PAGE_SIZE, MAX_PAGE_SIZE)
        after = read_integer(request, "after", None) if request.query_params.get("after") else None
        jobs, unknown = select_jobs(request.query_params, self.list_jobs_shown())
        if unknown:
            raise refuse(f"'status' takes {', '.join(STATUS_WORDS)}, separated by commas.")
        if after is not None:
            jobs, offset = [job for job in jobs if job.number < after], 0
        page, pagination = cut_page(jobs, offset, limit)
        if after is not None:
            pagination["total"] = 0
        if pagination["has_more"]:
            pagination["next_cursor"] = f"{page[-1].number:.0f}"
        return json_response({"jobs": [_make_row(job) for job in page], "pagination": pagination})

    async def get_job(self, request: Request) -> Response:
        """GET /api/jobs/{id}: the full description of a job, with its workflow and why it still waits."""
        self.drop_if("drop_status_times")
        job = self.find_job(request)
        reason = None
        if job.status == "pending":  # the account's own running jobs hold it back, or no machine is free
            reason = "concurrency_limit" if self.queue.get_state(job) == LIMITED else "capacity"
        position = self.queue.get_position(job) if reason == "concurrency_limit" else None
        detail = {**_make_row(job), "update_time": job.changed or job.created, "workflow": job.workflow}
        if job.has_ended:
            detail |= job.describe_end() | {"execution_meta": job.meta}
        status = self.faults.pop_odd_state() or detail["status"]
        credit_count = self.service.account.get_reported_credits(job)
        if credit_count is not None:
            detail["metrics"] = {"credits_used": credit_count}
        body = detail | {"status": status, "queue_reason": reason, "queue_position": position}
        return json_response(body, headers=make_credits_header(credit_count))

    async def get_status(self, request: Request) -> Response:
        """GET /api/job/{id}/status: the raw state of a job. Deprecated, and still in Cloud's own example."""
        self.drop_if("drop_status_times")
        job = self.find_job(request)
        changed = format_time(job.changed or job.created)
        body = {
            "id": job.id,
            "status": self.faults.pop_odd_state() or self.queue.get_state(job),
            "created_at": format_time(job.created),
            "updated_at": changed,
            "last_state_update": changed,
            "assigned_inference": None,
            "error_message": None if job.error is None else job.error["exception_message"],
        }
        return json_response(body)

    async def cancel_job(self, request: Request) -> Response:
        """POST /api/jobs/{id}/cancel: `cancelled` is false if the job has ended or is being cancelled already."""
        if not is_canonical_id(request.path_params["job_id"]):
            raise refuse("The job id must be a UUID.")
        return json_response({"cancelled": self.service.cancel(self.find_job(request).id)})

    async def cancel_jobs(self, request: Request) -> Response:
        """POST /api/jobs/cancel: cancel a list of jobs; 404 for an unknown one, and then none is cancelled."""
        data = await read_object(request)
        ids = data.get("job_ids")
        if set(data) != {"job_ids"} or not isinstance(ids, list) or not 1 <= len(ids) <= MAX_CANCELLED_JOBS:
            raise refuse(f"The body holds only 'job_ids', a list of 1 to {MAX_CANCELLED_JOBS} job ids.")
        if not all(is_canonical_id(prompt_id) for prompt_id in ids):
            raise refuse("'job_ids' must be UUIDs.")
        if any(self.queue.find(prompt_id) is None for prompt_id in ids):
            raise refuse("A job was not found; none was cancelled.", 404, "not_found")
        return json_response({"cancelled": [prompt_id for prompt_id in ids if self.service.cancel(prompt_id)]})

    async def get_queue(self, _: Request) -> Response:
        """GET /api/queue: 5-tuples with the outputs before the metadata, unlike in ComfyUI."""
        running, pending = self.queue.snapshot()
        listing = {
            "queue_running": [_queue_item(job, position) for position, job in enumerate(running, 1)],
            "queue_pending": [_queue_item(job, position) for position, job in enumerate(pending, len(running) + 1)],
        }
        return json_response(listing)

    async def change_queue(self, request: Request) -> Response:
        """POST /api/queue: cancel some waiting or running jobs (`delete`), or all waiting ones (`clear`)."""
        ids, everything = await self.read_deletion(request)
        answer: dict[str, Any] = {"deleted": [prompt_id for prompt_id in ids if self.service.cancel(prompt_id)]}
        if everything:
            self.service.cancel_waiting(None)
            answer["cleared"] = True
        return json_response(answer)

    async def interrupt(self, request: Request) -> Response:
        """POST /api/interrupt: cancel the job `prompt_id`, else the oldest running job, else the next waiting one."""
        try:
            data = parse_json(await request.body())
        except ValueError:
            data = None  # any body is allowed
        prompt_id = data.get("prompt_id") if isinstance(data, dict) else None
        if isinstance(prompt_id, str) and prompt_id:
            if self.queue.find(prompt_id) is None:
                raise refuse("Job not found", 404, "not_found")
            self.service.cancel(prompt_id)
        else:
            running, waiting = self.queue.snapshot()
            for job in (*running, *waiting)[:1]:
                self.service.cancel(job.id)
        return Response(status_code=200)

    async def get_features(self, request: Request) -> Response:
        """GET /api/features: what the server can do; with a valid key also what the account may do."""
        key = request.headers.get("x-api-key") or read_bearer(request.headers)
        if not is_right_key(key, self.service.settings.api_key):
            return json_response(FEATURES)
        may_run_partner_nodes = self.faults.scenario.tier != "free"
        account = {"max_concurrent_jobs": self.queue.workers, "can_run_partner_nodes": may_run_partner_nodes}
        return json_response(FEATURES | account)

    async def list_assets(self, request: Request) -> Response:
        """GET /api/assets: the models, which every account has, by tags and by pages; no other assets."""
        query = request.query_params
        wanted = {tag for name in ("include_tags", "tags_all") for tag in query.get(name, "").split(",") if tag}
        limit, offset = _read_page(request, ASSET_PAGE_SIZE, MAX_ASSET_PAGE_SIZE)
        found = [(folder, name) for folder, names in self.list_models().items() for name in names]
        models = [model for model in found if wanted <= {"models", model[0]}]
        page, pagination = cut_page(models, offset, limit)
        assets = await asyncio.to_thread(lambda: [_make_model_asset(self.folders, *model) for model in page])
        return json_response({"assets": assets, "total": len(models), "has_more": pagination["has_more"]})

    async def get_balance(self, _: Request) -> Response:
        """GET /api/billing/balance: what is left on the account. The fields contain cents, whatever their names say."""
        balance = self.service.account.balance
        if balance is None:
            raise refuse("Not found", 404, "not_found")
        cents = round(balance * 100, 6)
        return json_response({"amount_micros": cents, "effective_balance_micros": cents, "currency": "usd"})


def _read_page(request: Request, usual: int, most: int) -> tuple[int, int]:
    """The `limit`, 1 to `most`, and the `offset` of a query. Raises RequestRefusedError with 400."""
    limit = read_integer(request, "limit", usual, minimum=1)
    if limit > most:
        raise refuse(f"'limit' must be 1 to {most}.")
    return limit, read_integer(request, "offset", 0, minimum=0)


def _make_model_asset(folders: ServerFolders, folder: str, name: str) -> dict[str, Any]:
    facts, path = folders.describe_model(folder, name), folders.find_model(folder, name)
    changed = format_time(round(facts["modified"] * 1000))
    return {
        "id": str(uuid.UUID(hex=hash_name(folder, name)[:32])),
        "name": name,
        "hash": f"blake3:{hash_file(path) if path else hash_name(folder, name)}",
        "size": facts["size"],
        "tags": ["models", folder],
        "file_path": f"models/{folder}/{name}",
        "loader_path": name,
        "is_immutable": True,
        "created_at": changed,
        "updated_at": changed,
    }


def _make_row(job: ServerJob) -> dict[str, Any]:
    """A row of a listing, with the error of a failed or lost job."""
    if job.state == LOST:
        error: dict[str, Any] = {
            **dict.fromkeys(("node_id", "node_type"), ""),
            "exception_type": "ServiceError",
            "exception_message": "The server lost this job: it was running when the service stopped.",
            "traceback": [],
        }
    elif job.state == ERROR and job.error is not None:
        names = ("node_id", "node_type", "exception_message", "exception_type", "traceback", "current_inputs")
        error = {name: job.error[name] for name in names}
    else:
        return job.make_row()
    error |= {"current_inputs": error.get("current_inputs") or {}, "current_outputs": {}}
    return job.make_row() | {"execution_error": error}


def _queue_item(job: ServerJob, position: int) -> list[Any]:
    return [position, job.id, job.graph, list(job.outputs), {"create_time": job.created}]
