"""A server that speaks either dialect as far as one job needs it, and whose answers a test replaces one by one."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.running.echo_server import Handler, picture

# What a run asks for, by dialect: each of these answers can be replaced.
PARTS = {
    "cloud": {"identity": "/api/user", "cancel": "/api/jobs/cancel", "look": "/api/jobs/", "listing": "/api/jobs",
              "classes": "/api/object_info", "submission": "/api/prompt", "upload": "/api/upload", "file": "/api/view"},
    "comfyui": {"identity": "/system_stats", "cancel": "/api/jobs/cancel", "look": "/api/jobs/",
                "listing": "/api/jobs", "classes": "/object_info", "submission": "/prompt", "upload": "/upload",
                "file": "/view"},
}  # fmt: skip
CLASSES = {
    "Paint": {"input": {"required": {"text": ["STRING", {}]}}, "output": ["IMAGE"]},
    "Keep": {"input": {"required": {"images": ["IMAGE", {}], "filename_prefix": ["STRING", {}]}}, "output": [],
             "output_node": True},
}  # fmt: skip
OUTPUTS: dict[str, Any] = {"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """The client hung up, as it should."""


class HostileHandler(Handler):
    def respond(self, body: bytes) -> None:
        path = self.path.partition("?")[0]
        if self.server.storage is not None and path == "/storage":
            self.server.storage(self)
            return
        parts = PARTS[self.server.dialect]
        part = next((part for part, prefix in parts.items() if path.startswith(prefix)), "other")
        if part == "submission":
            sent = json.loads(body)
            self.server.graph = sent.get("prompt")
            self.server.job = sent.get("prompt_id") or f"p{self.server.submissions}"
            self.server.submissions += 1
        trick = self.server.tricks.get(part)
        if trick is not None and self.command in ("GET", "POST"):
            trick(self)
            return
        self.send_json(self.make_answer(part), 404 if part == "other" else 200)

    def make_answer(self, part: str) -> Any:
        job = self.server.job
        outputs, error = self.server.outputs, self.server.error
        if part == "classes":
            return CLASSES
        if part == "submission":
            return {"prompt_id": job, "number": 1, "node_errors": {}}
        if part == "cancel":
            return {"cancelled": True}
        if part == "listing":
            return {"jobs": [{"id": job}] if self.server.is_listed else []}
        if part == "identity":
            return {"system": {"comfyui_version": "0.33.0", "argv": []}, "devices": [], "status": "active"}
        status, graph = "failed" if error else "completed", self.server.graph
        return {"status": status, "outputs": outputs, "execution_error": error, "workflow": graph}

    def send_json(self, value: Any, status: int = 200) -> None:
        if self.path.partition("?")[0] == PARTS[self.server.dialect]["file"]:
            self.answer(200, picture(), Content_Type="image/png")
        else:
            self.answer(status, json.dumps(value).encode())

    def stay_silent(self) -> None:
        """Send nothing until the test ends."""
        self.close_connection = True
        while not self.server.is_over:
            time.sleep(0.05)

    def send_forever(self, chunk: bytes, *, pause: float = 0.0, headers: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        """Send `chunk` until the client hangs up; `server.sent` counts the bytes."""
        self.close_connection = True
        self.wfile.write(headers)
        while not self.server.is_over:
            self.wfile.write(chunk)
            self.wfile.flush()
            self.server.sent += len(chunk)
            time.sleep(pause)


Trick = Callable[[HostileHandler], None]


@contextmanager
def hostile(dialect: str, **tricks: Trick) -> Iterator[Any]:
    """A server on loopback. `tricks` replace the answers of these parts (see `PARTS`)."""
    with _Server(("127.0.0.1", 0), HostileHandler) as server:
        server.dialect, server.tricks, server.journal = dialect, tricks, []  # type: ignore[attr-defined]
        server.outputs, server.error, server.job, server.storage = OUTPUTS, None, "p1", None  # type: ignore[attr-defined]
        server.sent, server.is_over = 0, False  # type: ignore[attr-defined]
        server.submissions, server.is_listed, server.graph = 0, True, None  # type: ignore[attr-defined]
        server.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield server
        finally:
            server.is_over = True  # type: ignore[attr-defined]
            server.shutdown()
