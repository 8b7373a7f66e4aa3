"""Results folders of searches that never happened: points with rounds, metrics, failures and missing combinations."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeper.model.search_columns import ROUND, Objective, SearchColumns
from sweeper.store import Store
from sweeper.store.records import Artifact, JobEnd, JobRecord, TableLayout
from tests.reporting.made_up_sweeps import picture

Point = Mapping[str, Any]


@dataclass
class SearchSweep:
    """The content of a made-up search: `rounds[i]` are the points of round i, and round 0 was done before the search.

    The keys of `over` are axes that each point is tried on. `short`: how many combinations some points have only, by
    the point's index. `failed`, `pending`: the indices of points whose trials failed, or have not run.
    """

    rounds: Sequence[Sequence[Point]]
    measures: Mapping[str, Any]  # by metric, a function of the point
    objectives: Sequence[tuple[str, bool]] = (("sharpness", True),)
    over: Mapping[str, Sequence[Any]] = field(default_factory=lambda: {"seed": [1, 2]})
    short: Mapping[int, int] = field(default_factory=dict)
    failed: frozenset[int] = frozenset()
    pending: frozenset[int] = frozenset()
    file: str = "gone.yaml"

    @property
    def points(self) -> list[tuple[int, Point]]:
        """The round and the values of each point."""
        return [(number, point) for number, points in enumerate(self.rounds) for point in points]

    @property
    def layout(self) -> TableLayout:
        space = tuple(self.points[0][1])
        search = SearchColumns(
            tuple(Objective(*one) for one in self.objectives), space, tuple(self.over), bool(self.short)
        )
        return TableLayout("made-up", (*space, *self.over), (), tuple(self.measures), together=(), search=search)

    def write(self, out: Path) -> Path:
        (out / "artifacts").mkdir(parents=True, exist_ok=True)
        with Store.open(out) as store, store.transaction():
            run = store.create_run(self.layout, file=self.file, targets=["embedded"], now=1_000_000.0)
            self.add(store, run, self.points)
            if not self.pending:
                store.end_run(run, now=1_000_060.0, stopped_by=None)
        return out

    def add(self, store: Store, run: int, points: Sequence[tuple[int, Point]], first_trial: int = 0) -> None:
        """Add the trials of these (round, point) pairs to a run, and their results."""
        trials, finished = [], []
        for index, (number, point) in enumerate(points):
            combinations = [*itertools.product(*self.over.values())][: self.short.get(index)]
            for values in combinations:
                columns = {**point, **dict(zip(self.over, values, strict=True))}
                digest = hashlib.sha256(repr(columns).encode()).hexdigest()
                trials.append((first_trial + len(trials), digest, columns, {**columns, ROUND: number}))
                finished.append((digest, index, point))
        store.add_trials(run, trials)
        for trial, (digest, index, point) in enumerate(finished, first_trial):
            if index not in self.pending:
                self._finish(store, run, trial, digest, point, has_failed=index in self.failed)

    def _finish(self, store: Store, run: int, trial: int, digest: str, point: Point, *, has_failed: bool) -> None:
        data = picture(trial)
        name, sha = f"artifacts/picture-{trial}.png", hashlib.sha256(data).hexdigest()
        (store.path.parent / name).write_bytes(data)
        state, error = ("failed", ("OOMError", "out of memory")) if has_failed else ("succeeded", None)
        job = JobRecord(f"job{trial}", run, "embedded", digest, digest, 1, f"p{trial}", state, 1.0, 1.0, 2.0,
                        2.5, *(error or (None, None)))  # fmt: skip
        store.record_intent(job)
        artifacts = [] if has_failed else [Artifact("9", "images", 0, name, sha, len(data), "x.png")]
        store.record_finished(job.id, JobEnd(state, started=2.0, ended=2.5, error=error, artifacts=artifacts))
        store.cache_metrics([(sha, metric, float(measure(point))) for metric, measure in self.measures.items()])
