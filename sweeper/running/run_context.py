"""The context that the target workers of a run share, with the sums of node times and the group commit to the disk."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final, Protocol
from uuid import uuid4

from sweeper.errors import DEADLY_ERROR, LOST_ERROR, UNANSWERED_ERROR, TransientError, Trouble
from sweeper.launching.supervise import Supervisor
from sweeper.model import result
from sweeper.model.model_facts import NO_MODELS, Models
from sweeper.model.money import Charge
from sweeper.model.trial import InputFile, Trial
from sweeper.running.node_class_cache import ClassSource
from sweeper.running.run_events import Cancelling, Draining, Event, Notice, TrialDone
from sweeper.running.settings import EffectiveSettings
from sweeper.running.spending import FolderSpending, JobUsage
from sweeper.running.stop_control import MAX_FAILURES, StopControl, wait_at_most
from sweeper.running.target_models import TargetModels
from sweeper.running.work_queue import SingleQueue, WorkItem, WorkQueue
from sweeper.store import records
from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.file_names import FileNaming
from sweeper.store.records import Artifact, JobEnd, JobRecord
from sweeper.store.server_facts import BESIDES_NODES
from sweeper.wording import count_things

_Sums = dict[str, tuple[int, float]]  # node class -> how often it ran, and the seconds in all


class NodeTimes:
    """How long the nodes of one run took in all, by target. Later runs estimate their order, time and cost from it.

    The first jobs find a server that has loaded no model yet. They count only for the classes that ran in no later job,
    such as the loaders, because a server keeps what these made.
    """

    def __init__(self) -> None:
        self._first: dict[str, _Sums] = {}
        self._later: dict[str, _Sums] = {}
        self._first_end: dict[str, float] = {}

    def add_job(self, target: str, nodes: Iterable[tuple[str, float]], times: tuple[float, float] | None) -> None:
        """Add the (class, seconds) pairs of a job. `times`: its start and end, in seconds since 1970; None if unknown.

        The time of the job in which no node ran is added too, as the class `BESIDES_NODES`.
        """
        pairs = list(nodes)
        started, ended = times or (0.0, math.inf)
        is_first = started < self._first_end.setdefault(target, ended)
        sums = (self._first if is_first else self._later).setdefault(target, {})
        if times is not None:
            rest = ended - started - sum(seconds for _, seconds in pairs)
            pairs.append((BESIDES_NODES, max(0.0, rest)))
        for class_type, seconds in pairs:
            _add(sums, class_type, 1, seconds)

    def add_sums(self, target: str, sums: Mapping[str, tuple[int, float]]) -> None:
        """Add the sums that a worker of a cluster made."""
        for class_type, (runs, seconds) in sums.items():
            _add(self._later.setdefault(target, {}), class_type, runs, seconds)

    def sum_up(self) -> dict[str, _Sums]:
        targets = {**self._first, **self._later}
        return {target: {**self._first.get(target, {}), **self._later.get(target, {})} for target in targets}


def _add(sums: _Sums, class_type: str, runs: int, seconds: float) -> None:
    before = sums.get(class_type, (0, 0.0))
    sums[class_type] = before[0] + runs, before[1] + seconds


MAX_DEATHS: Final = 3  # of servers that executed a trial, before it is the one to blame
_GATHER_SECONDS: Final = 0.003  # time for more waiters to join the next sync, since each sync costs the loop a little


class GroupCommit:
    """Runs `sync()`, which flushes all earlier writes to the disk, in one thread for many waiters.

    The thread is its own, because in a shared pool an intent would wait behind a dozen files. It loops as long as there
    are waiters, because each return to a busy event loop costs milliseconds, several times per job.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._thread = ThreadPoolExecutor(1, "sweeper-sync")
        self._lock = threading.Lock()
        self._waiters: list[asyncio.Future[None]] = []
        self._busy = False

    async def flush(self) -> None:
        """Wait until everything written before this call is on the disk. Raises what `sync` raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiters.append(done)
            idle, self._busy = not self._busy, True
        if idle:
            self._thread.submit(self._run, loop)
        await done

    def close(self) -> None:
        """End the thread. Call it when nothing waits any more, and before the event loop closes."""
        self._thread.shutdown()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                # Later waiters may write after the sync has begun, so they wait for the next one.
                waiters, self._waiters = self._waiters, []
                if not waiters:
                    self._busy = False
                    return
            error: Exception | None = None
            try:
                self._sync()
            except Exception as sync_error:  # noqa: BLE001 (raised again in every waiter)
                error = sync_error
            loop.call_soon_threadsafe(_resolve_waiters, waiters, error)
            if len(waiters) > 1:  # with one job at a time there are no more waiters to gather
                time.sleep(_GATHER_SECONDS)


def _resolve_waiters(waiters: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    for done in waiters:
        if done.done():  # cancelled meanwhile
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


class WorkflowSource(Protocol):
    """The part of a plan that jobs need. `Plan` has it; on a cluster's worker, `RemotePlan` does."""

    def workflow(self, trial: Trial) -> dict[str, Any]:
        """A new copy of the trial's graph in API format, which the caller may change."""

    def files(self, trial: Trial) -> tuple[InputFile, ...]: ...


class JobStore(Protocol):
    """The part of a store that jobs need. `Store` has it; on a cluster's worker, `RemoteStore` does."""

    def count_attempts(self, digest: str, targets: Sequence[str]) -> int: ...

    def has_prompt_id(self, prompt_id: str) -> bool: ...

    def load_server_time(self, job_id: str) -> float | None: ...

    def record_intent(
        self,
        job: JobRecord,
        *,
        server_time: float | None = None,
        charges: Sequence[Charge] = (),
        models: Models = NO_MODELS,
    ) -> None: ...

    def record_submitted(self, job_id: str, prompt_id: str, now: float) -> None: ...

    def record_finished(self, job_id: str, end: JobEnd) -> None: ...

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
    report: Callable[[Event], None]
    target_names: tuple[str, ...]
    duplicates: Mapping[str, list[int]]
    naming: FileNaming
    node_classes: Mapping[str, str] = field(default_factory=dict)  # node id -> class
    sampler_nodes: Collection[str] = ()  # ids
    work_queue: WorkQueue = field(default_factory=lambda: WorkQueue([], SingleQueue(iter(()))))
    random: Random = field(default_factory=Random)
    now: Callable[[], float] = time.time
    new_id: Callable[[], str] = lambda: str(uuid4())
    is_watched: Callable[[], bool] = lambda: False  # whether somebody looks at the live page
    check_lock: Callable[[], None] = lambda: None  # raises ResultsError if another run may be using the folder
    failures: int = 0
    error: str | None = None  # why the run stopped early, as a message
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    reported_stop: Cancelling | Draining | None = None
    node_times: NodeTimes = field(default_factory=NodeTimes)
    spending: FolderSpending | None = None  # None: no job of this run costs anything
    charges_jobs: bool = False  # whether somebody needs to know what servers say about the cost of jobs
    models: Mapping[str, TargetModels] = field(default_factory=dict)  # by target; see `Session.models`
    launched: Mapping[str, Supervisor] = field(default_factory=dict)  # by target, what keeps its ComfyUI alive
    sent: dict[str, WorkItem] = field(default_factory=dict)  # by job id, in order; those that the server has not ended
    is_only_target: bool = False  # so that it can take items early without keeping them from others
    _group_commit: GroupCommit = field(init=False)

    def __post_init__(self) -> None:
        if self.spending is not None:
            self.spending.on_end = lambda: self.work_queue.unblock_all()  # noqa: PLW0108 - a session sets the queue
        self._group_commit = GroupCommit(self.store.sync)

    def close(self) -> None:
        self._group_commit.close()

    def get_models(self, target: str, trial: Trial) -> Models:
        """The facts about the model files that a trial uses on a target; empty if it tells nothing."""
        return self.models[target].get(trial) if target in self.models else NO_MODELS

    async def free_outdated(self, client: ClassSource, trial: Trial) -> None:
        """Let a server read files again that were replaced since it may have read them, before it gets the trial.

        Raises TransientError and TargetError, with nothing sent of the trial.
        """
        name, models = client.target.name, self.models.get(client.target.name)
        if models is not None and (notice := await models.free_before(client.models, client.target.url, trial)):
            self.report(Notice(f"{name}: {notice}"))

    def record_node_times(self, target: str, nodes: Iterable[tuple[str, float]], job: JobRecord | None) -> None:
        """Add the (node, seconds) pairs of a job. The session writes them to the store at the end of the run."""
        pairs = [(name, seconds) for node, seconds in nodes if (name := self.node_classes.get(node))]
        times = None if job is None or job.started is None or job.ended is None else (job.started, job.ended)
        if pairs:
            self.node_times.add_job(target, pairs, times)

    async def flush(self) -> None:
        """Wait until everything written to the store so far is on the disk. Raises ResultsError.

        Also if the lock of the results folder was removed, so that nothing more is submitted.
        """
        self.check_lock()
        await self._group_commit.flush()

    def report_stop(self, in_flight: int) -> bool:
        """Report that the run drains its jobs, or cancels them, and wake who sleeps. Whether that is new."""
        cancels, reason = self.control.cancelling, self.control.reason or ""
        event = Cancelling(in_flight) if cancels else Draining(in_flight, reason)
        is_new = type(event) is not type(self.reported_stop)
        if is_new:
            self.reported_stop = event
            self.report(event)
        self.stopped.set()
        return is_new

    async def sleep(self, seconds: float) -> None:
        """Sleep, but wake as soon as the run stops."""
        await wait_at_most(seconds, self.stopped.wait())

    def finish_job(self, item: WorkItem, job: JobRecord, end: JobEnd, usage: JobUsage | None = None) -> None:
        """Record the end of `job`, the item's last one: first in the store, then in the item."""
        usage = usage or JobUsage()
        error_type, message = end.error or (None, None)
        job = replace(job, state=end.state, started=end.started, ended=end.ended, error_type=error_type, error=message)
        charges = self.charge_end(item, job, usage)
        self.store.record_finished(job.id, replace(end, charges=charges, sampling_s=usage.sampling_s))
        item.job = job
        self.mark_ended(job)
        if end.state == records.UNSENT:
            item.submissions -= 1

    def mark_ended(self, job: JobRecord | None) -> None:
        """Note that the server executes the job no more, so that it is not to blame if the server dies now."""
        if job is not None:
            self.sent.pop(job.id, None)

    def drop_lost(self, item: WorkItem) -> bool:
        """Record that an item's job is lost, if the process died that had it. Whether that is so.

        The trial fails if that happened too often while it was executed.
        """
        job = item.open_job
        server = None if job is None else self.launched.get(job.target)
        if job is None or server is None or job.intended >= server.alive_since:
            return False
        if len(item.deaths) < MAX_DEATHS:
            error = (LOST_ERROR, f"its ComfyUI ended: {server.last_death}")
            self.finish_job(item, job, JobEnd(records.LOST, error=error))
            item.submissions = max(0, item.submissions - 1)
            return True
        causes = "; ".join(dict.fromkeys(item.deaths))
        message = f"ComfyUI died {len(item.deaths)} times while it executed this trial: {causes}"
        self.finish_job(item, job, JobEnd(records.FAILED, error=(DEADLY_ERROR, message)))
        item.finished = True
        self.finish_trial(item, result.FAILED, job.target, error=(DEADLY_ERROR, message))
        return True

    def record_unanswered(self, item: WorkItem, job: JobRecord, error: TransientError) -> None:
        """Record that the server was silent after a submission, for the searches of this run and the next.

        The job stays open; it is unchanged if its connection ended otherwise.
        """
        if error.trouble is Trouble.TIMEOUT:
            item.job = replace(job, error_type=UNANSWERED_ERROR, error=str(error))
            self.store.record_finished(job.id, JobEnd(job.state, error=(UNANSWERED_ERROR, str(error))))

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

    def record_intent(
        self, item: WorkItem, target: str, sent: str, server_time: float | None, job_id: str | None = None
    ) -> JobRecord:
        """Record that a job of the item is about to be submitted, with what it costs at most and uses, and return it.

        `sent`: see `JobRecord`. `server_time`: the time now by the server's clock, if known. `job_id` None: a new one.
        """
        if self.settings.fresh:
            earlier = item.submissions
        else:
            earlier = 0 if item.never_submitted else self.store.count_attempts(item.trial.digest, self.target_names)
        item.never_submitted = False
        job = JobRecord(
            job_id or self.new_id(),
            self.run_id,
            target,
            item.trial.digest,
            sent,
            earlier + 1,
            None,
            records.INTENT,
            self.now(),
        )
        charges = () if self.spending is None else self.spending.record_intent(job, item.trial)
        models = self.get_models(target, item.trial)
        self.store.record_intent(job, server_time=server_time, charges=charges, models=models)
        item.job = job
        item.submissions += 1
        return job

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
            allows = "no failures are allowed (--fail-fast or max_failures: 0)"
            rule = ", more than max_failures allows" if self.settings.allowed_failures else f" and {allows}"
            self.error = f"{count_things(self.failures, 'trial')} failed{rule}"
            self.control.stop_with(MAX_FAILURES)
