"""The HTTP client of one target: drives the flows of its dialect, tries again what is worth it, opens downloads.

What a request means is the dialect's; what to do about a failed job is the runner's; which input files have to be
brought at all is `uploads`' affair. The key leaves in one header, to
the target's own origin only: redirects are never followed with it, and it is taken out of whatever a server echoes.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urlencode, urljoin

import httpx

from sweeper.comfy.credentials import with_location
from sweeper.comfy.dialects import Dialect, DialectProbe, make_dialect
from sweeper.comfy.http_client import HttpClient, RawResponse, ResponseStream, to_header_dict
from sweeper.comfy.protocol import (
    KEY_HEADER,
    Flow,
    JobOutput,
    JobSearch,
    JobState,
    JobSubmission,
    QueueFull,
    Server,
    ServerRequest,
    ServerResponse,
    UploadForm,
    read_error_message,
    read_retry_after,
)
from sweeper.comfy.proxy import transport_for
from sweeper.comfy.redaction import Redaction
from sweeper.comfy.retry import RetryPolicy, RetryWaiter
from sweeper.comfy.server_info import query_server_info
from sweeper.comfy.target import Target
from sweeper.comfy.transport import is_connection_refused
from sweeper.comfy.uploads import Mask, Uploads
from sweeper.errors import TargetError, TransientError, Trouble, UnreachableError, UsageError
from sweeper.model.urls import is_loopback, strip_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

T = TypeVar("T")

# Seconds. A read may take long: a ComfyUI that loads a model answers when it gets the interpreter back.
TIMEOUT: Final = httpx.Timeout(connect=10.0, read=60.0, write=60.0, pool=120.0)
LIMITS: Final = httpx.Limits(max_connections=16, max_keepalive_connections=16, keepalive_expiry=30.0)
# Seconds between looks at a server on this machine, whichever its dialect: they cost nobody anything.
_LOCAL_POLL_INTERVALS: Final = (0.05, 1.0)
# Seconds in which a request that we gave up may still be taken: by a server that was busy, from a proxy that has it.
_LATE_ARRIVAL: Final = 1.0
_CONNECT_MAX_RETRY_AFTER: Final = 30.0  # seconds that a server may ask us to wait where nothing is at stake yet
_SERVER_INFO_TIMEOUT: Final = 10.0  # seconds for the server's versions, without which a run is no worse


class ComfyClient:
    """Speaks to one target. An async context manager; to be used within one event loop.

    `transport` stands in for the network in tests. After `connect`, `dialect` and `target.dialect` are known.
    """

    def __init__(
        self,
        target: Target,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        retry_policy: RetryPolicy | None = None,
        random: Random | None = None,
    ) -> None:
        self.target = target
        self.retry_policy = retry_policy or RetryPolicy()
        self.random = random or Random()  # noqa: S311 (jitter, not a secret)
        self.retry_waiter = RetryWaiter(self.retry_policy.max_wait)
        self._dialect = make_dialect(target.dialect) if target.dialect else None
        self._transport = transport
        self._http = self._make_http_client(target.url)
        self._headers = dict(self._http.headers)
        self._root = str(httpx.URL(target.url))  # as it goes over the wire
        self._keyless_http: HttpClient | None = None
        self.uploads = Uploads(self.run_flow, lambda: self.dialect)
        # One that echoes our keys, as /queue does with extra_data, must not get them into a message of ours.
        redaction = Redaction(target.keys)
        self.redact, self.redact_text = redaction.redact, redaction.redact_text
        self.request_count = 0
        self.last_response_at = 0.0  # when the server last answered, by the loop's clock
        self.extra_data: Mapping[str, str] = {}  # what every submission carries besides: the key for partner nodes

    def _make_http_client(self, url: str | None, **redirects: Any) -> HttpClient:
        """A client of httpx for that server, or for any. Raises UsageError for a proxy that cannot be used."""
        try:
            transport = self._transport or transport_for(LIMITS, url)
        except UsageError as error:
            raise with_location(f"target {self.target.name}", error) from None
        return HttpClient(
            transport=transport,
            headers={"Accept-Encoding": "identity", "User-Agent": "sweeper"},
            timeout=TIMEOUT,
            **redirects,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.uploads.close()
        await self._http.aclose()
        if self._keyless_http is not None:
            await self._keyless_http.aclose()

    @property
    def dialect(self) -> Dialect:
        assert self._dialect is not None, "connect() first: the dialect is not known yet"
        return self._dialect

    @property
    def loses_jobs_on_exit(self) -> bool:
        """Whether the server is known to forget its jobs when its process ends."""
        return self._dialect is not None and not self._dialect.jobs_survive_restart

    @property
    def poll_intervals(self) -> tuple[float, float]:
        """Seconds between two looks at a job, at first and at most: shorter where the server is this machine's."""
        return _LOCAL_POLL_INTERVALS if is_loopback(self.target.url) else self.dialect.poll_intervals

    # --- what a target can be asked for

    async def connect(self) -> Server:
        """Find out who answers, and in which dialect. Raises UnreachableError or RefusedError; nothing is changed.

        A refused connection is tried once more only: whoever waits for a server that is not started waits in vain.
        """
        patience = replace(
            self.retry_policy,
            connect_attempts=2,
            max_retry_after=min(self.retry_policy.max_retry_after, _CONNECT_MAX_RETRY_AFTER),
        )
        try:
            if self._dialect is None:
                name = await self.run_flow(DialectProbe().detect(), patience)
                self._dialect = make_dialect(name)
                self.target = replace(self.target, dialect=name)
            return await self.run_flow(self.dialect.handshake(), patience)
        except TransientError as error:
            raise UnreachableError(f"{self.target.name}: cannot be reached: {error}", trouble=error.trouble) from None

    async def get_server_info(self) -> dict[str, Any]:
        """What the server says of its versions; empty where it does not, or not soon. Raises nothing of the network."""
        try:
            async with asyncio.timeout(_SERVER_INFO_TIMEOUT):
                return await self.run_flow(query_server_info(self.dialect.name), replace(self.retry_policy, attempts=1))
        except (TargetError, TransientError, TimeoutError):
            return {}

    async def submit(self, submission: JobSubmission) -> str | QueueFull:
        """Send a job once; see `Dialect.submit` for what may be raised."""
        return await self.run_flow(self.dialect.submit(submission))

    async def get_job(self, prompt_id: str, *, thorough: bool = True, success_reported: bool = False) -> JobState:
        """What became of a job; see `Dialect.look`."""
        return await self.run_flow(
            self.dialect.get_job(prompt_id, thorough=thorough, success_reported=success_reported)
        )

    async def find_submission(self, search: JobSearch, *, allow_late_arrival: bool = True) -> str | None:
        """Look for a submission of unknown outcome, as often as a lagging listing needs; `late`: also for as long as a
        request may take to get there after its connection is gone. Raises TransientError when it stays unclear.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (_LATE_ARRIVAL if allow_late_arrival else 0.0)
        looks = 0
        while looks < self.dialect.lost_after_checks or loop.time() < until:
            if looks:
                await asyncio.sleep(self.poll_intervals[0] * 2 ** min(looks, 4))
            found = await self.run_flow(self.dialect.find_submission(search))
            if found is not None:
                return found
            looks += 1
        return None

    async def cancel(self, prompt_ids: frozenset[str], ours: frozenset[str] = frozenset()) -> bool:
        """Stop these jobs, and tell whether all of them were told to; see `Dialect.cancel`."""
        return not prompt_ids or await self.run_flow(self.dialect.cancel(prompt_ids, ours))

    async def get_object_info(self) -> dict[str, Any]:
        return await self.run_flow(self.dialect.get_object_info())

    async def get_upload_limit(self) -> int | None:
        """Bytes that one request may have, None where the server does not tell. Raises TransientError, TargetError."""
        found = (await self.run_flow(self.dialect.get_features())).get("max_upload_size")
        return found if isinstance(found, int) and found > 0 else None

    async def upload(self, path: Path, sha256: str, mask: Mask | None = None) -> Any:
        """Bring a local file to the server, once per content; see `Uploads.bring`."""
        return await self.uploads.ensure_uploaded(path, sha256, mask)

    # --- driving a flow

    async def run_flow(self, flow: Flow[T], retry_policy: RetryPolicy | None = None) -> T:
        """Run a flow to its end. Repeatable requests are tried again as `patience` allows; no other is."""
        try:
            ask = next(flow)
            while True:
                ask = flow.send(await self._send_with_retries(ask, retry_policy or self.retry_policy))
        except StopIteration as stop:
            found: T = stop.value
            return found

    async def _send_with_retries(self, request: ServerRequest, retry_policy: RetryPolicy) -> ServerResponse:
        waits = retry_policy.draw_waits(self.random) if request.idempotent else iter(())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + retry_policy.total_seconds
        refusals = 0
        while True:
            try:
                reply = await self._send(request)
            except TransientError as error:
                refusals += not error.sent
                wait = next(waits, None) if refusals < retry_policy.connect_attempts else None
                if wait is None or loop.time() + wait > deadline:
                    raise
                await asyncio.sleep(wait)
                continue
            if request.idempotent and (reply.status == 429 or reply.status >= 500 or _is_garbled(request, reply)):
                wait = next(waits, None)
                if wait is not None and loop.time() + wait <= deadline:
                    said = f"HTTP {reply.status}: {read_error_message(reply)}"
                    deadline += await self.retry_waiter.wait(
                        wait, read_retry_after(reply), said, max_retry_after=retry_policy.max_retry_after
                    )
                    continue
            return reply

    async def _send(self, request: ServerRequest) -> ServerResponse:
        """One request, one answer. Raises TransientError; its `sent` says whether the request can have arrived."""
        self.request_count += 1
        try:
            if request.upload is not None:
                response = await self._http.send(self._build_upload(request, request.upload))
                answer: RawResponse = (response.status_code, to_header_dict(response.headers.raw), response.content)
            else:
                answer = await self._http.exchange(
                    request.method, self._build_url(request), *self._build_headers_and_body(request)
                )
        except httpx.InvalidURL as error:  # a name that no resolver takes
            said = f"{self.target.name}: cannot be reached: {error}"
            raise UnreachableError(said, trouble=Trouble.NO_CONNECTION) from None
        except httpx.HTTPError as error:
            raise self._to_transient_error(error) from None
        self.last_response_at = asyncio.get_running_loop().time()
        status, headers, content = answer
        if "location" in headers:
            headers["location"] = self._redact_location(request.path, headers["location"])
        return ServerResponse(status, headers, self.redact(content))

    def _redact_location(self, path: str, location: str) -> str:
        """Where a redirect leads, as the URL of a target where it keeps the path, without any credential in it."""
        try:
            whole = urljoin(self._root + path, location)
        except ValueError:
            return ""
        return self.redact_text(strip_secrets(whole)).removesuffix(path)

    def _build_url(self, request: ServerRequest) -> str:
        query = f"?{urlencode(request.query)}" if request.query else ""
        return f"{self._root}{request.path}{query}"

    def _build_headers(self) -> dict[str, str]:
        key = self.target.key
        if key is None:
            return self._headers
        return self._headers | (self._dialect.auth_headers(key) if self._dialect is not None else {KEY_HEADER: key})

    def _build_headers_and_body(self, request: ServerRequest) -> tuple[dict[str, str], bytes | None]:
        if request.body is None:
            return self._build_headers(), None
        # NaN is refused here: a server takes it, and then writes JSON that nobody can read.
        content = json.dumps(request.body, allow_nan=False).encode()
        return self._build_headers() | {"Content-Type": "application/json"}, content

    def _build_upload(self, request: ServerRequest, upload: UploadForm) -> httpx.Request:
        files = {"image": (upload.filename, upload.content, "application/octet-stream")}
        fields = dict(upload.fields)
        return self._http.build_request(
            request.method, self._build_url(request), data=fields, files=files, headers=self._build_headers()
        )

    def _to_transient_error(self, error: httpx.HTTPError) -> TransientError:
        sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        said = self.redact_text(str(error) or type(error).__name__)
        return TransientError(f"{type(error).__name__}: {said}", sent=sent, trouble=_classify_trouble(error))

    # --- files

    async def open_output(self, output: JobOutput, headers: dict[str, str]) -> ResponseStream:
        """A file of the target, key included, its body unread; a redirect is for `fetch` to read, never to follow.

        Raises TransientError.
        """
        self.request_count += 1
        ask = self.dialect.view_request(output)
        return await self._open_stream(self._http, ask.method, self._build_url(ask), self._build_headers() | headers)

    async def open_without_key(self, url: str, headers: dict[str, str]) -> ResponseStream:
        """Fetch from a host that must never see the key. Raises TransientError."""
        if self._keyless_http is None:
            self._keyless_http = self._make_http_client(None, follow_redirects=True, max_redirects=5)
        return await self._open_stream(self._keyless_http, "GET", url, self._headers | headers)

    async def _open_stream(self, http: HttpClient, method: str, url: str, headers: dict[str, str]) -> ResponseStream:
        try:
            return await http.open_stream(method, url, headers)
        except httpx.InvalidURL as error:  # httpx reads a redirect's address although it is not to follow it
            said = self.redact_text(str(error))
            raise TransientError(f"the server redirects to an address that is none: {said}") from None
        except httpx.HTTPError as error:
            raise self._to_transient_error(error) from None


def _classify_trouble(error: httpx.HTTPError) -> Trouble:
    """The kind of a failed request. TLS failures are recognised by OpenSSL's text, whatever transport reports it."""
    said = str(error)
    if isinstance(error, httpx.TimeoutException):
        return Trouble.TIMEOUT
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return Trouble.BAD_CERTIFICATE
    if "[SSL" in said:
        return Trouble.NO_TLS
    if isinstance(error, httpx.ConnectError):
        return Trouble.REFUSED if is_connection_refused(error) else Trouble.NO_CONNECTION
    return Trouble.DROPPED


def _is_garbled(request: ServerRequest, response: ServerResponse) -> bool:
    """Whether a 200 is no whole JSON text on its face: a proxy's page, or half an answer. Every GET is for JSON."""
    ends = response.content.strip()[:1] + response.content.strip()[-1:]
    return request.method == "GET" and response.status == 200 and ends not in (b"{}", b"[]")
