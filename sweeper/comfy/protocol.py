"""Requests, responses and job states, as the flows of a dialect exchange them with the client that does the I/O.

A flow is a generator that yields a `ServerRequest`, receives the `ServerResponse`, and returns the outcome. It does no
I/O and never waits, so tests drive a dialect with prepared responses. Differences between dialects do not belong here.
"""

from __future__ import annotations

import re
import reprlib
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from fractions import Fraction
from typing import Any, Final, Protocol, TypeGuard, TypeVar

from sweeper.errors import MAX_MESSAGE_LENGTH, RefusedError, TransientError, Trouble, UnreachableError
from sweeper.model import bounded_json
from sweeper.model.model_facts import to_local_time
from sweeper.schemas.values import is_integer
from sweeper.wording import shorten

# ComfyUI nests its answers at most about 30 deep. Python's own limit of 1,000 would stop us only later, when we copy or
# write the value.
_MAX_DEPTH: Final = 200


def parse_json(content: bytes | str) -> Any:
    """Parse JSON as servers write it, who may send NaN. Raises ValueError; see `sweeper.model.bounded_json`."""
    return bounded_json.parse_json(content, max_depth=_MAX_DEPTH, is_strict=False)


def to_text(value: Any) -> str:
    """A value for a message: a text as it is, anything else as Python writes it, with long parts left out."""
    return value if isinstance(value, str) else reprlib.repr(value) if isinstance(value, dict | list) else str(value)


T = TypeVar("T")

STOPPED: Final = "deployment_stopped"  # the code of API v2's refusal by a deployment that is switched off
STOPPED_ADVICE: Final = "the deployment is stopped; start it, then run again"
KEY_HEADER: Final = "X-API-Key"  # Comfy Cloud's; also sent while the dialect is unknown
MAX_RETRY_AFTER: Final = 600.0  # seconds; a server that asks for more can ask again
_MAX_ID_LENGTH: Final = 200
_MAX_COUNT: Final = 1_000_000
_EXCERPT_LENGTH: Final = 300  # characters of an unexpected body that a message shows


@dataclass(frozen=True, slots=True)
class UploadForm:
    """A multipart form: one file field, and text fields."""

    filename: str
    content: bytes = field(repr=False)
    fields: Mapping[str, str]
    file_field: str = "image"


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """One HTTP request below the target's URL. Only an `idempotent` one may be retried.

    `reads_classes`: the answer is an object of node classes, which may be larger than other answers.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)  # JSON unless None; its extra_data may contain a key
    upload: UploadForm | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # in addition to the key's
    idempotent: bool = True
    reads_classes: bool = False


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """One HTTP response, read to its end. Header names are lower-case; `location` is safe to show in messages.

    `classes`: the body of one that `reads_classes`, read as it arrived; then `content` is empty.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)
    classes: dict[str, Any] | None = field(default=None, repr=False)

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object, with exact big integers. Raises TransientError if it is not one, or is cut off."""
        found = "a JSON object"
        try:
            if isinstance(body := parse_json(self.content), dict):
                return body
        except ValueError:
            found = "JSON"
        raise TransientError(f"the server's answer is not {found}: {self.excerpt()!r}", trouble=Trouble.NOT_COMFYUI)

    def read_object(self) -> dict[str, Any]:
        """The body as a JSON object; empty if it is not one."""
        try:
            return self.json_object()
        except TransientError:
            return {}

    def excerpt(self) -> str:
        text = self.content[: 4 * _EXCERPT_LENGTH].decode("utf-8", "replace").strip()
        return text if len(text) <= _EXCERPT_LENGTH else text[:_EXCERPT_LENGTH] + "..."


Flow = Generator[ServerRequest, ServerResponse, T]


@dataclass(frozen=True, slots=True)
class JobOutput:
    """A file on the server: the parameters to download it, and its position in the job's outputs.

    `subfolder`: its id, on a server that finds files by ids. `content` or `url`: the file itself, or where it is, if
    the answer about the job tells that.
    """

    node: str
    kind: str
    position: int
    filename: str
    subfolder: str
    type: str
    url: str = ""
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ReportedCharges:
    """What a server says that a job was charged, in micro-dollars.

    `nodes`: by the id of the partner node, for the nodes of which it says so. `whole`: for the whole job, partner nodes
    and time included, not rounded yet; None if it does not say that.
    """

    nodes: Mapping[str, int] = field(default_factory=dict)
    whole: Fraction | None = None


@dataclass(frozen=True, slots=True)
class JobState:
    """What a server reports about one job.

    `state`: queued, running, underway (one of these two; the server does not say which), succeeded, failed, cancelled,
    or lost. Times are seconds since 1970 by the server's clock, or None if unknown. `charged`, `cached` (the ids of the
    nodes whose results came from the server's cache) and `executed` (those that ran, of a job that did not succeed) are
    None if the server does not say; `job_listener` combines them with what the event stream showed. `seconds`: those
    from the submission to the start, and from there to the end, of a server that tells these in place of times.
    """

    state: str
    outputs: tuple[JobOutput, ...] = ()
    error_type: str | None = None
    error: str | None = None
    started: float | None = None
    ended: float | None = None
    is_stuck: bool = False  # it ignores its cancellation, so the server will run nothing else
    queue_reason: str = ""  # of a queued job on Comfy Cloud, such as `concurrency_limit` or `capacity`
    queue_position: int | None = None
    charged: ReportedCharges | None = None
    cached: frozenset[str] | None = None
    executed: frozenset[str] | None = None
    failed_node: str | None = None  # the id of the node that made it fail, if the server says it
    seconds: tuple[float, float] | None = None

    @property
    def account_advice(self) -> str | None:
        """What to do if it failed because the account cannot pay, as every later job would; else None."""
        return find_advice(self.error_type) if self.state == "failed" else None

    @property
    def is_over(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled", "lost")


@dataclass(frozen=True, slots=True)
class JobSubmission:
    """A job to submit. `job_id` is our own id (a UUID), `client_id` the id of our event stream, if one is open.

    `wants_previews`: somebody watches the run.
    """

    job_id: str
    graph: Mapping[str, Any]
    client_id: str | None = None
    extra_data: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may contain a key
    wants_previews: bool = False


@dataclass(frozen=True, slots=True)
class QueueFull:
    """The server did not accept a job, because its queue is full or it is overloaded.

    `retry_after`: seconds, if the server asked for a wait. `may_be_accepted`: the response may come from a gateway
    whose server did accept the job, so search for the job first.
    """

    reason: str
    retry_after: float | None = None
    may_be_accepted: bool = False


class ServerTraits(Protocol):
    """What a dialect knows of its servers. By default, one of many workers whom clients only poll."""

    name: str
    concurrency: int  # how many jobs to have in flight by default
    poll_intervals: tuple[float, float] = (1.0, 5.0)  # seconds between two polls of a job: the first, and the longest
    lost_after_checks: int = 3  # polls in a row without a trace, after which a job is lost: a listing may lag behind
    key_seconds: float = 0.0  # for how many the server surely refuses to accept an id again; 0 if it runs the job twice
    runs_one_job: bool = False  # at a time, so that a job which ignores its cancellation blocks all others
    jobs_survive_restart: bool = True  # of the server's process
    lists_jobs: bool = True  # without a list, nobody can tell whether a job with a lost answer has run
    keeps_files: bool = True  # for later jobs; else the value of an upload in a workflow contains the file
    has_event_stream: bool = False  # the WebSocket that `event_stream` reads. Without it, polling suffices
    needs_key_in_events: bool = False  # the URL of the event stream must contain the key
    sends_status_events: bool = False  # after every submission, so that silence means a dead stream
    mask_path: str | None = None  # of the call that combines a picture and its mask; None: we upload the combined one
    models_path: str | None = None  # of the call that lists the folders of models; None: it tells nothing about them
    frees_memory: bool = False  # results and models, when a client asks, because the server may have read old files

    def auth_headers(self, key: str) -> dict[str, str]:
        """The headers that contain the key, for every request to the target itself."""
        return {KEY_HEADER: key}

    def make_events_request(self, prompt_id: str) -> ServerRequest | None:
        """The request for the Server-Sent Events of one job; None if there are no such streams."""
        return None


@dataclass(frozen=True, slots=True)
class KnownJob:
    """The server did not accept a submission, because it has had one with this id: search for its job."""


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """What a job's details say about its workflow: our markers in it, or its fingerprint if it has none."""

    markers: frozenset[str] = frozenset()
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class JobSearch:
    """A search for a submission whose outcome is unknown.

    `intended_at` (when its intent was recorded) and `now` are seconds since 1970 by our clock, and `server_time` is
    when the intent was recorded by the server's clock, if known. `is_known(prompt_id)`: whether that id belongs to
    another job of ours. `is_unanswered`: the server was silent after the submission, so it may accept the job later
    than usual. `age`: seconds since the intent, by the server's clock if it is known.

    The client sets the rest: `identities` is what its earlier searches learned, by prompt_id; a search adds to it.
    `began_at`: when it began to search, by the server's clock.
    """

    job_id: str
    fingerprint: str
    intended_at: float
    now: float
    is_known: Callable[[str], bool]
    server_time: float | None = None
    is_unanswered: bool = False
    age: float = float("inf")
    identities: dict[str, JobIdentity] = field(default_factory=dict, compare=False, repr=False)
    began_at: float | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """The server that responds at a target. `version` and `arguments` are empty if it does not report them.

    `arguments`: a local server's command line, which shows its cache mode. `memory`: total and free bytes of its
    machine; 0 if unknown. `max_jobs`: how many jobs of ours it executes at once, if it says so.
    """

    dialect: str
    version: str = ""
    arguments: tuple[str, ...] = ()
    memory: tuple[int, int] = (0, 0)
    max_jobs: int | None = None


def raise_for_status(response: ServerResponse, *allowed: int) -> ServerResponse:
    """Return the response if its status is 2xx or one of `allowed`; otherwise raise the matching error.

    RefusedError for 401, 402, 403, a stopped deployment, and any other error of a type in `_ADVICE`. TransientError for
    any other 429 and 5xx, with `retry_after`. UnreachableError for the rest.
    """
    if 200 <= response.status < 300 or response.status in allowed:
        return response
    message = read_error_message(response)
    if read_error_code(response) == STOPPED:
        raise RefusedError(f"{STOPPED_ADVICE}: {message}", is_final=True)
    if (refusal := _read_account_refusal(response, message)) is not None:
        raise refusal
    if response.status in (401, 403):
        reason = f"the server refuses the key or this client (HTTP {response.status}): {message}"
        raise RefusedError(reason, is_final=is_own_refusal(response), is_key_problem=True)
    if response.status == 429 or response.status >= 500:
        raise TransientError(f"HTTP {response.status}: {message}", retry_after=read_retry_after(response))
    if is_redirect(response):
        url = response.headers["location"]
        message = f"answers with a redirect (HTTP {response.status}) to {url}: use that address if ComfyUI is there"
        raise UnreachableError(message, trouble=Trouble.REDIRECTED)
    raise UnreachableError(f"not a response of ComfyUI or Comfy Cloud (HTTP {response.status}): {message}")


def is_account_refusal(response: ServerResponse) -> bool:
    """Whether the response says that the account cannot pay for a job, or may not run it."""
    return _read_account_refusal(response, "") is not None


def _read_account_refusal(response: ServerResponse, message: str) -> RefusedError | None:
    error = response.read_object().get("error")
    details = error if isinstance(error, Mapping) else {}
    kind, classes = details.get("type"), details.get("class_types")
    kind = kind if isinstance(kind, str) else None
    advice = find_advice(kind) or (find_advice("PAYMENT_REQUIRED") if response.status == 402 else None)
    if advice is None:
        return None
    status = f"HTTP {response.status}, {kind}" if kind else f"HTTP {response.status}"
    names = f" ({', '.join(map(to_text, classes[:20]))})" if isinstance(classes, list) and classes else ""
    text = f"the account cannot run this job ({status}): {message.rstrip('.')}{names}; {advice}"
    return RefusedError(text, is_account_problem=True)


def read_error_code(response: ServerResponse) -> str:
    """The word of API v2 that tells errors of one status apart; empty if there is none."""
    error = response.read_object().get("error")
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, str) else ""


def request_optional(path: str) -> Flow[dict[str, Any]]:
    """The JSON object at a path that not every server has; empty for a 404."""
    response = raise_for_status((yield ServerRequest("GET", path)), 404)
    return response.json_object() if response.status != 404 else {}


def is_own_refusal(response: ServerResponse) -> bool:
    """Whether the JSON shape of an error shows that the server itself refused a submission, and not a gateway.

    ComfyUI and Comfy Cloud answer POST /prompt with `{"error": {"type", "message"}}`, and Cloud also with
    `{"code", "message"}`. Gateways send pages, `{"message"}`, or a number as the code.
    """
    body = response.read_object()
    error = body.get("error")
    if isinstance(error, dict):
        words = [error.get(name) for name in ("type", "message")]
        return any(isinstance(word, str) and word for word in words) and not isinstance(error.get("code"), int)
    return all(isinstance(body.get(name), str) and body[name] for name in ("code", "message"))


def is_id(value: Any) -> TypeGuard[str]:
    """Whether this can be the id of a job or node: a short text. Jobs have UUIDs of 36 characters."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_ID_LENGTH


def is_count(value: Any) -> TypeGuard[int]:
    """Whether this can be a number of jobs, such as a limit or a place in a queue: 1 or more."""
    return is_integer(value) and 0 < value <= _MAX_COUNT


def is_redirect(response: ServerResponse) -> bool:
    """Whether the response is a redirect. The client never follows one, because another host must not see the key."""
    return 300 <= response.status < 400 and bool(response.headers.get("location"))


def read_retry_after(response: ServerResponse) -> float | None:
    """Seconds to wait according to Retry-After, at most `MAX_RETRY_AFTER`; None without a valid header.

    RFC 9110, 10.2.3: a number of seconds, or a date. A date is compared with the response's own Date header, because
    the server's clock may differ from ours.
    """
    header = response.headers.get("retry-after", "")
    try:
        seconds = float(header)
    except ValueError:
        until, now = _parse_date(header), read_date(response)
        if until is None:
            return None
        seconds = max(0.0, until - (time.time() if now is None else now))
    return min(seconds, MAX_RETRY_AFTER) if 0 <= seconds < float("inf") else None


def read_date(response: ServerResponse) -> float | None:
    """The server's time according to the Date header, in seconds since 1970; None without a valid one."""
    return _parse_date(response.headers.get("date", ""))


def describe_deprecation(response: ServerResponse) -> str:
    """`deprecated from 1 Jul 2025 on, ends on 31 Dec 2026`: what a server announces about a call; "" for nothing.

    Deprecation is RFC 9745 (`@seconds`; its drafts had an HTTP date or `true`), Sunset is RFC 8594 (an HTTP date).
    """
    if not {"deprecation", "sunset"} & response.headers.keys():
        return ""
    text, end = response.headers.get("deprecation", ""), _parse_date(response.headers.get("sunset", ""))
    since = float(text[1:]) if re.fullmatch(r"@-?\d{1,15}", text) else _parse_date(text)
    if since is not None:
        parts = [f"deprecated from {_format_day(since)} on"]
    else:
        parts = ["deprecated"] if text.lower() == "true" else []
    return ", ".join(parts if end is None else [*parts, f"ends on {_format_day(end)}"])


def _format_day(seconds: float) -> str:
    day = to_local_time(seconds)
    return f"{day.day} {day:%b %Y}"


def _parse_date(text: str) -> float | None:
    """Seconds since 1970 of an HTTP date; None for anything else."""
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()


def read_error_message(response: ServerResponse) -> str:
    """The server's error message for the user: from its error object, else the start of the body."""
    body = response.read_object()
    error = body.get("error", body)
    if isinstance(error, dict):
        parts = [to_text(error[name]) for name in ("message", "details") if error.get(name)]
        text = ": ".join(parts) or to_text(error.get("type") or "") or response.excerpt()
        return shorten(text or "(empty answer)", MAX_MESSAGE_LENGTH)
    return shorten(to_text(error) or to_text(body.get("message") or "") or response.excerpt(), MAX_MESSAGE_LENGTH)


_AGAIN: Final = "then run the same command again, which keeps all finished trials"
_FUNDS: Final = f"add credits or a subscription at https://cloud.comfy.org, {_AGAIN}"
_ADVICE: Final = {
    "PAYMENT_REQUIRED": _FUNDS,
    "CLOUD_SUBSCRIPTION_REQUIRED": f"subscribe to Comfy Cloud at https://cloud.comfy.org, {_AGAIN}",
    "FREE_TIER_EXHAUSTED": f"subscribe at https://cloud.comfy.org, or wait for the next period; {_AGAIN}",
    "FREE_TIER_UNAVAILABLE": f"subscribe at https://cloud.comfy.org, or wait until free jobs are back; {_AGAIN}",
    "PARTNER_NODE_PAYMENT_REQUIRED": f"add credits for partner nodes, or remove those nodes; {_AGAIN}",
    "MODEL_PAYMENT_REQUIRED": f"choose a model that the plan includes, or a larger plan; {_AGAIN}",
    "PARTNER_NODE_DISABLED": f"ask the workspace's owner to allow them, or remove them; {_AGAIN}",
    "InsufficientFundsError": _FUNDS,
    "InactiveSubscriptionError": _FUNDS,
}


def find_advice(error_type: str | None) -> str | None:
    """What the account's owner can do about an error of that type; None if it is not about the account."""
    return _ADVICE.get((error_type or "").rpartition(".")[2])
