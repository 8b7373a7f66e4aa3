"""The dialects of a ComfyUI server, and of Comfy Cloud after its documentation (https://docs.comfy.org). Sans-IO.

Statements about a ComfyUI's behaviour were measured on 0.3.64 and 0.33.0. Jobs are looked at, found and cancelled below
`/api/jobs` (`jobs_api`), or by the older calls (`queue_api`) on a ComfyUI that lacks one of those.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from sweeper.comfy import jobs_api, model_files, queue_api
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
    UploadForm,
    is_account_refusal,
    is_count,
    is_id,
    is_own_refusal,
    raise_for_status,
    read_error_message,
    read_retry_after,
    request_optional,
    to_text,
)
from sweeper.comfy.responses import read_memory, rejection_message
from sweeper.errors import MAX_MESSAGE_LENGTH, RejectedError, TargetError, TransientError, UnreachableError
from sweeper.wording import shorten

# Seconds after which Comfy Cloud cancels a job, by the jobs at once of a plan: Standard, Creator and Pro. No call tells
# it, and nothing is stated of others. Source: https://docs.comfy.org/development/deploy/cloud-usage
LONGEST_RUNS: Final = {1: 1800.0, 3: 1800.0, 5: 3600.0}
_NO_SUCH_CALL: Final = (404, 405, 501)  # the statuses by which servers say that they do not have a call


class ComfyUIDialect(ServerTraits):
    """A server that runs one job at a time, accepts our prompt ids, and forgets its jobs when it restarts."""

    name = "comfyui"
    # One job runs while the next is queued, so the GPU never waits for a round trip.
    concurrency = 2
    poll_intervals = (0.05, 2.0)
    # The server missed no job of ours in 400; the second check is for a proxy in between.
    lost_after_checks = 2
    runs_one_job = True
    jobs_survive_restart = False  # the process keeps queue and history in memory only
    has_event_stream = True
    sends_status_events = True
    mask_path: str | None = "/upload/mask"
    models_path: str | None = "/experiment/models"
    frees_memory = True
    get_model_facts = staticmethod(model_files.read_header)

    def __init__(self) -> None:
        self._is_current = True  # whether it has the calls below /api/jobs; the handshake asks
        self._keeps_ids = True  # whether its jobs have our ids, which only a gateway in front of it prevents

    def handshake(self) -> Flow[Server]:
        response = raise_for_status((yield ServerRequest("GET", "/system_stats")))
        system = response.json_object().get("system")
        if not isinstance(system, Mapping):
            raise UnreachableError(f"/system_stats is not ComfyUI's: {response.excerpt()!r}")
        # An empty cancellation changes nothing, and the newest of the calls below /api/jobs answers it, or refuses it.
        response = yield ServerRequest("POST", "/api/jobs/cancel", body={"job_ids": []})
        self._is_current = raise_for_status(response, 400, *_NO_SUCH_CALL).status not in _NO_SUCH_CALL
        argv = system.get("argv")
        arguments = argv[:200] if isinstance(argv, list) else ()
        return Server(
            self.name,
            shorten(to_text(system.get("comfyui_version") or ""), 200),
            tuple(shorten(to_text(argument), MAX_MESSAGE_LENGTH) for argument in arguments),
            read_memory(system),
        )

    def submit(self, submission: JobSubmission) -> Flow[str | QueueFull]:
        extra = dict(submission.extra_data)
        if submission.wants_previews:  # a server started without --preview-method sends none otherwise
            extra["preview_method"] = "auto"
        answer = yield from submit_prompt("/prompt", submission, extra, self.cancel, prompt_id=submission.job_id)
        if isinstance(answer, str):
            self._keeps_ids = answer == submission.job_id
        return answer

    def get_job(self, prompt_id: str) -> Flow[JobState]:
        return jobs_api.get_job(prompt_id) if self._is_current else queue_api.get_job(prompt_id)

    def list_running(self) -> Flow[frozenset[str]]:
        return jobs_api.list_running() if self._is_current else queue_api.list_running()

    def find_submissions(self, searches: Sequence[JobSearch]) -> Flow[dict[str, str | None]]:
        if self._is_current:
            return jobs_api.find_submissions(searches, {"sort_by": "created_at"}, keeps_ids=self._keeps_ids)
        return queue_api.find_submissions(searches)

    def cancel(self, prompt_ids: frozenset[str]) -> Flow[None]:
        return jobs_api.cancel(prompt_ids) if self._is_current else queue_api.cancel(prompt_ids)

    def upload(self, name: str, content: bytes) -> Flow[str]:
        response = yield ServerRequest("POST", "/upload/image", upload=UploadForm(name, content, {"type": "input"}))
        return read_uploaded_name(response, name)

    def has_file(self, value: Any, size: int | None) -> Flow[bool]:
        response = yield replace(make_view_request("/view", to_input_file(value)), method="HEAD", idempotent=False)
        return response.status == 200 and (size is None or response.headers.get("content-length") == str(size))

    def view_request(self, output: JobOutput) -> ServerRequest:
        return make_view_request("/view", output)

    def request_classes(self, class_type: str = "") -> ServerRequest:
        path = f"/object_info/{quote(class_type, safe='')}" if class_type else "/object_info"
        return ServerRequest("GET", path, reads_classes=True)

    def get_features(self) -> Flow[dict[str, Any]]:
        return request_optional("/features")


class CloudDialect(ServerTraits):
    """Comfy Cloud, and the embedded server by default: it assigns the job ids, and jobs survive its restart.

    Downloads are redirects to a storage host.
    """

    name = "cloud"
    # Subscriptions run 1, 3 or 5 jobs at a time and queue the rest. Users can set more.
    concurrency = 2
    has_event_stream = True
    needs_key_in_events = True
    mask_path: str | None = "/api/upload/mask"
    models_path: str | None = "/api/experiment/models"
    get_model_facts = staticmethod(model_files.find_asset)
    get_job = staticmethod(jobs_api.get_job)
    list_running = staticmethod(jobs_api.list_running)
    cancel = staticmethod(jobs_api.cancel)

    def handshake(self) -> Flow[Server]:
        response = yield ServerRequest("GET", "/api/user")
        if response.status == 404:  # not in every version; any endpoint that needs the key serves
            response = yield ServerRequest("GET", "/api/jobs", query={"limit": "1"})
        raise_for_status(response).json_object()
        max_jobs = (yield from self.get_features()).get("max_concurrent_jobs")
        return Server(self.name, max_jobs=max_jobs if is_count(max_jobs) else None)

    def submit(self, submission: JobSubmission) -> Flow[str | QueueFull]:
        return submit_prompt("/api/prompt", submission, dict(submission.extra_data), self.cancel)

    def find_submissions(self, searches: Sequence[JobSearch]) -> Flow[dict[str, str | None]]:
        query = {"sort_by": "create_time", "sort_order": "desc"}
        return jobs_api.find_submissions(searches, query, keeps_ids=False)

    def upload(self, name: str, content: bytes) -> Flow[str]:
        fields = {"type": "input", "overwrite": "true"}
        response = yield ServerRequest("POST", "/api/upload/image", upload=UploadForm(name, content, fields))
        return read_uploaded_name(response, name)

    def has_file(self, value: Any, size: int | None) -> Flow[bool]:
        response = yield replace(self.view_request(to_input_file(value)), idempotent=False)
        return response.status == 302  # a redirect to the file, which is not followed; 404 if there is none

    def view_request(self, output: JobOutput) -> ServerRequest:
        return make_view_request("/api/view", output)

    def request_classes(self, class_type: str = "") -> ServerRequest | None:
        # Without the query, the choices lack the models that the user imported. The API has no call for one class.
        query = {"include_user_models": "true"}
        return None if class_type else ServerRequest("GET", "/api/object_info", query=query, reads_classes=True)

    def get_features(self) -> Flow[dict[str, Any]]:
        return request_optional("/api/features")


# --- shared by both dialects


def submit_prompt(
    path: str,
    submission: JobSubmission,
    extra_data: Mapping[str, Any],
    cancel: Callable[[frozenset[str]], Flow[None]],
    **own: str,
) -> Flow[str | QueueFull]:
    """Submit a workflow with what a dialect has of its `own`; return the prompt_id. Raises as `Dialect.submit`."""
    body: dict[str, Any] = {"prompt": submission.graph, **own}
    if submission.client_id:
        body["client_id"] = submission.client_id
    if extra_data:  # never null, which kills the worker thread of a ComfyUI
        body["extra_data"] = extra_data
    response = yield ServerRequest("POST", path, body=body, idempotent=False)
    answer = read_submission(response, submission.graph)
    if isinstance(answer, QueueFull):
        return answer
    prompt_id, errors = answer.get("prompt_id"), rejection_message(answer, submission.graph)
    if errors:
        # 200 with node_errors: the server queued the valid outputs, and rejected the others. If the cancellation fails,
        # the rejection still holds, and the trial must not be sent again.
        if is_id(prompt_id):
            with suppress(TargetError, TransientError):
                yield from cancel(frozenset([prompt_id]))
        rejection = RejectedError(errors)
        rejection.may_be_accepted = not prompt_id and not is_own_refusal(response)
        raise rejection
    if not is_id(prompt_id):
        raise TransientError(f"the response to a submission has no prompt_id: {response.excerpt()!r}")
    return prompt_id


def read_submission(response: ServerResponse, graph: Mapping[str, Any]) -> dict[str, Any] | QueueFull:
    """Read the response to POST /prompt: its JSON object, or QueueFull for 429 and 503.

    Raises RejectedError for 400 and 413, and the errors of `raise_for_status`. Unless the answer is the server's own
    refusal, `may_be_accepted` is set: a gateway can send any status if its server accepted the job and then stopped
    responding.
    """
    if response.status in (429, 503) and not is_account_refusal(response):
        return QueueFull(
            f"HTTP {response.status}: {read_error_message(response)}",
            read_retry_after(response),
            may_be_accepted=response.status == 503 or not is_own_refusal(response),
        )
    try:
        return _read_answer(response, graph)
    except (RejectedError, TargetError) as error:
        # Only the server's own validation lists errors of nodes.
        is_validation = response.status == 400 and bool(response.read_object().get("node_errors"))
        error.may_be_accepted = not is_own_refusal(response) and not is_validation
        raise


def _read_answer(response: ServerResponse, graph: Mapping[str, Any]) -> dict[str, Any]:
    if response.status == 413:
        raise RejectedError(
            f"the workflow is larger than the server accepts (HTTP 413): {read_error_message(response)}; "
            "let it refer to files (slots of `kind: file`) instead of containing their data"
        )
    raise_for_status(response, 400)
    if response.status == 400:
        raise RejectedError(rejection_message(response.read_object(), graph) or read_error_message(response))
    return response.json_object()


def read_uploaded_name(response: ServerResponse, name: str) -> str:
    """The name that the server gave to an uploaded file. Raises RejectedError if the server rejects the file."""
    if response.status in (400, 413, 415, 422):
        raise RejectedError(
            f"input file {name}: the server rejects it (HTTP {response.status}): {read_error_message(response)}"
        )
    answer = raise_for_status(response).json_object()
    server_name = answer.get("name")
    if not isinstance(server_name, str) or not server_name:
        raise TransientError(f"the response to an upload has no name: {response.excerpt()!r}")
    subfolder = answer.get("subfolder")
    return f"{subfolder}/{server_name}" if isinstance(subfolder, str) and subfolder else server_name


def upload_mask(path: str, name: str, content: bytes, original: str) -> Flow[str]:
    """Store a masked copy of `original`, an uploaded picture, and return its name on the server.

    `path` is the dialect's `mask_path`. `content` is a PNG of the same size, whose alpha channel is the mask. If
    `original` does not exist, ComfyUI answers 200 and writes nothing.

    With `overwrite`, because the server compares the uploaded file with the combined one that it wrote, never finds
    them equal, and would store another copy each time.
    """
    subfolder, _, filename = original.rpartition("/")
    reference = {"filename": filename, "subfolder": subfolder, "type": "input"}
    fields = {"type": "input", "overwrite": "true", "original_ref": json.dumps(reference)}
    response = yield ServerRequest("POST", path, upload=UploadForm(name, content, fields))
    return read_uploaded_name(response, name)


def to_input_file(value: Any) -> JobOutput:
    """An uploaded file as an output, from the value that `read_uploaded_name` returned."""
    subfolder, _, filename = str(value).rpartition("/")
    return JobOutput("", "", 0, filename, subfolder, "input")


def make_view_request(path: str, output: JobOutput) -> ServerRequest:
    """The request that downloads an output from the `/view` at `path`."""
    return ServerRequest(
        "GET", path, query={"filename": output.filename, "subfolder": output.subfolder, "type": output.type}
    )
