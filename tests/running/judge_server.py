"""A small server in the shape of an OpenAI-compatible API. It answers as a test says and records what it is asked."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class JudgeServer:
    """`reply(body)` gives the content of an answer, or (status, headers, JSON) of another response."""

    url: str = ""
    reply: Callable[[dict[str, Any]], Any] = lambda body: "yes"
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return [body["messages"][0]["content"][0]["text"] for body in self.bodies]


@contextmanager
def serve_judge() -> Iterator[JudgeServer]:
    judge = JudgeServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            judge.bodies.append(body)
            judge.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = judge.reply(body) if self.path == "/v1/chat/completions" else (404, {}, {})
            if not isinstance(answer, tuple):
                answer = 200, {}, {"choices": [{"message": {"role": "assistant", "content": answer}}]}
            status, headers, content = answer
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(json.dumps(content)))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        judge.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield judge
        finally:
            server.shutdown()
            thread.join()
