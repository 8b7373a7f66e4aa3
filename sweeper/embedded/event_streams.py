"""Who hears what over the event streams: routing by client id, a queue per socket, binary previews.

Worker threads call `Hub.send` and friends; delivery happens on the server's event loop, in order. Each socket has a
queue and a writer of its own, so a client that stops reading holds up nobody else (in ComfyUI it does); previews are
dropped for it first. Message order and contents are the executor's business (`announce.py`).
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from sweeper.embedded.faults import Faults

PREVIEW_IMAGE = 1  # uint32 format (1 JPEG, 2 PNG), then the image
PREVIEW_IMAGE_WITH_METADATA = 4  # uint32 length, JSON, then the image
JPEG = 1
PREVIEW_PIXELS = 512  # longest edge of a preview, as ComfyUI's MAX_PREVIEW_RESOLUTION

PNG = 2

# Cloud: what was said of jobs while nobody listened is told to who comes within this time (seconds).
MAX_MISSED, MISSED_SECONDS = 1000, 30.0
_REPLAYED_EVENTS = frozenset({"execution_start", "executed", "execution_success", "execution_error"})

# A socket with this many messages unsent is not being read: previews stop, and much later everything does.
PREVIEW_BACKLOG = 64
TEXT_BACKLOG = 50_000


class Connection:
    """One event stream: what it still has to be sent, and what it said about itself."""

    def __init__(self, sid: str) -> None:
        self.sid = sid
        self.wants_metadata = False
        self.queue: asyncio.Queue[str | bytes] = asyncio.Queue()

    def enqueue(self, message: str | bytes) -> None:
        """Queue a message unless the client has long stopped reading."""
        limit = TEXT_BACKLOG if isinstance(message, str) else PREVIEW_BACKLOG
        if self.queue.qsize() < limit:
            self.queue.put_nowait(message)


class Hub:
    """All event streams of one server. `tells_all`: every stream hears of every job, whoever submitted it (Cloud).

    The documented clients of Cloud submit first and listen then. A job there takes seconds to begin; here it may have
    ended by then, so with `tells_all` what nobody heard is told to the stream that comes next.
    """

    def __init__(self, faults: Faults, *, broadcast_all: bool) -> None:
        self.faults = faults
        self.broadcast_all = broadcast_all
        self._missed: deque[tuple[float, str]] = deque(maxlen=MAX_MISSED)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.current_nodes: dict[str, str] = {}  # client id -> the node of its that runs
        self._by_sid: dict[str, Connection] = {}

    def attach(self, sid: str, remaining: int) -> Connection:
        """Register a socket and queue its greeting; a socket with the same id that was there is replaced."""
        connection = Connection(sid)
        self._by_sid[sid] = connection
        status = {"exec_info": {"queue_remaining": remaining}}
        connection.enqueue(_encode_message("status", {"status": status, "sid": sid}))
        if sid in self.current_nodes:
            connection.enqueue(
                _encode_message("executing", {"node": self.current_nodes[sid]})
            )  # without prompt_id: ComfyUI's way
        oldest = time.monotonic() - MISSED_SECONDS
        while self._missed:
            said, message = self._missed.popleft()
            if said >= oldest:
                connection.enqueue(message)
        return connection

    def detach(self, connection: Connection) -> None:
        """Forget a closed socket."""
        known = self._by_sid.get(connection.sid)
        if known is connection or self.faults.reconnect_trap:
            self._by_sid.pop(connection.sid, None)

    def has_listener(self, sid: str | None) -> bool:
        """Whether anybody would receive a message to `sid` (None: to everybody). Callable from any thread."""
        return bool(self._by_sid) if sid is None else sid in self._by_sid

    def send(self, event: str, data: Mapping[str, Any], sid: str | None = None) -> None:
        """Send a text message to one client, or to everybody; from any thread."""
        if self.has_listener(sid):
            self._post(_encode_message(event, data), sid)
        elif self.broadcast_all and event in _REPLAYED_EVENTS:
            self._missed.append((time.monotonic(), _encode_message(event, data)))

    def send_status(self, remaining: int) -> None:
        """Tell everybody how many jobs are queued or running."""
        self.send("status", {"status": {"exec_info": {"queue_remaining": remaining}}})

    def send_preview(self, image: Image.Image, metadata: Mapping[str, Any], sid: str | None) -> None:
        """Send a picture of work in progress: with metadata (event 4) to who asked for it, else without (event 1)."""
        if self.has_listener(sid):
            self._post_picture(_encode_jpeg(image), JPEG, {**metadata, "image_type": "image/jpeg"}, sid)

    def send_picture(self, image: Image.Image, metadata: Mapping[str, Any], sid: str | None) -> None:
        """Send a result as it is, as PNG."""
        if self.has_listener(sid):
            buffer = io.BytesIO()
            image.save(buffer, format="PNG", compress_level=1)
            self._post_picture(buffer.getvalue(), PNG, {**metadata, "image_type": "image/png"}, sid)

    def _post_picture(self, picture: bytes, kind: int, metadata: Mapping[str, Any], sid: str | None) -> None:
        described = json.dumps(metadata).encode()
        head = struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(described))
        # In ComfyUI a picture for everybody never has metadata, whatever they asked for.
        rich = head + described + picture if sid is not None or self.broadcast_all else None
        self._post(struct.pack(">II", PREVIEW_IMAGE, kind) + picture, sid, rich)

    def _post(self, message: str | bytes, sid: str | None, rich: bytes | None = None) -> None:
        if self.loop is None or self.faults.mute_events:
            return
        self.loop.call_soon_threadsafe(self._deliver, message, sid, rich)

    def _deliver(self, message: str | bytes, sid: str | None, rich: bytes | None) -> None:
        listeners = list(self._by_sid.values()) if sid is None else [self._by_sid.get(sid)]
        for connection in listeners:
            if connection is not None:
                connection.enqueue(message if rich is None or not connection.wants_metadata else rich)


def answer_feature_flags(text: str, first: bool, server_features: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Read a client's message: (it wants preview metadata, what to answer). Junk is ignored, as ComfyUI does."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return False, None
    if not first or not isinstance(message, dict) or message.get("type") != "feature_flags":
        return False, None
    flags = message.get("data")
    wants = isinstance(flags, dict) and flags.get("supports_preview_metadata") is True
    return wants, _encode_message("feature_flags", server_features)


def _encode_message(event: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"type": event, "data": data})


def _encode_jpeg(image: Image.Image) -> bytes:
    from PIL import ImageOps  # noqa: PLC0415 - loaded with the first preview

    small = ImageOps.contain(image.convert("RGB"), (PREVIEW_PIXELS, PREVIEW_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()
