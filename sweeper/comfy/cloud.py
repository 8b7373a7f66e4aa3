"""The dialect of Comfy Cloud, after its documentation (https://docs.comfy.org). Sans-IO.

The server assigns the job ids. Jobs survive a restart. Downloads are redirects to a storage host. An interrupt stops
every running job of the account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from sweeper.comfy.cloud_search import find_submissions
from sweeper.comfy.comfyui import (
    make_view_request,
    mask_form_fields,
    read_submission,
    read_uploaded_name,
    to_input_file,
)
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
    UploadForm,
    is_id,
    is_own_refusal,
    raise_for_status,
)
from sweeper.comfy.responses import (
    make_failed_state,
    make_succeeded_state,
    read_messages,
    read_outputs,
    rejection_message,
    to_seconds,
)
from sweeper.errors import RejectedError, TargetError, TransientError

# The values of a job's raw status, current and older ones. Every other value means that the job is in flight.
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

_MAX_ROWS: Final = 1000  # of a listing, by the specification


class CloudDialect:
    """Comfy Cloud, and the embedded server by default."""

    name: Final = "cloud"
    # Subscriptions run 1, 3 or 5 jobs at a time and queue the rest. Users can set more.
    concurrency: Final = 2
    poll_intervals: Final = (1.0, 5.0)
    # A listing may lag behind a submission.
    lost_after_checks: Final = 3
    runs_one_job: Final = False
    jobs_survive_restart: Final = True
    has_event_stream: Final = True
    needs_key_in_events: Final = True
    sends_status_events: Final = False

    def auth_headers(self, key: str) -> dict[str, str]:
        return {KEY_HEADER: key}

    def handshake(self) -> Flow[Server]:
        response = yield ServerRequest("GET", "/api/user")
        if response.status == 404:  # not in every version; any endpoint that needs the key serves
            response = yield ServerRequest("GET", "/api/queue")
        raise_for_status(response).json_object()
        return Server(self.name)

    def submit(self, submission: JobSubmission) -> Flow[str | QueueFull]:
        extra = dict(submission.extra_data)
        body: dict[str, Any] = {"prompt": submission.graph}
        if submission.client_id:
            body["client_id"] = submission.client_id
        if extra:
            body["extra_data"] = extra
        response = yield ServerRequest("POST", "/api/prompt", body=body, idempotent=False)
        answer = read_submission(response, submission.graph)
        if isinstance(answer, QueueFull):
            return answer
        prompt_id, errors = answer.get("prompt_id"), rejection_message(answer, submission.graph)
        if errors:
            if is_id(prompt_id):
                with suppress(TargetError, TransientError):  # the rejection holds, and must not be sent again
                    yield from self.cancel(frozenset([prompt_id]))
            rejection = RejectedError(errors)
            rejection.may_be_accepted = not prompt_id and not is_own_refusal(response)
            raise rejection
        if not is_id(prompt_id):
            raise TransientError(f"the response to a submission has no prompt_id: {response.excerpt()!r}")
        return prompt_id

    def get_job(self, prompt_id: str, *, thorough: bool, success_reported: bool = False) -> Flow[JobState]:
        if success_reported:  # the details, which are needed anyway, may confirm it and save the other request
            details = yield from self._get_details(prompt_id)
            if _STATE_OF_STATUS.get(str(details.get("status"))) == "succeeded":
                return _read_end_state("succeeded", details, None)
        path = f"/api/job/{quote(prompt_id, safe='')}/status"
        response = raise_for_status((yield ServerRequest("GET", path)), 404)
        answer = response.json_object()  # of a 404 too, because a gateway's page must not make a paid job look lost
        if response.status == 404:
            return JobState("lost")
        state = _STATE_OF_STATUS.get(str(answer.get("status")), "underway")
        if state not in ("succeeded", "failed"):
            return JobState(state)
        details = yield from self._get_details(prompt_id)
        return _read_end_state(state, details, answer.get("error_message"))

    def _get_details(self, prompt_id: str) -> Flow[dict[str, Any]]:
        """The details of a job; empty if the server does not know it."""
        path = f"/api/jobs/{quote(prompt_id, safe='')}"
        response = raise_for_status((yield ServerRequest("GET", path)), 404)
        return response.json_object() if response.status != 404 else {}

    def find_submission(self, search: JobSearch) -> Flow[str | None]:
        answers = yield from find_submissions([search])
        if search.job_id not in answers:
            raise TransientError("a job that may be the sought one does not show its workflow")
        return answers[search.job_id]

    def find_submissions(self, searches: Sequence[JobSearch]) -> Flow[dict[str, str | None]]:
        return (yield from find_submissions(searches))

    def cancel(self, prompt_ids: frozenset[str], ours: frozenset[str] = frozenset()) -> Flow[bool]:
        raise_for_status((yield ServerRequest("POST", "/api/queue", body={"delete": sorted(prompt_ids)})))
        query = {"status": "pending,in_progress", "limit": str(_MAX_ROWS)}
        rows = raise_for_status((yield ServerRequest("GET", "/api/jobs", query=query))).json_object().get("jobs")
        if (
            not isinstance(rows, list)
            or len(rows) >= _MAX_ROWS
            or not all(isinstance(row, dict) and is_id(row.get("id")) for row in rows)
        ):
            return False
        waiting = {row.get("id") for row in rows if row.get("status") == "pending"}
        running = {row.get("id") for row in rows} - waiting
        # An interrupt stops every running job of the account. So all running jobs must be among those to cancel, and
        # all waiting ones must be ours, because one may start before the request arrives.
        if not running & prompt_ids:
            return True
        if not running <= prompt_ids or not waiting <= prompt_ids | ours:
            return False
        raise_for_status((yield ServerRequest("POST", "/api/interrupt", body={})))
        return True

    def upload(self, name: str, content: bytes) -> Flow[str]:
        fields = {"type": "input", "overwrite": "true"}
        response = yield ServerRequest("POST", "/api/upload/image", upload=UploadForm(name, content, fields))
        return read_uploaded_name(response, name)

    def upload_mask(self, name: str, content: bytes, original: str) -> Flow[str]:
        form = UploadForm(name, content, mask_form_fields(original))
        return read_uploaded_name((yield ServerRequest("POST", "/api/upload/mask", upload=form)), name)

    def has_file(self, value: Any, size: int | None) -> Flow[bool]:
        response = yield replace(self.view_request(to_input_file(value)), idempotent=False)
        return response.status == 302  # a redirect to the file, which is not followed; 404 if there is none

    def view_request(self, output: JobOutput) -> ServerRequest:
        return make_view_request("/api/view", output)

    def get_object_info(self) -> Flow[dict[str, Any]]:
        return raise_for_status((yield ServerRequest("GET", "/api/object_info"))).json_object()

    def get_features(self) -> Flow[dict[str, Any]]:
        response = raise_for_status((yield ServerRequest("GET", "/api/features")), 404)
        return response.json_object() if response.status != 404 else {}


def _read_end_state(state: str, details: Mapping[str, Any], message: Any) -> JobState:
    """The final state of a job from its details; `underway` if these still lag behind the status."""
    if _STATE_OF_STATUS.get(str(details.get("status"))) not in ("succeeded", "failed", "cancelled"):
        return JobState("underway")
    _, _, first, last = read_messages(details.get("execution_status"))
    started = to_seconds(details.get("execution_start_time")) or first
    ended = to_seconds(details.get("execution_end_time")) or last or to_seconds(details.get("update_time"))
    outputs = read_outputs(details.get("outputs"))
    if state == "failed":
        error = details.get("execution_error") or message
        return make_failed_state(error, outputs=outputs, started=started, ended=ended)
    return make_succeeded_state(outputs, started=started, ended=ended)
