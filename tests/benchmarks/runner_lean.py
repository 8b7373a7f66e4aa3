"""A server that costs next to nothing: `python runner_lean.py DIALECT SLOTS JOB_SECONDS [HELD]`, for `runner.py`.

Its jobs are sleeps in so many slots, its pictures one PNG. It answers the few paths that clients of a ComfyUI, or of
Comfy Cloud, use to submit, listen, look and fetch, and says over the event stream what ComfyUI says of a job of two
nodes. So what is measured is the client: a job costs this process some 0.2 ms of processor time, a real graph executor
4 to 8. It checks nothing and knows no errors: `sweeper serve` is the rehearsal, this is a ruler.

The first line on stdout is its URL. When stdin ends, the second is a JSON object: how many requests it got, its own CPU
seconds, and when each job started and ended, in seconds since 1970. With HELD, no job starts before so many are queued:
what no client can beat.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from websockets.http11 import Request
from websockets.server import ServerProtocol

from sweeper.embedded import node_classes

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nupgrade: *websocket", re.IGNORECASE)
_OUTPUT = "SaveImage"  # the class whose nodes have outputs


def picture() -> bytes:
    """The PNG that every job makes."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, "PNG")
    return file.getvalue()


@dataclass(slots=True)
class Job:
    """One submission; times in seconds since 1970, 0 where it is not there yet."""

    id: str
    number: int
    graph: dict[str, Any]
    client: str | None
    began: float = 0.0
    ended: float = 0.0

    @property
    def state(self) -> str:
        return "success" if self.ended else "executing" if self.began else "pending"

    def outputs(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, node in self.graph.items():
            if node["class_type"] == _OUTPUT:
                folder, _, base = node["inputs"]["filename_prefix"].rpartition("/")
                file = {"filename": f"{base}_00001_.png", "subfolder": folder, "type": "output"}
                found[name] = {"images": [file]}
        return found

    def item(self) -> list[Any]:
        return [self.number, self.id, self.graph, {}, [*self.outputs()]]

    def messages(self) -> list[Any]:
        times = (("execution_start", self.began), ("execution_success", self.ended))
        return [[word, {"prompt_id": self.id, "timestamp": int(1000 * moment)}] for word, moment in times]


def frame(kind: str, data: dict[str, Any]) -> bytes:
    """A text frame as servers send it (RFC 6455, 5.2): whole and unmasked; no message here has 64 KiB."""
    body = json.dumps({"type": kind, "data": data}).encode()
    size = bytes([len(body)]) if len(body) < 126 else b"\x7e" + len(body).to_bytes(2)
    return b"\x81" + size + body


class Lean:
    """The queue, its slots and the streams; `held`: how many jobs must be there before the first one starts."""

    def __init__(self, dialect: str, slots: int, seconds: float, held: int) -> None:
        self.cloud = dialect == "cloud"
        self.free, self.seconds, self.held = slots, seconds, held
        self.jobs: dict[str, Job] = {}
        self.waiting: deque[Job] = deque()
        self.running: dict[str, Job] = {}
        self.streams: dict[str, asyncio.Transport] = {}
        self.requests = 0
        self.url = ""
        self.png = picture()
        self.classes = json.dumps(node_classes()).encode()
        self.loop = asyncio.get_running_loop()

    def submit(self, body: dict[str, Any]) -> Job:
        wanted = None if self.cloud else body.get("prompt_id")
        job = Job(wanted or str(uuid4()), len(self.jobs), body["prompt"], body.get("client_id"))
        self.jobs[job.id] = job
        self.waiting.append(job)
        if len(self.jobs) >= self.held:
            self.fill()
        return job

    def left(self) -> int:
        return len(self.waiting) + len(self.running)

    def fill(self) -> None:
        """Start what there is room for; what is said of it comes after: a worker does not wait for that."""
        started = []
        while self.free and self.waiting:
            job = self.waiting.popleft()
            self.begin(job)
            started.append(job)
        for job in started:
            self.say_beginning(job)

    def begin(self, job: Job) -> None:
        self.free -= 1
        self.running[job.id] = job
        job.began = time.time()
        self.loop.call_later(self.seconds, self.end, job)

    def end(self, job: Job) -> None:
        job.ended = time.time()
        del self.running[job.id]
        self.free += 1
        # The slot's next job begins before anybody is told; its words follow those of the end.
        following = self.waiting.popleft() if self.waiting else None
        if following is not None:
            self.begin(following)
        self.say_end(job)
        if following is not None:
            self.say_beginning(following)

    # --- what is said over the streams, in ComfyUI's order

    def say(self, job: Job, *messages: tuple[str, dict[str, Any]]) -> None:
        frames = b"".join(frame(kind, data) for kind, data in messages)
        streams = self.streams.values() if self.cloud else [self.streams.get(job.client or "")]
        for stream in streams:
            if stream is not None:
                stream.write(frames)

    def say_beginning(self, job: Job) -> None:
        told = {"prompt_id": job.id}
        steps: list[tuple[str, dict[str, Any]]] = []
        for node in job.graph:
            at = {"node_id": node, "display_node_id": node, "parent_node_id": None, "real_node_id": node}
            state = {"value": 0.0, "max": 1.0, "state": "running", **told, **at}
            steps.append(("progress_state", {**told, "nodes": {node: state}}))
            steps.append(("executing", {"node": node, "display_node": node, **told}))
        stamp = {"timestamp": int(1000 * job.began)}
        self.say(job, ("execution_start", told | stamp), ("execution_cached", {"nodes": [], **told} | stamp), *steps)

    def say_end(self, job: Job) -> None:
        told = {"prompt_id": job.id}
        executed = [
            ("executed", {"node": node, "display_node": node, "output": output, **told})
            for node, output in job.outputs().items()
        ]
        success = ("execution_success", told | {"timestamp": int(1000 * job.ended)})
        self.say(job, *executed, success, self.status(), ("executing", {"node": None, **told}))

    def status(self) -> tuple[str, dict[str, Any]]:
        return "status", {"status": {"exec_info": {"queue_remaining": self.left()}}}

    # --- requests

    def answer(self, method: str, path: str, query: str, body: bytes) -> tuple[int, bytes, str]:
        """(status, body, content type or, for 302, the place)."""
        if path.startswith("/storage/"):
            return 200, self.png, "image/png"
        path = path.removeprefix("/api")
        if path == "/view":
            return (302, b"", f"{self.url}/storage/1.png?{query}") if self.cloud else (200, self.png, "image/png")
        if path == "/object_info":
            return 200, self.classes, "application/json"
        found = self.prompt(body) if (method, path) == ("POST", "/prompt") else self.told(path, query)
        return (
            (404, b"{}", "application/json") if found is None else (200, json.dumps(found).encode(), "application/json")
        )

    def prompt(self, body: bytes) -> dict[str, Any]:
        job = self.submit(json.loads(body))
        self.say(job, self.status())
        return {"prompt_id": job.id, "number": job.number, "node_errors": {}}

    def told(self, path: str, query: str) -> Any:
        parts = path.split("/")[1:]
        match parts:
            case ["prompt"]:
                return {"exec_info": {"queue_remaining": self.left()}}
            case ["queue"]:
                running = [job.item() for job in self.running.values()]
                return {"queue_running": running, "queue_pending": [job.item() for job in self.waiting]}
            case ["history"]:
                most = int(parse_qs(query).get("max_items", ["100"])[0])
                done = [job for job in self.jobs.values() if job.ended]
                return {job.id: _entry(job) for job in done[-most:]}
            case ["history", name]:
                job = self.jobs.get(name)
                return {name: _entry(job)} if job is not None and job.ended else {}
            case ["job", name, "status"]:
                job = self.jobs.get(name)
                return job and {"id": job.id, "status": job.state, "error_message": None}
            case ["jobs", name]:
                job = self.jobs.get(name)
                return job and _detail(job)
            case ["system_stats"]:
                return {"system": {"os": "posix", "comfyui_version": "0.3.64", "argv": ["main.py"]}, "devices": []}
            case ["user"]:
                return {"status": "active"}
            case ["features"]:
                return {"max_upload_size": 100 * 2**20}
        return None


def _entry(job: Job) -> dict[str, Any]:
    status = {"status_str": "success", "completed": True, "messages": job.messages()}
    return {"prompt": job.item(), "outputs": job.outputs(), "status": status, "meta": {}}


def _detail(job: Job) -> dict[str, Any]:
    state = {"success": "completed", "executing": "in_progress"}.get(job.state, "pending")
    times = {"execution_start_time": int(1000 * job.began), "execution_end_time": int(1000 * job.ended)}
    return {"id": job.id, "status": state, "workflow": {"prompt": job.graph}, "outputs": job.outputs(), **times}


class Connection(asyncio.Protocol):
    """HTTP/1.1 with `Content-Length` bodies, kept alive; a WebSocket after an upgrade, whose words are answered."""

    def __init__(self, lean: Lean) -> None:
        self.lean = lean
        self.buffer = b""
        self.stream: ServerProtocol | None = None
        self.name = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        if self.lean.streams.get(self.name) is self.transport:
            del self.lean.streams[self.name]

    def data_received(self, data: bytes) -> None:
        if self.stream is not None:
            self._hear(data)
            return
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < whole:
                return
            request, self.buffer = self.buffer[:whole], self.buffer[whole:]
            self.lean.requests += 1
            if _UPGRADE.search(head):
                self._upgrade(request)
                return
            self._serve(head, request[end + 4 :])

    def _serve(self, head: bytes, body: bytes) -> None:
        method, target, _ = head[: head.index(b"\r\n")].decode().split(" ")
        parts = urlsplit(target)
        status, content, kind = self.lean.answer(method, parts.path, parts.query, body)
        name = "Location" if status == 302 else "Content-Type"
        head = f"HTTP/1.1 {status} OK\r\n{name}: {kind}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        self.transport.write(head + content)

    # --- the event stream

    def _upgrade(self, request: bytes) -> None:
        self.stream = ServerProtocol()  # no extensions: it compresses nothing
        self.stream.receive_data(request)
        (found,) = self.stream.events_received()
        assert isinstance(found, Request)
        self.stream.send_response(self.stream.accept(found))
        self.transport.write(b"".join(self.stream.data_to_send()))
        self.name = parse_qs(urlsplit(found.path).query).get("clientId", [uuid4().hex])[0]
        self.lean.streams[self.name] = self.transport
        kind, data = self.lean.status()
        self.transport.write(frame(kind, data | {"sid": self.name}))

    def _hear(self, data: bytes) -> None:
        """Pings and a close are answered by the library; nothing else that a client says matters."""
        assert self.stream is not None
        self.stream.receive_data(data)
        self.stream.events_received()
        for answer in self.stream.data_to_send():
            if answer:
                self.transport.write(answer)
            else:
                self.transport.close()


async def serve(dialect: str, slots: int, seconds: float, held: int) -> None:
    lean = Lean(dialect, slots, seconds, held)
    listening = await lean.loop.create_server(lambda: Connection(lean), "127.0.0.1", 0)
    lean.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    print(lean.url, flush=True)
    before = time.process_time()
    await asyncio.to_thread(sys.stdin.read)
    times = sorted((job.began, job.ended) for job in lean.jobs.values() if job.ended)
    print(json.dumps({"requests": lean.requests, "cpu": time.process_time() - before, "jobs": times}))


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 1))
