"""kill -9 of a search at its steps, and then the same command again: it ends as if nothing had happened.

By default each kind of step is tried once; SWEEPER_SCHEDULES=100 or more tries all of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sweeper.embedded import EmbeddedServer
from tests.running.conftest import NODES
from tests.running.run_processes import Runners
from tests.running.searches import describe_rows, find_broken_promises, write_search
from tests.running.servers import REAL

MANY = int(os.environ.get("SWEEPER_SCHEDULES", "0").rpartition(":")[2]) >= 100

pytestmark = [
    pytest.mark.timeout(3600 if MANY else 120),
    pytest.mark.skipif(bool(REAL), reason="this test needs nodes that only our server has"),
]
TRIALS = 6
KILLS = 6  # of one search


class Killed:
    """A search on a server of its own, killed at some steps one after the other, and then brought to its end."""

    def __init__(self, runners: Runners, folder: Path) -> None:
        self.runners, self.out = runners, folder / "out"
        self.experiment = write_search(folder / "project", trials=TRIALS, batch=1)

    def run(self, *die_at: Any) -> int:
        """Return how many kills there were. The last of `ended` is the process that came to the end."""
        killed = 0
        with EmbeddedServer(dialect="cloud", nodes=NODES) as server:
            target = {"url": server.url, "dialect": "cloud", "name": "probe-server", "concurrency": 1}
            for step in (*die_at, None):
                order = {"steps": True} if step is None else {"die_at": step}
                self.ended = self.runners.run(self.experiment, target, self.out, searches=True, **order)
                killed += self.ended.killed
            self.accepted = server.seen.accepted
        return killed

    def find_problems(self, expected: list[Any]) -> list[str]:
        """Compare the end with that of an undisturbed search."""
        found = [f"unexpected end: {self.ended.said[-2]}"] if self.ended.said[-2] != "stopped_by trials" else []
        found += [f"the server got {self.accepted} jobs"] if self.accepted != TRIALS else []
        rows = describe_rows(self.out)
        found += [f"{one} instead of {other}" for one, other in zip(rows, expected, strict=False) if one != other]
        return found + find_broken_promises(self.out)


@pytest.fixture(scope="module")
def whole_search(runners, tmp_path_factory):
    """The steps and the rows of a search that nobody killed."""
    search = Killed(runners, tmp_path_factory.mktemp("undisturbed"))
    search.run()
    rows = describe_rows(search.out)
    assert search.find_problems(rows) == []
    assert [row[5]["round"] for row in rows] == [1, 1, 2, 2, 3, 3]
    return search.ended.steps, rows


def choose_schedules(steps: list[str]) -> list[list[Any]]:
    """Schedules of kills, one after the other in the same folder, in which each kind of step of a round has its turn.

    Every other kill meets a process that goes on with the round of a killed one; the others wait for a new round.
    """
    if MANY:
        return [[number] for number in range(1, len(steps) + 1)]
    start = steps.index("round 2 planned")
    kinds = [
        kind
        for kind in dict.fromkeys(steps[start + 1 : steps.index("round 3 planned")])
        if kind.startswith("before") or kind == "after commit"  # after others is before the next one
    ]
    schedules: list[list[Any]] = []
    for first in range(0, len(kinds), KILLS):
        schedule: list[Any] = [["round 1 planned"]] if not first else []
        for index, kind in enumerate(kinds[first : first + KILLS]):
            schedule.append([kind] if index % 2 else [f"round {1 + index // 2} planned", kind])
        schedules.append(schedule)
    return schedules


def test_a_search_goes_on_after_a_kill_at_any_step(runners, whole_search, tmp_path, capsys):
    steps, expected = whole_search
    broken, killed = [], 0
    schedules = choose_schedules(steps)
    for number, schedule in enumerate(schedules):
        (tmp_path / str(number)).mkdir()
        search = Killed(runners, tmp_path / str(number))
        killed += search.run(*schedule)
        broken += [f"{schedule}: {problem}" for problem in search.find_problems(expected)]
    with capsys.disabled():
        print(f"\n{killed} kills in {len(schedules)} searches of {len(steps)} steps", end=" ")  # noqa: T201
    assert not broken, "\n".join(broken)
    assert killed > len(schedules)
