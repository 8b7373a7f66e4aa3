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

from sweeper.comfy.comfyui import input_file, mask_fields, submission_answer, uploaded_name, view_ask
from sweeper.comfy.job_marker import fingerprint, marks
from sweeper.comfy.protocol import (
    KEY_HEADER,
    Ask,
    Busy,
    Flow,
    JobState,
    Output,
    Reply,
    Server,
    Sought,
    Submission,
    Upload,
    demand,
)
from sweeper.comfy.responses import failed, read_messages, read_outputs, rejection, seconds
from sweeper.errors import RejectedError, TransientError

# COMFY_API.md, "status": the words of the raw status, old and new. Every other word is in flight.
_STATES: Final = {
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

_PAGE: Final = 100  # rows of a listing; the specification allows 1 to 1000
_ALL: Final = 1000
# How much older than our intent a job's creation may seem: whole seconds, and what is left of the clocks' difference
# once the Date header has told it; without that header, a generous clock.
_SLACK: Final = 60.0
_SLACK_WITHOUT_DATE: Final = 900.0


class CloudDialect:
    """Comfy Cloud, and the embedded server by default."""

    name: Final = "cloud"
    # Tiers run 1, 3 or 5 at a time and queue the rest, so the next job may wait there; more is a setting.
    concurrency: Final = 2
    polls: Final = (1.0, 5.0)
    # Jobs are durable, but a listing may lag behind the submission that it should show.
    lost_after: Final = 3
    one_at_a_time: Final = False
    durable: Final = True
    streams: Final = True
    needs_key_in_events: Final = True
    says_status: Final = False

    def credentials(self, key: str) -> dict[str, str]:
        return {KEY_HEADER: key}

    def greet(self) -> Flow[Server]:
        reply = yield Ask("GET", "/api/user")
        if reply.status == 404:  # not in every version; any keyed endpoint will do
            reply = yield Ask("GET", "/api/queue")
        demand(reply).mapping()
        return Server(self.name)

    def submit(self, submission: Submission) -> Flow[str | Busy]:
        extra = dict(submission.extra)
        body: dict[str, Any] = {"prompt": submission.graph}
        if submission.client_id:
            body["client_id"] = submission.client_id
        if extra:
            body["extra_data"] = extra
        reply = yield Ask("POST", "/api/prompt", body=body, repeatable=False)
        answer = submission_answer(reply, submission.graph)
        if isinstance(answer, Busy):
            return answer
        prompt_id, errors = answer.get("prompt_id"), rejection(answer, submission.graph)
        if errors:
            if isinstance(prompt_id, str) and prompt_id:
                yield from self.cancel(frozenset([prompt_id]))
            raise RejectedError(errors)
        if not isinstance(prompt_id, str) or not prompt_id:
            raise TransientError(f"the answer to a submission has no prompt_id: {reply.excerpt()!r}")
        return prompt_id

    def look(self, prompt_id: str, *, thorough: bool, said: bool = False) -> Flow[JobState]:  # noqa: ARG002
        if said:  # then the details, which are to be asked anyway, say it too; if not, the status decides
            detail = demand((yield Ask("GET", f"/api/jobs/{quote(prompt_id, safe='')}")), 404)
            found = detail.mapping() if detail.status != 404 else {}
            if _STATES.get(str(found.get("status"))) == "succeeded":
                return _ended("succeeded", found, None)
        reply = demand((yield Ask("GET", f"/api/job/{quote(prompt_id, safe='')}/status")), 404)
        answer = reply.mapping()  # also of a 404: a gateway's page must not make a job that was paid for a lost one
        if reply.status == 404:
            return JobState("lost")
        state = _STATES.get(str(answer.get("status")), "underway")
        if state not in ("succeeded", "failed"):
            return JobState(state)
        detail = demand((yield Ask("GET", f"/api/jobs/{quote(prompt_id, safe='')}")), 404)
        found = detail.mapping() if detail.status != 404 else {}
        return _ended(state, found, answer.get("error_message"))

    def find(self, sought: Sought) -> Flow[str | None]:
        unsure = False
        offset = 0
        while True:
            query = {"limit": str(_PAGE), "offset": str(offset), "sort_by": "create_time", "sort_order": "desc"}
            reply = demand((yield Ask("GET", "/api/jobs", query=query)))
            rows = reply.mapping().get("jobs")
            if not isinstance(rows, list):  # taken for an empty listing, it would have the job sent again
                raise TransientError(f"the answer is no listing of jobs: {reply.excerpt()!r}")
            rows = [row for row in rows if isinstance(row, dict)]
            oldest = _since(sought, reply)
            for row in rows:
                created, prompt_id = seconds(row.get("create_time")), row.get("id")
                if created is not None and created < oldest:
                    rows = []  # newest first: what follows is older still
                    break
                if not isinstance(prompt_id, str) or sought.taken(prompt_id):
                    continue
                verdict = yield from self._is(prompt_id, sought)
                if verdict:
                    return prompt_id
                unsure = unsure or verdict is None
            if len(rows) < _PAGE:
                break
            offset += _PAGE
        if unsure:
            raise TransientError("the server does not show the workflow of a job that may be the one we look for")
        return None

    def _is(self, prompt_id: str, sought: Sought) -> Flow[bool | None]:
        """Whether that job is the one sought; None while it runs without showing its workflow."""
        reply = demand((yield Ask("GET", f"/api/jobs/{quote(prompt_id, safe='')}")), 404)
        found = reply.mapping()
        if reply.status == 404:
            return False
        graph = _graph(found.get("workflow"))
        if graph is None:
            return None if found.get("status") in (None, "pending", "in_progress") else False
        ours = marks(graph)
        if ours:
            return sought.job[:8] in ours
        try:
            return fingerprint(graph) == sought.fingerprint
        except ValueError:  # a NaN: never sent by us
            return False

    def cancel(self, prompt_ids: frozenset[str], ours: frozenset[str] = frozenset()) -> Flow[bool]:
        demand((yield Ask("POST", "/api/queue", body={"delete": sorted(prompt_ids)})))
        query = {"status": "pending,in_progress", "limit": str(_ALL)}
        rows = demand((yield Ask("GET", "/api/jobs", query=query))).mapping().get("jobs")
        if not isinstance(rows, list) or len(rows) >= _ALL or not all(isinstance(row, dict) for row in rows):
            return False
        waiting = {row.get("id") for row in rows if row.get("status") == "pending"}
        running = {row.get("id") for row in rows} - waiting
        # Interrupt stops every running job of the account: only where all of them are ours to stop, and where nobody
        # else's waits, which may have begun to run by the time that the request gets there.
        if not running & prompt_ids:
            return True
        if not running <= prompt_ids or not waiting <= prompt_ids | ours:
            return False
        demand((yield Ask("POST", "/api/interrupt", body={})))
        return True

    def upload(self, name: str, content: bytes) -> Flow[str]:
        fields = {"type": "input", "overwrite": "true"}
        reply = yield Ask("POST", "/api/upload/image", upload=Upload(name, content, fields))
        return uploaded_name(reply, name)

    def upload_mask(self, name: str, content: bytes, original: str) -> Flow[str]:
        reply = yield Ask("POST", "/api/upload/mask", upload=Upload(name, content, mask_fields(original)))
        return uploaded_name(reply, name)

    def holds(self, value: Any, size: int | None) -> Flow[bool]:  # noqa: ARG002 (files are stored by content)
        reply = yield replace(self.view(input_file(value)), repeatable=False)
        return reply.status == 302  # to the file, which stays where it is; 404 where there is none

    def view(self, output: Output) -> Ask:
        return view_ask("/api/view", output)

    def object_info(self) -> Flow[dict[str, Any]]:
        return demand((yield Ask("GET", "/api/object_info"))).mapping()

    def features(self) -> Flow[dict[str, Any]]:
        reply = demand((yield Ask("GET", "/api/features")), 404)
        return reply.mapping() if reply.status != 404 else {}


def _ended(state: str, found: Mapping[str, Any], message: Any) -> JobState:
    """The end of a job from its details; still underway where those have not caught up with the status."""
    if _STATES.get(str(found.get("status"))) not in ("succeeded", "failed", "cancelled"):
        return JobState("underway")
    _, _, began, stopped = read_messages(found.get("execution_status"))
    started = seconds(found.get("execution_start_time")) or began
    ended = seconds(found.get("execution_end_time")) or stopped or seconds(found.get("update_time"))
    outputs = read_outputs(found.get("outputs"))
    if state == "failed":
        return failed(found.get("execution_error") or message, outputs=outputs, started=started, ended=ended)
    return JobState("succeeded", outputs, started=started, ended=ended)


def _graph(workflow: Any) -> Mapping[str, Any] | None:
    """The graph in a job's details: as itself, inside `{prompt, extra_data}`, or in a queue item `[n, id, graph]`."""
    if isinstance(workflow, list):
        return next((graph for item in workflow if (graph := _graph(item)) is not None), None)
    if not isinstance(workflow, Mapping) or not workflow:
        return None
    if all(isinstance(node, Mapping) and "class_type" in node for node in workflow.values()):
        return workflow
    return _graph(workflow.get("prompt"))


def _since(sought: Sought, reply: Reply) -> float:
    """The earliest creation, by the server's clock, that the sought job can have."""
    try:
        ahead = parsedate_to_datetime(reply.headers["date"]).timestamp() - sought.now
    except (KeyError, ValueError, TypeError):
        return sought.since - _SLACK_WITHOUT_DATE
    return sought.since + ahead - _SLACK
