"""A small client of the Language Server Protocol, for the YAML language server that editors use.

The messages are JSON-RPC with a `Content-Length` header, over the standard streams of the server's process.
https://microsoft.github.io/language-server-protocol/specifications/lsp/3.17/specification/
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self

from tests import ROOT
from tests.waiting import SECONDS

PACKAGE = ROOT / ".ci/eslint/node_modules/yaml-language-server"
_COMMAND = ["node", str(PACKAGE / "bin/yaml-language-server"), "--stdio"]
# What the editor can do. Without snippets, the server leaves out the forms that have several keys.
_CAPABILITIES = {
    "textDocument": {
        "completion": {"completionItem": {"snippetSupport": True, "documentationFormat": ["markdown"]}},
        "hover": {"contentFormat": ["markdown"]},
    },
    "workspace": {"configuration": True},
}


def find_missing_part() -> str:
    """Return what the server needs and this machine does not have; empty if it has everything."""
    if shutil.which("node") is None:
        return "node is not here"
    return "" if PACKAGE.is_dir() else "the YAML language server is not here; run: npm ci --prefix .ci/eslint"


class LanguageServer:
    """The server's process, as an editor uses it. A context manager."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """`settings`: those of the server under `yaml`. `folder`: where the documents seem to be."""
        self._folder = folder
        self._settings = {"yaml": settings}
        self._messages: Queue[dict[str, Any]] = Queue()
        self._diagnostics: dict[str, list[dict[str, Any]]] = {}
        self._last_id = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read_messages, daemon=True)
        self._reader.start()
        self._request("initialize", processId=None, rootUri=self._folder.as_uri(), capabilities=_CAPABILITIES)
        self._notify("initialized")
        self._notify("workspace/didChangeConfiguration", settings=self._settings)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _read_messages(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while header := stream.readline():
            length = int(header.split(b":")[1])
            while stream.readline().strip():  # other headers, up to the empty line
                pass
            self._messages.put(json.loads(stream.read(length)))

    def _send(self, **message: Any) -> None:
        content = json.dumps({"jsonrpc": "2.0", **message}).encode()
        stream = self._process.stdin
        assert stream is not None
        stream.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        stream.flush()

    def _notify(self, method: str, **params: Any) -> None:
        self._send(method=method, params=params)

    def _request(self, method: str, **params: Any) -> Any:
        self._last_id += 1
        self._send(id=self._last_id, method=method, params=params)
        while True:
            message = self._receive()
            if message.get("id") == self._last_id and "method" not in message:
                assert "error" not in message, message
                return message["result"]

    def _receive(self) -> dict[str, Any]:
        """Return the next message. Answer what the server asks, and keep what it finds in documents."""
        try:
            message = self._messages.get(timeout=SECONDS)
        except Empty:
            raise AssertionError("the language server does not respond") from None
        method, params = message.get("method"), message.get("params", {})
        if method == "workspace/configuration":
            answer = [self._settings.get(item["section"], {}) for item in params["items"]]
            self._send(id=message["id"], result=answer)
        elif method is not None and "id" in message:
            self._send(id=message["id"], result=None)
        elif method == "textDocument/publishDiagnostics":
            self._diagnostics[params["uri"]] = params["diagnostics"]
        return message

    def open(self, name: str, text: str) -> str:
        """Open a document of this name, which no other one has. Return its URI."""
        uri = (self._folder / name).as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._notify("textDocument/didOpen", textDocument=document)
        return uri

    def complete(self, uri: str, line: int, character: int) -> dict[str, dict[str, Any]]:
        """Return what the editor offers at a position, by the label that it shows."""
        answer = self._ask("completion", uri, line, character)
        return {item["label"]: item for item in answer["items"]}

    def hover(self, uri: str, line: int, character: int) -> str:
        """Return what the editor shows of a key, without the backslashes of Markdown."""
        answer = self._ask("hover", uri, line, character)
        return re.sub(r"\\(.)", r"\1", answer["contents"]["value"]) if answer else ""

    def _ask(self, what: str, uri: str, line: int, character: int) -> Any:
        position = {"line": line, "character": character}
        return self._request(f"textDocument/{what}", textDocument={"uri": uri}, position=position)

    def wait_for_diagnostics(self, uri: str) -> list[dict[str, Any]]:
        """Return the mistakes that the server finds in a document, in the order of the document."""
        while uri not in self._diagnostics:
            self._receive()
        return sorted(self._diagnostics[uri], key=lambda one: tuple(one["range"]["start"].values()))
