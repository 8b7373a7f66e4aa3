"""`doctor` and `plan` on a ComfyUI 0.33.0 whose RAM cache keeps all results, or those of the last job only."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sweeper import embedded

GRID = "template: t.json\nsweep: {grid: {seed: [1, 2], prompt: [a, b]}}\n"


@pytest.fixture
def start_comfyui():
    """A function that starts a server with this command line and 20 of 24 GiB free; it returns the URL."""
    servers = []

    def start(*arguments):
        system = {
            "comfyui_version": "0.33.0", "argv": ["main.py", *arguments],
            "ram_total": 24 * 2**30, "ram_free": 20 * 2**30,
        }  # fmt: skip
        answers = {"/system_stats": {"system": system, "devices": []}, "/object_info": embedded.node_classes()}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps(answers.get(self.path)).encode()
                self.send_response(200 if self.path in answers else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Print nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "case",
    [
        ((), "ram, last job only", "prompt > seed"),
        (("--cache-ram", "2", "8"), "ram", "seed > prompt"),
        (("--cache-classic",), "classic", "prompt > seed"),
    ],
)
def test_doctor_and_plan_name_the_cache_and_its_reason(sweeper, write, start_comfyui, case):
    arguments, cache, order = case
    url = start_comfyui(*arguments)
    file = write(GRID)
    assert f"version 0.33.0, cache {cache}\n" in sweeper("doctor", "-t", url).out
    plan = sweeper("plan", file, "-t", url).out
    assert f"order     {order}  (auto, outermost first" in plan
    reason = "the written order, because the server keeps the results of all jobs while its memory lasts"
    assert (reason in plan) == (cache == "ram")
    assert sweeper("plan", file, "-t", url, "--json").json["order"]["caching"] == cache
