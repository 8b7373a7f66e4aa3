"""The event stream of one target: a WebSocket, opened before the first submission and read until the end of the run.

The stream only wakes those who wait for a job, and feeds the progress display. Polling decides how a job ended, so a
stream that is refused, stalls or drops costs a little time and nothing else. Each reconnect uses a new client id: when
ComfyUI notices that an old socket closed, it removes the registration of the new socket with the same id, which then
stays silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import websockets
from websockets.asyncio.client import ClientConnection, connect

from sweeper.comfy.binary_frames import FEATURE_FLAGS_MESSAGE, NodeText, read_node_text, read_preview
from sweeper.comfy.client import ComfyClient
from sweeper.comfy.job_event_stream import JobEventStreams
from sweeper.comfy.job_listener import Listener
from sweeper.comfy.protocol import is_id
from sweeper.comfy.reported_charges import read_price_text
from sweeper.comfy.retry import RECONNECT
from sweeper.comfy.untrusted_json import parse_json
from sweeper.model.urls import is_loopback

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
        """Whether the WebSocket is open."""
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
        clock = asyncio.get_running_loop().time
        since, frames = clock(), 0
        async for frame in socket:
            self._cancel_silence_timer()
            if clock() - since >= 1.0:
                since, frames = clock(), 0
            frames += 1 + len(frame) // _FRAME_UNIT
            if frames > _MAX_FRAMES_PER_SECOND:  # then the server has to wait, because we read no further
                await asyncio.sleep(max(0.0, since + 1.0 - clock()))
            if isinstance(frame, str):
                if frame.startswith(_SKIPPED_PREFIX):
                    continue
                if len(frame) <= _MAX_EVENT_LENGTH:
                    with contextlib.suppress(ValueError):
                        self._handle_message(parse_json(frame))
            elif (text := read_node_text(frame, self._listeners)) is not None:
                self._handle_text(text)
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

    def _handle_text(self, text: NodeText) -> None:
        """Hand on the price that a node shows. A text that does not name its job belongs to the only one that executes.

        ComfyUI 0.33.0 sends such texts to every client.
        """
        price = read_price_text(text.text, self._client.credits_per_usd)
        executing = [
            prompt_id
            for prompt_id, listener in self._listeners.items()
            if listener.started_at is not None and prompt_id not in self._ended
        ]
        prompt_id = text.prompt_id or (executing[0] if len(executing) == 1 else "")
        if price is not None and prompt_id in self._listeners:
            self._listeners[prompt_id].handle_price(text.node, price)

    def _handle_preview(self, frame: bytes) -> None:
        """Hand on a preview. One that does not name its job belongs to the job that executes."""
        preview = read_preview(frame)
        listener = None if preview is None else self._listeners.get(preview.prompt_id or self._executing_job or "")
        if preview is not None and listener is not None and listener.on_preview is not None:
            listener.on_preview(preview.node, preview.image)
