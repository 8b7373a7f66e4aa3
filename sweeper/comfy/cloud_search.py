"""Find submissions with an unknown outcome in Comfy Cloud's list of jobs: one walk answers all of them. Sans-IO.

A row of the list does not show its workflow. What it shows of its first output may contain our marker; otherwise the
details of the job decide. A job whose details show no workflow may be ours, so the outcome stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote

from sweeper.comfy.job_marker import fingerprint, read_markers, read_path_marker
from sweeper.comfy.protocol import Flow, JobIdentity, JobSearch, ServerRequest, ServerResponse, raise_for_status
from sweeper.comfy.responses import read_outputs, to_seconds
from sweeper.errors import TransientError

_PAGE_SIZE: Final = 100  # rows of a listing; the specification allows 1 to 1000
_MAX_MARKED_ROWS: Final = 10_000  # that are searched for markers if the server's time of the intent is unknown
# How many seconds before our intent a job may seem to be created: rounding, and the difference of the clocks that is
# left after the correction by the Date header; without that header, the whole difference.
_CLOCK_SLACK: Final = 60.0
_CLOCK_SLACK_WITHOUT_DATE: Final = 900.0


def find_submissions(searches: Sequence[JobSearch]) -> Flow[dict[str, str | None]]:
    """By job id, the prompt_id of each submission, or None if the server has no trace of it.

    A job id is missing if some job may be it, but does not show its workflow.
    """
    remaining = {search.job_id: search for search in searches}
    answers: dict[str, str | None] = dict.fromkeys(remaining)
    offset, is_last = 0, False
    while remaining and not is_last:
        rows, response = yield from _request_page(offset)
        offset += _PAGE_SIZE
        is_last = len(rows) < _PAGE_SIZE
        bounds = {search.job_id: _earliest_creation(search, response) for search in searches}
        for row in filter(_is_job, rows):
            created = to_seconds(row.get("create_time"))
            if created is not None and created < min(bounds.values()) and offset > _get_row_limit(searches):
                is_last = True  # the newest come first, so all further rows are too old
                break
            candidates = [one for one in remaining.values() if created is None or created >= bounds[one.job_id]]
            match, unclear = yield from _check_row(row, list(remaining.values()), candidates)
            if match is not None:
                answers[match.job_id] = row["id"]
                del remaining[match.job_id]
            for search in unclear:
                answers.pop(search.job_id, None)
    return answers


def _request_page(offset: int) -> Flow[tuple[list[Any], ServerResponse]]:
    query = {"limit": str(_PAGE_SIZE), "offset": str(offset), "sort_by": "create_time", "sort_order": "desc"}
    response = raise_for_status((yield ServerRequest("GET", "/api/jobs", query=query)))
    rows = response.json_object().get("jobs")
    if not isinstance(rows, list):  # treated as an empty listing, it would make us submit the job again
        raise TransientError(f"the response is not a listing of jobs: {response.excerpt()!r}")
    return rows, response


def _is_job(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("id"), str)


def _check_row(
    row: Mapping[str, Any], searches: list[JobSearch], candidates: list[JobSearch]
) -> Flow[tuple[JobSearch | None, list[JobSearch]]]:
    """Which of the `searches` a listed job belongs to, and which it may belong to.

    `candidates`: those that a job of its age can belong to without showing a marker.
    """
    marker = _read_preview_marker(row)
    if not searches or (not marker and not candidates) or searches[0].is_known(row["id"]):
        return None, []
    if marker:
        return next((search for search in searches if _is_sought(search, JobIdentity(marker))), None), []
    identity = yield from _identify(row["id"], candidates[0].identities)
    if identity is None:
        return None, candidates
    return next((search for search in candidates if _is_sought(search, identity)), None), []


def _get_row_limit(searches: Sequence[JobSearch]) -> int:
    """How many rows to search at least, whatever their times: more if our clock may have been wrong at an intent."""
    return 0 if all(search.server_time is not None for search in searches) else _MAX_MARKED_ROWS


def _identify(prompt_id: str, known: dict[str, JobIdentity]) -> Flow[JobIdentity | None]:
    """What the details of a job say about its workflow; None if they do not show it. Requests them once per client."""
    if prompt_id in known:
        return known[prompt_id]
    response = raise_for_status((yield ServerRequest("GET", f"/api/jobs/{quote(prompt_id, safe='')}")), 404)
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


def _read_preview_marker(row: Mapping[str, Any]) -> frozenset[str]:
    """The marker in the path of a listed job's first output; empty if there is none."""
    preview = row.get("preview_output")
    if not isinstance(preview, Mapping):
        return frozenset()
    return read_path_marker(f"{preview.get('subfolder') or ''}/{preview.get('filename') or ''}")


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


def _earliest_creation(search: JobSearch, response: ServerResponse) -> float:
    """The earliest possible creation time of the sought job, by the server's clock."""
    if search.server_time is not None:
        return search.server_time - _CLOCK_SLACK
    try:
        ahead = parsedate_to_datetime(response.headers["date"]).timestamp() - search.now
    except (KeyError, ValueError, TypeError):
        return search.intended_at - _CLOCK_SLACK_WITHOUT_DATE
    return search.intended_at + ahead - _CLOCK_SLACK
