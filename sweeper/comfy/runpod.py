"""The dialect of a RunPod serverless endpoint that runs worker-comfyui. Sans-IO.

Sources, of August 2026: https://docs.runpod.io/serverless/endpoints (operation-reference, send-requests, job-states),
and `README.md` and `handler.py` of https://github.com/runpod-workers/worker-comfyui, version 5.8.5.

The endpoint lists no jobs, describes no node classes and keeps no files. Pictures travel as Base64 in the submission
and in the answer about the job, or the worker puts those that it makes into a bucket. That answer names a file without
its folder and its node, so we write our job's id and the node into the name itself.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote, unquote

from sweeper.comfy import model_files
from sweeper.comfy.protocol import (
    Flow,
    JobOutput,
    JobSearch,
    JobState,
    JobSubmission,
    QueueFull,
    Server,
    ServerRequest,
    ServerResponse,
    ServerTraits,
    is_id,
    parse_json,
    raise_for_status,
    read_error_message,
    read_retry_after,
    to_text,
)
from sweeper.comfy.responses import make_failed_state, make_succeeded_state, sort_outputs
from sweeper.errors import TIMED_OUT_ERROR, LostError, RefusedError, RejectedError, TransientError, UnreachableError
from sweeper.model.workflow import PREFIX_INPUT, has_filename_prefix
from sweeper.schemas.values import is_number

# Bytes of a submission. The documents state 10 MB for /run (20 MB for /runsync, which keeps results for one minute).
MAX_RUN_BYTES: Final = 10_000_000
# A status that is not listed here means that the job is in flight. A cold start is IN_QUEUE.
_STATE_OF_STATUS: Final = {
    "IN_QUEUE": "queued", "IN_PROGRESS": "running", "RUNNING": "running", "COMPLETED": "succeeded", "FAILED": "failed",
    "TIMED_OUT": "failed", "CANCELLED": "cancelled",
}  # fmt: skip
_MAX_TEXT: Final = 65_536  # characters of an error that are read
_MAX_NAME: Final = 4096  # characters of a file's name
_OWN_NAME: Final = re.compile(r"[0-9a-f]{8}\+([^+]*)\+.*", re.DOTALL)
_NODE_FAILED: Final = re.compile(r"Node Type: ([^,\n]{0,200}), Node ID: ([^,\n]{0,200}), Message: (.*)", re.DOTALL)
# The worker writes the errors of ComfyUI's validation in one line for each node, as Python writes a list.
_NODE_INVALID: Final = re.compile(r"Node (\S{1,200}) \(errors\): (.*)")
_PART: Final = re.compile(r"""'(?:message|details)': ('(?:[^'\\]|\\.){1,4000}'|"(?:[^"\\]|\\.){1,4000}")""")
_TIMED_OUT: Final = "RunPod ended the job, because it ran or waited too long: raise the endpoint's execution timeout"
_NO_ANSWER: Final = (
    "RunPod completed the job without its pictures, as it does if an answer is too large (20 MB), or if another worker "
    "than worker-comfyui runs there; let the worker save to a bucket (BUCKET_ENDPOINT_URL), or make smaller pictures"
)


class InlineFile(str):
    """The name of an input file in a workflow, with its content, which goes into the submission itself."""

    __slots__ = ("content",)
    content: bytes


class RunPodDialect(ServerTraits):
    name = "runpod"
    # No call tells the most workers of an endpoint. Its default is 3, and RunPod starts workers for jobs that wait. One
    # job more waits, so that no worker, whose idle time is paid, waits for us.
    concurrency = 4
    lists_jobs = False
    keeps_files = False
    get_model_facts = staticmethod(model_files.find_asset)  # never called, because no file is listed

    def auth_headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def handshake(self) -> Flow[Server]:
        response = _check_status((yield ServerRequest("GET", "/health")))
        if not isinstance(response.json_object().get("workers"), Mapping):
            raise UnreachableError(f"/health is not that of a RunPod endpoint: {response.excerpt()!r}")
        return Server(self.name)

    def submit(self, submission: JobSubmission) -> Flow[str | QueueFull]:
        sent: dict[str, Any] = {"workflow": _name_files(submission)}
        values = [value for node in submission.graph.values() for value in node.get("inputs", {}).values()]
        if files := {str(value): value.content for value in values if isinstance(value, InlineFile)}:
            sent["images"] = [{"name": name, "image": b64encode(files[name]).decode()} for name in sorted(files)]
        if partner_key := submission.extra_data.get("api_key_comfy_org"):
            sent["comfy_org_api_key"] = partner_key
        response = yield ServerRequest("POST", "/run", body={"input": sent}, idempotent=False)
        job_id, reason = response.read_object().get("id"), read_error_message(response)
        if response.status == 429:  # a rate limit: RunPod took no job
            return QueueFull(f"HTTP 429: {reason}", read_retry_after(response))
        if response.status in (400, 413, 422):
            size = len(json.dumps({"input": sent}))
            advice = f"; {describe_size(size)}" if size > MAX_RUN_BYTES else ""
            raise RejectedError(f"RunPod rejects the submission (HTTP {response.status}): {reason}{advice}")
        if response.status in (401, 402, 403, 404, 405):
            _check_status(response)
        if not 200 <= response.status < 300 or not is_id(job_id):  # as of a gateway whose server may have the job
            raise TransientError(f"the answer to a submission has no id (HTTP {response.status}): {reason}")
        return job_id

    def get_job(self, prompt_id: str) -> Flow[JobState]:
        response = _check_status((yield ServerRequest("GET", f"/status/{quote(prompt_id, safe='')}")), 400, 404)
        job = {} if response.status in (400, 404) else response.json_object()
        if not job or ("status" not in job and "not exist" in to_text(job.get("error"))):
            return JobState("lost")  # or its result has expired
        return _read_state(job)

    def list_running(self) -> Flow[frozenset[str]]:
        yield from ()
        return frozenset()

    def find_submissions(self, searches: Sequence[JobSearch]) -> Flow[dict[str, str | None]]:
        yield from ()
        return {}

    def cancel(self, prompt_ids: frozenset[str]) -> Flow[None]:
        for prompt_id in sorted(prompt_ids):
            _check_status((yield ServerRequest("POST", f"/cancel/{quote(prompt_id, safe='')}")), 400, 404)

    def upload(self, name: str, content: bytes) -> Flow[InlineFile]:
        yield from ()
        file = InlineFile(name)
        file.content = content
        return file

    def has_file(self, value: Any, size: int | None) -> Flow[bool]:
        yield from ()
        return False

    def view_request(self, output: JobOutput) -> ServerRequest:
        raise LostError(f"RunPod keeps no files, and its answer has no valid Base64 for {output.filename!r}")

    def request_classes(self, class_type: str = "") -> None:
        return None

    def get_features(self) -> Flow[dict[str, Any]]:
        yield from ()
        return {"max_upload_size": MAX_RUN_BYTES // 4 * 3}


def describe_size(size: int) -> str:
    """Say that a submission of `size` bytes is too large, and what to do."""
    has = f"the submission has {size / 1e6:.1f} MB with its files as Base64"
    return f"{has}, and RunPod accepts {MAX_RUN_BYTES / 1e6:g} MB; make its pictures smaller, such as JPEG or WebP"


def _check_status(response: ServerResponse, *allowed: int) -> ServerResponse:
    """The response if its status is good or `allowed`. Raises as `raise_for_status`, in words about RunPod."""
    if response.status in {404, 405}.difference(allowed):
        advice = "write `url: https://api.runpod.ai/v2/ENDPOINT_ID`, with the id that RunPod's console shows"
        raise UnreachableError(f"no endpoint is there (HTTP {response.status}); {advice}")
    if response.status == 402:
        advice = "add credits in RunPod's console, then run the same command again"
        raise RefusedError(f"the account cannot pay for this job (HTTP 402); {advice}", is_account_problem=True)
    return raise_for_status(response, *allowed)


def _name_files(submission: JobSubmission) -> dict[str, Any]:
    """A copy of the graph in which the name of each file tells our job and the node."""
    named: dict[str, Any] = dict(submission.graph)
    for node_id, node in submission.graph.items():
        if has_filename_prefix(node):
            folder, slash, name = node["inputs"][PREFIX_INPUT].rpartition("/")
            prefix = f"{folder}{slash}{submission.job_id[:8]}+{quote(node_id, safe='')}+{name}"
            named[node_id] = {**node, "inputs": {**node["inputs"], PREFIX_INPUT: prefix}}
    return named


# --- the state of a job


def _read_state(job: Mapping[str, Any]) -> JobState:
    state = _STATE_OF_STATUS.get(to_text(job.get("status")), "underway")
    waited, ran = job.get("delayTime", 0), job.get("executionTime")
    seconds = None
    if is_number(waited) and is_number(ran) and 0 <= min(waited, ran) <= max(waited, ran) < 1e12:
        seconds = (waited / 1000, ran / 1000)  # they are milliseconds
    if state not in ("succeeded", "failed"):
        return JobState(state, seconds=seconds)
    output = job.get("output")
    output = output if isinstance(output, Mapping) else {}
    images = output.get("images")
    outputs = sort_outputs(_iter_outputs(images if isinstance(images, list) else []))
    if state == "succeeded" and isinstance(images, list) and not output.get("errors"):
        return make_succeeded_state(outputs, seconds=seconds)
    return make_failed_state(_read_failure(job, output), outputs=outputs, seconds=seconds)


def _iter_outputs(images: list[Any]) -> Iterator[JobOutput]:
    counts: Counter[str] = Counter()
    for image in images:
        record = image if isinstance(image, Mapping) else {}
        name, data = to_text(record.get("filename") or "")[-_MAX_NAME:], record.get("data")
        match = _OWN_NAME.fullmatch(name)
        node = unquote(match[1])[:200] if match else ""
        url = data if isinstance(data, str) and "://" in data[:10] else ""
        content = None if url else _decode(data)
        yield JobOutput(node, "images", counts[node], name, "", "output", url=url, content=content)
        counts[node] += 1


def _decode(data: Any) -> bytes | None:
    """The bytes of Base64, which may follow the prefix of a data URI; None if it is not valid, or has none."""
    with suppress(ValueError):
        if isinstance(data, str):
            return b64decode(data.partition(",")[2] if data.startswith("data:") else data, validate=True) or None
    return None


def _read_failure(job: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
    """An error in ComfyUI's form: of a node, of ComfyUI's validation, of the worker's Python, or of RunPod."""
    details = output.get("details") or output.get("errors") or []
    first = job.get("error") or output.get("error") or ("" if details else _NO_ANSWER)
    kind, text = "", to_text(first)[:_MAX_TEXT]
    with suppress(ValueError):  # of an exception in the worker, RunPod's package writes JSON
        raised = parse_json(text)
        if isinstance(raised, dict) and raised.get("error_message"):
            kind = to_text(raised.get("error_type")).removeprefix("<class '").removesuffix("'>")
            text = to_text(raised["error_message"])[:_MAX_TEXT]
    parts = [text, *map(to_text, details if isinstance(details, list) else [details])]
    text = "; ".join(filter(None, parts))[:_MAX_TEXT]
    if job.get("status") == "TIMED_OUT":
        kind, text = TIMED_OUT_ERROR, f"{_TIMED_OUT} ({text})" if job.get("error") else _TIMED_OUT
    if invalid := [
        f"node {node}: {', '.join(part[1:-1] for part in _PART.findall(errors))}"
        for node, errors in _NODE_INVALID.findall(text)
    ]:
        return {"exception_type": RejectedError.__name__, "exception_message": "; ".join(invalid)}
    match = _NODE_FAILED.search(text)
    named = dict(zip(("node_type", "node_id", "exception_message"), match.groups(), strict=True)) if match else {}
    return {"exception_type": kind, "exception_message": text, **named}
