"""What is known of a plan before it runs: new and done, duplicates, an estimate of time, and warnings.

Reads the results folder where there is one; writes nothing and asks no server. How it is shown is `plan`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.cli.targets_file import named_targets
from sweeper.comfy.target import resolve_targets
from sweeper.records import FAILED, OPEN, REJECTED, SUCCEEDED, Job
from sweeper.store import FILE_NAME, Store

if TYPE_CHECKING:
    from sweeper.planner import Plan
    from sweeper.trial import Trial


class _AnyKey(dict[str, str]):
    """An environment in which every key is set: who only plans needs none."""

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 - dict's signature
        return "not-needed-to-plan"


class Foresight:
    """Counts the trials of a plan against a results folder while somebody walks over them."""

    def __init__(
        self, plan: Plan, targets: Sequence[Any] | None, out: Path | None, *, notes: Sequence[str] = ()
    ) -> None:
        """`targets` and `out` None: the experiment's own, and its default folder. `notes` are warnings from elsewhere.

        Raises UsageError, ResultsError.
        """
        self.notes = notes
        experiment = plan.experiment
        self.plan = plan
        self.out = out or Path("results") / experiment.name
        specs = list(experiment.targets) if targets is None else list(targets)
        self.targets = [target.name for target in resolve_targets(specs, named=named_targets(), environ=_AnyKey())]
        self._jobs = _standing(self.out, self.targets)
        self._digests: set[int] = set()
        self._counts = {"new": 0, "done": 0, "failed": 0, "open": 0, "duplicates": 0}
        self._new_digests = 0

    def watching(self, trials: Iterator[Trial]) -> Iterator[Trial]:
        """The same trials, counted as they pass."""
        for trial in trials:
            self._count(trial.digest)
            yield trial

    def _count(self, digest: str) -> None:
        short = int(digest[:24], 16)  # 96 bits tell a million trials apart, in a third of the memory of the text
        again = short in self._digests
        self._digests.add(short)
        self._counts["duplicates"] += again
        job = self._jobs.get(digest)
        state = None if job is None else job.state
        if state == SUCCEEDED:
            self._counts["done"] += 1
        elif state in (FAILED, REJECTED):
            self._counts["failed"] += 1
        else:
            self._counts["open"] += state in OPEN
            self._counts["new"] += 1
            self._new_digests += not again

    def summary(self) -> dict[str, Any]:
        """JSON-ready: what `plan --json` prints, once all trials have passed."""
        order = self.plan.order
        experiment = self.plan.experiment
        return {
            "name": experiment.name,
            "file": str(experiment.file),
            "out": str(self.out),
            "targets": self.targets,
            "count": len(self.plan),
            "axes": dict(self.plan.axis_sizes),
            "order": {
                "mode": experiment.order,
                "axes": [list(axes) for axes in order.axes],
                "executions": order.executions,
                "written": order.written,
                "saved": order.saved,
            },
            **self._counts,
            "estimate_s": self._estimate(),
            "warnings": self._warnings(),
        }

    def _estimate(self) -> float | None:
        """Seconds that the new work takes one job after another, by the mean of the jobs on record."""
        times = [
            job.ended - job.started
            for job in self._jobs.values()
            if job.state == SUCCEEDED and job.started is not None and job.ended is not None
        ]
        return round(max(0.0, sum(times) / len(times) * self._new_digests), 3) if times else None

    def _warnings(self) -> list[str]:
        experiment = self.plan.experiment
        found = list(self.notes)
        most = experiment.run.max_trials
        if len(self.plan) > most:
            found.append(f"`run` refuses more than {most} trials; --max-trials {len(self.plan)} lifts that")
        return found


def _standing(out: Path, targets: Sequence[str]) -> dict[str, Job]:
    if not (out / FILE_NAME).is_file():
        return {}
    with Store.open(out, readonly=True) as store:
        return store.standing(targets)
