"""The dialect of a ComfyUI server, after COMFYUI_BEHAVIOUR.md (section numbers below are its). Sans-IO."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from sweeper.comfy.job_marker import marks
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
    about_subscription,
    demand,
    message_of,
    retry_after,
)
from sweeper.comfy.responses import failed, read_messages, read_outputs, rejection
from sweeper.errors import RejectedError, TransientError, UnreachableError

_RECENT: Final = 64  # entries of the history among which a job of unknown outcome is looked for


class ComfyUIDialect:
    """One job at a time, our own prompt ids, everything forgotten by a restart."""

    name: Final = "comfyui"
    # Two in flight: the next job is queued while one runs, so the GPU never waits for a round trip (section 7).
    concurrency: Final = 2
    polls: Final = (0.05, 2.0)
    # /queue before /history/{id} never missed a job that was there (3.3); once more, for a proxy between us.
    lost_after: Final = 2
    one_at_a_time: Final = True
    durable: Final = False  # queue and history are the process's memory (section 5)
    streams: Final = True
    needs_key_in_events: Final = False
    says_status: Final = True

    def credentials(self, key: str) -> dict[str, str]:
        return {KEY_HEADER: key}

    def greet(self) -> Flow[Server]:
        reply = demand((yield Ask("GET", "/system_stats")))
        system = reply.mapping().get("system")
        if not isinstance(system, Mapping):
            raise UnreachableError(f"/system_stats does not answer as ComfyUI does: {reply.excerpt()!r}")
        arguments = system.get("argv")
        return Server(
            self.name,
            str(system.get("comfyui_version") or ""),
            tuple(str(argument) for argument in arguments) if isinstance(arguments, list) else (),
        )

    def submit(self, submission: Submission) -> Flow[str | Busy]:
        body: dict[str, Any] = {"prompt": submission.graph, "prompt_id": submission.job}
        if submission.client_id:
            body["client_id"] = submission.client_id
        if submission.extra:  # never null: that kills the server's worker (1.3)
            body["extra_data"] = dict(submission.extra)
        reply = yield Ask("POST", "/prompt", body=body, repeatable=False)
        answer = submission_answer(reply, submission.graph)
        if isinstance(answer, Busy):
            return answer
        prompt_id = answer.get("prompt_id")
        if not isinstance(prompt_id, str) or not prompt_id:
            raise TransientError(f"the answer to a submission has no prompt_id: {reply.excerpt()!r}")
        errors = rejection(answer, submission.graph)
        if errors:
            # 200 with node_errors: the valid outputs of it were queued all the same (section 1).
            yield from self.cancel(frozenset([prompt_id]))
            raise RejectedError(errors)
        return prompt_id

    def look(self, prompt_id: str, *, thorough: bool, said: bool = False) -> Flow[JobState]:  # noqa: ARG002
        if thorough:
            # The queue first, then the history: the other way round a job that just ended is in neither (3.3).
            queue = demand((yield Ask("GET", "/queue"))).mapping()
            running, pending = _ids(queue, "queue_running"), _ids(queue, "queue_pending")
            if prompt_id in running:
                return JobState("running")
            if prompt_id in pending:
                return JobState("queued", behind=next(iter(sorted(running)), None))
        reply = demand((yield Ask("GET", f"/history/{quote(prompt_id, safe='')}")))
        found = reply.mapping()
        entry = found.get(prompt_id)
        if isinstance(entry, Mapping):
            return _state(entry)
        if found:  # `{}` is its word for "not in the history"; anything else is somebody else's answer
            raise TransientError(f"the answer is no history of that job: {reply.excerpt()!r}")
        return JobState("lost" if thorough else "underway")

    def find(self, sought: Sought) -> Flow[str | None]:
        # A client's prompt_id is honoured verbatim (section 2), so the job can only be there under ours.
        state = yield from self.look(sought.job, thorough=True)
        if state.state != "lost":
            return sought.job
        # Older servers (and some proxies) give ids of their own: then our mark in the graph tells. Only the latest of
        # the history: all of it can stop a server for seconds (section 7).
        queue = demand((yield Ask("GET", "/queue"))).mapping()
        recent = demand((yield Ask("GET", "/history", query={"max_items": str(_RECENT)}))).mapping()
        items: list[Any] = [*_items(queue, "queue_running"), *_items(queue, "queue_pending")]
        items += [entry.get("prompt") for entry in recent.values() if isinstance(entry, Mapping)]
        return next((str(item[1]) for item in items if _bears(item, sought.job)), None)

    def cancel(self, prompt_ids: frozenset[str], ours: frozenset[str] = frozenset()) -> Flow[bool]:  # noqa: ARG002
        demand((yield Ask("POST", "/queue", body={"delete": sorted(prompt_ids)})))
        running = _ids(demand((yield Ask("GET", "/queue"))).mapping(), "queue_running")
        for prompt_id in sorted(prompt_ids & running):
            # With an id only that job is hit (3.4); older servers pass over the id, so it must be the one that runs.
            demand((yield Ask("POST", "/interrupt", body={"prompt_id": prompt_id})))
        return True

    def upload(self, name: str, content: bytes) -> Flow[str]:
        reply = yield Ask("POST", "/upload/image", upload=Upload(name, content, {"type": "input"}))
        return uploaded_name(reply, name)

    def upload_mask(self, name: str, content: bytes, original: str) -> Flow[str]:
        reply = yield Ask("POST", "/upload/mask", upload=Upload(name, content, mask_fields(original)))
        return uploaded_name(reply, name)

    def holds(self, value: Any, size: int | None) -> Flow[bool]:
        reply = yield replace(view_ask("/view", input_file(value)), method="HEAD", repeatable=False)
        return reply.status == 200 and (size is None or reply.headers.get("content-length") == str(size))

    def view(self, output: Output) -> Ask:
        return view_ask("/view", output)

    def object_info(self) -> Flow[dict[str, Any]]:
        return demand((yield Ask("GET", "/object_info"))).mapping()

    def features(self) -> Flow[dict[str, Any]]:
        reply = demand((yield Ask("GET", "/features")), 404)
        return reply.mapping() if reply.status != 404 else {}


# --- what the cloud dialect reads alike


def submission_answer(reply: Reply, graph: Mapping[str, Any]) -> dict[str, Any] | Busy:
    """The JSON object of an answer to POST /prompt, or Busy for a request that was turned away at the door.

    Raises RejectedError for 400 and 413, and what `demand` raises: after any other 5xx it is open what was done.
    """
    if reply.status in (429, 503) and not about_subscription(reply):
        # A gateway also says 503 when the server behind it fell silent over a job that it has.
        return Busy(f"HTTP {reply.status}: {message_of(reply)}", retry_after(reply), unsure=reply.status == 503)
    if reply.status == 413:
        raise RejectedError(f"the workflow is larger than the server takes: {message_of(reply)}")
    demand(reply, 400)
    if reply.status == 400:
        try:
            reason = rejection(reply.mapping(), graph)
        except TransientError:
            reason = None
        raise RejectedError(reason or message_of(reply))
    return reply.mapping()


def uploaded_name(reply: Reply, name: str) -> str:
    """The name that the server gave to an uploaded file. Raises RejectedError where it will not have the file."""
    if reply.status in (400, 413, 415, 422):
        raise RejectedError(
            f"input file {name}: the server does not take it (HTTP {reply.status}): {message_of(reply)}"
        )
    answer = demand(reply).mapping()
    given = answer.get("name")
    if not isinstance(given, str) or not given:
        raise TransientError(f"the answer to an upload has no name: {reply.excerpt()!r}")
    subfolder = answer.get("subfolder")
    return f"{subfolder}/{given}" if isinstance(subfolder, str) and subfolder else given


def mask_fields(original: str) -> dict[str, str]:
    """The form of /upload/mask (3.8). `original` is known to be there: without it a server says 200 and writes nothing.

    Overwritten, because the file that the server makes is not the one that it is sent: it never finds them equal.
    """
    subfolder, _, filename = original.rpartition("/")
    reference = {"filename": filename, "subfolder": subfolder, "type": "input"}
    return {"type": "input", "overwrite": "true", "original_ref": json.dumps(reference)}


def input_file(value: Any) -> Output:
    """An uploaded file by what `uploaded_name` made of the server's answer."""
    subfolder, _, filename = str(value).rpartition("/")
    return Output("", "", 0, filename, subfolder, "input")


def view_ask(path: str, output: Output) -> Ask:
    return Ask("GET", path, query={"filename": output.filename, "subfolder": output.subfolder, "type": output.type})


def _ids(queue: Mapping[str, Any], name: str) -> set[str]:
    """The prompt ids in one list of /queue. Raises TransientError where that is no list."""
    return {str(item[1]) for item in _items(queue, name)}


def _items(queue: Mapping[str, Any], name: str) -> list[list[Any]]:
    items = queue.get(name)
    if not isinstance(items, list):  # taken for an empty queue, it would make every job a lost one
        raise TransientError(f"the answer is no queue: it has no list {name!r}")
    return [item for item in items if isinstance(item, list) and len(item) > 1]


def _bears(item: Any, job: str) -> bool:
    """Whether a queue item's graph bears the mark of that job of ours."""
    if not isinstance(item, list) or len(item) < 3 or not isinstance(item[2], Mapping):
        return False
    nodes = {name: node for name, node in item[2].items() if isinstance(node, Mapping)}
    return job[:8] in marks(nodes)


def _state(entry: Mapping[str, Any]) -> JobState:
    status = entry.get("status")
    outputs = read_outputs(entry.get("outputs"))
    word, data, started, ended = read_messages(status)
    if word == "execution_error":
        return failed(data, outputs=outputs, started=started, ended=ended)
    if word == "execution_interrupted":
        return JobState("cancelled", outputs, started=started, ended=ended)
    if word == "execution_success" or not isinstance(status, Mapping) or status.get("status_str") == "success":
        return JobState("succeeded", outputs, started=started, ended=ended)
    return failed(None, outputs=outputs, started=started, ended=ended)
