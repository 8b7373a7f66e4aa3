"""What passes between a flow and whoever does its I/O: questions, answers, and how an answer's status is judged.

A flow is a generator that yields `Ask` and is sent the `Reply`; its return value is the outcome. It neither waits nor
opens anything, so a dialect is tested by handing it answers. No difference between dialects lives here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

from sweeper.errors import RefusedError, SweeperError, TransientError, Trouble, UnreachableError

T = TypeVar("T")

_ACCOUNT_ERRORS: Final = ("InsufficientFundsError", "InactiveSubscriptionError")
KEY_HEADER: Final = "X-API-Key"  # COMFY_API.md, "key"; before the dialect is known, too
MAX_RETRY_AFTER: Final = 600.0  # seconds: a server that asks for a day is asked again long before, and may say more
_EXCERPT_LENGTH: Final = 300  # characters of an unexpected body that a message shows


@dataclass(frozen=True, slots=True)
class UploadForm:
    """A multipart form: one file field `image`, and text fields."""

    filename: str
    content: bytes = field(repr=False)
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """One HTTP request below the target's URL. `repeatable`: asking twice does what asking once does."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)  # JSON, where not None; its extra_data may hold a key
    upload: UploadForm | None = None
    idempotent: bool = True


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """One HTTP answer, read whole. Header names are lower-case; a `location` is as a message may show it."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON, big integers kept. Raises TransientError: half an answer is no answer."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            raise TransientError(
                f"the server's answer is not JSON: {self.excerpt()!r}", trouble=Trouble.NOT_COMFYUI
            ) from None

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises TransientError where it is none."""
        found = self.json()
        if not isinstance(found, dict):
            raise TransientError(
                f"the server's answer is not a JSON object: {self.excerpt()!r}", trouble=Trouble.NOT_COMFYUI
            )
        return found

    def excerpt(self) -> str:
        text = self.content[: 4 * _EXCERPT_LENGTH].decode("utf-8", "replace").strip()
        return text if len(text) <= _EXCERPT_LENGTH else text[:_EXCERPT_LENGTH] + "..."


Flow = Generator[ServerRequest, ServerResponse, T]


@dataclass(frozen=True, slots=True)
class JobOutput:
    """A file on the server: what `view` needs to fetch it, and where in the job's outputs it stood."""

    node: str
    kind: str
    position: int
    filename: str
    subfolder: str
    type: str


@dataclass(frozen=True, slots=True)
class JobState:
    """What a server says of one job.

    `state`: queued, running, underway (in flight, the server does not say how far), succeeded, failed, cancelled,
    lost. Times are seconds since 1970 by the server's clock, None where it did not tell.
    """

    state: str
    outputs: tuple[JobOutput, ...] = ()
    error_type: str | None = None
    error: str | None = None
    started: float | None = None
    ended: float | None = None
    is_stuck: bool = False  # it was told to stop and does not, so nothing else will run there
    running_job: str | None = None  # of a queued job: which one the server is at, where it tells

    @property
    def is_account_refusal(self) -> bool:
        """Whether it failed because the account cannot pay: no later job would fare better (COMFY_API.md)."""
        return self.state == "failed" and (self.error_type or "").rpartition(".")[2] in _ACCOUNT_ERRORS

    @property
    def is_over(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled", "lost")


@dataclass(frozen=True, slots=True)
class JobSubmission:
    """One job to be sent: `job` is our own id (a UUID), `client_id` that of our event stream, if any."""

    job_id: str
    graph: Mapping[str, Any]
    client_id: str | None = None
    extra_data: Mapping[str, Any] = field(default_factory=dict, repr=False)  # extra_data, which may hold a key


@dataclass(frozen=True, slots=True)
class QueueFull:
    """The server took nothing: its queue is full, or it is overloaded. `retry_after` in seconds, if it said.

    `unsure`: somebody between us may have said so after the server had the job, so `find` it first.
    """

    reason: str
    retry_after: float | None = None
    may_be_accepted: bool = False


@dataclass(frozen=True, slots=True)
class JobSearch:
    """A submission whose outcome is unknown. `since` and `now` are seconds since 1970 by our clock: when it was
    intended, and the time of asking. `taken(prompt_id)` tells the jobs that are known to be others.
    """

    job_id: str
    fingerprint: str
    intended_at: float
    now: float
    is_known: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers at a target. `version` and `arguments` (a local server's command line, which shows its cache mode)
    are empty where it does not tell.
    """

    dialect: str
    version: str = ""
    arguments: tuple[str, ...] = ()


def raise_for_status(response: ServerResponse, *allowed: int) -> ServerResponse:
    """The reply, if its status is 2xx or one of `allowed`; otherwise the error that it means.

    RefusedError for 401, 402 and 403, and for a 429 that speaks of the subscription (COMFY_API.md: 429 is either that
    or a full queue); TransientError for other 429 and 5xx, with `retry_after`; UnreachableError for the rest.
    """
    if 200 <= response.status < 300 or response.status in allowed:
        return response
    said = read_error_message(response)
    if response.status in (401, 403):
        raise RefusedError(f"the server refuses the key or this client (HTTP {response.status}): {said}")
    if response.status == 402:
        raise RefusedError(f"the account is out of credits (HTTP 402): {said}", is_account_problem=True)
    if response.status == 429 and is_subscription_error(response):
        raise RefusedError(f"the subscription is inactive (HTTP 429): {said}", is_account_problem=True)
    if response.status == 429 or response.status >= 500:
        raise TransientError(f"HTTP {response.status}: {said}", retry_after=read_retry_after(response))
    if is_redirect(response):
        where = response.headers["location"]
        said = f"answers with a redirect (HTTP {response.status}) to {where}: use that address, if the ComfyUI is there"
        raise UnreachableError(said, trouble=Trouble.REDIRECTED)
    raise UnreachableError(f"an answer that no ComfyUI gives here (HTTP {response.status}): {said}")


def is_redirect(response: ServerResponse) -> bool:
    """Whether the answer only sends us elsewhere, where we do not go: our key is not for whoever is there."""
    return 300 <= response.status < 400 and bool(response.headers.get("location"))


def read_retry_after(response: ServerResponse) -> float | None:
    """Seconds that the server asks us to wait, at most `LONGEST_ASKED` (RFC 9110, 10.2.3: a delay, or a date).

    A date is one of the server's clock, which the answer's own Date shows; ours where it has none.
    """
    said = response.headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        until, now = _parse_date(said), _parse_date(response.headers.get("date", ""))
        if until is None:
            return None
        seconds = max(0.0, until - (time.time() if now is None else now))
    return min(seconds, MAX_RETRY_AFTER) if 0 <= seconds < float("inf") else None


def _parse_date(text: str) -> float | None:
    """Seconds since 1970 of an HTTP-date, None for anything else."""
    try:
        found = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def read_error_message(response: ServerResponse) -> str:
    """What the server said, for people: the message of its error object, else the start of the body."""
    try:
        found = response.json_object()
    except SweeperError:
        return response.excerpt() or "(empty answer)"
    error = found.get("error", found)
    if isinstance(error, dict):
        parts = [str(error[name]) for name in ("message", "details") if error.get(name)]
        return ": ".join(parts) or str(error.get("type") or "") or response.excerpt()
    return str(error) or str(found.get("message") or "") or response.excerpt()


def is_subscription_error(response: ServerResponse) -> bool:
    """Whether a 429 means an unpaid subscription and not a full queue; one that says when to come back does not."""
    if read_retry_after(response) is not None:
        return False
    said = response.content[:4000].decode("utf-8", "replace").casefold()
    return "queue" not in said and any(word in said for word in ("subscription", "not paid", "payment", "insufficient"))
