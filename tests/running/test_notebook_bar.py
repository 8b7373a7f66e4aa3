"""The progress of a run in a notebook, and how interrupting its cell stops the run."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import sweeper
from sweeper.running import run_events as events
from sweeper.running.run import NotebookBar, make_notebook_bar
from sweeper.running.run_events import JobSubmitted

STARTED = events.RunStarted(3, Path("results/x"), trials=5, todo=4, reused=1, targets=("embedded",))


def draw(*happened: events.Event) -> tuple[str, str]:
    """The HTML and the text that the bar shows at the end."""
    shown = []
    bar = NotebookBar(lambda markup, text: shown.append((markup, text)))
    for event in (*happened, events.RunEnded(None)):
        bar(event)
    return shown[-1]


def test_a_bar_shows_counts_and_problems_and_escapes_them():
    failed = events.TrialDone(1, "failed", "t", error_type="ExecutionError", error="<b>no</b>")
    markup, text = draw(STARTED, failed, events.TrialDone(2, "succeeded", "t"), events.Notice("mind & care"))
    assert text.splitlines() == [
        "2/4: 1 done, 1 failed, 0 under way, 2 queued",
        "trial 1: ExecutionError: <b>no</b>",
        "mind & care",
    ]
    assert '<progress value="2" max="4"' in markup
    assert "trial 1: ExecutionError: &lt;b&gt;no&lt;/b&gt;" in markup
    assert "<script" not in markup


def test_the_bar_of_a_search_shows_its_round():
    planned = events.RoundPlanned(2, 4, 4, asked=4, limit=8, best=None)
    _, text = draw(planned, STARTED)
    assert text == "0/4: 0 done, 0 failed, 0 under way, 4 queued; round 2, 4 of 8 trials before it"


def test_many_problems_are_cut():
    _, text = draw(STARTED, *(events.Notice(f"warning {number}") for number in range(9)))
    assert text.splitlines()[1:] == [*(f"warning {number}" for number in range(5)), "…"]


def test_only_the_thread_of_the_notebook_draws():
    shown = []
    bar = NotebookBar(lambda markup, text: shown.append(text))
    thread = threading.Thread(target=bar, args=(STARTED,))
    thread.start()
    thread.join(60)
    assert shown == []
    bar.refresh()
    assert shown == ["0/4: 0 done, 0 failed, 0 under way, 4 queued"]


def test_there_is_no_bar_outside_a_notebook():
    assert make_notebook_bar() is None


def test_interrupting_a_cell_drains_its_run(server, target, experiment, tmp_path):
    server.faults.stall_nodes = {"Paint"}
    interrupted = threading.Event()

    def watch(event):
        if isinstance(event, JobSubmitted) and not interrupted.is_set():
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)
        if isinstance(event, events.Draining):
            server.faults.release()

    async def cell():
        # A Jupyter kernel sets this handler for each cell, which it executes inside its event loop.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return sweeper.run(experiment(seed=[1, 2, 3, 4]), target, tmp_path / "out", progress=watch, concurrency=1)
        finally:
            signal.signal(signal.SIGINT, before)

    run = asyncio.run(cell())
    assert (run.stopped_by, run.succeeded, run.pending) == ("interrupt", 1, 3)
