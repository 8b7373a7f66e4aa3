"""Adds up how long nodes take, from which later runs estimate their order, their time and their cost.

The first jobs of a run find a server that has loaded no model yet. They count only for the classes that ran in no later
job, such as the loaders, because a server keeps what these made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from sweeper.store.records import JobRecord
from sweeper.store.server_facts import BESIDES_NODES

_Sums = dict[str, tuple[int, float]]  # node class -> how often it ran, and the seconds in all


class NodeTimes:
    """The sums of one run, by target."""

    def __init__(self) -> None:
        self._first: dict[str, _Sums] = {}
        self._later: dict[str, _Sums] = {}
        self._first_end: dict[str, float] = {}

    def add_job(self, target: str, nodes: Iterable[tuple[str, float]], times: tuple[float, float] | None) -> None:
        """Add the (class, seconds) pairs of a job. `times`: its start and end, in seconds since 1970; None if unknown.

        The time of the job in which no node ran is added too, as the class `BESIDES_NODES`.
        """
        pairs = list(nodes)
        started, ended = times or (0.0, math.inf)
        is_first = started < self._first_end.setdefault(target, ended)
        sums = (self._first if is_first else self._later).setdefault(target, {})
        if times is not None:
            rest = ended - started - sum(seconds for _, seconds in pairs)
            pairs.append((BESIDES_NODES, max(0.0, rest)))
        for class_type, seconds in pairs:
            _add(sums, class_type, 1, seconds)

    def add_sums(self, target: str, sums: Mapping[str, tuple[int, float]]) -> None:
        """Add the sums that a worker of a cluster made."""
        for class_type, (runs, seconds) in sums.items():
            _add(self._later.setdefault(target, {}), class_type, runs, seconds)

    def sum_up(self) -> dict[str, _Sums]:
        """By target: class -> (runs, seconds)."""
        targets = {**self._first, **self._later}
        return {target: {**self._first.get(target, {}), **self._later.get(target, {})} for target in targets}


def list_job_seconds(jobs: Iterable[JobRecord]) -> list[float]:
    """Return the seconds of each job whose time is known. The first of each run are left out if there are others."""
    known = [(job, job.started, job.ended) for job in jobs if job.started is not None and job.ended is not None]
    first_ends: dict[tuple[int, str], float] = {}
    for job, _, ended in known:
        key = job.run, job.target
        first_ends[key] = min(ended, first_ends.get(key, ended))
    later = [one for one in known if one[1] >= first_ends[one[0].run, one[0].target]]
    return [max(0.0, ended - started) for _, started, ended in later or known]


def _add(sums: _Sums, class_type: str, runs: int, seconds: float) -> None:
    before = sums.get(class_type, (0, 0.0))
    sums[class_type] = before[0] + runs, before[1] + seconds
