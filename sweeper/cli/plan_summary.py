"""Summarize a plan before it runs: new and done trials, excluded combinations, an estimated time, and warnings.

Reads the results folder if there is one. Writes nothing and contacts no server. Printing belongs to `plan_text`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from sweeper.cli.cost_text import describe_cost
from sweeper.model.experiment import Block, Experiment
from sweeper.model.target_spec import is_comfy_platform
from sweeper.model.trial import Trial
from sweeper.planning.order import Costs
from sweeper.planning.plan import Plan
from sweeper.planning.pricing import LearntTimes, PlanPrices
from sweeper.planning.server_cache import find_smallest_cache
from sweeper.planning.trial_filters import DropCounts, get_written_block
from sweeper.running.node_class_cache import get_cache_mode
from sweeper.running.node_times import list_job_seconds
from sweeper.running.prepare import Prepared
from sweeper.running.renamed_experiment import describe_renaming
from sweeper.running.settings import RunOptions, TrialFilter
from sweeper.store import Store
from sweeper.store.records import FAILED, OPEN_STATES, REJECTED, SUCCEEDED, JobRecord
from sweeper.store.server_facts import BESIDES_NODES
from sweeper.tables.results_folder import check_owner, default_results_folder


class PlanSummary:
    """Counts which trials of a plan a results folder already holds, and what they cost.

    The caller adds the trials one by one.
    """

    def __init__(self, prepared: Prepared, out: Path | None, run_options: RunOptions) -> None:
        """`out` None: the default folder of the experiment.

        `run_options`: those of the run, as far as they select trials. Raises UsageError, ResultsError.
        """
        plan = prepared.plan
        self.notes = prepared.notes
        self._run_options = run_options
        self._is_selected = TrialFilter(run_options.where, plan)
        experiment = plan.experiment
        self.out = out or default_results_folder(experiment.file, experiment.name)
        resolved = prepared.resolve_targets()
        self.targets = [target.name for target in resolved]
        self._jobs, seconds, self._renaming = _load_records(self.out, self.targets, plan)
        besides_nodes = seconds.pop(BESIDES_NODES, 0.0)
        costs = Costs(seconds, find_smallest_cache(map(get_cache_mode, resolved)))
        self.plan = plan.reordered(costs)  # the same order as the run's
        self.prices = PlanPrices(
            self.plan,
            prepared.classes,
            [target.price for target in resolved],
            LearntTimes(seconds, self._list_job_seconds(), besides_nodes),
            shares_cache=len(resolved) == 1 and not any(is_comfy_platform(target.url) for target in resolved),
        )
        # One byte for each trial: whether it is the first with its digest, and whether it is new or open too.
        self._distinct, self._pending = bytearray(len(self.plan)), bytearray(len(self.plan))
        self._digests: set[int] = set()
        self._counts = {"selected": 0, "new": 0, "done": 0, "failed": 0, "open": 0, "duplicates": 0}
        self._new_digests = self._open_digests = 0

    def iter_selected(self) -> Iterator[Trial]:
        """The trials that `where` selects, in written order."""
        return filter(self._is_selected, self.plan.written())

    def iter_limited(self) -> Iterator[Trial]:
        """Those of the selected trials that a run with this `limit` would submit, in written order."""
        limit = self._run_options.limit
        new = (trial.digest for trial in self.plan if self._is_selected(trial) and self._is_new(trial))
        chosen: set[str] = set()
        while (limit is None or len(chosen) < limit) and (digest := next(new, None)) is not None:
            chosen.add(digest)
        return (trial for trial in self.iter_selected() if trial.digest in chosen)

    def _is_new(self, trial: Trial) -> bool:
        """Whether the run would submit the trial for the first time, or again."""
        job = self._jobs.get(trial.digest)
        if job is None or self._run_options.fresh:
            return job is None or job.state not in OPEN_STATES
        return job.state not in (SUCCEEDED, FAILED, REJECTED, *OPEN_STATES) or (
            self._run_options.retry_failed and job.state in (FAILED, REJECTED)
        )

    def add_all(self) -> None:
        """Count all selected trials."""
        for trial in self.iter_selected():
            self.add(trial)

    def add(self, trial: Trial) -> None:
        """Count one selected trial."""
        self._counts["selected"] += 1
        digest = trial.digest
        short = int(digest[:24], 16)  # 96 bits tell a million trials apart, in a third of the memory
        again = short in self._digests
        self._digests.add(short)
        self._counts["duplicates"] += again
        job = self._jobs.get(digest)
        is_pending = not again
        if self._is_new(trial):
            self._counts["new"] += 1
            self._new_digests += not again
        elif job is not None and job.state in OPEN_STATES:
            self._counts["open"] += 1
            self._counts["new"] += 1
            self._open_digests += not again
        else:
            self._counts["done" if job is not None and job.state == SUCCEEDED else "failed"] += 1
            is_pending = False
        self._distinct[trial.index] = not again
        self._pending[trial.index] = is_pending

    def _describe_cost(self) -> dict[str, Any] | None:
        """The cost of the selected trials, and of those of them that this run submits."""
        pending = self._pending
        if self._run_options.limit is not None and self.prices.has_prices:
            pending = bytearray(len(pending))
            for trial in self.iter_limited():
                pending[trial.index] = self._distinct[trial.index]
        return describe_cost(self.prices, self._distinct, pending)

    def is_distinct(self, trial: Trial) -> bool:
        """Whether an added trial is the first with its digest."""
        return bool(self._distinct[trial.index])

    @property
    def distinct_count(self) -> int:
        """How many of the added trials differ from each other."""
        return sum(self._distinct)

    @property
    def _job_count(self) -> int:
        """How many jobs the run would submit or look for."""
        limit = self._run_options.limit
        return self._open_digests + (self._new_digests if limit is None else min(limit, self._new_digests))

    def to_dict(self) -> dict[str, Any]:
        """The summary that `plan --json` prints. Call it after all trials were added."""
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
            "blocks": [
                _describe_block(experiment, block, dropped)
                for block, dropped in zip(experiment.blocks, self.plan.drop_counts, strict=True)
            ],
            "order": {
                "mode": experiment.order,
                "axes": [list(axes) for axes in order.axes],
                "executions": order.executions,
                "written": order.written,
                "saved": order.saved,
                "measured": order.measured,
                "caching": order.caching,
                "why_written": order.why_written,
            },
            **self._counts,
            "where": self._run_options.where,
            "limit": self._run_options.limit,
            "jobs": self._job_count,
            "estimate_s": None if estimate is None else estimate["mean_s"],
            "estimate": estimate,
            "cost": self._describe_cost(),
            "warnings": self._list_warnings(),
        }

    def _estimate(self) -> dict[str, Any] | None:
        """Seconds that the new jobs take one after another, from the mean, shortest and longest of the earlier jobs.

        None if no earlier job succeeded.
        """
        times = self._list_job_seconds()
        if not times:
            return None
        each = {"mean": sum(times) / len(times), "min": min(times), "max": max(times)}
        totals = {f"{name}_s": round(seconds * self._job_count, 3) for name, seconds in each.items()}
        return {**totals, "by_jobs": len(times), "job": {f"{name}_s": round(value, 3) for name, value in each.items()}}

    def _list_job_seconds(self) -> list[float]:
        """The seconds of each earlier job that succeeded; see `list_job_seconds`."""
        return list_job_seconds(job for job in self._jobs.values() if job.state == SUCCEEDED)

    def _list_warnings(self) -> list[str]:
        experiment = self.plan.experiment
        warnings = list(self.notes)
        if self._counts["new"] and self._renaming is not None:
            warnings.append(self._renaming)
        limit = self._run_options.max_trials or experiment.run.max_trials
        if len(self.plan) > limit:
            warnings.append(f"`run` refuses more than {limit} trials; --max-trials {len(self.plan)} raises the limit")
        return warnings


def _describe_block(experiment: Experiment, block: Block, dropped: DropCounts) -> dict[str, Any]:
    """The product of a block's axes, how many combinations each filter drops, and how many rows it adds."""
    written = get_written_block(experiment, block)
    rows = written.get("exclude", [{}] * len(dropped.exclude))
    excluded = [
        {"reason": f"exclude[{index}]", "says": row, "count": count}
        for index, (row, count) in enumerate(zip(rows, dropped.exclude, strict=True))
    ]
    if block.where is not None:
        excluded.append({"reason": "where", "says": written.get("where"), "count": dropped.where})
    if block.sample is not None:
        excluded.append(
            {"reason": "sample", "says": {"n": block.sample.n, "seed": block.sample.seed}, "count": dropped.sample}
        )
    product = prod(block.sizes)
    return {
        "axes": [[axis.name for axis in dimension] for dimension in block.dimensions],
        "sizes": list(block.sizes),
        "product": product,
        "excluded": excluded,
        "included": len(block.include),
        "count": product - dropped.total + len(block.include),
    }


def _load_records(
    out: Path, targets: Sequence[str], plan: Plan
) -> tuple[dict[str, JobRecord], dict[str, float], str | None]:
    """The current job of each digest on these targets, the mean seconds of each node class there, and a message.

    The message is that of `describe_renaming`. Raises UsageError if the results are of another experiment.
    """
    if not Store.exists(out):
        return {}, {}, describe_renaming(plan, out, None, targets)
    with Store.open(out, readonly=True) as store:
        check_owner(store, plan.experiment.file, plan.experiment.name)
        renaming = describe_renaming(plan, out, store, targets)
        return store.current_jobs(targets), store.servers.mean_node_seconds(targets), renaming
