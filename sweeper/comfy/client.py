"""The HTTP client of one target: runs the flows of its dialect, retries requests, and opens downloads.

The dialect defines the requests, `sweeper.running` decides what to do about a failed job, and `uploads` decides which
input files to send. The key travels in one header, to the target's own origin only: the client follows no redirect with
it, and removes it from everything that a server echoes.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode, urljoin

import httpx

from sweeper.comfy import jobs_api
from sweeper.comfy.dialects import Dialect, detect_dialect, make_dialect
from sweeper.comfy.model_files import ServerModels
from sweeper.comfy.protocol import (
    KEY_HEADER,
    Flow,
    JobIdentity,
    JobOutput,
    JobSearch,
    JobState,
    JobSubmission,
    KnownJob,
    QueueFull,
    Server,
    ServerRequest,
    ServerResponse,
    describe_deprecation,
    read_date,
    read_error_message,
    read_retry_after,
)
from sweeper.comfy.redaction import Redaction, log, mute_libraries
from sweeper.comfy.responses import NodePack, query_balance, query_node_packs, query_server_info
from sweeper.comfy.retry import RetryPolicy, RetryWaiter
from sweeper.comfy.target import Target, with_location
from sweeper.comfy.transport import (
    NOT_SENT,
    PUBLIC,
    check_redirect,
    classify_host,
    classify_peer,
    describe_error,
    find_proxy,
    is_connection_refused,
    make_connection_check,
    make_transport,
    read_answer,
    read_classes,
    resolve_kind,
    send,
)
from sweeper.comfy.uploads import Uploads
from sweeper.errors import RefusedError, TargetError, TransientError, Trouble, UnreachableError, UsageError
from sweeper.model.money import COMFY_CREDITS_PER_USD, TargetPrice
from sweeper.model.urls import is_loopback, strip_secrets

T = TypeVar("T")

# Seconds. A read may take long, because ComfyUI cannot respond while a model load holds the interpreter.
TIMEOUT: Final = httpx.Timeout(connect=10.0, read=60.0, write=60.0, pool=120.0)
# A few connections: for every request, httpcore asks the operating system about each idle one.
LIMITS: Final = httpx.Limits(max_connections=8, max_keepalive_connections=8, keepalive_expiry=30.0)
# Seconds between two polls of a server on this machine, where polling is cheap for every dialect.
_LOCAL_POLL_INTERVALS: Final = (0.05, 1.0)
# Seconds in which a request whose connection dropped may still arrive, through a busy server or a proxy; and how many
# times the slowest answer to a search, because a server that answers slowly accepts slowly too.
_LATE_ARRIVAL: Final = 1.0
_LATE_ARRIVAL_ANSWERS: Final = 4
# Seconds after the intent in which a server may still accept a submission that it has not answered. Until then, no
# search proves that it does not have the job.
_SUBMISSION_SECONDS: Final = 60.0
_LATE_OUTCOME: Final = "the server did not answer the submission; it has no such job yet, but may still accept it"
_UNCLEAR_OUTCOME: Final = (
    "a job that may be the sought one does not show its workflow; if this service never shows workflows, look for the "
    "picture there yourself: only a run with another --out submits the trial again"
)
_CONNECT_MAX_RETRY_AFTER: Final = 30.0  # seconds; nothing was submitted yet, so a longer wait gains nothing
_MAX_DEPRECATIONS: Final = 20  # paths, because those of a run have the ids of its jobs
_OPTIONAL_TIMEOUT: Final = 10.0  # seconds for facts that a run does not need, such as the server's versions


class ComfyClient:
    """The client of one target: an async context manager, for use within one event loop.

    `transport` replaces the network in tests. `patience`: how long to wait without progress, in seconds; see
    `RetryPolicy.limit_to`. `connect` sets `dialect` and `target.dialect`.
    """

    def __init__(
        self,
        target: Target,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        retry_policy: RetryPolicy | None = None,
        patience: float = math.inf,
        random: Random | None = None,
    ) -> None:
        self.target = target
        self.retry_policy = (retry_policy or RetryPolicy()).limit_to(patience)
        self.random = random or Random()
        self.retry_waiter = RetryWaiter(self.retry_policy.max_wait)
        self._dialect = make_dialect(target.dialect) if target.dialect else None
        self._transport = transport
        self._http = self._make_http_client(target.url)
        self._root = str(httpx.URL(target.url))  # encoded as httpx sends it
        self._stream_http: httpx.AsyncClient | None = None
        self._keyless_http: dict[str | None, httpx.AsyncClient] = {}  # by proxy
        self._target_kind = classify_host(target.url) or PUBLIC  # until a connection shows the address
        self._proxied_kinds: dict[str, str | None] = {}  # by host: what `resolve_kind` found
        self.uploads = Uploads(self.run_flow, lambda: self.dialect)
        self.models = ServerModels(self.run_flow, lambda: self.dialect)
        # A server may echo our keys (ComfyUI's /queue contains extra_data), and our messages must not contain them.
        redaction = Redaction(target.keys)
        self.redact, self.redact_text = redaction.redact, redaction.redact_text
        self.last_response_at = 0.0  # by the loop's clock
        self._last_date: tuple[float, float] | None = None  # of the last response, and when it came by the loop's clock
        self._identities: dict[str, JobIdentity] = {}  # of the server's jobs that searches have seen
        self.deprecations: dict[str, str] = {}  # by path, of the first that the server says will end
        self.extra_data: Mapping[str, str] = {}  # for every submission; contains the key for partner nodes

    def _make_http_client(self, url: str) -> httpx.AsyncClient:
        """An HTTP client for requests to `url`; it follows no redirect. Raises UsageError for an unusable proxy."""
        try:
            transport = self._transport or make_transport(url, LIMITS)
        except UsageError as error:
            raise with_location(f"target {self.target.name}", error) from None
        headers = {"Accept-Encoding": "identity", "User-Agent": "sweeper"}
        return httpx.AsyncClient(transport=transport, headers=headers, timeout=TIMEOUT)

    def move(self, url: str) -> None:
        """Use another address of the same machine from now on."""
        self.target, self._root = replace(self.target, url=url), str(httpx.URL(url))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.uploads.close()
        await self._http.aclose()
        for http in filter(None, (self._stream_http, *self._keyless_http.values())):
            await http.aclose()

    @property
    def dialect(self) -> Dialect:
        """The server's dialect. Known after `connect`, or if the target names it."""
        assert self._dialect is not None, "call connect() first: the dialect is unknown"
        return self._dialect

    @property
    def loses_jobs_on_exit(self) -> bool:
        """Whether the server is known to lose its jobs when its process ends."""
        return self._dialect is not None and not self._dialect.jobs_survive_restart

    @property
    def credits_per_usd(self) -> Fraction:
        return (self.target.price or TargetPrice()).credits_per_usd

    @property
    def poll_intervals(self) -> tuple[float, float]:
        """Seconds between two polls of a job: the first interval and the longest. Shorter for a local server."""
        return _LOCAL_POLL_INTERVALS if is_loopback(self.target.url) else self.dialect.poll_intervals

    # --- operations

    async def connect(self) -> Server:
        """Identify the server and its dialect. Raises UnreachableError or RefusedError.

        A refused connection is retried only once, because a server that is not running will not start by itself.
        """
        retry_policy = replace(
            self.retry_policy,
            connect_attempts=2,
            max_retry_after=min(self.retry_policy.max_retry_after, _CONNECT_MAX_RETRY_AFTER),
        )
        try:
            if self._dialect is None:
                name = await self.run_flow(detect_dialect(), retry_policy)
                self._dialect = make_dialect(name)
                self.target = replace(self.target, dialect=name)
            return await self.run_flow(self.dialect.handshake(), retry_policy)
        except TransientError as error:
            raise UnreachableError(f"{self.target.name}: cannot be reached: {error}", trouble=error.trouble) from None

    async def get_server_info(self) -> dict[str, Any]:
        """The server's versions (see `query_server_info`); empty if it does not report them in time, or fails."""
        return await self._run_optional(query_server_info(self.dialect.name)) or {}

    async def get_node_packs(self) -> dict[str, NodePack]:
        """The node packs of a ComfyUI by folder; empty if it does not report them in time, or is another server."""
        return await self._run_optional(query_node_packs()) or {} if self.dialect.name == "comfyui" else {}

    async def get_balance(self) -> float | None:
        """What is left on the account, in USD; None if the server does not say that in time, or has no accounts."""
        return await self._run_optional(query_balance())

    async def _run_optional(self, flow: Flow[T]) -> T | None:
        """Run a flow without retries; None if it fails or takes long."""
        try:
            async with asyncio.timeout(_OPTIONAL_TIMEOUT):
                return await self.run_flow(flow, replace(self.retry_policy, attempts=1))
        except (TargetError, TransientError, TimeoutError):
            return None

    async def submit(self, submission: JobSubmission) -> str | QueueFull | KnownJob:
        """Submit a job, without retries. Raises the errors of `Dialect.submit`."""
        return await self.run_flow(self.dialect.submit(submission))

    async def get_job(self, prompt_id: str) -> JobState:
        """Poll a job."""
        state = await self.run_flow(self.dialect.get_job(prompt_id))
        if state.charged is None or state.charged.whole is None:
            return state
        micros = state.charged.whole * COMFY_CREDITS_PER_USD / self.credits_per_usd
        return replace(state, charged=replace(state.charged, whole=micros))

    async def list_running(self) -> frozenset[str]:
        """The prompt ids of the jobs that the server executes now, also those of others."""
        return await self.run_flow(self.dialect.list_running())

    async def find_submission(
        self, search: JobSearch, *, allow_late_arrival: bool = True, trusts_key: bool = True
    ) -> str | None:
        """Search for a submission with an unknown outcome; return its prompt_id, or None if the server lacks it.

        Searches several times, because a listing may lag behind. With `allow_late_arrival` it also searches for as long
        as the request may still arrive after its connection dropped. Raises TransientError if the outcome stays open.

        With `trusts_key` it looks only once if the server still refuses a job id that it has had: then None means no
        more than that the job is not listed, and sending it again with that id shows whether the server has it.
        """
        answers = await self.find_submissions([search], allow_late_arrival=allow_late_arrival, trusts_key=trusts_key)
        if search.job_id not in answers:
            raise TransientError(describe_open_outcome(search))
        return answers[search.job_id]

    async def find_submissions(
        self, searches: Sequence[JobSearch], *, allow_late_arrival: bool = True, trusts_key: bool = True
    ) -> dict[str, str | None]:
        """Search for several submissions at once, as `find_submission` does: by job id, the prompt_id or None.

        A job id is missing if its outcome stays open.
        """
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        until = began_at + (_LATE_ARRIVAL if allow_late_arrival else 0.0)
        remaining = [replace(search, identities=self._identities, began_at=self.server_time) for search in searches]
        answers: dict[str, str | None] = {}
        checks, may_lag = 0, False
        while remaining and (checks < self.dialect.lost_after_checks or loop.time() < until or may_lag):
            if checks:
                await asyncio.sleep(self.poll_intervals[0] * 2 ** min(checks, 2))
            asked_at = loop.time()
            aged = [replace(search, age=search.age + asked_at - began_at) for search in remaining]
            keyed = {search.job_id for search in aged if trusts_key and search.age < self.dialect.key_seconds}
            latest = dict.fromkeys(keyed) | await self.run_flow(self.dialect.find_submissions(aged))
            may_lag = any(search.age < jobs_api.LIST_LAG and search.job_id not in latest for search in aged)
            if allow_late_arrival:
                until = max(until, began_at + _LATE_ARRIVAL_ANSWERS * (loop.time() - asked_at))
            for search in remaining:
                answers.pop(search.job_id, None)
            answers.update(latest)
            remaining = [s for s in remaining if latest.get(s.job_id) is None and s.job_id not in keyed]
            checks += 1
        for search in remaining:
            if _may_be_accepted_late(search):
                answers.pop(search.job_id, None)
        return answers

    @property
    def server_time(self) -> float | None:
        """The time now by the server's clock, in seconds since 1970; None if the server sends no Date header."""
        if self._last_date is None:
            return None
        date, received_at = self._last_date
        return date + asyncio.get_running_loop().time() - received_at

    async def cancel(self, prompt_ids: frozenset[str]) -> None:
        """Ask the server to cancel these jobs. Poll them to see whether it did."""
        if prompt_ids:
            await self.run_flow(self.dialect.cancel(prompt_ids))

    async def get_upload_limit(self) -> int | None:
        """The largest request body in bytes; None if the server reports none. Raises TransientError, TargetError."""
        limit = (await self.run_flow(self.dialect.get_features())).get("max_upload_size")
        return limit if isinstance(limit, int) and limit > 0 else None

    # --- running a flow

    async def run_flow(self, flow: Flow[T], retry_policy: RetryPolicy | None = None) -> T:
        """Run a flow to its end; return its outcome. Only idempotent requests are retried."""
        try:
            request = next(flow)
            while True:
                request = flow.send(await self._send_with_retries(request, retry_policy or self.retry_policy))
        except StopIteration as stop:
            outcome: T = stop.value
            return outcome
        except RefusedError as error:
            if error.is_key_problem:
                error.args = (f"{error}; {self.target.key_advice}",)
            raise

    async def _send_with_retries(self, request: ServerRequest, retry_policy: RetryPolicy) -> ServerResponse:
        waits = retry_policy.draw_waits(self.random) if request.idempotent else iter(())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + retry_policy.total_seconds
        refusals, left_for_server = 0, retry_policy.max_retry_after
        while True:
            try:
                response = await self._send(request)
            except TransientError as error:
                refusals += not error.sent
                wait = next(waits, None) if refusals < retry_policy.connect_attempts else None
                if error.trouble is Trouble.TOO_LARGE or wait is None or loop.time() + wait > deadline:
                    raise
                await asyncio.sleep(wait)
                continue
            is_temporary = response.status == 429 or (response.status >= 500 and response.status != 501)
            if request.idempotent and (is_temporary or _is_garbled(request, response)):
                wait = next(waits, None)
                if wait is not None and loop.time() + wait <= deadline:
                    reason = f"HTTP {response.status}: {read_error_message(response)}"
                    waited = await self.retry_waiter.wait(
                        wait, read_retry_after(response), reason, max_retry_after=left_for_server
                    )
                    deadline, left_for_server = deadline + waited, left_for_server - waited
                    continue
            return response

    async def _send(self, request: ServerRequest) -> ServerResponse:
        """Send a request once. Raises TransientError, whose `sent` says whether the request may have arrived."""
        try:
            response = await self._open(self._http, self._build_request(request))
            content, classes = b"", None
            if request.reads_classes and response.status_code == 200:
                classes = await read_classes(response, self.retry_policy.stall_seconds, self.redact_text)
            else:
                content = await read_answer(response, self.retry_policy.stall_seconds)
        except httpx.InvalidURL as error:  # a host name that no resolver accepts
            message = f"{self.target.name}: cannot be reached: {error}"
            raise UnreachableError(message, trouble=Trouble.NO_CONNECTION) from None
        except httpx.HTTPError as error:
            raise self._to_transient_error(error) from None
        self.last_response_at = asyncio.get_running_loop().time()
        headers = dict(response.headers.multi_items())  # names in lower case; the last value of a repeated name
        if "location" in headers:
            headers["location"] = self._redact_location(request.path, headers["location"])
        answer = ServerResponse(response.status_code, headers, self.redact(content), classes)
        if (date := read_date(answer)) is not None:
            self._last_date = date, self.last_response_at
        if (announced := describe_deprecation(answer)) and len(self.deprecations) < _MAX_DEPRECATIONS:
            self.deprecations[request.path] = announced
        return answer

    async def _open(self, http: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        """Send a request and read the answer's header. Raises the errors of `transport.send`."""
        with mute_libraries():
            response = await send(http, request, self.retry_policy.stall_seconds)
        url = self.redact_text(strip_secrets(str(request.url))) if http is self._http else request.url.host
        log.debug("%s %s: HTTP %d", request.method, url, response.status_code)
        return response

    def _redact_location(self, path: str, location: str) -> str:
        """A redirect's URL without credentials, and without `path` if it ends with it, as a target's URL does."""
        try:
            url = urljoin(self._root + path, location)
        except ValueError:
            return ""
        return self.redact_text(strip_secrets(url)).removesuffix(path)

    def _build_url(self, request: ServerRequest) -> str:
        query = f"?{urlencode(request.query)}" if request.query else ""
        return f"{self._root}{request.path}{query}"

    def _build_headers(self) -> dict[str, str]:
        key = self.target.key
        if key is None:
            return {}
        return self._dialect.auth_headers(key) if self._dialect is not None else {KEY_HEADER: key}

    def _build_request(self, request: ServerRequest) -> httpx.Request:
        url, headers = self._build_url(request), self._build_headers() | dict(request.headers)
        if request.upload is not None:
            form = request.upload
            files = {form.file_field: (form.filename, form.content, "application/octet-stream")}
            return self._http.build_request(request.method, url, data=dict(form.fields), files=files, headers=headers)
        if request.body is None:
            return self._http.build_request(request.method, url, headers=headers)
        # Reject NaN: ComfyUI accepts it, and then writes invalid JSON.
        content = json.dumps(request.body, allow_nan=False).encode()
        headers = headers | {"Content-Type": "application/json"}
        return self._http.build_request(request.method, url, content=content, headers=headers)

    def _to_transient_error(self, error: httpx.HTTPError) -> TransientError:
        message = f"{type(error).__name__}: {self.redact_text(describe_error(error))}"
        return TransientError(message, sent=not isinstance(error, NOT_SENT), trouble=_classify_trouble(error))

    # --- files

    async def open_output(self, output: JobOutput, headers: dict[str, str]) -> httpx.Response:
        """Request a file of the target, with the key; the caller reads the body. Raises TransientError.

        Returns a redirect as it is, because it must not be followed with the key.
        """
        request = self.dialect.view_request(output)
        all_headers = self._build_headers() | headers
        response = await self._open_stream(self._http, request.method, self._build_url(request), all_headers)
        if find_proxy(self.target.url) is None:
            self._target_kind = classify_peer(response.extensions.get("network_stream")) or self._target_kind
        elif response.is_redirect:
            self._target_kind = await self._resolve_kind(self.target.url) or PUBLIC
        return response

    async def _resolve_kind(self, url: str) -> str | None:
        host = httpx.URL(url).netloc.decode()
        if host not in self._proxied_kinds:
            self._proxied_kinds[host] = await resolve_kind(url)
        return self._proxied_kinds[host]

    async def open_events(self, request: ServerRequest) -> httpx.Response:
        """Request a stream of events, with the key; the caller reads and closes it. Raises TransientError.

        The streams have connections of their own, so that they take none from the polls.
        """
        if self._stream_http is None:
            self._stream_http = self._make_http_client(self.target.url)
        headers = self._build_headers() | {"Accept": "text/event-stream"}
        return await self._open_stream(self._stream_http, request.method, self._build_url(request), headers)

    async def open_without_key(self, url: str, headers: dict[str, str]) -> httpx.Response:
        """Request a file to which the target redirects, without the key. Raises TransientError.

        That includes an address that the target may not redirect to.
        """
        proxy = find_proxy(url)
        check_redirect(await self._resolve_kind(url) if proxy else classify_host(url), self._target_kind)
        if proxy not in self._keyless_http:
            try:
                self._keyless_http[proxy] = self._make_http_client(url)
            except UsageError as error:
                raise TransientError(str(error), sent=False, trouble=Trouble.NO_CONNECTION) from None
        check = None if proxy else make_connection_check(self._target_kind)
        return await self._open_stream(self._keyless_http[proxy], "GET", url, headers, check)

    async def _open_stream(
        self, http: httpx.AsyncClient, method: str, url: str, headers: dict[str, str], trace: Any = None
    ) -> httpx.Response:
        try:
            extensions = {"trace": trace} if trace else {}
            return await self._open(http, http.build_request(method, url, headers=headers, extensions=extensions))
        except httpx.InvalidURL as error:  # httpx parses a redirect's URL even if it does not follow it
            raise TransientError(f"the server redirects to an invalid URL: {self.redact_text(str(error))}") from None
        except httpx.HTTPError as error:
            raise self._to_transient_error(error) from None


def describe_open_outcome(search: JobSearch) -> str:
    """Say why the answers of `find_submissions` lack this search."""
    return _LATE_OUTCOME if _may_be_accepted_late(search) else _UNCLEAR_OUTCOME


def _may_be_accepted_late(search: JobSearch) -> bool:
    return search.is_unanswered and search.age < _SUBMISSION_SECONDS


def _classify_trouble(error: httpx.HTTPError) -> Trouble:
    """The kind of a failed request. TLS failures are recognised by OpenSSL's text, whatever transport reports it."""
    message = str(error)
    if isinstance(error, httpx.TimeoutException):
        return Trouble.TIMEOUT
    if "CERTIFICATE_VERIFY_FAILED" in message:
        return Trouble.BAD_CERTIFICATE
    if "[SSL" in message:
        return Trouble.NO_TLS
    if isinstance(error, httpx.ConnectError):
        return Trouble.REFUSED if is_connection_refused(error) else Trouble.NO_CONNECTION
    return Trouble.DROPPED


def _is_garbled(request: ServerRequest, response: ServerResponse) -> bool:
    """Whether a 200 is not complete JSON, as every GET expects: a proxy's page, or a cut-off body. A quick check."""
    if request.method != "GET" or response.status != 200 or response.classes is not None:
        return False
    return response.content.strip()[:1] + response.content.strip()[-1:] not in (b"{}", b"[]")
