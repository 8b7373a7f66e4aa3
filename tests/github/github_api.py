"""GitHub's API for comments on an issue, as far as the action uses it, on a port of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "ghs_a-secret-token"


class GitHub(ThreadingHTTPServer):
    """`comments` are those of pull request 7 of someone/pictures, one on each page of the list."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.comments: list[dict[str, Any]] = []
        self.writes: list[str] = []
        self.may_write = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, login: str | None, body: str) -> dict[str, Any]:
        url = f"{self.url}/repos/someone/pictures/issues/comments/{len(self.comments)}"
        comment = {"url": url, "user": login and {"login": login}, "body": body}
        self.comments.append(comment)
        return comment


class _Handler(BaseHTTPRequestHandler):
    server: GitHub

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        assert path == "/repos/someone/pictures/issues/7/comments"
        page = int(dict(pair.split("=") for pair in query.split("&")).get("page", "1"))
        more = page < len(self.server.comments)
        link = f'<{self.server.url}{path}?per_page=100&page={page + 1}>; rel="next"' if more else ""
        self._answer(200, self.server.comments[page - 1 : page], link)

    def do_POST(self) -> None:
        assert self.path == "/repos/someone/pictures/issues/7/comments"
        self._write(lambda body: self.server.add("github-actions[bot]", body))

    def do_PATCH(self) -> None:
        comment = self.server.comments[int(self.path.rpartition("/")[2])]
        self._write(lambda body: comment.update(body=body))

    def _write(self, change: Any) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
        if not self.server.may_write or self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer(403, {"message": "Resource not accessible by integration"})
            return
        self.server.writes.append(self.command)
        change(body)
        self._answer(200, {})

    def _answer(self, status: int, value: Any, link: str = "") -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        if link:
            self.send_header("Link", link)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def serve_github() -> Iterator[GitHub]:
    with GitHub() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(timeout=60)
