"""The answer of `sweeper runs`: the runs of a results folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sweeper.answers.parts import Part, Table
from sweeper.answers.render import AS_JSON
from sweeper.store import Store
from sweeper.tables.results_folder import find_results_folder


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One run. `started` and `ended`: ISO 8601, UTC. `search`: whether an optimiser chose its trials."""

    run: int
    experiment: str
    file: str
    targets: tuple[str, ...]
    started: str
    ended: str | None
    stopped_by: str | None
    trials: int
    succeeded: int
    failed: int
    cancelled: int
    pending: int
    search: bool


@dataclass(frozen=True, slots=True)
class RunList:
    """The runs of a folder, oldest first."""

    runs: tuple[ListedRun, ...] = field(metadata=AS_JSON)

    def parts(self) -> Iterator[Part]:
        counts = ("trials", "succeeded", "failed", "cancelled", "pending")
        kind = ("search",) if any(run.search for run in self.runs) else ()
        names = ("run", "started", "ended", "targets", *counts, "stopped_by", *kind)
        records = [
            asdict(run)
            | {
                "ended": run.ended or "(not ended)",
                "targets": " ".join(run.targets),
                "search": "yes" if run.search else "",
            }
            for run in self.runs
        ]
        yield Table(names, [[record[name] for name in names] for record in records])


def list_runs(results: str | Path) -> RunList:
    """List the runs of a results folder, or of an experiment's default one. Raises ResultsError if there are none."""
    with Store.open(find_results_folder(results), readonly=True) as store:
        return RunList(
            tuple(
                ListedRun(
                    record.id,
                    record.experiment,
                    record.file,
                    tuple(record.targets),
                    _format_time(record.started),
                    None if record.ended is None else _format_time(record.ended),
                    record.stopped_by,
                    record.trials,
                    **store.count_by_status(record.id),
                    search=store.layout(record.id).search is not None,
                )
                for record in store.runs()
            )
        )


def _format_time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, in whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
