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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from sweeper.embedded.faults import Faults

PREVIEW_IMAGE = 1  # uint32 format (1 JPEG, 2 PNG), then the image
PREVIEW_IMAGE_WITH_METADATA = 4  # uint32 length, JSON, then the image
JPEG = 1
PREVIEW_PIXELS = 512  # longest edge of a preview, as ComfyUI's MAX_PREVIEW_RESOLUTION

# A socket with this many messages unsent is not being read: previews stop, and much later everything does.
PREVIEW_BACKLOG = 64
TEXT_BACKLOG = 50_000


class Connection:
    """One event stream: what it still has to be sent, and what it said about itself."""

    def __init__(self, sid: str) -> None:
        self.sid = sid
        self.wants_metadata = False
        self.queue: asyncio.Queue[str | bytes] = asyncio.Queue()

    def offer(self, message: str | bytes) -> None:
        """Queue a message unless the client has long stopped reading."""
        limit = TEXT_BACKLOG if isinstance(message, str) else PREVIEW_BACKLOG
        if self.queue.qsize() < limit:
            self.queue.put_nowait(message)


class Hub:
    """All event streams of one server. `tells_all`: events of jobs without client id go to everybody (Cloud)."""

    def __init__(self, faults: Faults, *, tells_all: bool) -> None:
        self.faults = faults
        self.tells_all = tells_all
        self.loop: asyncio.AbstractEventLoop | None = None
        self.current: dict[str, str] = {}  # client id -> the node of its that runs
        self._by_sid: dict[str, Connection] = {}

    def attach(self, sid: str, remaining: int) -> Connection:
        """Register a socket and queue its greeting; a socket with the same id that was there is replaced."""
        connection = Connection(sid)
        self._by_sid[sid] = connection
        status = {"exec_info": {"queue_remaining": remaining}}
        connection.offer(_text("status", {"status": status, "sid": sid}))
        if sid in self.current:
            connection.offer(_text("executing", {"node": self.current[sid]}))  # without prompt_id: ComfyUI's way
        return connection

    def detach(self, connection: Connection) -> None:
        """Forget a closed socket."""
        known = self._by_sid.get(connection.sid)
        if known is connection or self.faults.reconnect_trap:
            self._by_sid.pop(connection.sid, None)

    def heard_by(self, sid: str | None) -> bool:
        """Whether anybody would receive a message to `sid` (None: to everybody). Callable from any thread."""
        return bool(self._by_sid) if sid is None else sid in self._by_sid

    def wants_metadata(self, sid: str | None) -> bool:
        """Whether this client asked for previews with metadata. A broadcast never has them."""
        connection = None if sid is None else self._by_sid.get(sid)
        return connection is not None and connection.wants_metadata

    def send(self, event: str, data: Mapping[str, Any], sid: str | None = None) -> None:
        """Send a text message to one client, or to everybody; from any thread."""
        if self.heard_by(sid):
            self._post(_text(event, data), sid)

    def status(self, remaining: int) -> None:
        """Tell everybody how many jobs are queued or running."""
        self.send("status", {"status": {"exec_info": {"queue_remaining": remaining}}})

    def preview(self, image: Image.Image, metadata: Mapping[str, Any] | None, sid: str | None) -> None:
        """Send a picture of work in progress: with metadata as event 4, without as event 1."""
        if not self.heard_by(sid):
            return
        picture = _jpeg(image)
        if metadata is None:
            self._post(struct.pack(">II", PREVIEW_IMAGE, JPEG) + picture, sid)
            return
        described = json.dumps({**metadata, "image_type": "image/jpeg"}).encode()
        head = struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(described))
        self._post(head + described + picture, sid)

    def _post(self, message: str | bytes, sid: str | None) -> None:
        if self.loop is None or self.faults.mute_events:
            return
        self.loop.call_soon_threadsafe(self._deliver, message, sid)

    def _deliver(self, message: str | bytes, sid: str | None) -> None:
        listeners = list(self._by_sid.values()) if sid is None else [self._by_sid.get(sid)]
        for connection in listeners:
            if connection is not None:
                connection.offer(message)


def feature_flags_reply(text: str, first: bool, server_features: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Read a client's message: (it wants preview metadata, what to answer). Junk is ignored, as ComfyUI does."""
    try:
        message = json.loads(text)
    except ValueError:
        return False, None
    if not first or not isinstance(message, dict) or message.get("type") != "feature_flags":
        return False, None
    flags = message.get("data")
    wants = isinstance(flags, dict) and flags.get("supports_preview_metadata") is True
    return wants, _text("feature_flags", server_features)


def _text(event: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"type": event, "data": data})


def _jpeg(image: Image.Image) -> bytes:
    from PIL import ImageOps  # noqa: PLC0415 - loaded with the first preview

    small = ImageOps.contain(image.convert("RGB"), (PREVIEW_PIXELS, PREVIEW_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()
