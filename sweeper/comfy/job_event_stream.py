"""The event streams of single jobs by Server-Sent Events, as Comfy API v2 has them.

As with `event_stream`, polling decides how a job ends; the events only wake those who wait, and feed the display. The
streams are optional: a server may have none (501), or refuse one stream more (429). A stream that ends early is not
opened again. It starts late, because a short job needs none.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import httpx

from sweeper.comfy.binary_frames import is_picture
from sweeper.comfy.untrusted_json import parse_json
from sweeper.errors import SweeperError

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.job_listener import Listener
    from sweeper.comfy.protocol import ServerRequest

_MAX_STREAMS: Final = 8  # at once; comfy-api-proxy allows no more
_OPEN_AFTER: Final = 0.5  # seconds that a job may take without a stream
_END_STATUSES: Final = ("succeeded", "failed", "canceled", "expired")
_MAX_EVENT_BYTES: Final = 32 * 2**20  # a preview of a large picture; a longer event ends the stream
_MAX_EVENTS_PER_SECOND: Final = 2000  # then the server has to wait, because we read no further
_NO_SUCH_CALL: Final = (404, 405, 501)


class JobEventStreams:
    """The streams of the jobs of one target."""

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
        """End all streams."""
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
    clock = asyncio.get_running_loop().time
    since, count = clock(), 0
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
        if clock() - since >= 1.0:
            since, count = clock(), 0
        count += 1
        if count > _MAX_EVENTS_PER_SECOND:
            await asyncio.sleep(max(0.0, since + 1.0 - clock()))


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
