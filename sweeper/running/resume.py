"""The beginning of a run: which trials are done already, which jobs must be looked for, what is left to submit.

`survey` only reads. `record` writes the run and all its trials in one transaction, so a run is there whole or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from sweeper.errors import LOST_ERROR
from sweeper.running.work import WorkItem
from sweeper.store import records
from sweeper.store.records import OPEN_STATES, JobRecord, TableLayout

if TYPE_CHECKING:
    from sweeper.model.experiment import Experiment
    from sweeper.model.trial import Trial
    from sweeper.planning.plan import Plan
    from sweeper.running.settings import EffectiveSettings
    from sweeper.store import Store

# Ends that the plain command does not submit again (CONTRACT.md 18).
_ENDED = (records.SUCCEEDED, records.FAILED, records.REJECTED)


@dataclass(slots=True)
class ResumeState:
    """What stands for the digests of a plan. `done`: nothing to do for them in this run, which show in `reused` rows.
    `todo`: how many digests there are to be done, which show in `rows` rows, or in more where a limit cuts off some.
    """

    current_jobs: dict[str, JobRecord]
    done: set[str] = field(default_factory=set)
    unresolved: list[WorkItem] = field(default_factory=list)
    duplicates: dict[str, list[int]] = field(default_factory=dict)
    first_index: dict[str, int] = field(default_factory=dict)
    todo: int = 0
    todo_rows: int = 0

    @property
    def reused(self) -> int:
        return sum(1 + len(self.duplicates.get(digest, ())) for digest in self.done)


def load_resume_state(
    plan: Plan,
    store: Store | None,
    target_names: tuple[str, ...],
    settings: EffectiveSettings,
    is_selected: Callable[[Trial], bool],
    *,
    should_redo: Callable[[JobRecord], bool],
) -> ResumeState:
    """Walk the plan in written order beside what the store knows of these targets.

    `anew(job)` says of a job that ended whether its work is to be done again, as when its files are gone.
    """
    found = ResumeState({} if store is None else store.current_jobs(target_names))
    fresh: list[str] = []
    for trial in plan.written():
        digest = trial.digest
        if digest in found.first_index:
            found.duplicates.setdefault(digest, []).append(trial.index)
            continue
        found.first_index[digest] = trial.index
        job = found.current_jobs.get(digest)
        if job is not None and job.state in OPEN_STATES:
            found.unresolved.append(WorkItem(trial, job))
        elif job is not None and _is_ended(job, settings) and not should_redo(job):
            found.done.add(digest)
        elif is_selected(trial):
            fresh.append(digest)
    count = len(fresh) if settings.limit is None else min(len(fresh), settings.limit)
    found.todo = count + len(found.unresolved)
    # Which of them a limit leaves is known only in run order.
    shown = [work.trial.digest for work in found.unresolved] + (fresh if count == len(fresh) else [])
    found.todo_rows = found.todo + sum(len(found.duplicates.get(digest, ())) for digest in shown)
    return found


def _is_ended(job: JobRecord, settings: EffectiveSettings) -> bool:
    if settings.fresh or job.state not in _ENDED:
        return False
    return job.state == records.SUCCEEDED or not settings.retry_failed


def record_run(
    plan: Plan,
    store: Store,
    state: ResumeState,
    layout: TableLayout,
    *,
    target_names: tuple[str, ...],
    experiment: Experiment,
    now: float,
) -> int:
    """Write the run, its trials, and the jobs that stand for them so far. Returns the run's id."""
    with store.transaction():
        file, overrides = str(experiment.file), experiment.overrides
        run_id = store.create_run(layout, file=file, targets=target_names, now=now, overrides=overrides)
        store.add_trials(run_id, ((t.index, t.digest, t.params, t.columns) for t in plan.written()))
        store.assign_jobs(run_id, (job for digest, job in state.current_jobs.items() if digest in state.first_index))
    return run_id


def mark_embedded_lost(store: Store, state: ResumeState, target: str) -> None:
    """Jobs on the embedded server of an earlier process: it is gone, and they with it. Asking would be in vain."""
    for work in state.unresolved:
        if work.job is not None and work.pinned_to == target:
            store.record_finished(
                work.job.id, records.LOST, error=(LOST_ERROR, "the embedded server ended with its run")
            )
            work.job = replace(work.job, state=records.LOST)


def iter_remaining(
    plan: Plan, state: ResumeState, settings: EffectiveSettings, is_selected: Callable[[Trial], bool]
) -> Iterator[WorkItem]:
    """The works that were never submitted or are to be submitted again, in run order, each digest once: at the first
    trial that has it in written order, so that nothing need be remembered of what was handed out.
    """
    opened = {work.trial.digest for work in state.unresolved}

    def iter_items() -> Iterator[WorkItem]:
        for trial in plan:
            digest = trial.digest
            if (
                trial.index != state.first_index[digest]
                or digest in state.done
                or digest in opened
                or not is_selected(trial)
            ):
                continue
            job = state.current_jobs.get(digest)
            yield WorkItem(trial, job, never_submitted=job is None)

    return islice(iter_items(), settings.limit)
