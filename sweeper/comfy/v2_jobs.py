"""Read and find the jobs of Comfy API v2. Sans-IO.

Source: the schemas of comfy-sdk 0.5.0. Of a list, a deployment sends `{jobs: [{id, status, create_time, metadata}],
next_cursor}` and keeps labels in `metadata`. comfy-api-proxy 0.1.6 sends one page of whole jobs; its `metadata` is one
text. A gateway from before the labels ignores both the labels and the filter, so there the workflows decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from sweeper.comfy.job_marker import fingerprint, read_markers
from sweeper.comfy.jobs_api import CLOCK_SLACK, PAGE_SIZE, check_row_count, earliest_creation, list_rows, request_page
from sweeper.comfy.protocol import (
    Flow,
    JobOutput,
    JobSearch,
    JobState,
    ServerRequest,
    ServerResponse,
    is_count,
    is_own_refusal,
    raise_for_status,
    read_error_code,
    read_error_message,
    to_text,
)
from sweeper.comfy.responses import (
    make_failed_state,
    make_succeeded_state,
    read_charged,
    rejection_message,
    sort_outputs,
    to_seconds,
)
from sweeper.errors import MAX_MESSAGE_LENGTH, TransientError
from sweeper.wording import shorten

JOBS_PATH: Final = "/api/v2/jobs"
_LABEL: Final = "sweeper_job"
# A status that is not listed here means that the job is in flight. An `expired` one is gone: the proxy says so of a job
# that its ComfyUI no longer knows.
_STATE_OF_STATUS: Final = {
    "queued": "queued",
    "running": "running",
    "canceling": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "cancelled",
    "expired": "lost",
}
_KIND_OF_TYPE: Final = {"image": "images", "file": "files", "latent": "latents"}  # as ComfyUI calls them
_MAX_LENGTH: Final = 4096  # characters of an asset's id or name. The proxy's ids contain the path of the file
# Rows of a listing. The proxy has one page of at most 100, and asks its ComfyUI twice for each row.
_FIRST_PAGE: Final = 10  # then `PAGE_SIZE`
# The proxy has one clock, so of its 100 jobs fewer can be the sought one; both of its times are rounded to a second.
_PROXY_CLOCK_SLACK: Final = 2.0
_RUNNING_ROWS: Final = 20  # the latest jobs, among which to look for those that run
# The exception in a Python traceback: the line after the frames, because a message may have several lines; without
# frames, the last line.
_FRAME: Final = '  File "'
_EXCEPTION_AFTER_FRAME: Final = re.compile(r"\n([A-Za-z_][\w.]{0,199})(?:[:\n]|\Z)")
_EXCEPTION: Final = re.compile(r"(?:^|\n)([A-Za-z_][\w.]{0,199})(?::[^\n]*)?\s*\Z")
_EXCEPTION_OF_CODE: Final = {"insufficient_credits": "InsufficientFundsError"}


def make_path(prompt_id: str) -> str:
    return f"{JOBS_PATH}/{quote(prompt_id, safe='')}"


def make_label(job_id: str, *, is_text: bool) -> Any:
    """The `metadata` by which to find a job of ours: labels, or one text for a server that keeps only that."""
    return job_id if is_text else {_LABEL: job_id}


def get_job(prompt_id: str) -> Flow[JobState]:
    """The state of a job; `lost` if the server does not know it."""
    response = raise_for_status((yield ServerRequest("GET", make_path(prompt_id))), 404)
    if response.status == 404:  # a gateway's answer must not make a paid job look lost
        if not is_own_refusal(response):
            raise TransientError(f"HTTP 404, but not as a server answers about its jobs: {response.excerpt()!r}")
        return JobState("lost")
    return _read_state(response.json_object(), response.headers)


def list_running() -> Flow[frozenset[str]]:
    """The ids of the jobs that the server executes now, also those of others."""
    page, _ = yield from request_page(JOBS_PATH, {"limit": str(_RUNNING_ROWS)})
    return frozenset(row["id"] for row in list_rows(page) if row.get("status") in ("running", "canceling"))


def find_submissions(searches: Sequence[JobSearch]) -> Flow[dict[str, str | None]]:
    """By job id, the id of each submission on the server, or None if it has no trace of it.

    A job id is missing if a job without labels may be it, but does not show its workflow.
    """
    answers: dict[str, str | None] = {}
    for search in searches:
        found, is_clear = yield from _find_submission(search)
        if found is not None or is_clear:
            answers[search.job_id] = found
    return answers


def read_rejection(response: ServerResponse, graph: Mapping[str, Any]) -> str:
    """Why the server rejects a workflow: by the errors of ComfyUI's own validation if the answer has them."""
    error = response.json_object()["error"] if read_error_code(response) else {}
    details = error.get("details")
    errors = details.get("node_errors") if isinstance(details, Mapping) else None
    if isinstance(errors, Mapping) and errors and all(isinstance(entry, Mapping) for entry in errors.values()):
        return rejection_message({"node_errors": errors}, graph) or ""
    return shorten(to_text(error.get("message") or ""), MAX_MESSAGE_LENGTH) or read_error_message(response)


def _find_submission(search: JobSearch) -> Flow[tuple[str | None, bool]]:
    """The id of the job, or None, and whether no other job can be it."""
    query = {"limit": str(_FIRST_PAGE), f"metadata[{_LABEL}]": search.job_id}
    count, is_clear = 0, True
    while True:
        page, response = yield from request_page(JOBS_PATH, query)
        row_count = len(page["jobs"])
        count += row_count
        is_proxy = "truncated" in page
        earliest = earliest_creation(search, response, _PROXY_CLOCK_SLACK if is_proxy else CLOCK_SLACK)
        for row in list_rows(page):
            created = _read_time(row.get("create_time", row.get("created_at")))
            if created is not None and created < earliest:
                return None, is_clear  # the newest come first
            if (is_ours := _has_label(row, search)) is None and not search.is_known(row["id"]):
                is_ours = yield from _has_workflow(row["id"], search)
                is_clear = is_clear and is_ours is not None
            if is_ours:
                return row["id"], True
        limit, cursor = int(query["limit"]), page.get("next_cursor")
        if cursor and isinstance(cursor, str):
            if not row_count:
                raise TransientError("a page of the listing of jobs is empty, but not the last one")
            check_row_count(count)
            query["cursor"] = cursor
        elif not is_proxy or (row_count < limit and not page["truncated"]):
            return None, is_clear
        elif limit == PAGE_SIZE:  # the proxy shows no older jobs, and one of them may be it
            return None, False
        query["limit"] = str(PAGE_SIZE)


def _has_label(row: Mapping[str, Any], search: JobSearch) -> bool | None:
    """Whether a listed job has our label; None if the server does not say which labels it has."""
    if "metadata" not in row:
        return None
    labels = row["metadata"]
    return bool(labels == search.job_id or (isinstance(labels, Mapping) and labels.get(_LABEL) == search.job_id))


def _has_workflow(prompt_id: str, search: JobSearch) -> Flow[bool | None]:
    """Whether a job has the workflow that we sent; None if it does not show it."""
    response = raise_for_status((yield ServerRequest("GET", f"{make_path(prompt_id)}/workflow")), 404)
    graph = response.json_object().get("workflow") if response.status != 404 else None
    if not isinstance(graph, Mapping) or not all(isinstance(node, Mapping) for node in graph.values()):
        return None
    markers = read_markers(graph)
    try:
        return search.job_id[:8] in markers if markers else fingerprint(graph) == search.fingerprint
    except ValueError:  # the graph contains NaN, which we never send
        return False


# --- the state of a job


def _read_state(job: Mapping[str, Any], headers: Mapping[str, str]) -> JobState:
    state = _STATE_OF_STATUS.get(str(job.get("status")), "underway")
    started, ended = _read_time(job.get("started_at")), _read_time(job.get("completed_at"))
    if state not in ("succeeded", "failed", "cancelled"):
        position = job.get("queue_position")
        return JobState(state, started=started, queue_position=position if is_count(position) else None)
    metrics = job.get("metrics")
    milliseconds = metrics.get("execution_ms") if isinstance(metrics, Mapping) else None
    if started is None and ended is not None and isinstance(milliseconds, int) and 0 <= milliseconds < ended * 1000:
        started = ended - milliseconds / 1000
    outputs = _read_outputs(job.get("outputs"))
    facts: dict[str, Any] = {"started": started, "ended": ended, "charged": read_charged(job, headers)}
    if state == "failed":
        return make_failed_state(_read_error(job.get("error")), outputs=outputs, **facts)
    if state == "cancelled":
        return JobState(state, outputs, **facts)
    return make_succeeded_state(outputs, **facts)


def _read_error(error: Any) -> dict[str, Any]:
    """An error in ComfyUI's form. The type of the exception stands in the traceback, if at all."""
    if not isinstance(error, Mapping):
        return {}
    code, traceback = to_text(error.get("code") or ""), error.get("traceback")
    exception = _read_exception(traceback[-_MAX_LENGTH:]) if isinstance(traceback, str) else ""
    return {
        "exception_type": _EXCEPTION_OF_CODE.get(code) or exception or code,
        "exception_message": error.get("message"),
        "node_id": error.get("node_id"),
        "node_type": error.get("class_type"),
    }


def _read_exception(traceback: str) -> str:
    frame = traceback.rfind(_FRAME)
    match = _EXCEPTION.search(traceback) if frame < 0 else _EXCEPTION_AFTER_FRAME.search(traceback, frame)
    return match[1] if match else ""


def _read_outputs(outputs_json: Any) -> tuple[JobOutput, ...]:
    return sort_outputs(_iter_outputs(outputs_json if isinstance(outputs_json, list) else []))


def _iter_outputs(records: list[Any]) -> Iterator[JobOutput]:
    positions: dict[tuple[str, str], int] = {}
    for record in records:
        if not isinstance(record, Mapping) or not _is_name(record.get("id")) or not _is_name(record.get("name")):
            continue
        node, kind = to_text(record.get("node_id"))[:200], to_text(record.get("type"))[:200]
        kind = _KIND_OF_TYPE.get(kind, kind)
        position = positions[node, kind] = positions.get((node, kind), -1) + 1
        yield JobOutput(node, kind, position, record["name"].rpartition("/")[2], record["id"], "output")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_LENGTH


def _read_time(value: Any) -> float | None:
    """Seconds since 1970 of a time by RFC 3339, or of a number; None if it is neither."""
    if not isinstance(value, str):
        return to_seconds(value)
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
