"""The event stream of one target: a WebSocket that is opened before the first submit and drained until the end.

It decides nothing: it wakes whoever waits for a job and feeds the progress display. Polling is the authority, so a
stream that is refused, stalls or drops costs a little time and nothing else. After each drop it comes back under a new
client id, because a ComfyUI server silences a re-used one when it notices the old socket's end
(COMFYUI_BEHAVIOUR.md 4).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import websockets
from websockets.asyncio.client import ClientConnection, connect

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.previews import FEATURE_FLAGS_MESSAGE, read_preview
from sweeper.comfy.retry import Backoff
from sweeper.model.urls import is_loopback

# Words after which a look at the job is worth it. `executing` with no node is ComfyUI's last word on a job; its
# history may not be there at `execution_success` yet, but on Cloud that is the last word.
_END_EVENTS: Final = ("execution_success", "execution_error", "execution_interrupted")
# Half of what a ComfyUI says, and all of it said by `executing` and `progress` too: not worth its parsing.
_SKIPPED_PREFIX: Final = '{"type": "progress_state"'
_MAX_FRAME_BYTES: Final = 64 * 2**20  # bytes; a preview of a large picture
_SILENCE_TIMEOUT: Final = 3.0  # seconds after a submission within which a ComfyUI stream must have said `status`
_RECONNECT: Final = Backoff(base_wait=0.15, max_wait=22.5, jitter_from=1 / 3)
_MAX_ENDED_JOBS: Final = (
    512  # ends of jobs that nobody waits for yet, as when the stream is faster than the answer to the POST
)

# The handshake's URL holds the key on Cloud, and the library logs it: its records go nowhere.
_NULL_LOGGER: Final = logging.getLogger("sweeper.comfy.event_stream.unheard")
_NULL_LOGGER.propagate = False
_NULL_LOGGER.addHandler(logging.NullHandler())
_NULL_LOGGER.setLevel(logging.CRITICAL + 1)


@dataclass(slots=True)
class Listener:
    """What one job's waiter hears: `woken` when a look is worth it; `succeeded`, and `on_success()`, when the job is
    said to have succeeded; `began` when execution started (by our clock); `on_progress(node, value, maximum)` and
    `on_preview(node, image)` for the display; `nodes`, when each node began, and "" for the end (monotonic seconds).
    """

    on_progress: Callable[[str, float, float], None] | None = None
    on_preview: Callable[[str, bytes], None] | None = None
    on_success: Callable[[], None] | None = None
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    succeeded: bool = False
    started_at: float | None = None
    node_starts: list[tuple[str, float]] = field(default_factory=list)

    def handle_event(self, kind: Any, data: dict[str, Any]) -> None:
        """One message about the job that is not its end."""
        if self.started_at is None and kind in ("execution_start", "executing", "progress", "progress_state"):
            self.started_at = time.time()
        if kind == "executing" and isinstance(data.get("node"), str):
            self.node_starts.append((data["node"], time.monotonic()))
        if self.on_progress is not None:
            for node, value, maximum in _read_progress(kind, data):
                self.on_progress(node, value, maximum)

    def node_seconds(self) -> list[tuple[str, float]]:
        """(node, seconds) of each node that was heard to begin and to be followed by another, or by the end."""
        steps = zip(self.node_starts, self.node_starts[1:], strict=False)
        return [(node, after - since) for (node, since), (_, after) in steps if node]


class EventStream:
    """An async context manager around the stream of one target. `client_id` is what a submission should carry now."""

    def __init__(self, client: ComfyClient) -> None:
        self._client = client
        self._listeners: dict[str, Listener] = {}
        self._ended: OrderedDict[str, bool] = OrderedDict()  # whether that was success
        self._task: asyncio.Task[None] | None = None
        self._silence_timer: asyncio.TimerHandle | None = None
        self._socket: ClientConnection | None = None
        self._executing_job: str | None = None  # the job that was last said to execute
        self._attempted = asyncio.Event()
        self.client_id: str | None = None

    async def __aenter__(self) -> Self:
        if not self._client.dialect.has_event_stream:
            return self
        self._task = asyncio.create_task(self._run())
        # Clients that open it after the first submit miss short jobs; one that is refused must not hold up anybody.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self._attempted.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is None:
            return
        self._cancel_silence_timer()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    @property
    def is_connected(self) -> bool:
        """Whether a stream is open; not whether it will say anything."""
        return self.client_id is not None

    @contextlib.contextmanager
    def listen(self, prompt_id: str, listener: Listener) -> Any:
        """Route what is said of that job to `listener`, the end included if it was said already."""
        self._listeners[prompt_id] = listener
        if prompt_id in self._ended:
            listener.succeeded = self._ended[prompt_id]
            listener.woken.set()
        try:
            yield listener
        finally:
            self._listeners.pop(prompt_id, None)
            self._ended.pop(prompt_id, None)

    def expect_status(self) -> None:
        """A job was just queued: where the dialect says `status` then, silence from now on means a dead stream."""
        if self._socket is not None and self._client.dialect.sends_status_events and self._silence_timer is None:
            self._silence_timer = asyncio.get_running_loop().call_later(_SILENCE_TIMEOUT, self._abort, self._socket)

    def wake_all(self) -> None:
        """Let everybody who waits for a job look at once."""
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
            # Refused, reset, not a WebSocket, TLS, a proxy without its package: polling carries on without it.
            except (OSError, TimeoutError, websockets.WebSocketException, EOFError, ValueError, ImportError):
                pass
            self.client_id = self._socket = None
            self._cancel_silence_timer()
            self._attempted.set()
            self.wake_all()  # what was missed meanwhile, a look finds out
            await asyncio.sleep(_RECONNECT.draw(failures, self._client.random))
            failures += 1

    def _connect(self, client_id: str) -> connect:
        url = self._client.target.url
        parts = urlsplit(url)
        query = f"clientId={client_id}"
        if self._client.dialect.needs_key_in_events and self._client.target.key:
            query += f"&token={quote(self._client.target.key, safe='')}"
        address = urlunsplit(
            ({"http": "ws", "https": "wss"}[parts.scheme], parts.netloc, f"{parts.path}/ws", query, "")
        )
        return connect(
            address,
            proxy=None if is_loopback(url) else True,
            open_timeout=10,
            close_timeout=1,
            ping_interval=20,
            ping_timeout=20,
            max_size=_MAX_FRAME_BYTES,
            compression=None,  # small texts and pictures: it would cost both ends more time than it saves bytes
            logger=_NULL_LOGGER,
        )

    async def _read_frames(self, socket: ClientConnection) -> None:
        async for frame in socket:
            self._cancel_silence_timer()
            if isinstance(frame, str):
                if frame.startswith(_SKIPPED_PREFIX):
                    continue
                with contextlib.suppress(ValueError, RecursionError):
                    self._handle_message(json.loads(frame))
            else:
                self._handle_preview(frame)

    def _cancel_silence_timer(self) -> None:
        """Nothing is due any more: something came, or the stream is gone."""
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None

    def _abort(self, socket: ClientConnection) -> None:
        """The stream is alive to TCP, silent to us."""
        self._silence_timer = None
        socket.transport.abort()

    # --- what is said

    def _handle_message(self, message: Any) -> None:
        if not isinstance(message, dict) or not isinstance(message.get("data"), dict):
            return
        kind, data = message.get("type"), message["data"]
        prompt_id = data.get("prompt_id")
        if not isinstance(prompt_id, str):
            return
        listener = self._listeners.get(prompt_id)
        if kind in ("executing", "progress"):
            self._executing_job = prompt_id
        if kind in _END_EVENTS or (kind == "executing" and data.get("node") is None):
            success = kind == "execution_success"
            self._ended[prompt_id] = success or self._ended.get(prompt_id, False)
            while len(self._ended) > _MAX_ENDED_JOBS:
                self._ended.popitem(last=False)
            if listener is not None:
                listener.node_starts.append(("", time.monotonic()))
                listener.woken.set()
                listener.succeeded = listener.succeeded or success
                if success and listener.on_success is not None:
                    listener.on_success()
        elif listener is not None:
            listener.handle_event(kind, data)

    def _handle_preview(self, frame: bytes) -> None:
        """A preview; one that does not tell its job belongs to the job at work."""
        preview = read_preview(frame)
        listener = None if preview is None else self._listeners.get(preview.prompt_id or self._executing_job or "")
        if preview is not None and listener is not None and listener.on_preview is not None:
            listener.on_preview(preview.node, preview.image)


def _read_progress(kind: Any, data: dict[str, Any]) -> list[tuple[str, float, float]]:
    """(node, value, maximum) of the nodes at work, from `progress` and `executing`; `progress_state` repeats them."""
    node = data.get("node")
    if not isinstance(node, str):
        return []
    if kind == "executing":
        return [(node, 0.0, 0.0)]
    value, maximum = data.get("value"), data.get("max")
    if kind == "progress" and isinstance(value, int | float) and isinstance(maximum, int | float):
        return [(node, float(value), float(maximum))]
    return []
