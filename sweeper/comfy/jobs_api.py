"""Mark, look at, find and cancel jobs by the calls below `/api/jobs` of Comfy Cloud and current ComfyUIs. Sans-IO.

Source: the OpenAPI document in ComfyUI's repository (openapi.yaml of 0.33.0). Statements about ComfyUI were measured on
0.33.0: it shows the workflow of a job only when it is over, has no trace of a waiting job that was cancelled, keeps the
latest 10,000 jobs until its process ends, and answers a cancellation of unknown jobs with 200, where Cloud has 404.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from sweeper.comfy.protocol import (
    Flow,
    JobIdentity,
    JobSearch,
    JobState,
    ServerRequest,
    ServerResponse,
    is_count,
    is_id,
    is_own_refusal,
    raise_for_status,
    read_date,
    to_text,
)
from sweeper.comfy.responses import (
    make_failed_state,
    make_succeeded_state,
    read_charged,
    read_messages,
    read_node_runs,
    read_outputs,
    to_seconds,
)
from sweeper.errors import TransientError
from sweeper.model.workflow import PREFIX_INPUT, Graph, compute_digest, has_filename_prefix
from sweeper.wording import shorten

_MARKER: Final = re.compile(r"sweeper/[a-z0-9][a-z0-9-]*/([0-9a-f]{8})/")


def to_slug(text: str, limit: int = 40) -> str:
    """Reduce a text to lower-case ASCII letters, digits and single dashes, at most `limit` characters; `x` if empty."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.casefold().encode("ascii", "ignore").decode()).strip("-")
    return cleaned[:limit].strip("-") or "x"


def add_marker(graph: Graph, experiment: str, job: str) -> dict[str, Any]:
    """A copy of the graph with `sweeper/<experiment>/<first 8 of job>/` in front of each `filename_prefix`.

    It makes names on the server unique and keeps its folders small (ComfyUI finds the next number by listing one). It
    also prevents a mix-up: ComfyUI answers a fully cached graph with the file of the earlier run, and reuses the number
    of a deleted file. The trial's digest does not include the prefix.
    """
    marker = f"sweeper/{to_slug(experiment)}/{job[:8]}/"
    return _with_prefixes(graph, lambda prefix: marker + prefix)


def strip_marker(graph: Graph) -> dict[str, Any]:
    """A copy of the graph without the markers."""
    return _with_prefixes(graph, lambda prefix: _MARKER.sub("", prefix, count=1) if _MARKER.match(prefix) else prefix)


def read_markers(graph: Graph) -> frozenset[str]:
    """The job ids in the graph's markers, each as its first 8 hex digits."""
    inputs = (node.get("inputs") for node in graph.values())
    prefixes = (value.get(PREFIX_INPUT) for value in inputs if isinstance(value, Mapping))
    return frozenset(match[1] for prefix in prefixes if isinstance(prefix, str) and (match := _MARKER.match(prefix)))


def read_path_marker(path: str) -> frozenset[str]:
    """The job id in the path of an output file, as its first 8 hex digits; empty without our marker."""
    match = _MARKER.match(path)
    return frozenset([match[1]]) if match else frozenset()


def fingerprint(graph: Graph) -> str:
    """SHA-256 of the graph without its marker, to recognise the graph in a server's listing."""
    return compute_digest(strip_marker(graph))


def _with_prefixes(graph: Graph, change: Any) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for node_id, node in graph.items():
        copied[node_id] = dict(node)
        if has_filename_prefix(node):
            inputs = node["inputs"]
            copied[node_id]["inputs"] = {**inputs, PREFIX_INPUT: change(inputs[PREFIX_INPUT])}
    return copied


# A status that is not listed here means that the job is in flight.
_STATE_OF_STATUS: Final = {
    "pending": "queued",
    "in_progress": "running",
    "completed": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
_MAX_REASON_LENGTH: Final = 100
_MAX_CANCELLED: Final = 100  # ids in one request, by the document
_JOBS_PATH: Final = "/api/jobs"
PAGE_SIZE: Final = 100  # rows of a listing; the document allows 1 to 1000
_MAX_ROWS: Final = 100_000  # of all pages: a server that repeats a page must not keep us busy for ever
_MAX_MARKED_ROWS: Final = 10_000  # that are searched for markers if the server's time of the intent is unknown
# How many seconds before our intent a job may seem to be created: rounding, and the difference of the clocks that is
# left after the correction by the Date header; without that header, the whole difference.
CLOCK_SLACK: Final = 60.0
_CLOCK_SLACK_WITHOUT_DATE: Final = 900.0
# Comfy Cloud's list lags behind its submissions: that it does not show a job means something only this many seconds
# after the intent, or once it shows one that was created after the search began.
LIST_LAG: Final = 15.0
_DATE_ERROR: Final = 2.0  # seconds that a time by the Date header may be early: it has no fractions, and took its way


def get_job(prompt_id: str) -> Flow[JobState]:
    """The state of a job; `lost` if the server does not know it."""
    response = raise_for_status((yield _make_details_request(prompt_id)), 404)
    details = response.json_object()
    if response.status != 404:
        return _read_state(details, response.headers)
    # Cloud has `{"code", "message"}`, ComfyUI `{"error": "Job not found"}`. A gateway's answer, such as
    # `{"error": "Not Found"}`, must not make a paid job look lost.
    if not is_own_refusal(response) and "job" not in str(details.get("error")).casefold():
        raise TransientError(f"HTTP 404, but not as a server answers about its jobs: {response.excerpt()!r}")
    return JobState("lost")


def list_running() -> Flow[frozenset[str]]:
    """The prompt ids of the jobs that the server executes now, also those of others."""
    page, _ = yield from request_page(_JOBS_PATH, {"limit": str(PAGE_SIZE), "status": "in_progress"})
    return frozenset(row["id"] for row in list_rows(page))


def cancel(prompt_ids: frozenset[str]) -> Flow[None]:
    """Ask the server to cancel these jobs, waiting or running, and no others. Poll them to see whether it did."""
    ids = sorted(prompt_ids)
    for batch in (ids[first : first + _MAX_CANCELLED] for first in range(0, len(ids), _MAX_CANCELLED)):
        if len(batch) > 1:
            response = yield ServerRequest("POST", "/api/jobs/cancel", body={"job_ids": batch})
            if raise_for_status(response, 400, 404).status < 300:
                continue  # otherwise one of the ids is unknown, and Cloud cancelled none of them
        for prompt_id in batch:
            path = f"/api/jobs/{quote(prompt_id, safe='')}/cancel"
            raise_for_status((yield ServerRequest("POST", path)), 400, 404)


def find_submissions(
    searches: Sequence[JobSearch], sort_by: Mapping[str, str], *, keeps_ids: bool
) -> Flow[dict[str, str | None]]:
    """By job id, the prompt_id of each submission, or None if the server has no trace of it. One walk answers all.

    A job has the id that we gave it, or our marker in the path of the first output, which a row shows. Otherwise the
    job's details decide, unless the server is known to keep our ids (`keeps_ids`). If they show no workflow, the job
    may be ours, so the answers lack each search that may mean it, and each whose job the list may not show yet.
    `sort_by`: the query for the newest jobs first.
    """
    remaining = {search.job_id: search for search in searches}
    answers: dict[str, str | None] = dict.fromkeys(remaining)
    # All rows may be too old if our clock was wrong at an intent.
    min_count = 0 if all(search.server_time is not None for search in searches) else _MAX_MARKED_ROWS
    position: dict[str, str] | None = {}  # of the next page
    count, newest = 0, 0.0
    while remaining and position is not None:
        page, response = yield from request_page(_JOBS_PATH, {"limit": str(PAGE_SIZE), **sort_by, **position})
        count += len(page["jobs"])
        position = _find_next_page(page, count)
        bounds = {search.job_id: earliest_creation(search, response) for search in searches}
        for row in list_rows(page):
            created = to_seconds(row.get("create_time"))
            newest = max(newest, created or 0.0)
            if created is not None and created < min(bounds.values()) and count > min_count:
                position = None  # the newest come first, so all further rows are too old
                break
            candidates = [entry for entry in remaining.values() if created is None or created >= bounds[entry.job_id]]
            match, unclear = yield from _check_row(row, remaining, [] if keeps_ids else candidates)
            if match is not None:
                answers[match.job_id] = row["id"]
                del remaining[match.job_id]
            for search in unclear:
                answers.pop(search.job_id, None)
    for search in () if keeps_ids else remaining.values():
        if search.age < LIST_LAG and (search.began_at is None or newest <= search.began_at + _DATE_ERROR):
            answers.pop(search.job_id, None)
    return answers


def _make_details_request(prompt_id: str) -> ServerRequest:
    return ServerRequest("GET", f"/api/jobs/{quote(prompt_id, safe='')}")


def _read_state(details: Mapping[str, Any], headers: Mapping[str, str]) -> JobState:
    """The state of a job from its details.

    A ComfyUI calls a job `completed` that failed before any node ran, if the job before it succeeded; so its error and
    its last message go before its status.
    """
    kind, data, first, last = read_messages(details.get("execution_status"))
    state = _STATE_OF_STATUS.get(str(details.get("status")), "underway")
    started = to_seconds(details.get("execution_start_time")) or first
    if state not in ("succeeded", "failed", "cancelled"):
        position = details.get("queue_position")
        return JobState(
            state,
            started=started,
            queue_reason=shorten(to_text(details.get("queue_reason") or ""), _MAX_REASON_LENGTH),
            queue_position=position if is_count(position) else None,
        )
    ended = to_seconds(details.get("execution_end_time")) or last or to_seconds(details.get("update_time"))
    outputs = read_outputs(details.get("outputs"))
    facts: dict[str, Any] = {"started": started, "ended": ended, "charged": read_charged(details, headers)}
    facts |= read_node_runs(details.get("execution_status"))
    if state == "cancelled" or kind == "execution_interrupted":
        return JobState("cancelled", outputs, **facts)
    error = details.get("execution_error") or (data if kind == "execution_error" else None)
    if state == "failed" or error:
        return make_failed_state(error, outputs=outputs, **facts)
    return make_succeeded_state(outputs, **facts)


def request_page(path: str, query: Mapping[str, str]) -> Flow[tuple[dict[str, Any], ServerResponse]]:
    """One page of a listing of jobs, whose rows are the list `jobs`, and the response."""
    response = raise_for_status((yield ServerRequest("GET", path, query=dict(query))))
    page = response.json_object()
    if not isinstance(page.get("jobs"), list):  # treated as an empty listing, it would make us submit the job again
        raise TransientError(f"the response is not a listing of jobs: {response.excerpt()!r}")
    return page, response


def list_rows(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [row for row in page["jobs"] if isinstance(row, dict) and is_id(row.get("id"))]


def check_row_count(count: int) -> None:
    """Raise TransientError if a listing has more pages after so many rows."""
    if count >= _MAX_ROWS:
        raise TransientError(f"the listing of jobs does not end after {count:,} rows")


def _find_next_page(page: Mapping[str, Any], count: int) -> dict[str, str] | None:
    """The query for the page after `count` rows: by Cloud's cursor, or by ComfyUI's offset; None after the last."""
    pagination = page.get("pagination")
    pagination = pagination if isinstance(pagination, Mapping) else {}
    cursor = pagination.get("next_cursor")
    row_count = len(page["jobs"])
    if not row_count or not pagination.get("has_more", cursor or row_count >= PAGE_SIZE):
        return None
    check_row_count(count)
    return {"after": cursor} if cursor and isinstance(cursor, str) else {"offset": str(count)}


def _check_row(
    row: Mapping[str, Any], searches: Mapping[str, JobSearch], candidates: list[JobSearch]
) -> Flow[tuple[JobSearch | None, list[JobSearch]]]:
    """Which of the `searches` a listed job belongs to, and which it may belong to.

    `candidates`: those that a job of its age can belong to without showing our id or a marker.
    """
    if row["id"] in searches:
        return searches[row["id"]], []
    preview = row.get("preview_output")
    preview = preview if isinstance(preview, Mapping) else {}
    marker = read_path_marker(f"{preview.get('subfolder') or ''}/{preview.get('filename') or ''}")
    if not searches or (not marker and not candidates) or next(iter(searches.values())).is_known(row["id"]):
        return None, []
    if marker:
        return next((search for search in searches.values() if _is_sought(search, JobIdentity(marker))), None), []
    identity = yield from _identify(row["id"], candidates[0].identities)
    if identity is None:
        return None, candidates
    return next((search for search in candidates if _is_sought(search, identity)), None), []


def _identify(prompt_id: str, known: dict[str, JobIdentity]) -> Flow[JobIdentity | None]:
    """What the details of a job say about its workflow; None if they do not show it. Requests them once per client."""
    if prompt_id in known:
        return known[prompt_id]
    response = raise_for_status((yield _make_details_request(prompt_id)), 404)
    identity = None if response.status == 404 else _read_identity(response.json_object())
    if identity is not None:
        known[prompt_id] = identity
    return identity


def _read_identity(details: Mapping[str, Any]) -> JobIdentity | None:
    graph = _find_graph(details.get("workflow"))
    if graph is None:
        outputs = read_outputs(details.get("outputs"))
        markers = [read_path_marker(f"{output.subfolder}/{output.filename}") for output in outputs]
        return next((JobIdentity(marker) for marker in markers if marker), None)
    marker = read_markers(graph)
    try:
        return JobIdentity(marker, None if marker else fingerprint(graph))
    except ValueError:  # the graph contains NaN, which we never send
        return JobIdentity()


def _is_sought(search: JobSearch, identity: JobIdentity) -> bool:
    if identity.markers:
        return search.job_id[:8] in identity.markers
    return identity.fingerprint == search.fingerprint


def _find_graph(workflow: Any) -> Mapping[str, Any] | None:
    """The graph in a job's details: bare, inside `{prompt, extra_data}`, or in a queue item `[n, id, graph]`."""
    if isinstance(workflow, list):
        return next((graph for item in workflow if (graph := _find_graph(item)) is not None), None)
    if not isinstance(workflow, Mapping) or not workflow:
        return None
    if all(isinstance(node, Mapping) and "class_type" in node for node in workflow.values()):
        return workflow
    return _find_graph(workflow.get("prompt"))


def earliest_creation(search: JobSearch, response: ServerResponse, slack: float = CLOCK_SLACK) -> float:
    """The earliest possible creation time of the sought job, by the server's clock.

    `slack`: how many seconds its Date header and its times of jobs may differ.
    """
    if search.server_time is not None:
        return search.server_time - slack
    date = read_date(response)
    if date is None:
        return search.intended_at - _CLOCK_SLACK_WITHOUT_DATE
    return search.intended_at + date - search.now - slack
