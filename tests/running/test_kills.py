"""kill -9 of the runner at every step (statement of the store, file, request), and then the same command again.

By default some evenly spaced steps are tried; SWEEPER_SCHEDULES=100 or more tries all of them.
"""

from __future__ import annotations

import os
import signal

import pytest

from tests.running.fault_proxy import Asked
from tests.running.invariants import broken_promises
from tests.running.servers import DIALECTS, Served

MANY = int(os.environ.get("SWEEPER_SCHEDULES", "0").rpartition(":")[2]) >= 100
SOME = 4
TRIALS = 2

pytestmark = pytest.mark.timeout(3600 if MANY else 120)  # all steps on a real server take half an hour


def chosen(number: int, salt: int) -> list[int]:
    """All of 1 to `number`, or some evenly spaced ones."""
    if MANY or number <= SOME:
        return list(range(1, number + 1))
    return [1 + (salt + index * number // SOME) % number for index in range(SOME)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_same_command_recovers_from_a_kill_at_any_disk_step(dialect, runners, coloured, tmp_path, capsys):
    plan = coloured(TRIALS)
    with Served(dialect, tmp_path / "first") as server:
        ended = runners.run(plan, server.target(concurrency=1), tmp_path / "steps", steps=True)
    assert ended.said[-2] == "stopped_by None", ended.said
    broken, killed = [], 0
    steps = ended.steps
    for step in chosen(len(steps), salt=len(dialect)):
        out = tmp_path / f"out-{step}"
        with Served(dialect, tmp_path / f"data-{step}") as server:
            killed += runners.run(plan, server.target(concurrency=1), out, die_at=step).killed
            last = runners.run(plan, server.target(concurrency=1), out)
            found = broken_promises(out, TRIALS, [server])
            broken += [f"step {step} ({[*steps, '?'][step - 1]}): {line}; {last.said[-1:]}" for line in found]
    with capsys.disabled():
        print(f"\n{dialect}: {killed} kills, of {len(steps)} steps on disk", end=" ")  # noqa: T201 (the count is asked for)
    assert not broken, "\n".join(broken)
    assert killed


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_same_command_recovers_from_a_kill_at_any_request(dialect, runners, coloured, tmp_path, capsys):
    plan = coloured(TRIALS)
    with Served(dialect, tmp_path / "first") as server:
        ended = runners.run(plan, server.target(concurrency=1), tmp_path / "steps")
        assert ended.said[-1] == "stopped_by None", ended.said
        requests = server.proxy.requests
    moments = [(number, when) for number in range(1, requests + 1) for when in ("before", "after", "answered")]
    broken, killed = [], 0
    for index in chosen(len(moments), salt=len(dialect)):
        number, when = moments[index - 1]
        out = tmp_path / f"out-{index}"
        with Served(dialect, tmp_path / f"data-{index}") as server:
            runner = runners.start(plan, server.target(concurrency=1), out)

            def kill(asked: Asked, now: str, runner=runner, number=number, when=when) -> None:
                if (asked.number, now) == (number, when):
                    runner.send(signal.SIGKILL)

            server.proxy.on_step = kill
            killed += runner.wait().killed
            server.proxy.on_step = lambda *_: None
            last = runners.run(plan, server.target(concurrency=1), out)
            found = broken_promises(out, TRIALS, [server])
            broken += [f"request {number} {when}: {line}; {last.said[-1:]}" for line in found]
    with capsys.disabled():
        print(f"\n{dialect}: {killed} kills, of {len(moments)} moments of {requests} requests", end=" ")  # noqa: T201
    assert not broken, "\n".join(broken)
    assert killed
