"""The dialect of Comfy Cloud, after COMFY_API.md and the published specification. Sans-IO.

Its ids are the server's, its jobs durable, its files behind a redirect, and its interrupt hits every running job of the
account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote

from sweeper.comfy.comfyui import (
    make_view_request,
    mask_form_fields,
    read_submission,
    read_uploaded_name,
    to_input_file,
)
from sweeper.comfy.job_marker import fingerprint, read_markers
from sweeper.comfy.protocol import (
    KEY_HEADER,
    Flow,
    JobOutput,
    JobSearch,
    JobState,
    JobSubmission,
    QueueFull,
    Server,
    ServerRequest,
    ServerResponse,
    UploadForm,
    raise_for_status,
)
from sweeper.comfy.responses import make_failed_state, read_messages, read_outputs, rejection_message, to_seconds
from sweeper.errors import RejectedError, TransientError

# COMFY_API.md, "status": the words of the raw status, old and new. Every other word is in flight.
_STATE_OF_STATUS: Final = {
    "success": "succeeded",
    "completed": "succeeded",
    "error": "failed",
    "non_retryable_error": "failed",
    "failed": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
    "lost": "lost",
    **dict.fromkeys(
        ("submitted", "queued_limited", "queued_waiting", "waiting_to_dispatch", "pending", "allocated", "preparing",
         "pending_execution"),
        "queued",
    ),
    **dict.fromkeys(("executing", "in_progress", "executed", "cancel_requested"), "running"),
}  # fmt: skip

_PAGE_SIZE: Final = 100  # rows of a listing; the specification allows 1 to 1000
_MAX_ROWS: Final = 1000
# How much older than our intent a job's creation may seem: whole seconds, and what is left of the clocks' difference
# once the Date header has told it; without that header, a generous clock.
_CLOCK_SLACK: Final = 60.0
_CLOCK_SLACK_WITHOUT_DATE: Final = 900.0


class CloudDialect:
    """Comfy Cloud, and the embedded server by default."""

    name: Final = "cloud"
    # Tiers run 1, 3 or 5 at a time and queue the rest, so the next job may wait there; more is a setting.
    concurrency: Final = 2
    poll_intervals: Final = (1.0, 5.0)
    # Jobs are durable, but a listing may lag behind the submission that it should show.
    lost_after_checks: Final = 3
    runs_one_job: Final = False
    jobs_survive_restart: Final = True
    has_event_stream: Final = True
    needs_key_in_events: Final = True
    sends_status_events: Final = False

    def auth_headers(self, key: str) -> dict[str, str]:
        return {KEY_HEADER: key}

    def handshake(self) -> Flow[Server]:
        reply = yield ServerRequest("GET", "/api/user")
        if reply.status == 404:  # not in every version; any keyed endpoint will do
            reply = yield ServerRequest("GET", "/api/queue")
        raise_for_status(reply).json_object()
        return Server(self.name)

    def submit(self, submission: JobSubmission) -> Flow[str | QueueFull]:
        extra = dict(submission.extra_data)
        body: dict[str, Any] = {"prompt": submission.graph}
        if submission.client_id:
            body["client_id"] = submission.client_id
        if extra:
            body["extra_data"] = extra
        reply = yield ServerRequest("POST", "/api/prompt", body=body, idempotent=False)
        answer = read_submission(reply, submission.graph)
        if isinstance(answer, QueueFull):
            return answer
        prompt_id, errors = answer.get("prompt_id"), rejection_message(answer, submission.graph)
        if errors:
            if isinstance(prompt_id, str) and prompt_id:
                yield from self.cancel(frozenset([prompt_id]))
            raise RejectedError(errors)
        if not isinstance(prompt_id, str) or not prompt_id:
            raise TransientError(f"the answer to a submission has no prompt_id: {reply.excerpt()!r}")
        return prompt_id

    def get_job(self, prompt_id: str, *, thorough: bool, success_reported: bool = False) -> Flow[JobState]:  # noqa: ARG002
        if success_reported:  # then the details, which are to be asked anyway, say it too; if not, the status decides
            detail = raise_for_status((yield ServerRequest("GET", f"/api/jobs/{quote(prompt_id, safe='')}")), 404)
            found = detail.json_object() if detail.status != 404 else {}
            if _STATE_OF_STATUS.get(str(found.get("status"))) == "succeeded":
                return _read_end_state("succeeded", found, None)
        reply = raise_for_status((yield ServerRequest("GET", f"/api/job/{quote(prompt_id, safe='')}/status")), 404)
        answer = reply.json_object()  # also of a 404: a gateway's page must not make a job that was paid for a lost one
        if reply.status == 404:
            return JobState("lost")
        state = _STATE_OF_STATUS.get(str(answer.get("status")), "underway")
        if state not in ("succeeded", "failed"):
            return JobState(state)
        detail = raise_for_status((yield ServerRequest("GET", f"/api/jobs/{quote(prompt_id, safe='')}")), 404)
        found = detail.json_object() if detail.status != 404 else {}
        return _read_end_state(state, found, answer.get("error_message"))

    def find_submission(self, search: JobSearch) -> Flow[str | None]:
        unsure = False
        offset = 0
        while True:
            query = {"limit": str(_PAGE_SIZE), "offset": str(offset), "sort_by": "create_time", "sort_order": "desc"}
            reply = raise_for_status((yield ServerRequest("GET", "/api/jobs", query=query)))
            rows = reply.json_object().get("jobs")
            if not isinstance(rows, list):  # taken for an empty listing, it would have the job sent again
                raise TransientError(f"the answer is no listing of jobs: {reply.excerpt()!r}")
            rows = [row for row in rows if isinstance(row, dict)]
            oldest = _earliest_creation(search, reply)
            for row in rows:
                created, prompt_id = to_seconds(row.get("create_time")), row.get("id")
                if created is not None and created < oldest:
                    rows = []  # newest first: what follows is older still
                    break
                if not isinstance(prompt_id, str) or search.is_known(prompt_id):
                    continue
                verdict = yield from self._is_sought(prompt_id, search)
                if verdict:
                    return prompt_id
                unsure = unsure or verdict is None
            if len(rows) < _PAGE_SIZE:
                break
            offset += _PAGE_SIZE
        if unsure:
            raise TransientError("the server does not show the workflow of a job that may be the one we look for")
        return None

    def _is_sought(self, prompt_id: str, search: JobSearch) -> Flow[bool | None]:
        """Whether that job is the one sought; None while it runs without showing its workflow."""
        reply = raise_for_status((yield ServerRequest("GET", f"/api/jobs/{quote(prompt_id, safe='')}")), 404)
        found = reply.json_object()
        if reply.status == 404:
            return False
        graph = _find_graph(found.get("workflow"))
        if graph is None:
            return None if found.get("status") in (None, "pending", "in_progress") else False
        ours = read_markers(graph)
        if ours:
            return search.job_id[:8] in ours
        try:
            return fingerprint(graph) == search.fingerprint
        except ValueError:  # a NaN: never sent by us
            return False

    def cancel(self, prompt_ids: frozenset[str], ours: frozenset[str] = frozenset()) -> Flow[bool]:
        raise_for_status((yield ServerRequest("POST", "/api/queue", body={"delete": sorted(prompt_ids)})))
        query = {"status": "pending,in_progress", "limit": str(_MAX_ROWS)}
        rows = raise_for_status((yield ServerRequest("GET", "/api/jobs", query=query))).json_object().get("jobs")
        if not isinstance(rows, list) or len(rows) >= _MAX_ROWS or not all(isinstance(row, dict) for row in rows):
            return False
        waiting = {row.get("id") for row in rows if row.get("status") == "pending"}
        running = {row.get("id") for row in rows} - waiting
        # Interrupt stops every running job of the account: only where all of them are ours to stop, and where nobody
        # else's waits, which may have begun to run by the time that the request gets there.
        if not running & prompt_ids:
            return True
        if not running <= prompt_ids or not waiting <= prompt_ids | ours:
            return False
        raise_for_status((yield ServerRequest("POST", "/api/interrupt", body={})))
        return True

    def upload(self, name: str, content: bytes) -> Flow[str]:
        fields = {"type": "input", "overwrite": "true"}
        reply = yield ServerRequest("POST", "/api/upload/image", upload=UploadForm(name, content, fields))
        return read_uploaded_name(reply, name)

    def upload_mask(self, name: str, content: bytes, original: str) -> Flow[str]:
        reply = yield ServerRequest(
            "POST", "/api/upload/mask", upload=UploadForm(name, content, mask_form_fields(original))
        )
        return read_uploaded_name(reply, name)

    def has_file(self, value: Any, size: int | None) -> Flow[bool]:  # noqa: ARG002 (files are stored by content)
        reply = yield replace(self.view_request(to_input_file(value)), idempotent=False)
        return reply.status == 302  # to the file, which stays where it is; 404 where there is none

    def view_request(self, output: JobOutput) -> ServerRequest:
        return make_view_request("/api/view", output)

    def get_object_info(self) -> Flow[dict[str, Any]]:
        return raise_for_status((yield ServerRequest("GET", "/api/object_info"))).json_object()

    def get_features(self) -> Flow[dict[str, Any]]:
        reply = raise_for_status((yield ServerRequest("GET", "/api/features")), 404)
        return reply.json_object() if reply.status != 404 else {}


def _read_end_state(state: str, found: Mapping[str, Any], message: Any) -> JobState:
    """The end of a job from its details; still underway where those have not caught up with the status."""
    if _STATE_OF_STATUS.get(str(found.get("status"))) not in ("succeeded", "failed", "cancelled"):
        return JobState("underway")
    _, _, began, stopped = read_messages(found.get("execution_status"))
    started = to_seconds(found.get("execution_start_time")) or began
    ended = to_seconds(found.get("execution_end_time")) or stopped or to_seconds(found.get("update_time"))
    outputs = read_outputs(found.get("outputs"))
    if state == "failed":
        return make_failed_state(found.get("execution_error") or message, outputs=outputs, started=started, ended=ended)
    return JobState("succeeded", outputs, started=started, ended=ended)


def _find_graph(workflow: Any) -> Mapping[str, Any] | None:
    """The graph in a job's details: as itself, inside `{prompt, extra_data}`, or in a queue item `[n, id, graph]`."""
    if isinstance(workflow, list):
        return next((graph for item in workflow if (graph := _find_graph(item)) is not None), None)
    if not isinstance(workflow, Mapping) or not workflow:
        return None
    if all(isinstance(node, Mapping) and "class_type" in node for node in workflow.values()):
        return workflow
    return _find_graph(workflow.get("prompt"))


def _earliest_creation(search: JobSearch, response: ServerResponse) -> float:
    """The earliest creation, by the server's clock, that the sought job can have."""
    try:
        ahead = parsedate_to_datetime(response.headers["date"]).timestamp() - search.now
    except (KeyError, ValueError, TypeError):
        return search.intended_at - _CLOCK_SLACK_WITHOUT_DATE
    return search.intended_at + ahead - _CLOCK_SLACK
