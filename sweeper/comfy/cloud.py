"""The dialect of Comfy Cloud, after its documentation (https://docs.comfy.org). Sans-IO.

The server assigns the job ids. Jobs survive a restart. Downloads are redirects to a storage host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sweeper.comfy import jobs_api, model_files
from sweeper.comfy.comfyui import make_view_request, read_uploaded_name, submit_prompt, to_input_file
from sweeper.comfy.protocol import (
    KEY_HEADER,
    Flow,
    JobOutput,
    JobSearch,
    JobSubmission,
    QueueFull,
    Server,
    ServerRequest,
    UploadForm,
    is_count,
    raise_for_status,
    request_optional,
)

# Seconds after which Comfy Cloud cancels a job, by the jobs at once of a plan: Standard, Creator and Pro. No call tells
# it, and nothing is stated of others. Source: https://docs.comfy.org/development/deploy/cloud-usage
LONGEST_RUNS: Final = {1: 1800.0, 3: 1800.0, 5: 3600.0}


class CloudDialect:
    """Comfy Cloud, and the embedded server by default."""

    name: Final = "cloud"
    # Subscriptions run 1, 3 or 5 jobs at a time and queue the rest. Users can set more.
    concurrency: Final = 2
    poll_intervals: Final = (1.0, 5.0)
    # A listing may lag behind a submission.
    lost_after_checks: Final = 3
    key_seconds: Final = 0.0
    runs_one_job: Final = False
    jobs_survive_restart: Final = True
    has_event_stream: Final = True
    needs_key_in_events: Final = True
    sends_status_events: Final = False
    mask_path: Final = "/api/upload/mask"
    models_path: Final = "/api/experiment/models"
    frees_memory: Final = False
    get_model_facts = staticmethod(model_files.find_asset)
    get_job = staticmethod(jobs_api.get_job)
    list_running = staticmethod(jobs_api.list_running)
    cancel = staticmethod(jobs_api.cancel)

    def auth_headers(self, key: str) -> dict[str, str]:
        return {KEY_HEADER: key}

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

    def make_events_request(self, prompt_id: str) -> None:
        return None

    def view_request(self, output: JobOutput) -> ServerRequest:
        return make_view_request("/api/view", output)

    def request_classes(self, class_type: str = "") -> ServerRequest | None:
        # Without the query, the choices lack the models that the user imported. The API has no call for one class.
        query = {"include_user_models": "true"}
        return None if class_type else ServerRequest("GET", "/api/object_info", query=query, reads_classes=True)

    def get_features(self) -> Flow[dict[str, Any]]:
        return request_optional("/api/features")
