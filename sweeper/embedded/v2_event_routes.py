"""`/api/v2/jobs/{id}/events`: the events of one job as Server-Sent Events, made from the messages of `/ws`.

A stream begins with the job's status, sends progress, previews and outputs, and ends with the job. It has no ids and
repeats nothing, so polling the job stays decisive. Kinds of events and the limit of streams are those of
comfy-api-proxy 0.1.6.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final
from uuid import uuid4

from starlette.responses import Response, StreamingResponse

from sweeper.embedded.event_streams import PREVIEW_IMAGE_WITH_METADATA, Connection
from sweeper.embedded.http_helpers import RequestRefusedError, error_response
from sweeper.embedded.jobs import ENDED, ServerJob
from sweeper.embedded.service import Service

MAX_STREAMS: Final = 8
HEARTBEAT_SECONDS: Final = 15.0
_DROP_DELAY: Final = 0.05  # seconds from the greeting to the end of a stream that a fault drops


class JobEventRoutes:
    """Event streams of jobs. `describe_job` makes the JSON of a job, whose parts the events contain."""

    def __init__(self, service: Service, describe_job: Callable[[ServerJob], dict[str, Any]]) -> None:
        self.hub, self.faults, self.seen = service.hub, service.faults, service.seen
        self.describe_job = describe_job
        self._open_streams = 0

    def open_stream(self, job: ServerJob) -> Response:
        """The event stream of a job. Raises RequestRefusedError with 429 if too many are open."""
        if self.faults.refuse_events or self._open_streams >= MAX_STREAMS:
            refusal = error_response(429, "too_many_streams", "Too many event streams are open; poll the job instead.")
            refusal.headers["retry-after"] = "5"
            raise RequestRefusedError(refusal)
        self.seen.count(connections=1)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(self._stream(job), headers=headers, media_type="text/event-stream")

    async def _stream(self, job: ServerJob) -> AsyncGenerator[bytes, None]:
        self._open_streams += 1
        connection = self.hub.attach(uuid4().hex, None)
        connection.wants_metadata = True
        try:
            has_ended = job.state in ENDED
            yield self._format_status(job)
            if self.faults.take("drop_events_times"):
                await asyncio.sleep(_DROP_DELAY)
                return
            while job.state not in ENDED or self.faults.mute_events or not await _is_drained(connection):
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        message = await connection.queue.get()
                except TimeoutError:
                    yield b": keepalive\n\n"
                    continue
                if message is None:  # the server stops
                    return
                for event, data in _translate(message, job):
                    yield _format(event, data)
            if not has_ended:
                yield self._format_status(job)
            for output in (await asyncio.to_thread(self.describe_job, job))["outputs"]:
                yield _format("output", output)
        finally:
            self._open_streams -= 1
            self.hub.detach(connection)

    def _format_status(self, job: ServerJob) -> bytes:
        described = self.describe_job(job)
        return _format("status", {name: described[name] for name in ("status", "queue_position")})


async def _is_drained(connection: Connection) -> bool:
    """Whether no message is left. One that was sent before the job ended may be in this round of the loop."""
    await asyncio.sleep(0)
    return connection.queue.empty()


def _translate(message: str | bytes, job: ServerJob) -> list[tuple[str, dict[str, Any]]]:
    """The events that a message of `/ws` becomes: none if it is about another job."""
    if isinstance(message, bytes):
        kind, length = struct.unpack(">II", message[:8])
        metadata = json.loads(message[8 : 8 + length]) if kind == PREVIEW_IMAGE_WITH_METADATA else {}
        if metadata.get("prompt_id") != job.id:
            return []
        picture = base64.b64encode(message[8 + length :]).decode()
        names = {"node_id": metadata["node_id"], "content_type": metadata["image_type"]}
        return [("preview", {**names, "data_base64": picture})]
    parsed = json.loads(message)
    data = parsed["data"]
    if data.get("prompt_id") != job.id:
        return []
    if parsed["type"] == "execution_start":
        return [("status", {"status": "running", "queue_position": None})]
    return [("progress", _summarise(data["nodes"], job))] if parsed["type"] == "progress_state" else []


def _summarise(nodes: dict[str, dict[str, Any]], job: ServerJob) -> dict[str, Any]:
    """The progress of the whole job from the states of its nodes. A running node counts by its steps."""
    graph = job.graph
    done = sum(node["state"] == "finished" for node in nodes.values())
    running = next((node for node in reversed(nodes.values()) if node["state"] == "running"), None)
    step, steps = (0, 0) if running is None else (int(running["value"]), int(running["max"]))
    node_id = None if running is None else running["node_id"]
    return {
        "value": min(1.0, (done + (step / steps if steps else 0)) / max(1, len(graph))),
        "nodes_done": done,
        "nodes_total": len(graph),
        "current_node": node_id,
        "current_node_class": graph[node_id]["class_type"] if node_id in graph else None,
        "step": step if running else None,
        "steps": steps if running else None,
        "message": None,
    }


def _format(event: str, data: dict[str, Any]) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
