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

from sweeper.comfy.credentials import at
from sweeper.comfy.dialects import Dialect, Probe, dialect_named
from sweeper.comfy.http_client import Answer, Http, Stream, plain
from sweeper.comfy.protocol import (
    KEY_HEADER,
    Ask,
    Busy,
    Flow,
    JobState,
    Output,
    Reply,
    Server,
    Sought,
    Submission,
    Upload,
    message_of,
    retry_after,
)
from sweeper.comfy.proxy import carrier
from sweeper.comfy.redaction import Redaction
from sweeper.comfy.retry import Patience, Pauses
from sweeper.comfy.server_info import about
from sweeper.comfy.target import Target
from sweeper.comfy.transport import nobody
from sweeper.comfy.uploads import Mask, Uploads
from sweeper.errors import TargetError, TransientError, UnreachableError, UsageError
from sweeper.model.urls import loopback, without_userinfo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

T = TypeVar("T")

# Seconds. A read may take long: a ComfyUI that loads a model answers when it gets the interpreter back.
TIMEOUT: Final = httpx.Timeout(connect=10.0, read=60.0, write=60.0, pool=120.0)
LIMITS: Final = httpx.Limits(max_connections=16, max_keepalive_connections=16, keepalive_expiry=30.0)
# Seconds between looks at a server on this machine, whichever its dialect: they cost nobody anything.
_LOCAL_POLLS: Final = (0.05, 1.0)
# Seconds in which a request that we gave up may still be taken: by a server that was busy, from a proxy that has it.
_LATE: Final = 1.0
_ASKED_AT_FIRST: Final = 30.0  # seconds that a server may ask us to wait where nothing is at stake yet
_ABOUT: Final = 10.0  # seconds for the server's versions, without which a run is no worse


class ComfyClient:
    """Speaks to one target. An async context manager; to be used within one event loop.

    `transport` stands in for the network in tests. After `connect`, `dialect` and `target.dialect` are known.
    """

    def __init__(
        self,
        target: Target,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        patience: Patience | None = None,
        random: Random | None = None,
    ) -> None:
        self.target = target
        self.patience = patience or Patience()
        self.random = random or Random()  # noqa: S311 (jitter, not a secret)
        self.pauses = Pauses(self.patience.cap)
        self._dialect = dialect_named(target.dialect) if target.dialect else None
        self._transport = transport
        self._http = self._opened(target.url)
        self._headers = dict(self._http.headers)
        self._root = str(httpx.URL(target.url))  # as it goes over the wire
        self._bare: Http | None = None
        self.uploads = Uploads(self.perform, lambda: self.dialect)
        # One that echoes our keys, as /queue does with extra_data, must not get them into a message of ours.
        redaction = Redaction(target.keys)
        self.clean, self.clean_text = redaction.clean, redaction.clean_text
        self.requests = 0
        self.heard = 0.0  # when the server last answered, by the loop's clock
        self.extra_data: Mapping[str, str] = {}  # what every submission carries besides: the key for partner nodes

    def _opened(self, url: str | None, **redirects: Any) -> Http:
        """A client of httpx for that server, or for any. Raises UsageError for a proxy that cannot be used."""
        try:
            transport = self._transport or carrier(LIMITS, url)
        except UsageError as error:
            raise at(f"target {self.target.name}", error) from None
        return Http(
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
        if self._bare is not None:
            await self._bare.aclose()

    @property
    def dialect(self) -> Dialect:
        assert self._dialect is not None, "connect() first: the dialect is not known yet"
        return self._dialect

    @property
    def forgetful(self) -> bool:
        """Whether the server is known to forget its jobs when its process ends."""
        return self._dialect is not None and not self._dialect.durable

    @property
    def polls(self) -> tuple[float, float]:
        """Seconds between two looks at a job, at first and at most: shorter where the server is this machine's."""
        return _LOCAL_POLLS if loopback(self.target.url) else self.dialect.polls

    # --- what a target can be asked for

    async def connect(self) -> Server:
        """Find out who answers, and in which dialect. Raises UnreachableError or RefusedError; nothing is changed.

        A refused connection is tried once more only: whoever waits for a server that is not started waits in vain.
        """
        patience = replace(self.patience, refusals=2, asked=min(self.patience.asked, _ASKED_AT_FIRST))
        try:
            if self._dialect is None:
                name = await self.perform(Probe().run(), patience)
                self._dialect = dialect_named(name)
                self.target = replace(self.target, dialect=name)
            return await self.perform(self.dialect.greet(), patience)
        except TransientError as error:
            raise UnreachableError(f"{self.target.name}: cannot be reached: {error}", trouble=error.trouble) from None

    async def about(self) -> dict[str, Any]:
        """What the server says of its versions; empty where it does not, or not soon. Raises nothing of the network."""
        try:
            async with asyncio.timeout(_ABOUT):
                return await self.perform(about(self.dialect.name), replace(self.patience, attempts=1))
        except (TargetError, TransientError, TimeoutError):
            return {}

    async def submit(self, submission: Submission) -> str | Busy:
        """Send a job once; see `Dialect.submit` for what may be raised."""
        return await self.perform(self.dialect.submit(submission))

    async def look(self, prompt_id: str, *, thorough: bool = True, said: bool = False) -> JobState:
        """What became of a job; see `Dialect.look`."""
        return await self.perform(self.dialect.look(prompt_id, thorough=thorough, said=said))

    async def find(self, sought: Sought, *, late: bool = True) -> str | None:
        """Look for a submission of unknown outcome, as often as a lagging listing needs; `late`: also for as long as a
        request may take to get there after its connection is gone. Raises TransientError when it stays unclear.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (_LATE if late else 0.0)
        looks = 0
        while looks < self.dialect.lost_after or loop.time() < until:
            if looks:
                await asyncio.sleep(self.polls[0] * 2 ** min(looks, 4))
            found = await self.perform(self.dialect.find(sought))
            if found is not None:
                return found
            looks += 1
        return None

    async def cancel(self, prompt_ids: frozenset[str], ours: frozenset[str] = frozenset()) -> bool:
        """Stop these jobs, and tell whether all of them were told to; see `Dialect.cancel`."""
        return not prompt_ids or await self.perform(self.dialect.cancel(prompt_ids, ours))

    async def object_info(self) -> dict[str, Any]:
        return await self.perform(self.dialect.object_info())

    async def upload_limit(self) -> int | None:
        """Bytes that one request may have, None where the server does not tell. Raises TransientError, TargetError."""
        found = (await self.perform(self.dialect.features())).get("max_upload_size")
        return found if isinstance(found, int) and found > 0 else None

    async def upload(self, path: Path, sha256: str, mask: Mask | None = None) -> Any:
        """Bring a local file to the server, once per content; see `Uploads.bring`."""
        return await self.uploads.bring(path, sha256, mask)

    # --- driving a flow

    async def perform(self, flow: Flow[T], patience: Patience | None = None) -> T:
        """Run a flow to its end. Repeatable requests are tried again as `patience` allows; no other is."""
        try:
            ask = next(flow)
            while True:
                ask = flow.send(await self._answer(ask, patience or self.patience))
        except StopIteration as stop:
            found: T = stop.value
            return found

    async def _answer(self, ask: Ask, patience: Patience) -> Reply:
        waits = patience.waits(self.random) if ask.repeatable else iter(())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience.total
        refusals = 0
        while True:
            try:
                reply = await self._send(ask)
            except TransientError as error:
                refusals += not error.sent
                wait = next(waits, None) if refusals < patience.refusals else None
                if wait is None or loop.time() + wait > deadline:
                    raise
                await asyncio.sleep(wait)
                continue
            if ask.repeatable and (reply.status == 429 or reply.status >= 500 or _garbled(ask, reply)):
                wait = next(waits, None)
                if wait is not None and loop.time() + wait <= deadline:
                    said = f"HTTP {reply.status}: {message_of(reply)}"
                    deadline += await self.pauses.pause(wait, retry_after(reply), said, longest=patience.asked)
                    continue
            return reply

    async def _send(self, ask: Ask) -> Reply:
        """One request, one answer. Raises TransientError; its `sent` says whether the request can have arrived."""
        self.requests += 1
        try:
            if ask.upload is not None:
                response = await self._http.send(self._form(ask, ask.upload))
                answer: Answer = (response.status_code, plain(response.headers.raw), response.content)
            else:
                answer = await self._http.ask(ask.method, self._url(ask), *self._head_and_body(ask))
        except httpx.InvalidURL as error:  # a name that no resolver takes
            said = f"{self.target.name}: cannot be reached: {error}"
            raise UnreachableError(said, trouble="unconnected") from None
        except httpx.HTTPError as error:
            raise self._dropped(error) from None
        self.heard = asyncio.get_running_loop().time()
        status, headers, content = answer
        if "location" in headers:
            headers["location"] = self._shown_location(ask.path, headers["location"])
        return Reply(status, headers, self.clean(content))

    def _shown_location(self, path: str, location: str) -> str:
        """Where a redirect leads, as the URL of a target where it keeps the path, without any credential in it."""
        try:
            whole = urljoin(self._root + path, location)
        except ValueError:
            return ""
        return self.clean_text(without_userinfo(whole)).removesuffix(path)

    def _url(self, ask: Ask) -> str:
        query = f"?{urlencode(ask.query)}" if ask.query else ""
        return f"{self._root}{ask.path}{query}"

    def _head(self) -> dict[str, str]:
        key = self.target.key
        if key is None:
            return self._headers
        return self._headers | (self._dialect.credentials(key) if self._dialect is not None else {KEY_HEADER: key})

    def _head_and_body(self, ask: Ask) -> tuple[dict[str, str], bytes | None]:
        if ask.body is None:
            return self._head(), None
        # NaN is refused here: a server takes it, and then writes JSON that nobody can read.
        content = json.dumps(ask.body, allow_nan=False).encode()
        return self._head() | {"Content-Type": "application/json"}, content

    def _form(self, ask: Ask, upload: Upload) -> httpx.Request:
        files = {"image": (upload.filename, upload.content, "application/octet-stream")}
        fields = dict(upload.fields)
        return self._http.build_request(ask.method, self._url(ask), data=fields, files=files, headers=self._head())

    def _dropped(self, error: httpx.HTTPError) -> TransientError:
        sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        said = self.clean_text(str(error) or type(error).__name__)
        return TransientError(f"{type(error).__name__}: {said}", sent=sent, trouble=_trouble(error))

    # --- files

    async def open(self, output: Output, headers: dict[str, str]) -> Stream:
        """A file of the target, key included, its body unread; a redirect is for `fetch` to read, never to follow.

        Raises TransientError.
        """
        self.requests += 1
        ask = self.dialect.view(output)
        return await self._opening(self._http, ask.method, self._url(ask), self._head() | headers)

    async def open_elsewhere(self, url: str, headers: dict[str, str]) -> Stream:
        """Fetch from a host that must never see the key. Raises TransientError."""
        if self._bare is None:
            self._bare = self._opened(None, follow_redirects=True, max_redirects=5)
        return await self._opening(self._bare, "GET", url, self._headers | headers)

    async def _opening(self, http: Http, method: str, url: str, headers: dict[str, str]) -> Stream:
        try:
            return await http.open(method, url, headers)
        except httpx.InvalidURL as error:  # httpx reads a redirect's address although it is not to follow it
            said = self.clean_text(str(error))
            raise TransientError(f"the server redirects to an address that is none: {said}") from None
        except httpx.HTTPError as error:
            raise self._dropped(error) from None


def _trouble(error: httpx.HTTPError) -> str:
    """The word of TransientError for it. What TLS says is OpenSSL's, and in the text whoever carries the request."""
    said = str(error)
    if isinstance(error, httpx.TimeoutException):
        return "silent"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "certificate"
    if "[SSL" in said:
        return "plain"
    if isinstance(error, httpx.ConnectError):
        return "nobody" if nobody(error) else "unconnected"
    return "cut"


def _garbled(ask: Ask, reply: Reply) -> bool:
    """Whether a 200 is no whole JSON text on its face: a proxy's page, or half an answer. Every GET is for JSON."""
    ends = reply.content.strip()[:1] + reply.content.strip()[-1:]
    return ask.method == "GET" and reply.status == 200 and ends not in (b"{}", b"[]")
