"""A proxy that misbehaves on request, between the runner and any server: the embedded one, or a real ComfyUI.

It knows HTTP/1.1 and the WebSocket handshake and nothing of sweeper, so that every server meets the same faults. It
also records every job that the server behind it accepted, whatever response the runner got.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

# Faults before anything reaches the server, after it did its part, and of an event stream.
BEFORE = ("drop", "reset", "500", "502", "503", "429", "page", "delay")
AFTER = (
    "swallow", "swallow_reset", "half", "half_head", "slow", "502_after", "503_after", "504_after", "shape",
    "403_after", "404_after", "429_after",
)  # fmt: skip
STREAM = ("ws_refuse", "ws_cut", "ws_mute")
GATEWAY = ("403", "404")  # what stands before a server may say while that restarts
REFUSED = "refused"  # the server's own 403, by its JSON
LATE = "late"  # the client gets no response, and the server gets the request a moment later

SHAPES = (b"{}", b"[]", b"null", b"7", b'"ok"', b'{"detail": "try again"}', b'{"error": null, "jobs": {}}')


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as received; `number` counts from 1."""

    number: int
    method: str
    path: str  # without the query
    body: bytes = field(repr=False)
    query: str = ""
    key: str = ""  # the Idempotency-Key

    @property
    def json(self) -> Any:
        """The body of a submission."""
        return json.loads(self.body)

    @property
    def graph(self) -> dict[str, Any]:
        """The workflow of a submission."""
        return dict(self.json.get("prompt") or self.json["workflow"])

    @property
    def submits(self) -> bool:
        return self.method == "POST" and self.path in ("/prompt", "/api/prompt", "/api/v2/jobs")

    @property
    def downloads(self) -> bool:
        return self.path.endswith(("/view", "/content"))

    @property
    def looks(self) -> bool:
        """Whether it asks for the state of a job; a ComfyUI without /api/jobs is asked by /queue and /history."""
        return self.path.startswith(("/api/jobs/", "/api/v2/jobs/", "/history/")) or self.path == "/queue"

    @property
    def uploads(self) -> bool:
        return self.method == "POST" and self.path.endswith(("/upload/image", "/assets"))


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that the server accepted. `life` counts the server's starts, from 0."""

    prompt_id: str
    graph: dict[str, Any] = field(repr=False)
    life: int


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def wire(self) -> bytes:
        dropped = ("transfer-encoding", "content-length", "connection")
        lines = [f"HTTP/1.1 {self.status} {self.reason}"]
        lines += [f"{name}: {value}" for name, value in self.headers if name.lower() not in dropped]
        return "\r\n".join([*lines, f"Content-Length: {len(self.body)}", "", ""]).encode("latin-1")


class FaultyProxy:
    """Listens on loopback in a thread of its own. `decide(asked)` names the fault of a request, None for none.

    `on_step(asked, when)` is called "before" and "after" the server has the request, and when the client is "answered".
    `elsewhere`: maps URLs in the server's response headers to those that the client shall use instead.
    """

    def __init__(
        self,
        upstream: str,
        decide: Callable[[Asked], str | None] = lambda _: None,
        on_step: Callable[[Asked, str], None] = lambda *_: None,
    ) -> None:
        self.upstream = upstream
        self.decide = decide
        self.on_step = on_step
        self.elsewhere: dict[str, str] = {}
        self.change: Callable[[Asked, bytes], bytes] = lambda _, body: body  # what becomes of the body of an answer
        self.change_sent: Callable[[Asked], bytes] = lambda asked: asked.body  # the body that the server gets
        self.accepted: list[Accepted] = []
        self.struck: list[str] = []
        self.life = 0
        self.down = False  # the server is being restarted: nobody gets through
        self.requests = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="faulty-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(60)

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._take, sock=self._listener)
        self._ready.set()
        await self._over.wait()
        # A connection accepted in this very round would be dropped open by a closed server (python/cpython#109564).
        self._loop.remove_reader(self._listener)
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:  # also of a task that our end cancels before it began
            self._tasks.discard(task)
            writer.close()

        task.add_done_callback(over)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A reader at its end, a peer that reset, and our own end: there is nobody to answer.
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError, asyncio.LimitOverrunError):
            while await self._handle_one(reader, writer):
                pass

    async def _handle_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Handle one request of a connection. Whether another may follow."""
        head, body = await _message(reader)
        line, *headers = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = line.split(" ", 2)
        self.requests += 1
        url, pairs = urlsplit(target), [header.partition(":") for header in headers]
        keys = [value.strip() for name, _, value in pairs if name.lower() == "idempotency-key"]
        asked = Asked(self.requests, method, url.path, body, url.query, "".join(keys))
        upgrade = any(header.lower().startswith("upgrade:") for header in headers)
        fault = self.decide(asked)
        if fault is not None:
            self.struck.append(fault)
        self.on_step(asked, "before")
        if upgrade:
            return await self._stream(head, reader, writer, fault)
        if fault in (*BEFORE, *GATEWAY, REFUSED) and fault != "delay":
            return await _spoil(writer, fault)
        if fault == "delay":
            await asyncio.sleep(0.15)
        if fault == LATE:
            _reset(writer)
            await asyncio.sleep(0.15)
        answer = await self._forward(asked, line, headers)
        self.on_step(asked, "after")
        if fault == LATE:
            return False
        goes_on = await _reply(writer, answer, fault)
        self.on_step(asked, "answered")
        return goes_on

    async def _forward(self, asked: Asked, line: str, headers: list[str]) -> _Answer:
        if self.down:
            raise ConnectionResetError
        life = self.life
        url = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            body = self.change_sent(asked)
            dropped = ("connection", "host", "content-length")
            kept = [header for header in headers if header.split(":")[0].lower() not in dropped]
            kept += [f"Content-Length: {len(body)}"] if body or asked.method == "POST" else []
            lines = [line, *kept, f"Host: {url.netloc}", "Connection: close", "", ""]
            writer.write("\r\n".join(lines).encode("latin-1") + body)
            head, body = await _message(reader, to_its_end=True)
        finally:
            writer.close()
        first, *found = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        _, status, reason = [*first.split(" ", 2), ""][:3]
        if asked.submits and status in ("200", "201"):
            job = json.loads(body)
            prompt_id = job.get("prompt_id") or job.get("id")
            if prompt_id:
                self.accepted.append(Accepted(prompt_id, asked.graph, life))
        pairs = [(name, self._there(value.strip())) for name, _, value in (header.partition(":") for header in found)]
        return _Answer(int(status), reason, pairs, self.change(asked, body))

    def _there(self, value: str) -> str:
        for url, instead in self.elsewhere.items():
            value = value.replace(url, instead)
        return value

    async def _stream(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: str | None
    ) -> bool:
        """Forward a WebSocket both ways, until one side or the fault ends it."""
        if fault == "ws_refuse" or self.down:
            return await _spoil(writer, "503")
        url = urlsplit(self.upstream)
        theirs, to_them = await asyncio.open_connection(url.hostname, url.port)
        to_them.write(head)
        writer.write(await theirs.readuntil(b"\r\n\r\n"))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, down: bool) -> None:
            passed = 0
            while chunk := await source.read(65536):
                passed += len(chunk)
                if down and fault == "ws_mute":
                    continue
                if down and fault == "ws_cut" and passed > 200:
                    return
                sink.write(chunk)
                await sink.drain()

        ways = [asyncio.create_task(pump(reader, to_them, down=False))]
        ways += [asyncio.create_task(pump(theirs, writer, down=True))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_them.close()
        return False


async def _message(reader: asyncio.StreamReader, *, to_its_end: bool = False) -> tuple[bytes, bytes]:
    """Read head and body of one message. A body without a length is empty, or runs to the end of the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = {}
    for header in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = header.partition(":")
        fields[name.lower()] = value.strip()
    if fields.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return head.replace(b"hunked", b"dentity"), body
    if "content-length" in fields:
        return head, await reader.readexactly(int(fields["content-length"]))
    return head, await reader.read() if to_its_end else b""


async def _spoil(writer: asyncio.StreamWriter, fault: str) -> bool:
    """Respond, or not, without asking the server."""
    if fault == "drop":
        return False
    if fault == "reset":
        _reset(writer)
        return False
    if fault == "page":
        answer = _Answer(200, "OK", [("Content-Type", "text/html")], b"<html><body>Please log in</body></html>")
    elif fault == REFUSED:
        text = b'{"error": {"type": "forbidden", "message": "This key may not submit jobs."}}'
        answer = _Answer(403, "Forbidden", [("Content-Type", "application/json")], text)
    else:
        headers = [("Content-Type", "text/plain"), *([("Retry-After", "0")] if fault in ("429", "503") else [])]
        headers += [("Location", "/login")] if fault in ("301", "302", "307") else []
        text = b"The queue is full" if fault == "429" else b"Something is wrong"
        answer = _Answer(int(fault), "Trouble", headers, text if fault != "304" else b"")  # which has no body
    writer.write(answer.wire() + answer.body)
    await writer.drain()
    return True


async def _reply(writer: asyncio.StreamWriter, answer: _Answer, fault: str | None) -> bool:
    """Forward the server's response to the client, or what the fault leaves of it."""
    if fault in ("swallow", "swallow_reset"):
        if fault == "swallow_reset":
            _reset(writer)
        return False
    if fault is not None and fault.endswith("_after"):
        return await _spoil(writer, fault.removesuffix("_after"))
    if fault == "shape":
        shape = SHAPES[len(answer.body) % len(SHAPES)]
        answer = _Answer(200, "OK", [("Content-Type", "application/json")], shape)
    text = answer.wire() + answer.body
    if fault in ("half", "half_head"):
        head = len(answer.wire())
        text = text[: head // 2 if fault == "half_head" or not answer.body else head + len(answer.body) // 2]
    if fault == "slow":
        step = max(1, len(text) // 7)
        for start in range(0, len(text), step):
            writer.write(text[start : start + step])
            await writer.drain()
            await asyncio.sleep(0.02)
        return True
    writer.write(text)
    await writer.drain()
    return fault is None or fault in ("delay", "shape")


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, like a crashed host or a firewall."""
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
