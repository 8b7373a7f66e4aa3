"""What is known of a plan before it runs: new and done, what is excluded, an estimate of time, and warnings.

Reads the results folder where there is one; writes nothing and asks no server. How it is shown is `plan`'s affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.cli.targets_file import load_named_targets
from sweeper.comfy.target import resolve_targets
from sweeper.planning.grid import Grid
from sweeper.planning.order import Costs
from sweeper.planning.server_cache import find_smallest_cache
from sweeper.planning.trial_filters import count_dropped, get_written_block
from sweeper.running.node_class_cache import get_cache_mode
from sweeper.store import FILE_NAME, Store
from sweeper.store.records import FAILED, OPEN_STATES, REJECTED, SUCCEEDED, JobRecord

if TYPE_CHECKING:
    from sweeper.model.experiment import Block, Experiment
    from sweeper.model.trial import Trial
    from sweeper.planning.plan import Plan


class PlanSummary:
    """Counts the trials of a plan against a results folder while somebody walks over them."""

    def __init__(
        self, plan: Plan, targets: Sequence[Any] | None, out: Path | None, *, notes: Sequence[str] = ()
    ) -> None:
        """`targets` and `out` None: the experiment's own, and its default folder. `notes` are warnings from elsewhere.

        Raises UsageError, ResultsError.
        """
        self.notes = notes
        experiment = plan.experiment
        self.out = out or Path("results") / experiment.name
        specs = list(experiment.targets) if targets is None else list(targets)
        named = {**load_named_targets(), **experiment.named_targets}
        targeted = resolve_targets(specs, named=named, environ={}, with_keys=False)
        self.targets = [target.name for target in targeted]
        self._jobs, seconds = _load_records(self.out, self.targets)
        self.plan = plan.reordered(
            Costs(seconds, find_smallest_cache(map(get_cache_mode, targeted)))
        )  # as the run does with them
        self._digests: set[int] = set()
        self._counts = {"new": 0, "done": 0, "failed": 0, "open": 0, "duplicates": 0}
        self._new_digests = 0

    def add(self, trial: Trial) -> None:
        """Count one trial as it passes."""
        digest = trial.digest
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
            self._counts["open"] += state in OPEN_STATES
            self._counts["new"] += 1
            self._new_digests += not again

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: what `plan --json` prints, once all trials have passed."""
        order = self.plan.order
        experiment = self.plan.experiment
        estimate = self._estimate()
        return {
            "name": experiment.name,
            "file": str(experiment.file),
            "template": experiment.template.file,
            "out": str(self.out),
            "targets": self.targets,
            "count": len(self.plan),
            "axes": dict(self.plan.axis_sizes),
            "blocks": [_describe_block(experiment, block) for block in experiment.blocks],
            "order": {
                "mode": experiment.order,
                "axes": [list(axes) for axes in order.axes],
                "executions": order.executions,
                "written": order.written,
                "saved": order.saved,
                "measured": order.measured,
                "caching": order.caching,
            },
            **self._counts,
            "jobs": self._new_digests,
            "estimate_s": None if estimate is None else estimate["mean_s"],
            "estimate": estimate,
            "warnings": self._list_warnings(),
        }

    def _estimate(self) -> dict[str, Any] | None:
        """Seconds that the new work takes one job after another, if each takes what the jobs on record took: the mean
        of them, the shortest and the longest. None without such jobs.
        """
        times = [
            max(0.0, job.ended - job.started)  # two clocks may be two machines'
            for job in self._jobs.values()
            if job.state == SUCCEEDED and job.started is not None and job.ended is not None
        ]
        if not times:
            return None
        each = {"mean": sum(times) / len(times), "min": min(times), "max": max(times)}
        totals = {f"{name}_s": round(seconds * self._new_digests, 3) for name, seconds in each.items()}
        return {**totals, "by_jobs": len(times), "job": {f"{name}_s": round(one, 3) for name, one in each.items()}}

    def _list_warnings(self) -> list[str]:
        experiment = self.plan.experiment
        found = list(self.notes)
        most = experiment.run.max_trials
        if len(self.plan) > most:
            found.append(f"`run` refuses more than {most} trials; --max-trials {len(self.plan)} lifts that")
        return found


def _describe_block(experiment: Experiment, block: Block) -> dict[str, Any]:
    """One block's product, what its filters drop of it, and the rows that it adds."""
    lost = count_dropped(Grid(experiment, block.dimensions, {}), block)
    written = get_written_block(experiment, block)
    rows = written.get("exclude", [{}] * len(lost.exclude))
    excluded = [
        {"reason": f"exclude[{place}]", "says": row, "count": count}
        for place, (row, count) in enumerate(zip(rows, lost.exclude, strict=True))
    ]
    if block.where is not None:
        excluded.append({"reason": "where", "says": written.get("where"), "count": lost.where})
    if block.sample is not None:
        excluded.append(
            {"reason": "sample", "says": {"n": block.sample.n, "seed": block.sample.seed}, "count": lost.sample}
        )
    product = prod(block.sizes)
    return {
        "axes": [[axis.name for axis in dimension] for dimension in block.dimensions],
        "sizes": list(block.sizes),
        "product": product,
        "excluded": excluded,
        "included": len(block.include),
        "count": product - lost.total + len(block.include),
    }


def _load_records(out: Path, targets: Sequence[str]) -> tuple[dict[str, JobRecord], dict[str, float]]:
    """The jobs that stand for digests on these targets, and the measured seconds of node classes there."""
    if not (out / FILE_NAME).is_file():
        return {}, {}
    with Store.open(out, readonly=True) as store:
        return store.current_jobs(targets), store.servers.mean_node_seconds(targets)
