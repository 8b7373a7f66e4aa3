"""The beginning of a run: which trials are done already, which jobs must be looked for, what is left to submit.

`survey` only reads. `record` writes the run and all its trials in one transaction, so a run is there whole or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from sweeper.errors import LOST_ERROR
from sweeper.running.work import Work
from sweeper.store import records
from sweeper.store.records import OPEN, Job, Layout

if TYPE_CHECKING:
    from sweeper.model.experiment import Experiment
    from sweeper.model.trial import Trial
    from sweeper.planning.plan import Plan
    from sweeper.running.settings import Settings
    from sweeper.store import Store

# Ends that the plain command does not submit again (CONTRACT.md 18).
_ENDED = (records.SUCCEEDED, records.FAILED, records.REJECTED)


@dataclass(slots=True)
class Survey:
    """What stands for the digests of a plan. `done`: nothing to do for them in this run, which show in `reused` rows.
    `todo`: how many digests there are to be done, which show in `rows` rows, or in more where a limit cuts off some.
    """

    standing: dict[str, Job]
    done: set[str] = field(default_factory=set)
    opened: list[Work] = field(default_factory=list)
    twins: dict[str, list[int]] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    todo: int = 0
    rows: int = 0

    @property
    def reused(self) -> int:
        return sum(1 + len(self.twins.get(digest, ())) for digest in self.done)


def survey(
    plan: Plan,
    store: Store | None,
    names: tuple[str, ...],
    settings: Settings,
    chosen: Callable[[Trial], bool],
    *,
    anew: Callable[[Job], bool],
) -> Survey:
    """Walk the plan in written order beside what the store knows of these targets.

    `anew(job)` says of a job that ended whether its work is to be done again, as when its files are gone.
    """
    found = Survey({} if store is None else store.standing(names))
    fresh: list[str] = []
    for trial in plan.written():
        digest = trial.digest
        if digest in found.first:
            found.twins.setdefault(digest, []).append(trial.index)
            continue
        found.first[digest] = trial.index
        job = found.standing.get(digest)
        if job is not None and job.state in OPEN:
            found.opened.append(Work(trial, job))
        elif job is not None and _ended(job, settings) and not anew(job):
            found.done.add(digest)
        elif chosen(trial):
            fresh.append(digest)
    count = len(fresh) if settings.limit is None else min(len(fresh), settings.limit)
    found.todo = count + len(found.opened)
    # Which of them a limit leaves is known only in run order.
    shown = [work.trial.digest for work in found.opened] + (fresh if count == len(fresh) else [])
    found.rows = found.todo + sum(len(found.twins.get(digest, ())) for digest in shown)
    return found


def _ended(job: Job, settings: Settings) -> bool:
    if settings.fresh or job.state not in _ENDED:
        return False
    return job.state == records.SUCCEEDED or not settings.retry_failed


def record(
    plan: Plan,
    store: Store,
    found: Survey,
    layout: Layout,
    *,
    names: tuple[str, ...],
    experiment: Experiment,
    now: float,
) -> int:
    """Write the run, its trials, and the jobs that stand for them so far. Returns the run's id."""
    with store.transaction():
        file, overrides = str(experiment.file), experiment.overrides
        run_id = store.begin(layout, file=file, targets=names, now=now, overrides=overrides)
        store.add_trials(run_id, ((t.index, t.digest, t.params, t.columns) for t in plan.written()))
        store.claim(run_id, (job for digest, job in found.standing.items() if digest in found.first))
    return run_id


def forget_embedded(store: Store, found: Survey, target: str) -> None:
    """Jobs on the embedded server of an earlier process: it is gone, and they with it. Asking would be in vain."""
    for work in found.opened:
        if work.job is not None and work.pinned == target:
            store.finish(work.job.id, records.LOST, error=(LOST_ERROR, "the embedded server ended with its run"))
            work.job = replace(work.job, state=records.LOST)


def remaining(plan: Plan, found: Survey, settings: Settings, chosen: Callable[[Trial], bool]) -> Iterator[Work]:
    """The works that were never submitted or are to be submitted again, in run order, each digest once: at the first
    trial that has it in written order, so that nothing need be remembered of what was handed out.
    """
    opened = {work.trial.digest for work in found.opened}

    def works() -> Iterator[Work]:
        for trial in plan:
            digest = trial.digest
            if trial.index != found.first[digest] or digest in found.done or digest in opened or not chosen(trial):
                continue
            job = found.standing.get(digest)
            yield Work(trial, job, untried=job is None)

    return islice(works(), settings.limit)
