"""The progress display: events become a few lines on stderr, and a bar on a terminal."""

from __future__ import annotations

import io
import re
import sys
import threading
from fractions import Fraction
from pathlib import Path

import pytest

import sweeper
from sweeper.cli.progress import ProgressDisplay
from sweeper.embedded import EmbeddedServer
from sweeper.model.money import TargetPrice
from sweeper.model.result import Run
from sweeper.running import run_events as events
from sweeper.running.run_events import RunCounts
from tests.few_classes import pick_classes


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


STARTED = events.RunStarted(3, Path("results/x"), trials=5, todo=4, reused=1, targets=("embedded",))


def make_events():
    yield STARTED
    yield events.TargetReady("embedded", "cloud", "", 2)
    yield events.JobSubmitted("embedded", 1, "a", 1)
    yield events.JobSubmitted("embedded", 2, "b", 1)
    yield events.JobProgress("embedded", 1, "a", "3", 1.0, 4.0)
    yield events.TrialDone(1, "succeeded", "embedded", ("a.png",))
    yield events.TrialDone(2, "failed", "embedded", error_type="ExecutionError", error="node 3:\nno")
    yield events.JobSubmitted("embedded", 3, "c", 1)
    yield events.Retrying("embedded", 3, 2, 1.5, "connection reset")


def test_counts_of_done_failed_running_and_queued_trials():
    tally = RunCounts()
    seen = []
    for event in make_events():
        tally.count(event)
        seen.append(str(tally))

    assert seen[3] == "0 done, 0 failed, 2 under way, 2 queued"
    assert seen[6] == "1 done, 1 failed, 0 under way, 2 queued"
    assert seen[7] == "1 done, 1 failed, 1 under way, 1 queued"
    assert seen[8] == "1 done, 1 failed, 0 under way, 2 queued"


def test_counts_say_why_jobs_wait_on_the_server():
    tally = RunCounts()
    for event in (STARTED, *(events.JobSubmitted("cloud", trial, str(trial), 1) for trial in range(3))):
        tally.count(event)
    tally.count(events.JobQueued("cloud", 0, "0", "concurrency_limit", 7))
    tally.count(events.JobQueued("cloud", 1, "1", "concurrency_limit", 3))
    waiting = "3 under way (2 waiting there: concurrency limit, position 3)"
    assert str(tally) == f"0 done, 0 failed, {waiting}, 1 queued"
    tally.count(events.JobQueued("cloud", 0, "0", "", None))
    tally.count(events.JobProgress("cloud", 1, "1", "3", 0.0, 0.0))
    assert str(tally) == "0 done, 0 failed, 3 under way, 1 queued"


def test_rows_that_share_a_job_never_exceed_the_total():
    tally = RunCounts()
    for event in (events.RunStarted(1, Path("o"), 2, 1, 0, ()), events.JobSubmitted("t", 0, "a", 1)):
        tally.count(event)
    for trial in (0, 1):
        tally.count(events.TrialDone(trial, "succeeded", "t"))

    assert (tally.done, tally.total, tally.queued) == (2, 2, 0)


def test_the_cost_of_the_jobs_left_appears_after_the_first_job():
    tally = RunCounts([TargetPrice(per_second=Fraction(10_000), per_job=500_000)])
    tally.count(events.RunStarted(1, Path("o"), 3, 3, 0, ()))
    assert str(tally) == "0 done, 0 failed, 0 under way, 3 queued"
    tally.count(events.TrialDone(0, "succeeded", "t", seconds=100.0))
    assert str(tally) == "1 done, 0 failed, 0 under way, 2 queued; 2.00-5.00 USD of GPU left"  # a half to the double
    tally.count(events.TrialDone(1, "failed", "t"))
    tally.count(events.TrialDone(2, "succeeded", "t", seconds=100.0))
    assert str(tally) == "2 done, 1 failed, 0 under way, 0 queued"

    tally = RunCounts([TargetPrice(per_job=500_000), TargetPrice()])
    tally.count(events.RunStarted(1, Path("o"), 3, 3, 0, ()))
    assert str(tally) == "0 done, 0 failed, 0 under way, 3 queued; 0.00-1.50 USD of jobs left"


def test_no_cost_is_forecast_from_jobs_of_another_size():
    tally = RunCounts([TargetPrice(per_second=Fraction(10_000))])
    tally.count(events.RunStarted(1, Path("o"), 3, 3, 0, (), sizes_differ=True))
    tally.count(events.TrialDone(0, "succeeded", "t", seconds=100.0))
    unknown = "cost of GPU left unknown, because the jobs differ in size"
    assert str(tally) == f"1 done, 0 failed, 0 under way, 2 queued; {unknown}"


def test_status_lines_appear_without_a_terminal(capsys):
    times = iter([0.0, 1.0, 2.0, 20.0, 20.1])
    with ProgressDisplay(clock=lambda: next(times)) as watch:
        for event in make_events():
            watch(event)
        for trial in (3, 4):
            watch(events.TrialDone(trial, "succeeded", "embedded"))

    assert capsys.readouterr().err.splitlines() == [
        "run 3: 4 of 5 trials to do, 1 already done, into results/x",
        "embedded: sweeper's own server, 2 at a time",
        "1/4: 1 done, 0 failed, 1 under way, 2 queued",
        "failed: trial 2: ExecutionError: node 3: no",
        "trial 3: retrying in 1.5 s: connection reset",
        "4/4: 3 done, 1 failed, 0 under way, 0 queued",
    ]


def test_quiet_still_shows_failures_and_stop_reasons(capsys):
    with ProgressDisplay(quiet=True) as watch:
        for event in make_events():
            watch(event)
        watch(events.TargetDown("embedded", "no answer", final=True))
        watch(events.Draining(2, "interrupt"))
        watch(events.Cancelling(1))

    assert capsys.readouterr().err.splitlines() == [
        "failed: trial 2: ExecutionError: node 3: no",
        "embedded: no answer; it gets no more trials",
        "interrupted: submitting no more, waiting for 2 jobs in flight; press Ctrl-C again to cancel",
        "cancelling 1 job",
    ]


def test_only_the_first_failures_are_shown(capsys):
    with ProgressDisplay(quiet=True) as watch:
        for trial in range(30):
            watch(events.TrialDone(trial, "failed", "t", error_type="E", error="no"))

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "more trials failed: see the table"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            events.RunStarted(2, Path("o"), 5, 0, 5, ()),
            "nothing to do: all 5 trials are already done",
        ),
        (
            events.RunStarted(2, Path("o"), 5, 0, 5, (), failed=3),
            "nothing to do: all 5 trials have ended: 2 succeeded, 3 failed; --retry-failed runs those again",
        ),
        (
            events.RunStarted(2, Path("o"), 5, 0, 2, ()),
            "nothing to do: 2 of 5 trials are already done; --where or --limit excludes the others",
        ),
        (
            events.RunStarted(2, Path("o"), 5, 0, 0, ()),
            "nothing to do: --where or --limit excludes all 5 trials",
        ),
        (events.TargetReady("mine", "comfyui", "0.3.64", 2), "mine: ComfyUI 0.3.64, 2 at a time"),
        (events.TargetReady("mine", "newer", "", 2), "mine: newer, 2 at a time"),
        (
            events.TargetDown("mine", "reset", final=False, patience=300.0),
            "mine: reset; retrying until it responds, for up to 300 s if no other target can continue",
        ),
        (events.Notice("a.png: metric 'mine' failed"), "warning: a.png: metric 'mine' failed"),
        (events.TargetUp("mine", 36.4), "mine: responds again after 36 s"),
        (events.TargetBusy("mine", 2.0, 1, "queue full"), "mine: busy, retrying in 2.0 s: queue full"),
        (
            events.Draining(1, "max_failures"),
            "too many failures: submitting no more, waiting for 1 job in flight",
        ),
        (events.RunEnded(Run(1, Path("o"), 0, 0, 0, 0, 0, 0, 0)), None),
    ],
)
def test_important_events_print_one_line(capsys, event, line):
    with ProgressDisplay() as watch:
        watch(event)

    assert capsys.readouterr().err == ("" if line is None else f"{line}\n")


def test_terminal_shows_a_bar_with_failures_above_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    with ProgressDisplay() as watch:
        for event in make_events():
            watch(event)

    text = terminal.getvalue()
    assert "2/4" in text
    assert "1 done, 1 failed, 0 under way, 2 queued" in text
    assert "trial 2: ExecutionError: node 3: no" in text


def test_two_runs_share_one_bar_and_count_from_zero(monkeypatch):
    terminal, threads = Terminal(), set(threading.enumerate())
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    with ProgressDisplay() as watch:
        for event in make_events():
            watch(event)
        watch(events.RunStarted(4, Path("results/y"), trials=3, todo=3, reused=0, targets=("embedded",)))
        so_far = len(terminal.getvalue())

    last = terminal.getvalue()[so_far:]
    assert "0/3" in last
    assert "0 done, 0 failed, 0 under way, 3 queued" in last
    assert "2/4" not in last
    for thread in set(threading.enumerate()) - threads:
        thread.join(60)
        assert not thread.is_alive()  # no bar keeps drawing


def test_no_color_is_obeyed(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    with ProgressDisplay(quiet=True) as watch:
        watch(events.TrialDone(2, "failed", "t", error_type="E", error="no"))

    assert terminal.getvalue() == "failed: trial 2: E: no\n"


def test_line_says_that_the_run_waits_for_a_dead_target(capsys, write):
    """The server stops in the middle of the run, and nothing else can go on."""
    with EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as server:
        server.faults.stall_nodes = {"KSampler"}
        url, seen = server.url, []
        with ProgressDisplay() as watch:

            def stop_the_server(event):
                seen.append(event)
                watch(event)
                if isinstance(event, events.JobSubmitted):
                    server.stop()

            file = write("name: shop\ntemplate: t.json\nsweep: {grid: {seed: [1, 2]}}\n")
            run = sweeper.run(file, url, progress=stop_the_server, patience=1.5, concurrency=1)

    assert (run.stopped_by, run.pending) == ("unreachable", 2)
    lines = capsys.readouterr().err.splitlines()
    (how,) = [line for line in lines if line.startswith("the run now waits only for")]
    assert url in how
    assert "press Ctrl-C and run the command again with other targets (--target): finished trials stay done" in how
    (first, *_) = [line for line in lines if "; waiting only for" in line]
    assert re.search(rf"; waiting only for {re.escape(url)}, \d s left$", first)
    waits = [event.seconds for event in seen if isinstance(event, events.WaitingForTarget)]
    assert 0 < waits[0] <= 1.5


def test_wait_ends_in_the_counts_with_the_target_or_another():
    tally = RunCounts()
    for target in ("a", "b"):
        tally.count(events.WaitingForTarget(target, 290.0))
    assert str(tally).endswith("; waiting only for a and b, 290 s left")
    tally.count(events.WaitingForTarget("a", None))
    tally.count(events.TargetUp("b", 12.0))
    assert str(tally) == "0 done, 0 failed, 0 under way, 0 queued"
