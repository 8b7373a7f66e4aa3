"""Servers whose answers never end: a run ends soon after its patience, and nothing is paid for twice."""

from __future__ import annotations

import itertools
import json
import threading
import time
from functools import partial

import pytest
from PIL import Image

import sweeper
from sweeper.cli.exit_codes import get_exit_code, get_run_exit_code
from sweeper.comfy import client as client_module
from sweeper.comfy import retry
from sweeper.comfy.retry import RetryPolicy
from sweeper.errors import SweeperError
from tests.running.echo_server import picture
from tests.running.hostile_server import CLASSES, hostile
from tests.waiting import check_at_once

TEMPLATE = {
    "1": {"class_type": "Paint", "inputs": {"text": "{{ text }}"}},
    "2": {"class_type": "Keep", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
DIALECTS = ("cloud", "comfyui")
PATIENCE = 1.0
# A run takes about 5 s here; 45 s without the progress rule, and more on a busy machine in both cases.
LONGEST = 35.0
OK = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"


@pytest.fixture(autouse=True)
def _patience_of_a_second(monkeypatch):
    """An answer may make no progress for one second instead of five."""
    monkeypatch.setattr(retry, "MIN_PATIENCE", PATIENCE)
    monkeypatch.setattr("sweeper.running.scheduler.MIN_PATIENCE", PATIENCE)


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(TEMPLATE))
    file = tmp_path / "e.yaml"
    file.write_text("template: t.json\nparams: {text: a}\nrun: {retries: 2, timeout: 2}\n")
    return file


def run(sweep, server, tmp_path, **options):
    """Run a sweep: its exit code, and its Run; or the message if it does not begin."""
    target = {"url": server.url, "dialect": server.dialect, "name": "slow"}
    try:
        ended = sweeper.run(sweep, target, tmp_path / "out", **{"patience": PATIENCE, **options})
    except SweeperError as error:
        return get_exit_code(error), str(error)
    bad = ended.failed or ended.cancelled or ended.stopped_by or ended.error  # as `sweeper run` has it
    return get_run_exit_code(ended.stopped_by, ok=not bad), ended


def stay_silent(handler):
    handler.stay_silent()


def drip_head(handler):
    handler.send_forever(b"x", pause=0.3, headers=b"HTTP/1.1 200 OK\r\nX-Long: ")


def send_early_hints(handler):
    handler.send_forever(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", pause=0.01, headers=b"")


def drip_chunks(handler):
    handler.send_forever(b"1\r\n \r\n", pause=0.3, headers=OK + b"Transfer-Encoding: chunked\r\n\r\n")


def drip_chunk_extension(handler):
    handler.send_forever(b"x", pause=0.3, headers=OK + b"Transfer-Encoding: chunked\r\n\r\n1;")


def stop_in_the_middle(handler):
    handler.wfile.write(OK + b"Content-Length: 1000\r\n\r\n" + b"{" * 500)
    handler.stay_silent()


def ask_for_a_day(handler):
    handler.answer(503, b'{"error": "busy"}', Retry_After="86400", Content_Type="application/json")


def show_running(handler):
    handler.send_json({"status": "in_progress"})


ENDLESS = (
    stay_silent, drip_head, send_early_hints, drip_chunks, drip_chunk_extension, stop_in_the_middle, ask_for_a_day,
)  # fmt: skip


@pytest.mark.parametrize("trick", ENDLESS)
def test_answer_without_progress_ends_the_run_and_is_paid_once(trick, sweep, tmp_path):
    def check(dialect, part):
        folder = tmp_path / f"{dialect} {part}"
        with hostile(dialect, **{part: trick}) as server:
            began = time.monotonic()
            code, ended = run(sweep, server, folder)
            assert time.monotonic() - began < LONGEST
            assert (code in (1, 3), ended.pending) == (True, 1)
            server.tricks.clear()
            assert run(sweep, server, folder, patience=30.0)[1].succeeded == 1
            assert server.submissions == 1

    check_at_once(check, itertools.product(DIALECTS, ("look", "file")))


@pytest.mark.parametrize("trick", ENDLESS)
def test_run_begins_or_ends_soon_without_an_answer(trick, sweep, tmp_path):
    def check(part):
        with hostile("comfyui", **{part: trick}) as server:
            server.is_listed = False
            began = time.monotonic()
            code, _ = run(sweep, server, tmp_path / part)
            assert time.monotonic() - began < LONGEST
            assert code == {"identity": 3, "classes": 0}.get(part, code)
            assert code in (1, 3) or part == "classes"  # without its classes, the plan is not checked
            assert server.submissions <= (2 if trick is ask_for_a_day else 1)

    check_at_once(check, [("identity",), ("submission",), ("classes",)])


@pytest.mark.parametrize("second", [stay_silent, None], ids=["then silent", "then done"])
def test_job_that_only_seems_to_run_ends_the_run(second, sweep, tmp_path):
    """It runs, then its end (or its file) does not arrive, then it runs again: each look seems to show progress."""
    looks = []

    def alternate(handler):
        looks.append(handler.path)
        if len(looks) % 2:
            show_running(handler)
        elif second is None:
            handler.send_json(handler.make_answer("look"))
        else:
            second(handler)

    with hostile("comfyui", look=alternate, file=drip_chunks) as server:
        began = time.monotonic()
        code, ended = run(sweep, server, tmp_path)
        assert time.monotonic() - began < LONGEST
        assert (code in (1, 3), ended.succeeded, server.submissions) == (True, 0, 1)


def test_submission_that_is_accepted_late_is_not_sent_again(sweep, tmp_path, monkeypatch):
    """It takes longer than a request may be silent, and searches find no trace of it until then."""
    monkeypatch.setattr(client_module, "RetryPolicy", partial(RetryPolicy, stall_seconds=PATIENCE))

    def check(dialect, patience):
        acceptance, folder = threading.Event(), tmp_path / f"{dialect} {patience}"

        def accept_late(handler):
            assert acceptance.wait(60)
            handler.server.is_listed = True

        with hostile(dialect, submission=accept_late) as server:
            server.is_listed = False
            seconds = 10 * PATIENCE
            if patience == PATIENCE:  # this run ends before, and the next one begins before
                assert run(sweep, server, folder, patience=patience)[0] in (1, 3)
                seconds = 5 * PATIENCE
            threading.Timer(seconds, acceptance.set).start()
            assert run(sweep, server, folder, patience=60.0)[1].succeeded == 1
            assert server.submissions == 1

    check_at_once(check, itertools.product(DIALECTS, (PATIENCE, 60.0)))


def test_target_that_completes_nothing_gets_no_more_trials(sweep, tmp_path):
    sweep.write_text("template: t.json\nsweep: {grid: {text: [a, b, c, d, e, f, g, h, i, j, k, l]}}\n")
    with hostile("comfyui", file=drip_chunks) as server:
        code, ended = run(sweep, server, tmp_path, concurrency=1)
        assert (code, ended.stopped_by, ended.pending) == (3, "unreachable", 12)
        assert "responds, but completed none of the last 3 trials: a.png: the server sends too slowly" in ended.error
        assert server.submissions < 12


def test_upload_without_an_answer_fails_the_run(sweep, tmp_path):
    graph = {**TEMPLATE, "1": {"class_type": "Load", "inputs": {"image": "a.png"}}}
    classes = CLASSES | {
        "Load": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}, "output": ["IMAGE"]}
    }
    (tmp_path / "t.json").write_text(json.dumps(graph))
    (tmp_path / "t.slots.yaml").write_text("slots: {image: {at: 1.image, kind: file}}")
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png")
    sweep.write_text("template: t.json\nparams: {image: in.png}\n")
    with hostile("comfyui", upload=stay_silent, classes=lambda handler: handler.send_json(classes)) as server:
        code, ended = run(sweep, server, tmp_path)
        assert (code in (1, 3), ended.pending, server.submissions) == (True, 1, 0)
        assert "trial 0 was not sent: no complete answer header" in ended.error


def test_missing_files_are_not_all_requested_from_a_stalling_server(sweep, tmp_path):
    sweep.write_text("template: t.json\nsweep: {grid: {text: [a, b, c, d, e, f]}}\n")
    requests, events = [], []

    def count(handler):
        requests.append(handler.path)
        handler.stay_silent()

    with hostile("comfyui") as server:
        run(sweep, server, tmp_path, patience=30.0)
        for file in (tmp_path / "out" / "artifacts").iterdir():
            file.unlink()
        server.tricks["file"] = count
        run(sweep, server, tmp_path, progress=events.append)
    assert len(requests) == 3
    assert "could not be downloaded again from slow (no response)" in repr(events)


def test_slow_link_and_a_pause_within_patience_do_no_harm(sweep, tmp_path):
    """20 KB per second, and a pause in the middle of the file."""
    body = picture() + bytes(60_000)

    def send_slowly(handler):
        handler.wfile.write(OK + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 2000):
            handler.wfile.write(body[start : start + 2000])
            handler.wfile.flush()
            time.sleep(2.5 if start == 30_000 else 0.1)

    with hostile("comfyui", file=send_slowly) as server:
        code, ended = run(sweep, server, tmp_path, patience=20.0)
    assert (code, ended.succeeded, server.submissions) == (0, 1, 1)
    (file,) = (tmp_path / "out" / "artifacts").iterdir()
    assert file.stat().st_size == len(body)
