"""Write a results folder with given axes and metrics, without a run, so that a test can plant effects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from sweeper.model.search_columns import ROUND, SearchColumns
from sweeper.store import Store
from sweeper.store.records import FAILED, INTENT, SUCCEEDED, Artifact, JobEnd, JobRecord, TableLayout


def make_grid(**axes: Sequence[Any]) -> list[dict[str, Any]]:
    """A row for each combination of the values."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def write_results(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Sequence[Any]],
    *,
    failed: Sequence[int] = (),
    ran_s: Sequence[float] | None = None,
    together: Sequence[tuple[str, str]] = (),
    runs: int = 1,
    search: SearchColumns | None = None,
    extras: Mapping[str, str] | None = None,
) -> Path:
    """Write runs with one trial for each row. `metrics` has a value for each trial, or in several runs for each job."""
    columns = tuple(name for name in rows[0] if name != ROUND)
    layout = TableLayout("made", columns, columns, tuple(metrics), together=tuple(together), search=search,
                         extras=extras or {})  # fmt: skip
    digests = [hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest() for row in rows]
    with Store.open(folder) as store:
        for run in range(runs):
            files = [hashlib.sha256(f"{run} {index}".encode()).hexdigest() for index in range(len(rows))]
            with store.transaction():
                run_id = store.create_run(layout, file="made.yaml", targets=["embedded"], now=float(run))
                trials = zip(range(len(rows)), digests, rows, rows, strict=True)
                store.add_trials(run_id, trials)
            with store.transaction():
                for index, digest in enumerate(digests):
                    job = JobRecord(f"{run}-{index}", run_id, "embedded", digest, digest, run + 1, None, INTENT, 1.0)
                    store.record_intent(job)
                    seconds = 1.0 if ran_s is None else ran_s[index]
                    artifact = Artifact("9", "output", 0, f"artifacts/{files[index]}.png", files[index], 1, "a.png")
                    state = FAILED if index in failed else SUCCEEDED
                    store.record_finished(job.id, JobEnd(state, started=10.0, ended=10 + seconds, artifacts=[artifact]))
            start = run * len(rows)
            store.cache_metrics(
                (file, name, values[start + index] if len(values) > len(rows) else values[index])
                for name, values in metrics.items()
                for index, file in enumerate(files)
                if values[index] is not None
            )
            store.end_run(run_id, now=float(run + 1), stopped_by=None)
    return folder
