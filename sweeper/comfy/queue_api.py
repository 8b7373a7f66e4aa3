"""Look at, find and cancel jobs on a ComfyUI before 0.12, which lacks the calls below `/api/jobs`. Sans-IO.

It lists whole graphs in /queue and /history. Statements about its behaviour were measured on 0.3.64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from sweeper.comfy.jobs_api import read_markers
from sweeper.comfy.protocol import Flow, JobSearch, JobState, ServerRequest, raise_for_status
from sweeper.comfy.responses import make_failed_state, make_succeeded_state, read_messages, read_node_runs, read_outputs
from sweeper.errors import TransientError

_RUNNING: Final = "queue_running"
_PENDING: Final = "queue_pending"
_HISTORY_LIMIT: Final = 64  # entries to search for markers, because the whole history can block a server for seconds


def get_job(prompt_id: str) -> Flow[JobState]:
    """The state of a job; `lost` if it is in neither list."""
    # The queue first, then the history: in the other order, a job that ends in between is in neither.
    queue = yield from _request_queue()
    for name, state in ((_RUNNING, "running"), (_PENDING, "queued")):
        if any(item[1] == prompt_id for item in queue[name]):
            return JobState(state)
    entry = yield from _request_history_entry(prompt_id)
    return JobState("lost") if entry is None else _read_state(entry)


def list_running() -> Flow[frozenset[str]]:
    """The prompt ids of the jobs that the server executes now, also those of others."""
    queue = yield from _request_queue()
    return frozenset(str(item[1]) for item in queue[_RUNNING])


def find_submissions(searches: Sequence[JobSearch]) -> Flow[dict[str, str | None]]:
    """By job id, the prompt_id of each submission, or None if the server has no trace of it.

    The server keeps our ids. Servers and proxies that assign ids of their own keep our marker in the graph.
    """
    queue = yield from _request_queue()
    items: list[Any] = [*queue[_RUNNING], *queue[_PENDING]]
    answers: dict[str, str | None] = {}
    for search in searches:
        answers[search.job_id] = _find_item(items, search.job_id)
        if answers[search.job_id] is None and (yield from _request_history_entry(search.job_id)) is not None:
            answers[search.job_id] = search.job_id
    missing = [job_id for job_id, prompt_id in answers.items() if prompt_id is None]
    if missing:
        response = yield ServerRequest("GET", "/history", query={"max_items": str(_HISTORY_LIMIT)})
        entries = raise_for_status(response).json_object().values()
        items = [entry.get("prompt") for entry in entries if isinstance(entry, Mapping)]
        answers.update((job_id, _find_item(items, job_id)) for job_id in missing)
    return answers


def cancel(prompt_ids: frozenset[str]) -> Flow[None]:
    """Ask the server to cancel these jobs, waiting or running, and no others. Poll them to see whether it did."""
    raise_for_status((yield ServerRequest("POST", "/queue", body={"delete": sorted(prompt_ids)})))
    running = yield from list_running()
    for prompt_id in sorted(prompt_ids & running):
        # The id limits the interrupt to that job. Older servers ignore it, so the job must be the one that runs.
        raise_for_status((yield ServerRequest("POST", "/interrupt", body={"prompt_id": prompt_id})))


def _request_queue() -> Flow[dict[str, list[list[Any]]]]:
    """The items in the two lists of /queue. Raises TransientError if one is not a list."""
    queue = raise_for_status((yield ServerRequest("GET", "/queue"))).json_object()
    found = {}
    for name in (_RUNNING, _PENDING):
        if not isinstance(items := queue.get(name), list):  # as an empty queue, it would make every job look lost
            raise TransientError(f"the response is not a queue: it has no list {name!r}")
        found[name] = [item for item in items if isinstance(item, list) and len(item) > 1]
    return found


def _request_history_entry(prompt_id: str) -> Flow[Mapping[str, Any] | None]:
    response = raise_for_status((yield ServerRequest("GET", f"/history/{quote(prompt_id, safe='')}")))
    history = response.json_object()
    entry = history.get(prompt_id)
    if isinstance(entry, Mapping):
        return entry
    if history:  # `{}` means "not in the history"; anything else does not come from ComfyUI
        raise TransientError(f"the response is not the history of that job: {response.excerpt()!r}")
    return None


def _find_item(items: Sequence[Any], job_id: str) -> str | None:
    """The prompt_id of the item that has our id, or a graph with our marker."""
    for item in items:
        if isinstance(item, list) and len(item) > 1:
            graph = item[2] if len(item) > 2 and isinstance(item[2], Mapping) else {}
            nodes = {name: node for name, node in graph.items() if isinstance(node, Mapping)}
            if item[1] == job_id or job_id[:8] in read_markers(nodes):
                return str(item[1])
    return None


def _read_state(entry: Mapping[str, Any]) -> JobState:
    status = entry.get("status")
    outputs = read_outputs(entry.get("outputs"))
    kind, data, started, ended = read_messages(status)
    facts: dict[str, Any] = {"started": started, "ended": ended, **read_node_runs(status)}
    if kind == "execution_error":
        return make_failed_state(data, outputs=outputs, **facts)
    if kind == "execution_interrupted":
        return JobState("cancelled", outputs, **facts)
    if kind == "execution_success" or not isinstance(status, Mapping) or status.get("status_str") == "success":
        return make_succeeded_state(outputs, **facts)
    return make_failed_state(None, outputs=outputs, **facts)
