"""The dialect of Comfy API v2: deployments, comfy-api-proxy in front of a ComfyUI, and Comfy Cloud. Sans-IO.

Sources: the documentation and the schemas of comfy-sdk 0.5.0, and comfy-api-proxy 0.1.6, which was also measured. The
API lists no node classes and no features, and it stores no masks. Paths are built and never taken from an answer, so
that no server can lead the key elsewhere.

The three hosts differ in how they find a job whose answer was lost. A deployment keeps labels, the proxy one text, and
both list their jobs with them. Comfy Cloud refuses labels and this list, but has that of its older API.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from blake3 import blake3

from sweeper.comfy import jobs_api, model_files, v2_jobs
from sweeper.comfy.comfyui import read_submission
from sweeper.comfy.protocol import (
    STOPPED,
    Flow,
    JobOutput,
    JobSearch,
    JobSubmission,
    KnownJob,
    QueueFull,
    Server,
    ServerRequest,
    ServerResponse,
    UploadForm,
    is_id,
    is_own_refusal,
    raise_for_status,
    read_error_code,
    read_error_message,
    request_optional,
)
from sweeper.comfy.v2_jobs import JOBS_PATH
from sweeper.errors import RejectedError, TransientError, UnreachableError

_ASSETS_PATH: Final = "/api/v2/assets"
_PARTNER_KEY: Final = "api_key_comfy_org"  # the only `extra_data` that the API accepts
_ONE_BYTE: Final = {"Range": "bytes=0-0"}


class V2Dialect:
    name: Final = "v2"
    # Deployments scale with their queue, and a local ComfyUI behind the proxy runs one job while the next one waits.
    concurrency: Final = 2
    poll_intervals: Final = (1.0, 5.0)
    # A listing may lag behind a submission. The proxy reads the history before the queue, so it misses a job that ends
    # in between.
    lost_after_checks: Final = 3
    key_seconds: Final = 23 * 3600.0  # the server forgets an Idempotency-Key after 24 hours
    runs_one_job: Final = False
    jobs_survive_restart: Final = True
    has_event_stream: Final = False  # each job has a stream of its own
    needs_key_in_events: Final = False
    sends_status_events: Final = False
    mask_path: Final = None
    models_path: Final = None
    frees_memory: Final = False
    get_model_facts = staticmethod(model_files.find_asset)
    get_job = staticmethod(v2_jobs.get_job)

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
            body["metadata"] = v2_jobs.make_label(submission.job_id, is_text=self._host == "proxy")
        # The intent, which is on disk, has this id. A server that got it before refuses it, and replays nothing.
        headers = {"Idempotency-Key": submission.job_id}
        response = yield ServerRequest("POST", JOBS_PATH, body=body, headers=headers, idempotent=False)
        if response.status == 422:
            if read_error_code(response) == "idempotency_key_reuse":
                return KnownJob()
            _raise_refusal(response, submission.graph)
        answer = read_submission(response, submission.graph)
        if isinstance(answer, QueueFull):
            return answer
        if not is_id(answer.get("id")):
            raise TransientError(f"the response to a submission has no id: {response.excerpt()!r}")
        return str(answer["id"])

    def list_running(self) -> Flow[frozenset[str]]:
        return jobs_api.list_running() if self._host == "cloud" else v2_jobs.list_running()

    def find_submissions(self, searches: Sequence[JobSearch]) -> Flow[dict[str, str | None]]:
        if self._host == "cloud":
            query = {"sort_by": "create_time", "sort_order": "desc"}
            return jobs_api.find_submissions(searches, query, keeps_ids=False)
        return v2_jobs.find_submissions(searches)

    def cancel(self, prompt_ids: frozenset[str]) -> Flow[None]:
        for prompt_id in sorted(prompt_ids):
            raise_for_status((yield ServerRequest("POST", f"{v2_jobs.make_path(prompt_id)}/cancel")), 404)

    def make_events_request(self, prompt_id: str) -> ServerRequest:
        return ServerRequest("GET", f"{v2_jobs.make_path(prompt_id)}/events")

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


def _raise_refusal(response: ServerResponse, graph: Mapping[str, Any]) -> None:
    if read_error_code(response) == STOPPED:
        raise_for_status(response)
    rejection = RejectedError(v2_jobs.read_rejection(response, graph))
    rejection.may_be_accepted = not is_own_refusal(response)
    raise rejection
