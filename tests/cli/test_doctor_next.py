"""`sweeper doctor` and servers that are not ComfyUI: the next step fits the server and shows no credentials."""

from __future__ import annotations

import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager

import httpx
import pytest

KEY = "sk-live-0123456789/SECRET"


@contextmanager
def serve_page(location=None, context=None):
    """The address of a web server that has one page, or redirects every path."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if location is None else 301)
            if location is not None:
                self.send_header("Location", location(self.path))
            self.end_headers()
            self.wfile.write(b"<html>It works!</html>")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def serve_nothing():
    """The address of a server that accepts connections and never responds."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def get_next_step(outcome):
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("next: ")]
    return line.removeprefix("next: ")


def test_next_step_for_a_web_server_that_is_not_comfyui(sweeper):
    with serve_page() as address:
        outcome = sweeper("doctor", "-t", f"http://{address}")
        assert outcome.code == 3
        assert get_next_step(outcome).startswith("another server responds there: correct the host, port or path")
        assert get_next_step(sweeper("doctor", "-t", f"https://{address}")).startswith(
            "the server does not use TLS on that port"
        )


def test_next_step_for_a_server_that_never_responds(sweeper, monkeypatch):
    monkeypatch.setattr("sweeper.comfy.client.TIMEOUT", httpx.Timeout(0.1))
    with serve_nothing() as address:
        outcome = sweeper("doctor", "-t", f"http://{address}")
    assert outcome.code == 3
    assert get_next_step(outcome).startswith("no response in time: check the server's log")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="a certificate is made with openssl")
def test_next_step_for_a_self_signed_certificate(sweeper, tmp_path):
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    subprocess.run(
        [*openssl, "-keyout", tmp_path / "k.pem", "-out", tmp_path / "c.pem"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    with serve_page(context=context) as address:
        outcome = sweeper("doctor", "-t", f"https://{address}")
        assert outcome.code == 3
        assert get_next_step(outcome).startswith("use the host name in the certificate, or set SSL_CERT_FILE")
        assert get_next_step(sweeper("doctor", "-t", f"http://{address}")).startswith(
            "the server accepts the connection and closes"
        )


@pytest.mark.parametrize("dialect", [None, "comfyui", "cloud"])
def test_redirect_is_shown_without_credentials(sweeper, write, monkeypatch, dialect):
    monkeypatch.setenv("MY_KEY", KEY)
    secret = "0123456789%2fSECRET"
    with serve_page(lambda path: f"https://me:pass-WORD@gpu.example/sk-live-{secret}{path}?token={KEY}") as address:
        target = f"url: 'http://{address}/base', api_key_env: MY_KEY" + (f", dialect: {dialect}" if dialect else "")
        file = write(f"template: t.json\nparams: {{prompt: a, seed: 1}}\ntarget: {{{target}}}\n")
        outcome = sweeper("doctor", file, "--trust")
    assert outcome.code == 3
    assert "answers with a redirect (HTTP 301) to https://gpu.example/***/base: use that address" in outcome.err
    assert not [word for word in ("pass-WORD", "?token", "SECRET") if word in outcome.out + outcome.err]
