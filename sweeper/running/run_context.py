"""The context of one run, shared by all its target workers: plan, store, settings, stop control, failure count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol
from uuid import uuid4

from sweeper.errors import UNANSWERED_ERROR, TransientError, Trouble
from sweeper.model import result
from sweeper.model.charges import Charge
from sweeper.model.trial import InputFile, Trial
from sweeper.running.group_commit import GroupCommit
from sweeper.running.node_times import NodeTimes
from sweeper.running.run_events import Event, TrialDone
from sweeper.running.settings import EffectiveSettings
from sweeper.running.spending import FolderSpending, JobUsage
from sweeper.running.stop_control import MAX_FAILURES, StopControl
from sweeper.running.work import WorkItem
from sweeper.running.work_queue import WorkQueue
from sweeper.store import records
from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.file_names import FileNaming
from sweeper.store.records import Artifact, JobRecord
from sweeper.wording import count_things


class WorkflowSource(Protocol):
    """The part of a plan that jobs need. `Plan` has it; on a cluster's worker, `RemotePlan` does."""

    def workflow(self, trial: Trial) -> dict[str, Any]:
        """A new copy of the trial's graph in API format, which the caller may change."""

    def files(self, trial: Trial) -> tuple[InputFile, ...]:
        """The local input files of the trial."""


class JobStore(Protocol):
    """The part of a store that jobs need. `Store` has it; on a cluster's worker, `RemoteStore` does."""

    def count_attempts(self, digest: str, targets: Sequence[str]) -> int:
        """How many submissions of this digest to these targets are recorded."""

    def has_prompt_id(self, prompt_id: str) -> bool:
        """Whether a recorded job has this id of the server's."""

    def load_server_time(self, job_id: str) -> float | None:
        """When the intent of a job was recorded, by the server's clock; None if unknown."""

    def record_intent(
        self,
        job: JobRecord,
        *,
        durable: bool = True,
        server_time: float | None = None,
        charges: Sequence[Charge] = (),
    ) -> None:
        """Record that a job is about to be submitted, with what it costs at most.

        `server_time`: the time now by the server's clock, if known.
        """

    def record_submitted(self, job_id: str, prompt_id: str, now: float) -> None:
        """Record that the server accepted a job under `prompt_id`."""

    def record_finished(
        self,
        job_id: str,
        state: str,
        *,
        started: float | None = None,
        ended: float | None = None,
        error: tuple[str, str] | None = None,
        artifacts: Sequence[Artifact] = (),
        charges: Sequence[Charge] | None = None,
        sampling_s: float | None = None,
    ) -> None:
        """Record how a job ended, with its files; `error` is (error_type, message). `charges` None: as intended."""

    def sync(self) -> None:
        """Write what was recorded so far to the disk; may be called from another thread. Raises ResultsError."""


@dataclass(slots=True)
class RunContext:
    """The state that the target workers of one run share.

    `duplicates`: by digest, the indexes of the trials that share it with an earlier trial. `random`, `now` (seconds
    since 1970) and `new_id` are fields so that tests can replace them.
    """

    plan: WorkflowSource
    experiment: str
    run_id: int
    store: JobStore
    folder: ArtifactFolder
    settings: EffectiveSettings
    control: StopControl
    work_queue: WorkQueue
    report: Callable[[Event], None]
    target_names: tuple[str, ...]
    duplicates: Mapping[str, list[int]]
    naming: FileNaming
    node_classes: Mapping[str, str] = field(default_factory=dict)  # node id -> class
    sampler_nodes: Collection[str] = ()  # ids
    random: Random = field(default_factory=Random)
    now: Callable[[], float] = time.time
    new_id: Callable[[], str] = lambda: str(uuid4())
    is_watched: Callable[[], bool] = lambda: False  # whether somebody looks at the live page
    check_lock: Callable[[], None] = lambda: None  # raises ResultsError if another run may be using the folder
    failures: int = 0
    error: str | None = None  # why the run stopped early, as a message
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    node_times: NodeTimes = field(default_factory=NodeTimes)
    spending: FolderSpending | None = None  # None: no job of this run costs anything
    _group_commit: GroupCommit = field(init=False)

    def __post_init__(self) -> None:
        if self.spending is not None:
            self.spending.on_end = self.work_queue.unblock_all
        self._group_commit = GroupCommit(self.store.sync)

    def close(self) -> None:
        """End the context's thread; call it at the end of the run."""
        self._group_commit.close()

    def record_node_times(self, target: str, nodes: Iterable[tuple[str, float]], job: JobRecord | None) -> None:
        """Add the (node, seconds) pairs of a job. The session writes them to the store at the end of the run."""
        pairs = [(name, seconds) for node, seconds in nodes if (name := self.node_classes.get(node))]
        times = None if job is None or job.started is None or job.ended is None else (job.started, job.ended)
        if pairs:
            self.node_times.add_job(target, pairs, times)

    @property
    def is_only_target(self) -> bool:
        """Whether there is one target only, so that it can take items early without keeping them from others."""
        return len(self.target_names) == 1

    async def flush(self) -> None:
        """Wait until everything written to the store so far is on the disk. Raises ResultsError.

        Also if the lock of the results folder was removed, so that nothing more is submitted.
        """
        self.check_lock()
        await self._group_commit.flush()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but wake as soon as the run stops."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopped.wait()
        except TimeoutError:
            return

    def finish_job(
        self,
        item: WorkItem,
        job: JobRecord,
        state: str,
        *,
        error: tuple[str, str] | None = None,
        times: tuple[float | None, float | None] = (None, None),
        artifacts: tuple[Artifact, ...] = (),
        usage: JobUsage | None = None,
    ) -> None:
        """Record the end of `job`, the item's last one: first in the store, then in the item.

        `error`: (error_type, message). `times`: start and end of the execution, seconds since 1970.
        """
        started, ended = times
        error_type, message = error or (None, None)
        job = replace(job, state=state, started=started, ended=ended, error_type=error_type, error=message)
        usage = usage or JobUsage()
        charges = self.charge_end(item, job, usage)
        self.store.record_finished(
            job.id, state, started=started, ended=ended, error=error, artifacts=artifacts, charges=charges,
            sampling_s=usage.sampling_s,
        )  # fmt: skip
        item.job = job
        if state == records.UNSENT:
            item.submissions -= 1

    def record_unanswered(self, item: WorkItem, job: JobRecord, error: TransientError) -> JobRecord:
        """Record that the server was silent after a submission, for the searches of this run and the next.

        Returns the job, which stays open; unchanged if its connection ended otherwise.
        """
        if error.trouble is Trouble.TIMEOUT:
            item.job = job = replace(job, error_type=UNANSWERED_ERROR, error=str(error))
            self.store.record_finished(job.id, job.state, error=(UNANSWERED_ERROR, str(error)))
        return job

    @contextmanager
    def follow(self, item: WorkItem) -> Iterator[None]:
        """Let the budget of the run know that the item's job is in flight, as long as a target handles it."""
        if self.spending is None:
            yield
            return
        if item.open_job is not None:
            self.spending.follow(item.open_job)
        try:
            yield
        finally:
            if item.open_job is not None:
                self.spending.leave(item.open_job.id)

    async def wait_for_budget(self, item: WorkItem, target: str) -> None:
        """Wait until a job of the item fits into the budget, or the run stops. Raises OverBudgetError if it never will.

        Record the intent at once, before anything else can be submitted.
        """
        if self.spending is not None:
            await self.spending.wait_until_fits(target, item.trial, self.stopped)

    def charge_intent(self, item: WorkItem, job: JobRecord) -> tuple[Charge, ...]:
        """Return what a job costs at most that is about to be submitted."""
        return () if self.spending is None else self.spending.record_intent(job, item.trial)

    @property
    def charges_jobs(self) -> bool:
        """Whether somebody needs to know what servers say about the cost of jobs."""
        return self.spending is not None

    def charge_end(self, item: WorkItem, job: JobRecord, usage: JobUsage) -> tuple[Charge, ...] | None:
        """Return what an ended job cost; None if that is what it was expected to cost at most."""
        return None if self.spending is None else self.spending.record_end(job, item.trial, usage, self.now())

    def finish_trial(
        self,
        item: WorkItem,
        status: str,
        target: str,
        *,
        artifacts: tuple[Artifact, ...] = (),
        error: tuple[str, str] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Report the result of every trial that the item stands for, and stop the run if too many failed."""
        error_type, message = error or (None, None)
        for index in (item.trial.index, *self.duplicates.get(item.trial.digest, ())):
            outputs = tuple(artifact.path for artifact in artifacts)
            self.report(TrialDone(index, status, target, outputs, error_type, message, seconds))
            self.failures += status == result.FAILED
        if self.failures > self.settings.allowed_failures and not self.control.stopping:
            self.error = _describe_failures(self.failures, self.settings.allowed_failures)
            self.control.stop_with(MAX_FAILURES)


def _describe_failures(failures: int, allowed: float) -> str:
    count = f"{count_things(failures, 'trial')} failed"
    return (
        f"{count}, more than max_failures allows"
        if allowed
        else f"{count} and no failures are allowed (--fail-fast or max_failures: 0)"
    )
