"""Seeded schedules of faults over real sockets: whatever fails, every trial ends as one row, and no job runs twice.

A schedule draws its dialect, its servers (in a thread, or a process that is killed and restarted), the proxy's fault of
each request, the server's own faults, and when the runner is killed or its disk is full. It then runs the same command
until that succeeds. A few schedules always run;

    SWEEPER_SCHEDULES=500 python -m pytest tests/running/test_schedules.py tests/running/test_kills.py

runs many (17:18: the one with seed 17), and kills a run at every step. SWEEPER_REAL_COMFYUI=URL tests a real ComfyUI
(see `servers.py`).
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.running.fault_proxy import AFTER, BEFORE, LATE, STREAM, Asked
from tests.running.invariants import broken_promises
from tests.running.run_processes import Runners
from tests.running.servers import CAN_RESTART, DIALECTS, REAL, Served

FEW = 6
KNOBS = ("queue_full_times", "truncate_download_times", "expire_download_times", "drop_events_times", "lose_times")


@dataclass(frozen=True, slots=True)
class Life:
    """The fault of one process of the runner: a kill at a disk step or around a request, a full disk, or none."""

    die_at: int | None = None
    die_around: tuple[int, str] | None = None
    file_limit: int | None = None

    @classmethod
    def drawn(cls, draw: random.Random) -> Life:
        kind = draw.choice(["step", "request", "disk"])
        if kind == "step":
            return cls(die_at=draw.randint(1, 110))
        if kind == "request":
            return cls(die_around=(draw.randint(1, 40), draw.choice(["before", "after", "answered"])))
        return cls(file_limit=draw.choice([20_000, 60_000, 120_000, 200_000]))


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule of faults. Shares are of the requests; `strikes` limits the faults of each proxy."""

    dialect: str
    trials: int
    upload: bool
    targets: int
    processes: bool
    workers: int
    concurrency: int
    kinds: tuple[str, ...]
    share: float
    strikes: int
    storm: int  # submissions in a row that meet a full queue
    restarts: tuple[int, ...]  # the numbers of the requests at which a server is restarted
    knobs: dict[str, int]
    lives: tuple[Life, ...]

    @classmethod
    def drawn(cls, seed: int) -> Schedule:
        draw = random.Random(seed)
        everything = [*BEFORE, *AFTER, *STREAM, LATE]
        targets = draw.choice([1, 1, 1, 2]) if not REAL else 1
        restarts = draw.choice([0, 0, 1, 2]) if CAN_RESTART else 0
        return cls(
            dialect=draw.choice(DIALECTS),
            trials=draw.randint(2, 5),
            upload=draw.random() < 0.3,
            targets=targets,
            processes=draw.random() < 0.3 and restarts > 0,
            workers=draw.choice([1, 2]),
            concurrency=draw.choice([1, 2, 4]),
            kinds=tuple(draw.sample(everything, draw.randint(2, 8))),
            share=draw.choice([0.05, 0.15, 0.4]),
            strikes=draw.choice([5, 10, 20]),
            storm=draw.choice([0, 0, 0, 6]),
            restarts=tuple(sorted(draw.sample(range(2, 40), restarts))),
            knobs={knob: draw.randint(1, 2) for knob in KNOBS if draw.random() < 0.2},
            lives=tuple(Life.drawn(draw) for _ in range(draw.choice([0, 1, 1, 2, 3]))),
        )


class Trouble:
    """Applies a schedule at one proxy: chooses the fault of each request, and kills servers and runners when due."""

    def __init__(self, schedule: Schedule, server: Served, draw: random.Random) -> None:
        self.schedule, self.server, self.draw = schedule, server, draw
        self.left = schedule.strikes
        self.storm = schedule.storm
        self.runner: Any = None
        self.life = Life()
        self.counted = 0  # requests of this life of the runner
        server.proxy.decide, server.proxy.on_step = self.decide, self.step
        if server.storage is not None:
            server.storage.decide = self.decide

    def decide(self, asked: Asked) -> str | None:
        if asked.submits and self.storm:
            self.storm -= 1
            return "429"
        if not self.left or self.draw.random() >= self.schedule.share:
            return None
        kind = self.draw.choice(self.schedule.kinds)
        if (kind in STREAM) != asked.path.endswith("/ws") or (kind == LATE and not asked.submits):
            return None
        self.left -= 1
        return kind

    def step(self, asked: Asked, when: str) -> None:
        if when == "before":
            self.counted += 1
            if asked.number in self.schedule.restarts:
                self.server.restart()
        if (self.counted, when) == self.life.die_around and self.runner is not None:
            self.runner.send(signal.SIGKILL)

    def begins(self, life: Life, runner: Any) -> None:
        self.life, self.runner, self.counted = life, runner, 0


def play(schedule: Schedule, seed: int, plan: Any, runners: Runners, folder: Path) -> list[str]:
    """Run the same command until it succeeds. Returns the invariants that do not hold then."""
    said: list[str] = []
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                Served(
                    schedule.dialect if not number else DIALECTS[seed % len(DIALECTS)],
                    folder / f"data{number}",
                    processes=schedule.processes,
                    workers=schedule.workers,
                )
            )
            for number in range(schedule.targets)
        ]
        troubles = [Trouble(schedule, server, random.Random(f"{seed} {n}")) for n, server in enumerate(servers)]
        for server in servers:
            server.knobs(**schedule.knobs)
        targets = [server.target(concurrency=schedule.concurrency) for server in servers]
        lives = [*schedule.lives, *[Life()] * 12]
        for life in lives:
            for server in servers if life == Life() else ():
                server.settle()  # a real server may start for longer than the run's patience
            order = {name: getattr(life, name) for name in ("die_at", "file_limit") if getattr(life, name)}
            runner = runners.start(plan, targets, folder / "out", options={"patience": 20.0}, **order)
            for trouble in troubles:
                trouble.begins(life, runner)
            ended = runner.wait()
            for trouble in troubles:
                trouble.begins(Life(), None)
            said.append(f"{ended.code} {ended.said[-1] if ended.said else ''}")
            if life == Life() and ended.said[-1] == "stopped_by None" and _all_succeeded(folder / "out"):
                break
        found = broken_promises(folder / "out", schedule.trials, servers, outputs=1 + schedule.upload)
        struck = [kind for server in servers for kind in server.proxy.struck]
    return [*found, f"{schedule}", f"struck {struck}", *said] if found else []


def _all_succeeded(out: Path) -> bool:
    from sweeper.store import Store

    with Store.open(out, readonly=True) as store:
        counts = store.count_by_status()
    return counts["succeeded"] == sum(counts.values())


def seeds() -> range:
    first, _, end = os.environ.get("SWEEPER_SCHEDULES", f"0:{FEW}").rpartition(":")
    return range(int(first or 0), int(end))


@pytest.mark.parametrize("seed", seeds())
def test_every_trial_is_one_row_and_no_job_runs_twice(seed, coloured, runners, tmp_path):
    schedule = Schedule.drawn(seed)
    plan = coloured(schedule.trials, upload=schedule.upload)
    found = play(schedule, seed, plan, runners, tmp_path)
    assert not found, "\n".join(found)
