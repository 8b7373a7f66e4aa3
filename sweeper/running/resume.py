"""The start of a run: which trials are done already, which jobs must be searched for, what is left to submit.

`load_resume_state` only reads. `record_run` writes the run and all its trials in one transaction. `restore` downloads
artifacts again that are missing from the results folder, for example because they were deleted.

A paid job is not submitted again for that: its server is asked for the file once more. If the server no longer has it,
that is reported, and `remake` resubmits the trial. The embedded server ends with its run and costs nothing, so its
trials are simply executed again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final
from uuid import uuid4

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.download import download
from sweeper.comfy.protocol import JobOutput
from sweeper.errors import GONE_ERROR, JobError, TargetError, TransientError
from sweeper.model.experiment import Experiment
from sweeper.model.target_spec import EMBEDDED
from sweeper.model.trial import Trial
from sweeper.planning.plan import Plan
from sweeper.running.done_work import DoneRule, DoneWork
from sweeper.running.run_events import Notice
from sweeper.running.settings import EffectiveSettings
from sweeper.running.work_queue import WorkItem
from sweeper.store import Store, records
from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.records import ENDED_STATES, OPEN_STATES, Artifact, ArtifactRef, JobRecord, TableLayout
from sweeper.store.remote_artifacts import folder_for, make_missing_finder
from sweeper.wording import count_things

_MAX_FAILURES_IN_A_ROW: Final = 3  # downloads from a target that does not respond, before the others are not tried


@dataclass(slots=True)
class ResumeState:
    """What earlier runs have done for the digests of a plan.

    `work`: what the store has for the plan, of which `stale` counts the stale rows. `done`: the digests with nothing
    left to do, which have `reused` rows. `unresolved`: items whose jobs may still be on a server. `first_index` and
    `duplicates`: by digest, the first trial that has it, and the others. `todo`: the number of digests to execute,
    which have `todo_rows` rows, or more if `limit` leaves some out.
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
    def reused(self) -> int:
        return self._count_rows(self.done)

    @property
    def reused_failures(self) -> int:
        return self._count_rows({d for d in self.done if self.work.jobs[d].state != records.SUCCEEDED})

    def _count_rows(self, digests: Collection[str]) -> int:
        return len(digests) + sum(len(rest) for digest, rest in self.duplicates.items() if digest in digests)

    def list_notes(self, targets: Collection[str]) -> Iterator[str]:
        """What to say about finished trials: where they were made if not on these targets, and how files differ."""
        done_on = Counter(self.work.jobs[digest].target for digest in self.done)
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
    kept_states = () if settings.fresh else (records.SUCCEEDED,) if settings.retry_failed else ENDED_STATES
    selected: list[str] = []
    for trial in plan.written():
        digest = trial.digest
        if digest in state.first_index:
            state.duplicates.setdefault(digest, []).append(trial.index)
            continue
        state.first_index[digest] = trial.index
        job = state.work.jobs.get(digest)
        if job is not None and job.state in OPEN_STATES:
            state.unresolved.append(WorkItem(trial, job))
        elif job is not None and job.state in kept_states and not should_redo(job):
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
        jobs = (job for digest, job in state.work.jobs.items() if digest in state.first_index)
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

    found = ((trial, state.work.jobs.get(trial.digest)) for trial in filter(is_remaining, plan))
    items = (WorkItem(trial, job, never_submitted=job is None) for trial, job in found)
    return islice(items, settings.limit)


class MissingFiles:
    """Finds the jobs that succeeded but whose files are not all present.

    `jobs`: those to restore, with their missing artifacts. `redo_count`: how many the embedded server executes again.
    """

    def __init__(self, store: Store | None, out: Path, settings: EffectiveSettings) -> None:
        self._store = store
        self._remake = settings.remake
        self._keep_temp = settings.keep_temp
        self._find_missing = make_missing_finder(out, asks_storages=True)
        self._files: dict[str, tuple[ArtifactRef, ...]] | None = None  # by job; read once for all jobs
        self.out = out
        self.jobs: list[tuple[JobRecord, tuple[Artifact, ...]]] = []
        self.redo_count = 0

    def __call__(self, job: JobRecord) -> bool:
        """Whether to execute the job's trial again. If its files can perhaps be restored, adds it to `jobs` instead."""
        if job.state != records.SUCCEEDED or self._store is None:
            return False
        if self._files is None:
            self._files = self._store.load_job_files()
        paths = [file.path for file in self._files.get(job.id, ())]
        if not paths and self._keep_temp:  # it ran without keep_temp, and only another run surely gives previews
            return self._remake or job.target == EMBEDDED
        missing = self._find_missing(paths)
        if not missing:
            return False
        if self._remake:
            return True
        if job.target == EMBEDDED:
            self.redo_count += 1
            return True
        artifacts = (artifact for artifact in self._store.artifacts(job.id) if artifact.path in missing)
        self.jobs.append((job, tuple(artifacts)))
        return False


def describe_empty_trials(count: int, settings: EffectiveSettings) -> str:
    """Describe `count` trials that succeeded without a file, and say what to do about it."""
    message = f"{count_things(count, 'trial')} succeeded but saved no file"
    if not settings.keep_temp:
        return f"{message}: add a node that saves, such as SaveImage, or keep previews with `--keep-temp --remake`"
    if settings.remake:
        return message
    return f"{message}; if they ran without `--keep-temp`, run them again with `--remake`"


async def restore(missing: MissingFiles, clients: Sequence[ComfyClient], report: Callable[[Notice], None]) -> None:
    """Download the missing files again, each to its old path, and report the outcome.

    Raises ResultsError if a file cannot be written, or if another file is at its path.
    """
    by_name = {client.target.name: client for client in clients}
    restored: Counter[tuple[str, str]] = Counter()
    failed: dict[tuple[str, str], list[str]] = {}
    failures_in_a_row: Counter[str] = Counter()
    for job, artifacts in missing.jobs:
        for artifact in artifacts:
            client = by_name.get(job.target)
            folder = folder_for(missing.out, artifact.path)
            try:
                reason = "no response" if client is None else await _restore_artifact(client, job, artifact, folder)
                failures_in_a_row[job.target] = 0
            except (TargetError, TransientError) as error:
                reason = str(error)
                failures_in_a_row[job.target] += 1
                if failures_in_a_row[job.target] >= _MAX_FAILURES_IN_A_ROW:
                    by_name.pop(job.target, None)
            if reason is None:
                restored[job.target, artifact.path.rpartition("/")[0]] += 1
            else:
                failed.setdefault((job.target, reason), []).append(artifact.path)
    for (target, path), count in restored.items():
        files, were = ("1 file", "was") if count == 1 else (f"{count} files", "were")
        report(Notice(f"{files} missing from {path}/ {were} downloaded again from {target}, at no cost"))
    for (target, reason), paths in failed.items():
        files, are = ("1 file", "is") if len(paths) == 1 else (f"{len(paths)} files", "are")
        more = ", ..." if len(paths) > 1 else ""
        report(
            Notice(
                f"{files} {are} missing and could not be downloaded again from {target} ({reason}): {paths[0]}{more}; "
                "the rows stay, and `--remake` submits their trials again"
            )
        )


async def _restore_artifact(
    client: ComfyClient, job: JobRecord, artifact: Artifact, folder: ArtifactFolder
) -> str | None:
    """Download one artifact to its old path. Returns why the server does not have it, as a message, or None.

    Requests the file by the server's name for it and not through the job, because a restarted ComfyUI has forgotten its
    jobs but kept the files. The hash shows whether it is still the same file. Raises TransientError and TargetError.
    """
    subfolder, _, filename = artifact.label.rpartition("/")
    reason = ""
    for category in ("output", "temp"):  # the store does not record which of them it was
        output = JobOutput(artifact.node, artifact.kind, artifact.position, filename, subfolder, category)
        try:
            with folder.open_incoming(job.id, artifact.position) as file:
                fetched = await download(client, output, file)
                if fetched.sha256 != artifact.sha256:
                    reason = reason or "the server has another file of that name now"
                    continue
                await asyncio.to_thread(folder.save, file, PurePosixPath(artifact.path).name)
                return None
        except JobError as error:
            reason = reason or str(error)
    return reason
