"""The start of a run: which trials are done already, which jobs must be searched for, what is left to submit.

`load_resume_state` only reads. `record_run` writes the run and all its trials in one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from uuid import uuid4

from sweeper.errors import GONE_ERROR
from sweeper.model.experiment import Experiment
from sweeper.model.trial import Trial
from sweeper.planning.plan import Plan
from sweeper.running.done_work import DoneRule, DoneWork
from sweeper.running.settings import EffectiveSettings
from sweeper.running.work_queue import WorkItem
from sweeper.store import Store, records
from sweeper.store.records import ENDED_STATES, OPEN_STATES, JobRecord, TableLayout
from sweeper.wording import count_things


@dataclass(slots=True)
class ResumeState:
    """What earlier runs have done for the digests of a plan.

    `current_jobs`: by digest, the job whose result counts. `done`: the digests with nothing left to do, which have
    `reused` rows. `unresolved`: items whose jobs may still be on a server. `first_index` and `duplicates`: by digest,
    the first trial that has it, and the others. `todo`: the number of digests to execute, which have `todo_rows` rows,
    or more if `limit` leaves some out. `work`: what else the store has for the plan; `stale` counts its stale rows.
    """

    work: DoneWork
    done: set[str] = field(default_factory=set)
    unresolved: list[WorkItem] = field(default_factory=list)
    duplicates: dict[str, list[int]] = field(default_factory=dict)
    first_index: dict[str, int] = field(default_factory=dict)
    todo: int = 0
    todo_rows: int = 0
    stale: int = 0

    @property
    def current_jobs(self) -> dict[str, JobRecord]:
        return self.work.jobs

    @property
    def reused(self) -> int:
        return self._count_rows(self.done)

    @property
    def reused_failures(self) -> int:
        return self._count_rows({d for d in self.done if self.current_jobs[d].state != records.SUCCEEDED})

    def _count_rows(self, digests: Collection[str]) -> int:
        return len(digests) + sum(len(rest) for digest, rest in self.duplicates.items() if digest in digests)

    def list_notes(self, targets: Collection[str]) -> Iterator[str]:
        """What to say about finished trials: where they were made if not on these targets, and how files differ."""
        done_on = Counter(self.current_jobs[digest].target for digest in self.done)
        if not done_on.keys() <= set(targets):
            yield f"{len(self.done)} done: {', '.join(f'{count} on {name}' for name, count in done_on.most_common())}"
        if self.stale:
            yield f"{self.stale} stale: {self.work.describe_stale(self.first_index)}"
        yield from self.work.list_notes(self.first_index)


def load_resume_state(
    plan: Plan,
    store: Store | None,
    rule: DoneRule,
    settings: EffectiveSettings,
    is_selected: Callable[[Trial], bool],
    *,
    should_redo: Callable[[JobRecord], bool],
) -> ResumeState:
    """Compare the plan, in written order, with the jobs of the store that count by this rule.

    `is_selected(trial)`: whether this run may submit the trial. `should_redo(job)`: whether the work of an ended job is
    to be repeated, for example because its files are missing.
    """
    state = ResumeState(rule.find(store))
    selected: list[str] = []
    for trial in plan.written():
        digest = trial.digest
        if digest in state.first_index:
            state.duplicates.setdefault(digest, []).append(trial.index)
            continue
        state.first_index[digest] = trial.index
        job = state.current_jobs.get(digest)
        if job is not None and job.state in OPEN_STATES:
            state.unresolved.append(WorkItem(trial, job))
        elif job is not None and _is_ended(job, settings) and not should_redo(job):
            state.done.add(digest)
        elif is_selected(trial):
            selected.append(digest)
    stale = (digest for digest in selected if digest in state.work.stale)
    state.stale = sum(1 + len(state.duplicates.get(digest, ())) for digest in stale)
    count = len(selected) if settings.limit is None else min(len(selected), settings.limit)
    state.todo = count + len(state.unresolved)
    # If a limit leaves some out, which ones is only known in run order, so their duplicates are not counted.
    shown = [item.trial.digest for item in state.unresolved] + (selected if count == len(selected) else [])
    state.todo_rows = state.todo + sum(len(state.duplicates.get(digest, ())) for digest in shown)
    return state


def _is_ended(job: JobRecord, settings: EffectiveSettings) -> bool:
    if settings.fresh or job.state not in ENDED_STATES:
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
    settings: EffectiveSettings,
) -> tuple[int, bool]:
    """Write the run, its trials, and their current jobs. Returns the run's id, and whether the run before has the same.

    If the run extends an earlier one, its first trials are recorded already.
    """
    with store.transaction():
        file, overrides, extended = str(experiment.file), experiment.overrides, settings.extends
        if extended is None:
            recorded, run_id = 0, store.create_run(
                layout, file=file, targets=target_names, now=now, overrides=overrides, alone=settings.alone
            )  # fmt: skip
        else:
            recorded, run_id = store.extend_run(extended, layout, overrides), extended
        added = islice(plan.written(), recorded, None)
        is_same = store.add_trials(run_id, ((t.index, t.digest, t.params, t.columns) for t in added))
        store.models.set_aside(run_id, state.work.contradicted)
        for job_id, models in state.work.list_accepted():
            store.models.add(job_id, models)
        jobs = (job for digest, job in state.current_jobs.items() if digest in state.first_index)
        is_same &= store.assign_jobs(run_id, jobs) and not state.work.contradicted
    return run_id, is_same


def record_gone(
    store: Store, run_id: int, trials: Collection[Trial], gone: Mapping[int, tuple[str, str]], *, now: float
) -> str | None:
    """Record that a run leaves out trials, and say so; None without any.

    `gone`: by index, the target that refuses the trial, and why. The record is a rejected job that was never sent.
    """
    for trial in trials:
        target, reason = gone[trial.index]
        job = JobRecord(str(uuid4()), run_id, target, trial.digest, "", 1, None, records.REJECTED, now)
        store.record_intent(replace(job, ended=now, error_type=GONE_ERROR, error=reason))
    reasons = "; ".join(dict.fromkeys(gone[trial.index][1] for trial in trials))
    return f"{count_things(len(trials), 'trial')} left out: {reasons}" if trials else None


def iter_remaining(
    plan: Plan, state: ResumeState, settings: EffectiveSettings, is_selected: Callable[[Trial], bool]
) -> Iterator[WorkItem]:
    """The items to submit, in run order; `state.unresolved` are not among them.

    Each digest comes once, with the first trial in written order that has it, so that no memory of earlier items is
    needed.
    """
    unresolved = {item.trial.digest for item in state.unresolved}

    def is_remaining(trial: Trial) -> bool:
        digest = trial.digest
        is_first = trial.index == state.first_index[digest]
        return is_first and digest not in state.done and digest not in unresolved and is_selected(trial)

    def make_item(trial: Trial) -> WorkItem:
        job = state.current_jobs.get(trial.digest)
        return WorkItem(trial, job, never_submitted=job is None)

    return islice(map(make_item, filter(is_remaining, plan)), settings.limit)
