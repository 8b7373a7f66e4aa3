"""Event streams (WebSockets): routing by client id, one queue per stream, binary previews.

Worker threads call the `send` methods of `Hub`, and the server's event loop delivers the messages in order. Each stream
has its own queue and writer, so a client that stops reading does not block others (in ComfyUI it does). For such a
client previews are dropped first. `JobMessages` has the messages of a job.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sweeper.embedded.jobs import ServerJob, now_ms
from sweeper.model.bounded_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from sweeper.embedded.faults import Faults

PREVIEW_IMAGE = 1  # uint32 format (1 JPEG, 2 PNG), then the image
TEXT = 3  # uint32 length, id of the node, then the text
PREVIEW_IMAGE_WITH_METADATA = 4  # uint32 length, JSON, then the image
JPEG, PNG = 1, 2
PREVIEW_PIXELS = 512  # longest edge of a preview, as ComfyUI's MAX_PREVIEW_RESOLUTION
# Between two previews of a job. ComfyUI sends one for each step, which takes it longer. Ours takes less time for a step
# than for a preview, and nobody sees more than twenty a second.
PREVIEW_SECONDS = 0.05

# Cloud: events that no stream received are kept this many seconds for the next stream that connects.
MAX_MISSED, MISSED_SECONDS = 1000, 30.0
_REPLAYED_EVENTS = frozenset({"execution_start", "executed", "execution_success", "execution_error"})

# A client with this many unsent messages has stopped reading: it gets no more previews, and much later nothing at all.
PREVIEW_BACKLOG = 64
TEXT_BACKLOG = 50_000


class Connection:
    """One event stream: its unsent messages, and whether its client asked for preview metadata."""

    def __init__(self, sid: str) -> None:
        self.sid = sid
        self.wants_metadata = False
        self.queue: asyncio.Queue[str | bytes | None] = asyncio.Queue()  # None: the server stops

    def enqueue(self, message: str | bytes) -> None:
        """Queue a message, or drop it if the client has stopped reading."""
        limit = TEXT_BACKLOG if isinstance(message, str) else PREVIEW_BACKLOG
        if self.queue.qsize() < limit:
            self.queue.put_nowait(message)

    def answer_first(self, text: str, features: Mapping[str, Any]) -> None:
        """Answer the first message of a client if it is `feature_flags`. Like ComfyUI, ignore junk."""
        with suppress(ValueError):
            message = parse_json(text)
            if isinstance(message, dict) and message.get("type") == "feature_flags":
                flags = message.get("data")
                self.wants_metadata = isinstance(flags, dict) and flags.get("supports_preview_metadata") is True
                self.enqueue(_encode_message("feature_flags", features))


class Hub:
    """All event streams of one server. With `broadcast_all` (Cloud) every stream gets the events of every job.

    The documented clients of Cloud submit a job before they connect. Cloud takes seconds to start a job, but this
    server may have finished it by then. So with `broadcast_all`, the next stream also gets the events that no stream
    received.
    """

    def __init__(self, faults: Faults, *, broadcast_all: bool) -> None:
        self.faults = faults
        self.broadcast_all = broadcast_all
        self._missed: deque[tuple[float, str]] = deque(maxlen=MAX_MISSED)
        self._loop: asyncio.AbstractEventLoop | None = None  # in which the streams run; None: there was none yet
        self._by_sid: dict[str, Connection] = {}

    def attach(self, sid: str, remaining: int | None) -> Connection:
        """Register a stream and queue its greeting. It replaces an earlier stream with the same id.

        `remaining`: how many jobs are queued or running; None for a stream of one job, which has no greeting.
        """
        self._loop = asyncio.get_running_loop()
        connection = Connection(sid)
        self._by_sid[sid] = connection
        if remaining is None:
            return connection
        status = {"exec_info": {"queue_remaining": remaining}}
        connection.enqueue(_encode_message("status", {"status": status, "sid": sid}))
        oldest = time.monotonic() - MISSED_SECONDS
        while self._missed:
            sent_at, message = self._missed.popleft()
            if sent_at >= oldest:
                connection.enqueue(message)
        return connection

    def detach(self, connection: Connection) -> None:
        if self._by_sid.get(connection.sid) is connection:
            del self._by_sid[connection.sid]

    def close(self) -> None:
        """Tell all streams that the server stops. Thread-safe."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_streams)

    def _end_streams(self) -> None:
        for connection in self._by_sid.values():
            connection.queue.put_nowait(None)

    def has_listener(self, sid: str | None) -> bool:
        """Whether any stream would get a message to `sid` (None: to all streams). Thread-safe."""
        return bool(self._by_sid) if sid is None else sid in self._by_sid

    def send(self, event: str, data: Mapping[str, Any], sid: str | None = None) -> None:
        """Send a text message to one client, or to all (`sid` None). Thread-safe."""
        if self.has_listener(sid):
            self.post(_encode_message(event, data), sid)
        elif self.broadcast_all and event in _REPLAYED_EVENTS:
            self._missed.append((time.monotonic(), _encode_message(event, data)))

    def send_status(self, remaining: int) -> None:
        self.send("status", {"status": {"exec_info": {"queue_remaining": remaining}}})

    def post(self, message: str | bytes, sid: str | None, rich: bytes | None = None) -> None:
        """Send an encoded message; `rich` to the clients that asked for the metadata of previews. Thread-safe."""
        if self._loop is not None and not self.faults.mute_events:
            self._loop.call_soon_threadsafe(self._deliver, message, sid, rich)

    def _deliver(self, message: str | bytes, sid: str | None, rich: bytes | None) -> None:
        listeners = list(self._by_sid.values()) if sid is None else [self._by_sid.get(sid)]
        for connection in listeners:
            if connection is not None:
                connection.enqueue(message if rich is None or not connection.wants_metadata else rich)


def _encode_message(event: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"type": event, "data": data})


def _encode_picture(image: Image.Image, *, small: bool) -> bytes:
    from PIL import ImageOps
    from PIL.Image import Resampling

    buffer = io.BytesIO()
    if small:
        size = (PREVIEW_PIXELS, PREVIEW_PIXELS)
        contained = ImageOps.contain(image.convert("RGB"), size, Resampling.BILINEAR)  # as ComfyUI does
        contained.save(buffer, format="JPEG", quality=95)
    else:
        image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


class JobMessages:
    """Sends the messages of one job.

    ComfyUI sends them to the client that submitted the job. If the job has no client id, it sends only progress and
    interruption, to every client. Cloud (`hub.broadcast_all`) sends everything to every client.
    """

    def __init__(self, hub: Hub, job: ServerJob) -> None:
        self.hub = hub
        self.job = job
        self.client: str | None = None if hub.broadcast_all else job.extra_data.get("client_id")
        self._has_audience = self.client is not None or hub.broadcast_all
        self._progress: dict[str, dict[str, Any]] = {}
        self._next_preview = 0.0  # by the monotonic clock

    def announce(self, event: str, **data: Any) -> None:
        """Send a message of the job as a whole, which its history keeps: `execution_start`, `execution_error`, ..."""
        data |= {"prompt_id": self.job.id, "timestamp": now_ms()}
        if event == "execution_error" and self.hub.broadcast_all:
            data["current_outputs"] = {}  # an object on Cloud, a list of ids in ComfyUI
        if event == "execution_start" and self.hub.broadcast_all:
            self._send("notification", {"value": "Executing workflow..."})
        self.job.messages.append((event, data))
        if self._has_audience or event == "execution_interrupted":
            self.hub.send(event, data, self.client)

    def _send(self, event: str, data: dict[str, Any]) -> None:
        if self._has_audience:
            self.hub.send(event, data | {"prompt_id": self.job.id}, self.client)

    def send_executing(self, node_id: str) -> None:
        self._update_state(node_id, 0.0, 1.0, "running")
        self._send("executing", {"node": node_id, "display_node": node_id})

    def send_executed(self, node_id: str, ui: Mapping[str, Any] | None) -> None:
        """Send the `ui` output of a node that ran, or of an output node whose result is cached."""
        self._send("executed", {"node": node_id, "display_node": node_id, "output": ui})

    def mark_finished(self, node_id: str) -> None:
        maximum = self._progress.get(node_id, {}).get("max", 1)
        self._update_state(node_id, maximum, maximum, "finished")

    def send_progress(self, node_id: str, value: int, maximum: int, preview: Image.Image | None) -> None:
        """Report that a node has done `value` of `maximum` steps, with a preview of its work if there is one."""
        self._update_state(node_id, value, maximum, "running")
        data = {"value": value, "max": maximum, "prompt_id": self.job.id, "node": node_id}
        self.hub.send("progress", data, self.client)
        if preview is not None and time.monotonic() >= self._next_preview:
            self._next_preview = time.monotonic() + PREVIEW_SECONDS
            self.send_picture(node_id, preview, small=True)

    def send_text(self, node_id: str, text: str | None) -> None:
        """Send the text that a partner node of a ComfyUI shows, to every client, as ComfyUI 0.33.0 does."""
        if text is not None and not self.hub.broadcast_all:
            encoded = node_id.encode()
            self.hub.post(struct.pack(">II", TEXT, len(encoded)) + encoded + text.encode(), None)

    def send_picture(self, node_id: str, picture: Image.Image, *, small: bool = False) -> None:
        """Send a `small` JPEG as preview, or the PNG that is a result of a node (SaveImageWebsocket).

        Its metadata (event 4) go to clients that asked for them.
        """
        if not self.hub.has_listener(self.client):
            return
        encoded = _encode_picture(picture, small=small)
        kind = "image/jpeg" if small else "image/png"
        metadata = json.dumps({**_node_ids(node_id), "prompt_id": self.job.id, "image_type": kind}).encode()
        head = struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(metadata))
        # ComfyUI sends pictures for all clients without metadata, even to clients that asked for it.
        rich = head + metadata + encoded if self._has_audience else None
        self.hub.post(struct.pack(">II", PREVIEW_IMAGE, JPEG if small else PNG) + encoded, self.client, rich)

    def _update_state(self, node_id: str, value: float, maximum: float, state: str) -> None:
        self._progress[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "prompt_id": self.job.id,
            **_node_ids(node_id),
        }
        if self.hub.has_listener(self.client):
            self.hub.send("progress_state", {"prompt_id": self.job.id, "nodes": self._progress}, self.client)

    def send_end(self) -> None:
        """Announce that the job has ended. Call this after the history lists the job, because clients then read it."""
        self._send("executing", {"node": None})


def _node_ids(node_id: str) -> dict[str, Any]:
    return {"node_id": node_id, "display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id}
