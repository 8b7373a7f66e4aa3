"""The interface of a dialect (the API that a server speaks), and a probe that finds a server's dialect.

A dialect consists of data and flows (see `protocol`). It yields requests and reads responses; the client retries, waits
and does the I/O. To add a dialect, write one more class, and name it in `_DIALECTS`, in `target_spec.DIALECTS` and in
the experiment's schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from sweeper.comfy.comfyui import CloudDialect, ComfyUIDialect
from sweeper.comfy.model_files import ModelCalls
from sweeper.comfy.protocol import (
    Flow,
    JobOutput,
    JobSearch,
    JobState,
    JobSubmission,
    KnownJob,
    QueueFull,
    Server,
    ServerRequest,
    is_redirect,
    raise_for_status,
    read_error_code,
)
from sweeper.comfy.runpod import RunPodDialect
from sweeper.comfy.v2 import V2Dialect
from sweeper.errors import UnreachableError


class Dialect(ModelCalls, Protocol):
    """One server API. Flows raise the errors of `protocol.raise_for_status`, and those named here."""

    def handshake(self) -> Flow[Server]:
        """Identify the server and check the key. Raises UnreachableError, RefusedError."""

    def submit(self, submission: JobSubmission) -> Flow[str | QueueFull | KnownJob]:
        """Submit a job; return its prompt_id, QueueFull, or KnownJob if the server has had its id before.

        Raises RejectedError, also for a 200 that contains errors (the part of the job that was queued is cancelled).
        After a TransientError with `sent`, and any error or QueueFull with `may_be_accepted`, the outcome is unknown:
        call `find_submissions`.
        """

    def get_job(self, prompt_id: str) -> Flow[JobState]: ...

    def list_running(self) -> Flow[frozenset[str]]:
        """The prompt ids of the jobs that the server executes now, also those of others."""

    def find_submissions(self, searches: Sequence[JobSearch]) -> Flow[dict[str, str | None]]:
        """By job id, the prompt_id of each submission with an unknown outcome; None if the server has no trace of it.

        A job id is missing if the server cannot answer that yet.
        """

    def cancel(self, prompt_ids: frozenset[str]) -> Flow[None]:
        """Ask the server to cancel these jobs, queued or running, and no others. Poll them to see whether it did."""

    def upload(self, name: str, content: bytes) -> Flow[Any]:
        """Store an input file; return the value that a workflow uses for it: its name on the server, or a reference."""

    def has_file(self, value: Any, size: int | None) -> Flow[bool]:
        """Whether the server still has the file that `value` refers to, which an upload returned.

        Compares its size in bytes too, if both are known. Makes one request without retries, because uploading the
        file again is a cheap answer to a failure.
        """

    def view_request(self, output: JobOutput) -> ServerRequest: ...

    def get_features(self) -> Flow[dict[str, Any]]:
        """The server's features, such as `max_upload_size` (bytes); empty if it does not report any."""


_DIALECTS: Final[Mapping[str, Callable[[], Dialect]]] = {
    "cloud": CloudDialect,
    "comfyui": ComfyUIDialect,
    "v2": V2Dialect,
    "runpod": RunPodDialect,
}


def make_dialect(name: str) -> Dialect:
    return _DIALECTS[name]()


def detect_dialect() -> Flow[str]:
    """Ask a server which dialect it speaks. Raises UnreachableError if it responds like none of them."""
    stats = yield ServerRequest("GET", "/system_stats")
    content = stats.content
    if stats.status == 200 and content.lstrip().startswith(b"{") and b'"system"' in content and b'"devices"' in content:
        return "comfyui"
    user = yield ServerRequest("GET", "/api/user")
    if user.status == 401 or (user.status == 200 and user.content.lstrip().startswith(b"{")):
        return "cloud"
    listing = yield ServerRequest("GET", "/api/v2/jobs", query={"limit": "1"})  # last: Comfy Cloud has it too
    if read_error_code(listing) and listing.status != 404:
        return "v2"  # also if it refuses the key, or if the ComfyUI behind a proxy does not respond
    if listing.status == 200 and isinstance(listing.read_object().get("jobs"), list):
        return "v2"
    for response in (stats, user):
        if is_redirect(response):
            raise_for_status(response)
    raise UnreachableError(
        "the server responds neither like ComfyUI (/system_stats) nor like Comfy Cloud (/api/user), and has no "
        "API v2 (/api/v2/jobs); if a proxy hides these paths, name the dialect: {url: ..., dialect: comfyui}"
    )
