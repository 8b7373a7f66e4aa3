"""The two ways of speaking to a server behind one interface, and how to tell which one a server speaks.

A dialect is data and flows (see `wire`): it yields requests and reads answers. Retrying, waiting and doing I/O are the
client's. A third dialect is one more class, entered in `_DIALECTS`, `target.DIALECTS` and the experiment's schema.

The versioned Comfy API v2 (`/api/v2/jobs`, `/api/v2/assets`) has its place here and no class yet: there is no server to
hold one against. What it needs is there: `credentials` (it wants `Authorization: Bearer`), `submit` (its
`Idempotency-Key` rejects a reuse and replays nothing, so a job of unknown outcome is looked for by `find` as on Cloud),
`upload` (the value that stands in the graph is the dialect's to choose: there an asset instead of a name), `view` (an
asset's content, with the same redirect), and `streams` (its events are no WebSocket; polling is the authority anyway).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sweeper.comfy.cloud import CloudDialect
from sweeper.comfy.comfyui import ComfyUIDialect
from sweeper.comfy.protocol import (
    Flow,
    JobOutput,
    JobSearch,
    JobState,
    JobSubmission,
    QueueFull,
    Server,
    ServerRequest,
    is_redirect,
    raise_for_status,
)
from sweeper.errors import UnreachableError


class Dialect(Protocol):
    """What a dialect is. Flows raise the errors of `wire.demand`, and those named here."""

    @property
    def name(self) -> str: ...
    @property
    def concurrency(self) -> int:
        """Jobs in flight where nobody says how many."""

    @property
    def poll_intervals(self) -> tuple[float, float]:
        """Seconds between two looks at a job: at first, and at most."""

    @property
    def lost_after_checks(self) -> int:
        """Looks in a row that must find no trace of a job before it counts as lost."""

    @property
    def runs_one_job(self) -> bool:
        """Whether a job that will not stop keeps every later one waiting."""

    @property
    def jobs_survive_restart(self) -> bool:
        """Whether its jobs outlive the server's process, so that one which is gone may still bring them to an end."""

    @property
    def needs_key_in_events(self) -> bool: ...
    @property
    def has_event_stream(self) -> bool:
        """Whether it has the event stream that `events` reads, a WebSocket; where not, polling does without."""

    @property
    def sends_status_events(self) -> bool:
        """Whether every submission is followed by a `status` event, so that silence means a dead stream."""

    def auth_headers(self, key: str) -> dict[str, str]:
        """The headers that show our key, on every request to the target itself."""

    def handshake(self) -> Flow[Server]:
        """Who answers there, and whether it takes our key. Raises UnreachableError, RefusedError."""

    def submit(self, submission: JobSubmission) -> Flow[str | QueueFull]:
        """The job's prompt_id, or that nothing was taken at the moment.

        Raises RejectedError, also for a 200 that carries errors (what was queued of it is cancelled). After any
        TransientError with `sent` the outcome is unknown: `find` it.
        """

    def get_job(self, prompt_id: str, *, thorough: bool, success_reported: bool = False) -> Flow[JobState]:
        """What became of a job. Only a thorough look can say `lost`, and tell `queued` from `running`. `said`: an event
        told of its success, so what confirms that may be asked first.
        """

    def find_submission(self, search: JobSearch) -> Flow[str | None]:
        """The prompt_id of a submission whose outcome is unknown, None where the server has no trace of it.
        Raises TransientError when it cannot be told yet.
        """

    def cancel(self, prompt_ids: frozenset[str], ours: frozenset[str] = frozenset()) -> Flow[bool]:
        """Stop these jobs, waiting or running, and no others; `ours` are more that are not somebody else's. Whether all
        of them were told to stop; no confirmation that they did: look at the jobs.
        """

    def upload(self, name: str, content: bytes) -> Flow[Any]:
        """Store an input file; what must stand in a workflow for it: here its name on the server."""

    def upload_mask(self, name: str, content: bytes, original: str) -> Flow[str]:
        """Store `original`, an uploaded picture by the name it got, with the alpha channel of `content`, a PNG of the
        same size; the name under which a workflow must call the result.
        """

    def has_file(self, value: Any, size: int | None) -> Flow[bool]:
        """Whether the server still has what `upload` or `upload_mask` gave this value for, and with that many bytes,
        as far as it tells. One request, not to be repeated: without an answer the file is simply uploaded.
        """

    def view_request(self, output: JobOutput) -> ServerRequest: ...
    def get_object_info(self) -> Flow[dict[str, Any]]: ...
    def get_features(self) -> Flow[dict[str, Any]]:
        """What the server says it can do, such as `max_upload_size` (bytes); empty for one that has no such answer."""


_DIALECTS: Final[Mapping[str, Callable[[], Dialect]]] = {"cloud": CloudDialect, "comfyui": ComfyUIDialect}


def make_dialect(name: str) -> Dialect:
    return _DIALECTS[name]()


@dataclass(frozen=True, slots=True)
class DialectProbe:
    """Asks a server once which dialect it speaks (COMFY_API.md, last lines of "Local against Cloud")."""

    requests: tuple[ServerRequest, ...] = field(
        default=(ServerRequest("GET", "/system_stats"), ServerRequest("GET", "/api/user"))
    )

    def detect(self) -> Flow[str]:
        """`comfyui` or `cloud`. Raises UnreachableError where the answers are neither's."""
        local, account = self.requests
        first = yield local
        if first.status == 200 and _is_comfyui(first.content):
            return "comfyui"
        reply = yield account
        if reply.status == 401 or (reply.status == 200 and reply.content.lstrip().startswith(b"{")):
            return "cloud"
        for one in (first, reply):
            if is_redirect(one):
                raise_for_status(one)
        raise UnreachableError(
            "somebody answers there, but neither as ComfyUI (/system_stats) nor as Comfy Cloud (/api/user); "
            "say which with {url: ..., dialect: comfyui} if a proxy hides them"
        )


def _is_comfyui(content: bytes) -> bool:
    return content.lstrip().startswith(b"{") and b'"system"' in content and b'"devices"' in content
