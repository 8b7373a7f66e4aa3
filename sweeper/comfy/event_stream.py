"""The event streams of one target: a WebSocket for all jobs, or one stream by Server-Sent Events for each.

A WebSocket is opened before the first submission and read until the end of the run. The streams of single jobs, which
Comfy API v2 has, are optional: a server may have none (501), or refuse one stream more (429).

Streams only wake those who wait for a job, and feed the progress display. Polling decides how a job ended, so a stream
that is refused, stalls or drops costs a little time and nothing else. Each reconnect of a WebSocket uses a new client
id: when ComfyUI notices that an old socket closed, it removes the registration of the new socket with the same id,
which then stays silent.

Binary frames are ComfyUI's, in both dialects. All numbers are big-endian uint32. A frame begins with its kind. Kind 1
goes on with the format (1 JPEG, 2 PNG) and the picture; kind 4 with the length of a JSON text, that text, and the
picture; kind 3 with the length of a node's id, that id, and a text in UTF-8 (`PromptServer.send_progress_text` of
ComfyUI 0.33.0). A server with the feature `supports_progress_text_metadata` puts the id of the job before that of the
node, with its length, as ComfyUI's frontend reads it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Container
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import httpx
import websockets
from websockets.asyncio.client import ClientConnection, connect

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.job_listener import Listener
from sweeper.comfy.protocol import ServerRequest, is_id, parse_json
from sweeper.comfy.responses import read_price_text
from sweeper.comfy.retry import RECONNECT
from sweeper.errors import SweeperError
from sweeper.model.urls import is_loopback

# A client that sends this as its first message gets kind 4, which names the job, instead of kind 1, which does not, and
# texts that name their job.
_FEATURES: Final = {"supports_preview_metadata": True, "supports_progress_text_metadata": True}
FEATURE_FLAGS_MESSAGE: Final = json.dumps({"type": "feature_flags", "data": _FEATURES})
_KIND_PLAIN: Final = 1
_KIND_TEXT: Final = 3
_KIND_WITH_METADATA: Final = 4
_MAX_ID_BYTES: Final = 800  # four for each character that an id may have
_MAX_TEXT_BYTES: Final = 16 * 1024  # of a node's text that is read; the rest is cut off
_SIGNATURES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


def is_picture(content: bytes) -> bool:
    """Whether these bytes begin as a JPEG or PNG does."""
    return content.startswith(_SIGNATURES)


def read_preview(frame: bytes) -> tuple[str, str, bytes] | None:
    """The preview in a frame: the ids of its job and node ("" if the frame does not name them), and a JPEG or PNG.

    None for a frame of another kind, or an invalid one.
    """
    kind = int.from_bytes(frame[:4], "big")
    size = int.from_bytes(frame[4:8], "big")
    metadata: Any = {}
    if len(frame) < 8 or kind not in (_KIND_PLAIN, _KIND_WITH_METADATA):
        return None
    image = frame[8:]
    if kind == _KIND_WITH_METADATA:
        image = frame[8 + size :]
        try:
            metadata = parse_json(frame[8 : 8 + size])
        except ValueError:
            return None
    if not isinstance(metadata, dict) or not is_picture(image):
        return None
    prompt_id, node = metadata.get("prompt_id"), metadata.get("node_id")
    return prompt_id if isinstance(prompt_id, str) else "", node if isinstance(node, str) else "", image


def read_node_text(frame: bytes, prompt_ids: Container[str]) -> tuple[str, str, str] | None:
    """The text that a node shows: the ids of its job ("" if the frame does not name it) and of the node, and the text.

    None for a frame of another kind, or an invalid one.
    `prompt_ids`: the ids of our jobs, by which a frame that names its job is known. No node has such an id.
    """
    if frame[:4] != _KIND_TEXT.to_bytes(4, "big"):
        return None
    first, rest = _read_prefixed(frame[4:])
    if first not in prompt_ids:
        return ("", first, _decode(rest)) if first else None
    node, rest = _read_prefixed(rest)
    return (first, node, _decode(rest)) if node else None


def _read_prefixed(content: bytes) -> tuple[str, bytes]:
    """Read a text whose length stands before it. Returns it and the rest; it is empty if its length is wrong."""
    size = int.from_bytes(content[:4], "big")
    if not 0 < size <= min(_MAX_ID_BYTES, len(content) - 4):
        return "", b""
    return _decode(content[4 : 4 + size]), content[4 + size :]


def _decode(content: bytes) -> str:
    return content[:_MAX_TEXT_BYTES].decode("utf-8", "replace")


_MAX_STREAMS: Final = 8  # at once; comfy-api-proxy allows no more
_OPEN_AFTER: Final = 0.5  # seconds that a job may take without a stream
_END_STATUSES: Final = ("succeeded", "failed", "canceled", "expired")
_MAX_EVENT_BYTES: Final = 32 * 2**20  # a preview of a large picture; a longer event ends the stream
_NO_SUCH_CALL: Final = (404, 405, 501)


class _FrameRate:
    """Counts what a stream sends. Above `_MAX_FRAMES_PER_SECOND` the server has to wait, because we read no further."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._since, self._frames = self._clock(), 0

    async def count(self, frames: int) -> None:
        if self._clock() - self._since >= 1.0:
            self._since, self._frames = self._clock(), 0
        self._frames += frames
        if self._frames > _MAX_FRAMES_PER_SECOND:
            await asyncio.sleep(max(0.0, self._since + 1.0 - self._clock()))


class JobEventStreams:
    """The streams of the jobs of one target. One that ends early is not opened again; a short job needs none."""

    def __init__(self, client: ComfyClient) -> None:
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_offered = True  # until the server says that it has no such streams

    def open(self, request: ServerRequest, listener: Listener) -> asyncio.Task[None] | None:
        """Send the events of a job to `listener` until it ends or the task is cancelled; None if that is not possible.

        `request`: the request for the stream.
        """
        if not self._is_offered or len(self._tasks) >= _MAX_STREAMS:
            return None
        task = asyncio.create_task(self._follow(request, listener))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, request: ServerRequest, listener: Listener) -> None:
        await asyncio.sleep(_OPEN_AFTER)
        # Whatever is wrong with the stream, polling goes on without it.
        with contextlib.suppress(httpx.HTTPError, SweeperError, ValueError):
            response = await self._client.open_events(request)
            try:
                self._is_offered = self._is_offered and response.status_code not in _NO_SUCH_CALL
                if response.status_code == 200:
                    node = ""
                    async for kind, data in _read_events(response):
                        node = _handle_event(kind, data, listener, node)
            finally:
                await response.aclose()


async def _read_events(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield (kind, data) of each event whose data is a JSON object. Raises ValueError for one that is too long."""
    rate = _FrameRate()
    kind, data = "", ""
    async for line in _read_lines(response):
        field, _, value = line.partition(":")
        if field == "event":
            kind = value.removeprefix(" ")
        elif field == "data":
            data += value.removeprefix(" ")
            if len(data) > _MAX_EVENT_BYTES:
                raise ValueError("an event is too long")
        elif not line and data:
            with contextlib.suppress(ValueError):
                if isinstance(parsed := parse_json(data), dict):
                    yield kind, parsed
            kind, data = "", ""
        await rate.count(1)


async def _read_lines(response: httpx.Response) -> AsyncIterator[str]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    parts, size = [], 0  # of the line that is not complete yet
    async for chunk in response.stream:
        parts.append(chunk)
        size += len(chunk)
        if b"\n" in chunk:
            *lines, rest = b"".join(parts).split(b"\n")
            parts, size = [rest], len(rest)
            for line in lines:
                yield line.decode("utf-8", "replace").removesuffix("\r")
        if size > _MAX_EVENT_BYTES:
            raise ValueError("an event is too long")


def _handle_event(kind: str, data: dict[str, Any], listener: Listener, node: str) -> str:
    """Hand an event to the listener of its job. `node` is the one that was executed so far; returns the current one."""
    status, current = data.get("status"), data.get("current_node")
    if kind == "status" and status == "running" and listener.started_at is None:
        listener.mark_started(time.time())
    elif kind == "status" and status in _END_STATUSES:
        listener.handle_end(succeeded=status == "succeeded")
    elif kind == "progress" and isinstance(current, str):
        if current != node:
            listener.handle_event("executing", {"node": current})
        if data.get("steps"):
            listener.handle_event("progress", {"node": current, "value": data.get("step"), "max": data["steps"]})
        return current
    elif kind == "preview" and listener.on_preview is not None:
        node_id, text = data.get("node_id"), data.get("data_base64")
        with contextlib.suppress(binascii.Error, ValueError):
            image = base64.b64decode(text) if isinstance(text, str) else b""
            if isinstance(node_id, str) and is_picture(image):
                listener.on_preview(node_id, image)
    return node


# Events after which to poll the job. ComfyUI's last event is `executing` without a node, because the history may lag
# behind `execution_success`; Comfy Cloud's last event is `execution_success`.
_END_EVENTS: Final = ("execution_success", "execution_error", "execution_interrupted")
# Half of ComfyUI's messages. They repeat `executing` and `progress`, so parsing them is a waste.
_SKIPPED_PREFIX: Final = '{"type": "progress_state"'
_MAX_FRAME_BYTES: Final = 32 * 2**20  # a preview of a large picture; a larger frame ends the connection
_MAX_WAITING_FRAMES: Final = 2  # that are received and not yet read; each may be of the largest size
_MAX_EVENT_LENGTH: Final = 4 * 2**20  # characters of an event; a longer one is skipped, and polling tells the rest
# A node with 1,000 steps a second sends as many events. Every 64 KB count as one more.
_MAX_FRAMES_PER_SECOND: Final = 2000
_FRAME_UNIT: Final = 64 * 1024
_SILENCE_TIMEOUT: Final = 3.0  # seconds after a submission within which ComfyUI must send `status`
_MAX_ENDED_JOBS: Final = 512  # jobs that ended before anybody listened: an event may be faster than the POST's response

# On Cloud the URL of the handshake contains the key. websockets logs the URL, so its log records are dropped.
_NULL_LOGGER: Final = logging.getLogger("sweeper.comfy.event_stream.dropped")
_NULL_LOGGER.propagate = False
_NULL_LOGGER.addHandler(logging.NullHandler())
_NULL_LOGGER.setLevel(logging.CRITICAL + 1)


class _Connect(connect):
    """A connection that follows no redirect, because a server could lead us to addresses that only we can reach."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class EventStream:
    """The stream of one target, an async context manager. Submissions must contain the current `client_id`."""

    def __init__(self, client: ComfyClient) -> None:
        self._client = client
        self._listeners: dict[str, Listener] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()  # the prompt ids of ended jobs
        self._task: asyncio.Task[None] | None = None
        self._silence_timer: asyncio.TimerHandle | None = None
        self._socket: ClientConnection | None = None
        self._executing_job: str | None = None  # the job of the last `executing` or `progress` event
        self._attempted = asyncio.Event()
        self.client_id: str | None = None
        self._job_streams = JobEventStreams(client)

    async def __aenter__(self) -> Self:
        if not self._client.dialect.has_event_stream:
            return self
        self._task = asyncio.create_task(self._run())
        # Opened after the first submission, it would miss short jobs. A refused stream must not delay the run.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self._attempted.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._job_streams.close()
        if self._task is None:
            return
        self._cancel_silence_timer()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    @property
    def is_connected(self) -> bool:
        return self.client_id is not None

    @contextlib.contextmanager
    def listen(self, prompt_id: str, listener: Listener) -> Any:
        """Send the events of that job to `listener`, including an end event that came before."""
        self._listeners[prompt_id] = listener
        if prompt_id in self._ended:
            listener.woken.set()
        try:
            yield listener
        finally:
            self._listeners.pop(prompt_id, None)
            self._ended.pop(prompt_id, None)

    @contextlib.contextmanager
    def follow(self, prompt_id: str, listener: Listener) -> Any:
        """Send the events of a submitted job to `listener`, also those of a stream of its own if the dialect has it."""
        request = self._client.dialect.make_events_request(prompt_id)
        task = None if request is None else self._job_streams.open(request, listener)
        try:
            with self.listen(prompt_id, listener):
                yield listener
        finally:
            if task is not None:
                task.cancel()

    def expect_status(self) -> None:
        """Replace the stream if it stays silent from now on, because the dialect sends `status` after a submission."""
        if self._socket is not None and self._client.dialect.sends_status_events and self._silence_timer is None:
            self._silence_timer = asyncio.get_running_loop().call_later(_SILENCE_TIMEOUT, self._abort, self._socket)

    def wake_all(self) -> None:
        """Wake all listeners, so that they poll their jobs at once."""
        for listener in self._listeners.values():
            listener.woken.set()

    # --- the socket

    async def _run(self) -> None:
        failures = 0
        while True:
            client_id = str(uuid4())
            try:
                async with self._connect(client_id) as socket:
                    self.client_id, self._socket = client_id, socket
                    self._attempted.set()
                    failures = 0
                    await socket.send(FEATURE_FLAGS_MESSAGE)
                    await self._read_frames(socket)
            # Refused, reset, not a WebSocket, a TLS error, a proxy without its package: polling goes on without it.
            except (OSError, TimeoutError, websockets.WebSocketException, EOFError, ValueError, ImportError):
                pass
            self.client_id = self._socket = None
            self._cancel_silence_timer()
            self._attempted.set()
            for listener in self._listeners.values():
                listener.lose_events()
            self.wake_all()
            await asyncio.sleep(RECONNECT.draw(failures, self._client.random))
            failures += 1

    def _connect(self, client_id: str) -> _Connect:
        url = self._client.target.url
        parts = urlsplit(url)
        query = f"clientId={client_id}"
        if self._client.dialect.needs_key_in_events and self._client.target.key:
            query += f"&token={quote(self._client.target.key, safe='')}"
        address = urlunsplit(
            ({"http": "ws", "https": "wss"}[parts.scheme], parts.netloc, f"{parts.path}/ws", query, "")
        )
        return _Connect(
            address,
            proxy=None if is_loopback(url) else True,
            open_timeout=10,
            close_timeout=1,
            ping_interval=20,
            ping_timeout=20,
            max_size=_MAX_FRAME_BYTES,
            max_queue=_MAX_WAITING_FRAMES,
            compression=None,  # for small texts and compressed pictures it would cost more time than it saves
            logger=_NULL_LOGGER,
        )

    async def _read_frames(self, socket: ClientConnection) -> None:
        rate = _FrameRate()
        async for frame in socket:
            self._cancel_silence_timer()
            await rate.count(1 + len(frame) // _FRAME_UNIT)
            if isinstance(frame, str):
                if frame.startswith(_SKIPPED_PREFIX):
                    continue
                if len(frame) <= _MAX_EVENT_LENGTH:
                    with contextlib.suppress(ValueError):
                        self._handle_message(parse_json(frame))
            elif (text := read_node_text(frame, self._listeners)) is not None:
                self._handle_text(*text)
            else:
                self._handle_preview(frame)

    def _cancel_silence_timer(self) -> None:
        """Stop expecting a message: one arrived, or the stream closed."""
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None

    def _abort(self, socket: ClientConnection) -> None:
        """Close a stream that is connected but silent."""
        self._silence_timer = None
        socket.transport.abort()

    # --- messages

    def _handle_message(self, message: Any) -> None:
        if not isinstance(message, dict) or not isinstance(message.get("data"), dict):
            return
        kind, data = message.get("type"), message["data"]
        prompt_id = data.get("prompt_id")
        if not is_id(prompt_id):
            return
        listener = self._listeners.get(prompt_id)
        if kind in ("executing", "progress"):
            self._executing_job = prompt_id
        if kind in _END_EVENTS or (kind == "executing" and data.get("node") is None):
            self._ended[prompt_id] = None
            while len(self._ended) > _MAX_ENDED_JOBS:
                self._ended.popitem(last=False)
            if listener is not None:
                listener.handle_end(succeeded=kind == "execution_success")
        elif listener is not None:
            listener.handle_event(kind, data)

    def _handle_text(self, prompt_id: str, node: str, text: str) -> None:
        """Hand on the price that a node shows. A text that does not name its job belongs to the only one that executes.

        ComfyUI 0.33.0 sends such texts to every client.
        """
        price = read_price_text(text, self._client.credits_per_usd)
        executing = [
            known
            for known, listener in self._listeners.items()
            if listener.started_at is not None and known not in self._ended
        ]
        prompt_id = prompt_id or (executing[0] if len(executing) == 1 else "")
        if price is not None and prompt_id in self._listeners:
            self._listeners[prompt_id].handle_price(node, price)

    def _handle_preview(self, frame: bytes) -> None:
        """Hand on a preview. One that does not name its job belongs to the job that executes."""
        if (preview := read_preview(frame)) is not None:
            prompt_id, node, image = preview
            listener = self._listeners.get(prompt_id or self._executing_job or "")
            if listener is not None and listener.on_preview is not None:
                listener.on_preview(node, image)
