"""The dialect of a ComfyUI server, after COMFYUI_BEHAVIOUR.md (section numbers below are its). Sans-IO."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from sweeper.comfy.job_marker import read_markers
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
    is_subscription_error,
    raise_for_status,
    read_error_message,
    read_retry_after,
)
from sweeper.comfy.responses import make_failed_state, read_messages, read_outputs, rejection_message
from sweeper.errors import RejectedError, TransientError, UnreachableError

_HISTORY_LIMIT: Final = 64  # entries of the history among which a job of unknown outcome is looked for


class ComfyUIDialect:
    """One job at a time, our own prompt ids, everything forgotten by a restart."""

    name: Final = "comfyui"
    # Two in flight: the next job is queued while one runs, so the GPU never waits for a round trip (section 7).
    concurrency: Final = 2
    poll_intervals: Final = (0.05, 2.0)
    # /queue before /history/{id} never missed a job that was there (3.3); once more, for a proxy between us.
    lost_after_checks: Final = 2
    runs_one_job: Final = True
    jobs_survive_restart: Final = False  # queue and history are the process's memory (section 5)
    has_event_stream: Final = True
    needs_key_in_events: Final = False
    sends_status_events: Final = True

    def auth_headers(self, key: str) -> dict[str, str]:
        return {KEY_HEADER: key}

    def handshake(self) -> Flow[Server]:
        reply = raise_for_status((yield ServerRequest("GET", "/system_stats")))
        system = reply.json_object().get("system")
        if not isinstance(system, Mapping):
            raise UnreachableError(f"/system_stats does not answer as ComfyUI does: {reply.excerpt()!r}")
        arguments = system.get("argv")
        return Server(
            self.name,
            str(system.get("comfyui_version") or ""),
            tuple(str(argument) for argument in arguments) if isinstance(arguments, list) else (),
        )

    def submit(self, submission: JobSubmission) -> Flow[str | QueueFull]:
        body: dict[str, Any] = {"prompt": submission.graph, "prompt_id": submission.job_id}
        if submission.client_id:
            body["client_id"] = submission.client_id
        if submission.extra_data:  # never null: that kills the server's worker (1.3)
            body["extra_data"] = dict(submission.extra_data)
        reply = yield ServerRequest("POST", "/prompt", body=body, idempotent=False)
        answer = read_submission(reply, submission.graph)
        if isinstance(answer, QueueFull):
            return answer
        prompt_id = answer.get("prompt_id")
        if not isinstance(prompt_id, str) or not prompt_id:
            raise TransientError(f"the answer to a submission has no prompt_id: {reply.excerpt()!r}")
        errors = rejection_message(answer, submission.graph)
        if errors:
            # 200 with node_errors: the valid outputs of it were queued all the same (section 1).
            yield from self.cancel(frozenset([prompt_id]))
            raise RejectedError(errors)
        return prompt_id

    def get_job(self, prompt_id: str, *, thorough: bool, success_reported: bool = False) -> Flow[JobState]:  # noqa: ARG002
        if thorough:
            # The queue first, then the history: the other way round a job that just ended is in neither (3.3).
            queue = raise_for_status((yield ServerRequest("GET", "/queue"))).json_object()
            running, pending = _read_prompt_ids(queue, "queue_running"), _read_prompt_ids(queue, "queue_pending")
            if prompt_id in running:
                return JobState("running")
            if prompt_id in pending:
                return JobState("queued", running_job=next(iter(sorted(running)), None))
        reply = raise_for_status((yield ServerRequest("GET", f"/history/{quote(prompt_id, safe='')}")))
        found = reply.json_object()
        entry = found.get(prompt_id)
        if isinstance(entry, Mapping):
            return _read_state(entry)
        if found:  # `{}` is its word for "not in the history"; anything else is somebody else's answer
            raise TransientError(f"the answer is no history of that job: {reply.excerpt()!r}")
        return JobState("lost" if thorough else "underway")

    def find_submission(self, search: JobSearch) -> Flow[str | None]:
        # A client's prompt_id is honoured verbatim (section 2), so the job can only be there under ours.
        state = yield from self.get_job(search.job_id, thorough=True)
        if state.state != "lost":
            return search.job_id
        # Older servers (and some proxies) give ids of their own: then our mark in the graph tells. Only the latest of
        # the history: all of it can stop a server for seconds (section 7).
        queue = raise_for_status((yield ServerRequest("GET", "/queue"))).json_object()
        recent = raise_for_status(
            (yield ServerRequest("GET", "/history", query={"max_items": str(_HISTORY_LIMIT)}))
        ).json_object()
        items: list[Any] = [*_read_queue_items(queue, "queue_running"), *_read_queue_items(queue, "queue_pending")]
        items += [entry.get("prompt") for entry in recent.values() if isinstance(entry, Mapping)]
        return next((str(item[1]) for item in items if _has_marker(item, search.job_id)), None)

    def cancel(self, prompt_ids: frozenset[str], ours: frozenset[str] = frozenset()) -> Flow[bool]:  # noqa: ARG002
        raise_for_status((yield ServerRequest("POST", "/queue", body={"delete": sorted(prompt_ids)})))
        running = _read_prompt_ids(
            raise_for_status((yield ServerRequest("GET", "/queue"))).json_object(), "queue_running"
        )
        for prompt_id in sorted(prompt_ids & running):
            # With an id only that job is hit (3.4); older servers pass over the id, so it must be the one that runs.
            raise_for_status((yield ServerRequest("POST", "/interrupt", body={"prompt_id": prompt_id})))
        return True

    def upload(self, name: str, content: bytes) -> Flow[str]:
        reply = yield ServerRequest("POST", "/upload/image", upload=UploadForm(name, content, {"type": "input"}))
        return read_uploaded_name(reply, name)

    def upload_mask(self, name: str, content: bytes, original: str) -> Flow[str]:
        reply = yield ServerRequest(
            "POST", "/upload/mask", upload=UploadForm(name, content, mask_form_fields(original))
        )
        return read_uploaded_name(reply, name)

    def has_file(self, value: Any, size: int | None) -> Flow[bool]:
        reply = yield replace(make_view_request("/view", to_input_file(value)), method="HEAD", idempotent=False)
        return reply.status == 200 and (size is None or reply.headers.get("content-length") == str(size))

    def view_request(self, output: JobOutput) -> ServerRequest:
        return make_view_request("/view", output)

    def get_object_info(self) -> Flow[dict[str, Any]]:
        return raise_for_status((yield ServerRequest("GET", "/object_info"))).json_object()

    def get_features(self) -> Flow[dict[str, Any]]:
        reply = raise_for_status((yield ServerRequest("GET", "/features")), 404)
        return reply.json_object() if reply.status != 404 else {}


# --- what the cloud dialect reads alike


def read_submission(response: ServerResponse, graph: Mapping[str, Any]) -> dict[str, Any] | QueueFull:
    """The JSON object of an answer to POST /prompt, or Busy for a request that was turned away at the door.

    Raises RejectedError for 400 and 413, and what `demand` raises: after any other 5xx it is open what was done.
    """
    if response.status in (429, 503) and not is_subscription_error(response):
        # A gateway also says 503 when the server behind it fell silent over a job that it has.
        return QueueFull(
            f"HTTP {response.status}: {read_error_message(response)}",
            read_retry_after(response),
            may_be_accepted=response.status == 503,
        )
    if response.status == 413:
        raise RejectedError(f"the workflow is larger than the server takes: {read_error_message(response)}")
    raise_for_status(response, 400)
    if response.status == 400:
        try:
            reason = rejection_message(response.json_object(), graph)
        except TransientError:
            reason = None
        raise RejectedError(reason or read_error_message(response))
    return response.json_object()


def read_uploaded_name(response: ServerResponse, name: str) -> str:
    """The name that the server gave to an uploaded file. Raises RejectedError where it will not have the file."""
    if response.status in (400, 413, 415, 422):
        raise RejectedError(
            f"input file {name}: the server does not take it (HTTP {response.status}): {read_error_message(response)}"
        )
    answer = raise_for_status(response).json_object()
    given = answer.get("name")
    if not isinstance(given, str) or not given:
        raise TransientError(f"the answer to an upload has no name: {response.excerpt()!r}")
    subfolder = answer.get("subfolder")
    return f"{subfolder}/{given}" if isinstance(subfolder, str) and subfolder else given


def mask_form_fields(original: str) -> dict[str, str]:
    """The form of /upload/mask (3.8). `original` is known to be there: without it a server says 200 and writes nothing.

    Overwritten, because the file that the server makes is not the one that it is sent: it never finds them equal.
    """
    subfolder, _, filename = original.rpartition("/")
    reference = {"filename": filename, "subfolder": subfolder, "type": "input"}
    return {"type": "input", "overwrite": "true", "original_ref": json.dumps(reference)}


def to_input_file(value: Any) -> JobOutput:
    """An uploaded file by what `uploaded_name` made of the server's answer."""
    subfolder, _, filename = str(value).rpartition("/")
    return JobOutput("", "", 0, filename, subfolder, "input")


def make_view_request(path: str, output: JobOutput) -> ServerRequest:
    return ServerRequest(
        "GET", path, query={"filename": output.filename, "subfolder": output.subfolder, "type": output.type}
    )


def _read_prompt_ids(queue: Mapping[str, Any], name: str) -> set[str]:
    """The prompt ids in one list of /queue. Raises TransientError where that is no list."""
    return {str(item[1]) for item in _read_queue_items(queue, name)}


def _read_queue_items(queue: Mapping[str, Any], name: str) -> list[list[Any]]:
    items = queue.get(name)
    if not isinstance(items, list):  # taken for an empty queue, it would make every job a lost one
        raise TransientError(f"the answer is no queue: it has no list {name!r}")
    return [item for item in items if isinstance(item, list) and len(item) > 1]


def _has_marker(item: Any, job: str) -> bool:
    """Whether a queue item's graph bears the mark of that job of ours."""
    if not isinstance(item, list) or len(item) < 3 or not isinstance(item[2], Mapping):
        return False
    nodes = {name: node for name, node in item[2].items() if isinstance(node, Mapping)}
    return job[:8] in read_markers(nodes)


def _read_state(entry: Mapping[str, Any]) -> JobState:
    status = entry.get("status")
    outputs = read_outputs(entry.get("outputs"))
    word, data, started, ended = read_messages(status)
    if word == "execution_error":
        return make_failed_state(data, outputs=outputs, started=started, ended=ended)
    if word == "execution_interrupted":
        return JobState("cancelled", outputs, started=started, ended=ended)
    if word == "execution_success" or not isinstance(status, Mapping) or status.get("status_str") == "success":
        return JobState("succeeded", outputs, started=started, ended=ended)
    return make_failed_state(None, outputs=outputs, started=started, ended=ended)
