"""A server that echoes our key wherever it can, and a foreign host that records every request."""

from __future__ import annotations

import http.server
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Records each request, whole, before it responds."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None: ...

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.journal.append(f"{self.requestline}\n{self.headers}\n".encode() + body)
        self.respond(body)

    def respond(self, body: bytes) -> None:
        raise NotImplementedError


class Foreign(Handler):
    """A storage host that returns the same file, or a refusal, for every request."""

    def respond(self, body: bytes) -> None:
        if "refused" in self.path:
            self.answer(500, b"no")
        else:
            self.answer(200, picture(), Content_Type="image/png", ETag='"x"')


class Tattler(Handler):
    """The part of Comfy Cloud's API that a run needs. `server.trick` says where it echoes the key."""

    def respond(self, body: bytes) -> None:
        trick, key = self.server.trick, self.server.key
        path = self.path.partition("?")[0]
        echo = {
            "error": {"type": "x", "message": f"seen: {self.headers['X-API-Key']} {body.decode('utf-8', 'replace')}"}
        }
        if path == trick:
            self.answer(400 if path == "/api/prompt" else 500, json.dumps(echo).encode())
        elif path == "/api/object_info":
            node = {"input": {"required": {"text": ["STRING", {}]}}, "output": ["IMAGE"], "api_node": True}
            save = {"input": {"required": {"images": ["IMAGE", {}], "filename_prefix": ["STRING", {}]}}, "output": [],
                    "output_node": True}  # fmt: skip
            self.answer(200, json.dumps({"Paint": node, "Keep": save}).encode())
        elif path == "/api/prompt":
            self.answer(200, json.dumps({"prompt_id": "p1", "number": 1, "node_errors": {}, "you": key}).encode())
        elif path.endswith("/status"):
            state = "error" if trick == "failure" else "success"
            self.answer(200, json.dumps({"status": state, "error_message": key}).encode())
        elif path.startswith("/api/jobs/"):
            self.answer(200, json.dumps(self.details(trick, key)).encode())
        elif path == "/api/view":
            self.answer(
                302, b"", Location=f"{self.server.foreign}/{'refused' if trick == 'refused' else 'file'}{self.leak()}"
            )
        elif path == "/api/user":
            self.answer(200, json.dumps({"status": "active", "id": key}).encode())
        else:
            self.answer(404, json.dumps(echo).encode())

    def leak(self) -> str:
        from urllib.parse import quote

        return f"?key={quote(self.server.key, safe='')}" if self.server.trick == "redirect" else ""

    def details(self, trick: str, key: str) -> dict[str, Any]:
        failure = {"node_id": "1", "node_type": "Paint", "exception_type": key, "exception_message": f"bad {key}!"}
        name = f"{key.encode().hex()[:8]}.png" if trick != "name" else f"{key}.png"
        return {
            "status": "failed" if trick == "failure" else "completed",
            "outputs": {"2": {"images": [{"filename": name, "subfolder": "", "type": "output"}]}},
            "execution_error": failure if trick == "failure" else None,
        }


@contextmanager
def tattling(key: str, trick: str) -> Iterator[tuple[Any, Any]]:
    """(echo server, foreign host), both on loopback; `.journal` holds the requests to each."""
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tattler) as tattler,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as foreign,
    ):
        for one in (tattler, foreign):
            one.journal = []
            one.daemon_threads = True
            threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        tattler.key, tattler.trick = key, trick
        tattler.foreign = f"http://127.0.0.1:{foreign.server_port}"
        tattler.url = f"http://127.0.0.1:{tattler.server_port}"
        try:
            yield tattler, foreign
        finally:
            tattler.shutdown()
            foreign.shutdown()
