"""The dialect of Comfy API v2: deployments, comfy-api-proxy in front of a ComfyUI, and Comfy Cloud. Sans-IO.

Sources: the documentation and the schemas of comfy-sdk 0.5.0, and comfy-api-proxy 0.1.6, which was also measured. The
API lists no node classes and no features, and it stores no masks. Paths are built and never taken from an answer, so
that no server can lead the key elsewhere.

Of a list, a deployment sends `{jobs: [{id, status, create_time, metadata}], next_cursor}` and keeps labels in
`metadata`. The proxy sends one page of whole jobs; its `metadata` is one text. A gateway from before the labels ignores
both the labels and the filter, so there the workflows decide.

The three hosts differ in how they find a job whose answer was lost. A deployment keeps labels, the proxy one text, and
both list their jobs with them. Comfy Cloud refuses labels and this list, but has that of its older API.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from blake3 import blake3

from sweeper.comfy import jobs_api, model_files
from sweeper.comfy.comfyui import read_submission
from sweeper.comfy.protocol import (
    STOPPED,
    Flow,
    JobOutput,
    JobSearch,
    JobState,
    JobSubmission,
    KnownJob,
    QueueFull,
    Server,
    ServerRequest,
    ServerResponse,
    ServerTraits,
    UploadForm,
    is_count,
    is_id,
    is_own_refusal,
    raise_for_status,
    read_error_code,
    read_error_message,
    request_optional,
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
from sweeper.errors import MAX_MESSAGE_LENGTH, RejectedError, TransientError, UnreachableError
from sweeper.wording import shorten

_ASSETS_PATH: Final = "/api/v2/assets"
_PARTNER_KEY: Final = "api_key_comfy_org"  # the only `extra_data` that the API accepts
_ONE_BYTE: Final = {"Range": "bytes=0-0"}


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


def _read_rejection(response: ServerResponse, graph: Mapping[str, Any]) -> str:
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
        page, response = yield from jobs_api.request_page(JOBS_PATH, query)
        row_count = len(page["jobs"])
        count += row_count
        is_proxy = "truncated" in page
        slack = _PROXY_CLOCK_SLACK if is_proxy else jobs_api.CLOCK_SLACK
        earliest = jobs_api.earliest_creation(search, response, slack)
        for row in jobs_api.list_rows(page):
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
            jobs_api.check_row_count(count)
            query["cursor"] = cursor
        elif not is_proxy or (row_count < limit and not page["truncated"]):
            return None, is_clear
        elif limit == jobs_api.PAGE_SIZE:  # the proxy shows no older jobs, and one of them may be it
            return None, False
        query["limit"] = str(jobs_api.PAGE_SIZE)


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
    markers = jobs_api.read_markers(graph)
    try:
        return search.job_id[:8] in markers if markers else jobs_api.fingerprint(graph) == search.fingerprint
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
    records = job.get("outputs")
    outputs = sort_outputs(_iter_outputs(records if isinstance(records, list) else []))
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


class V2Dialect(ServerTraits):
    name = "v2"
    # Deployments scale with their queue, and a local ComfyUI behind the proxy runs one job while the next one waits.
    concurrency = 2
    lost_after_checks = 3  # also, the proxy reads the history before the queue, so it misses a job that ends in between
    key_seconds = 23 * 3600.0  # the server forgets an Idempotency-Key after 24 hours
    get_model_facts = staticmethod(model_files.find_asset)

    def __init__(self) -> None:
        self._host = "deployment"  # or "proxy" or "cloud", as the handshake finds out

    def auth_headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def handshake(self) -> Flow[Server]:
        response = yield ServerRequest("GET", JOBS_PATH, query={"limit": "1"})
        code = read_error_code(response)
        if response.status == 501 and code == "not_implemented":
            self._host = "cloud"
            raise_for_status((yield ServerRequest("GET", "/api/user")), 404)
            return Server(self.name)
        if code == "public_deployment_no_list" or response.status in (404, 405):
            raise UnreachableError(
                f"lists no jobs (HTTP {response.status}), so that sweeper could not find a job whose answer is lost: "
                "use a deployment of your own, or comfy-api-proxy 0.1.6 or newer"
            )
        body = raise_for_status(response).json_object()
        if not isinstance(body.get("jobs"), list):
            raise UnreachableError(f"{JOBS_PATH} is not a listing of jobs: {response.excerpt()!r}")
        self._host = "proxy" if "truncated" in body else "deployment"
        return Server(self.name)

    def submit(self, submission: JobSubmission) -> Flow[str | QueueFull | KnownJob]:
        body: dict[str, Any] = {"workflow": submission.graph}
        if _PARTNER_KEY in submission.extra_data:
            body["extra_data"] = {_PARTNER_KEY: submission.extra_data[_PARTNER_KEY]}
        if self._host != "cloud":
            # By it we find our job: labels, or one text, because the proxy keeps only that.
            body["metadata"] = submission.job_id if self._host == "proxy" else {_LABEL: submission.job_id}
        # The intent, which is on disk, has this id. A server that got it before refuses it, and replays nothing.
        headers = {"Idempotency-Key": submission.job_id}
        response = yield ServerRequest("POST", JOBS_PATH, body=body, headers=headers, idempotent=False)
        if response.status == 422:
            if (code := read_error_code(response)) == "idempotency_key_reuse":
                return KnownJob()
            if code == STOPPED:
                raise_for_status(response)
            rejection = RejectedError(_read_rejection(response, submission.graph))
            rejection.may_be_accepted = not is_own_refusal(response)
            raise rejection
        answer = read_submission(response, submission.graph)
        if isinstance(answer, QueueFull):
            return answer
        if not is_id(answer.get("id")):
            raise TransientError(f"the response to a submission has no id: {response.excerpt()!r}")
        return str(answer["id"])

    def get_job(self, prompt_id: str) -> Flow[JobState]:
        response = raise_for_status((yield ServerRequest("GET", make_path(prompt_id))), 404)
        if response.status == 404:  # a gateway's answer must not make a paid job look lost
            if not is_own_refusal(response):
                raise TransientError(f"HTTP 404, but not as a server answers about its jobs: {response.excerpt()!r}")
            return JobState("lost")
        return _read_state(response.json_object(), response.headers)

    def list_running(self) -> Flow[frozenset[str]]:
        if self._host == "cloud":
            return (yield from jobs_api.list_running())
        page, _ = yield from jobs_api.request_page(JOBS_PATH, {"limit": str(_RUNNING_ROWS)})
        return frozenset(row["id"] for row in jobs_api.list_rows(page) if row.get("status") in ("running", "canceling"))

    def find_submissions(self, searches: Sequence[JobSearch]) -> Flow[dict[str, str | None]]:
        if self._host == "cloud":
            query = {"sort_by": "create_time", "sort_order": "desc"}
            return (yield from jobs_api.find_submissions(searches, query, keeps_ids=False))
        answers: dict[str, str | None] = {}
        for search in searches:
            found, is_clear = yield from _find_submission(search)
            if found is not None or is_clear:  # if not, a job without labels may be it, and does not show its workflow
                answers[search.job_id] = found
        return answers

    def cancel(self, prompt_ids: frozenset[str]) -> Flow[None]:
        for prompt_id in sorted(prompt_ids):
            raise_for_status((yield ServerRequest("POST", f"{make_path(prompt_id)}/cancel")), 404)

    def make_events_request(self, prompt_id: str) -> ServerRequest:  # each job has a stream of its own
        return ServerRequest("GET", f"{make_path(prompt_id)}/events")

    # --- files

    def upload(self, name: str, content: bytes) -> Flow[dict[str, Any]]:
        digest = f"blake3:{blake3(content).hexdigest()}"
        if (yield ServerRequest("HEAD", f"{_ASSETS_PATH}/by-hash/{digest}")).status == 200:
            body = {"hash": digest, "file_path": name}
            response = raise_for_status((yield ServerRequest("POST", f"{_ASSETS_PATH}/from-hash", body=body)), 404)
            if response.status != 404:  # another client may have deleted it meanwhile
                reference = _read_reference(response, digest, name)
                if (yield from self.has_file(reference, len(content))):
                    return reference
                # The proxy knows the hash, but somebody emptied ComfyUI's input folder.
                yield ServerRequest("DELETE", _make_asset_path(reference["info"]["id"]))
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        fields = {"file_path": name, "content_type": kind, "expected_hash": digest}
        response = yield ServerRequest("POST", _ASSETS_PATH, upload=UploadForm(name, content, fields, "file"))
        if response.status in (400, 409, 413, 415, 422) and read_error_code(response) != STOPPED:
            reason = f"the server rejects it (HTTP {response.status}): {read_error_message(response)}"
            raise RejectedError(f"input file {name}: {reason}")
        return _read_reference(raise_for_status(response), digest, name)

    def has_file(self, value: Any, size: int | None) -> Flow[bool]:
        info = value.get("info") if isinstance(value, Mapping) else None
        if not isinstance(info, Mapping) or not isinstance(info.get("id"), str):
            return False  # recorded by another dialect
        path = f"{_make_asset_path(info['id'])}/content"
        response = yield ServerRequest("GET", path, headers=_ONE_BYTE, idempotent=False)
        total = response.headers.get("content-range", "").rpartition("/")[2]
        is_whole = size is None or not total.isdigit() or total == str(size)
        return response.status in (200, 206, 302, 307) and is_whole

    def view_request(self, output: JobOutput) -> ServerRequest:
        return ServerRequest("GET", f"{_make_asset_path(output.subfolder)}/content")

    # --- what only some of the hosts have

    def request_classes(self, class_type: str = "") -> ServerRequest | None:
        return None if class_type else ServerRequest("GET", "/api/object_info", reads_classes=True)

    def get_features(self) -> Flow[dict[str, Any]]:
        return request_optional("/api/features")


def _make_asset_path(asset_id: str) -> str:
    return f"{_ASSETS_PATH}/{quote(asset_id, safe='')}"


def _read_reference(response: ServerResponse, digest: str, name: str) -> dict[str, Any]:
    """The value by which a workflow refers to a stored asset."""
    asset_id = response.json_object().get("id")
    if not isinstance(asset_id, str) or not asset_id:
        raise TransientError(f"the response to an upload has no id: {response.excerpt()!r}")
    return {"__type": "core/ASSET", "info": {"id": asset_id, "hash": digest, "file_path": name}}
