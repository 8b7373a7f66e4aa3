"""Servers that send too much, too slowly, or nonsense: a run ends in time, in bounded memory, with our errors."""

from __future__ import annotations

import gzip
import json
import time
from functools import cache, partial

import pytest

import sweeper
from sweeper.comfy import client as client_module
from sweeper.comfy import retry, transport
from sweeper.comfy.retry import RetryPolicy
from sweeper.errors import MAX_MESSAGE_LENGTH, SweeperError
from tests.running.hostile_server import PARTS, hostile

TEMPLATE = {
    "1": {"class_type": "Paint", "inputs": {"text": "{{ text }}"}},
    "2": {"class_type": "Keep", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
DIALECTS = tuple(PARTS)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A server that misbehaves will do so again, so these tests do not retry."""
    hasty = partial(RetryPolicy, attempts=1, total_seconds=2.0, base_wait=0.01, max_wait=0.02)
    monkeypatch.setattr(client_module, "RetryPolicy", hasty)
    monkeypatch.setattr("sweeper.running.scheduler._MAX_FAILURES_IN_A_ROW", 2)


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(TEMPLATE))
    file = tmp_path / "e.yaml"
    file.write_text("template: t.json\nparams: {text: a}\nrun: {retries: 0, timeout: 5}\n")
    return file


@pytest.fixture
def small_limits(monkeypatch):
    """The real limits are too large for a test."""
    monkeypatch.setattr(transport, "ANSWER_BYTES", 2**20)
    monkeypatch.setattr("sweeper.comfy.download.FILE_BYTES", 2**20)


@pytest.fixture
def hasty(monkeypatch):
    """An answer may make no progress for a second instead of five. An honest one may take longer on a busy machine."""
    monkeypatch.setattr(retry, "MIN_PATIENCE", 1.0)


def run(sweep, server, tmp_path, **options):
    """The status of the only trial and its error; ("refused", message) if the run does not begin."""
    try:
        target = {"url": server.url, "dialect": server.dialect, "name": "hostile"}
        sweeper.run(sweep, target, tmp_path / "out", **{"patience": 0.2, **options})
    except SweeperError as error:
        return "refused", str(error)
    row = sweeper.results(tmp_path / "out").iloc[0]
    return row["status"], row["error"]


def send_endlessly(handler):
    handler.send_forever(b"[" * 65536)


@cache
def make_bomb():
    """256 MB of zeros in 1 MB. It takes half a second, so not in every process that imports this file."""
    return gzip.compress(bytes(256 * 2**20), 1)


def send_bomb(handler):
    handler.answer(200, make_bomb(), Content_Encoding="gzip", Content_Type="image/png")


def drip_body(handler):
    handler.send_forever(b" ", pause=0.05)


def drip_header(handler):
    handler.send_forever(b"x", pause=0.05, headers=b"HTTP/1.1 200 OK\r\nX-Long: ")


@pytest.mark.usefixtures("small_limits", "hasty")
@pytest.mark.parametrize("trick", [send_endlessly, send_bomb, drip_body, drip_header])
@pytest.mark.parametrize("part", ["identity", "submission", "look", "file"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_run_ends_in_time_whatever_answer_has_no_end(dialect, part, trick, sweep, tmp_path):
    with hostile(dialect, **{part: trick}) as server:
        began = time.monotonic()
        status, _ = run(sweep, server, tmp_path)
        assert time.monotonic() - began < 30
        assert server.sent < 100 * 2**20
    assert status in ("refused", "pending", "succeeded")  # what only shows progress or versions does no harm
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 5 * 2**20


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_file_above_the_limit_needs_the_users_targets_file(dialect, is_announced, sweep, tmp_path):
    body = bytes(2**21)

    def send_large(handler):
        if is_announced:
            handler.answer(200, body, Content_Type="image/png")
        else:
            handler.close_connection = True
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: image/png\r\n\r\n" + body)

    with hostile(dialect, file=send_large) as server:
        events = []
        assert run(sweep, server, tmp_path, progress=events.append)[0] == "pending"
        assert "set `max_download_gb` for this target in your own targets file" in repr(events)
        sweep.write_text(sweep.read_text() + f"target: {{url: '{server.url}', max_download_gb: 1}}\n")
        with pytest.raises(SweeperError, match=r"max_download_gb.*only in your own targets file"):
            sweeper.load(sweep)
        target = {"url": server.url, "dialect": dialect, "name": "hostile", "max_download_gb": 1}
        sweep.write_text(sweep.read_text().rpartition("target:")[0])
        sweeper.run(sweep, target, tmp_path / "out")
    assert sweeper.results(tmp_path / "out").iloc[0]["status"] == "succeeded"


@pytest.mark.parametrize("part", ["failure", "submission", "identity"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_two_megabyte_error_text_is_cut_to_the_documented_length(dialect, part, sweep, tmp_path):
    text = "the end is near " * (2 * 2**20 // 16)
    events = []

    def refuse(handler):
        body = json.dumps({"error": {"type": "x", "message": text, "details": ""}, "node_errors": {}})
        handler.answer(400, body.encode())

    with hostile(dialect, **({} if part == "failure" else {part: refuse})) as server:
        if part == "failure":
            server.error = {"node_id": "9" * 5000, "node_type": "T" * 10**6, "exception_type": text[:10**6],
                            "exception_message": text, "traceback": [text[:100]]}  # fmt: skip
        status, error = run(sweep, server, tmp_path, progress=events.append)
    assert status == ("refused" if part == "identity" else "failed")
    assert "the end is near" in error
    assert len(error) <= MAX_MESSAGE_LENGTH + 200  # what sweeper says before it
    assert all(len(repr(event)) < 3 * MAX_MESSAGE_LENGTH for event in events)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 2**20


@pytest.mark.parametrize("dialect", DIALECTS)
def test_fifty_thousand_outputs_and_long_node_ids_end_in_a_row(dialect, sweep, tmp_path):
    with hostile(dialect) as server:
        server.outputs = {"2": {"images": [{"filename": f"{number}.png"} for number in range(50_000)]}}
        status, error = run(sweep, server, tmp_path)
        assert (status, "more than 20,000 output files" in error) == ("failed", True)
        server.outputs = {"9" * 5000: {"images": [{"filename": "a.png", "type": "output"}]}}
        sweep.write_text(sweep.read_text().replace("text: a", "text: b"))
        assert run(sweep, server, tmp_path)[0] == "succeeded"
