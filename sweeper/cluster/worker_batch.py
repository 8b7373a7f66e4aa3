"""One group of trials on a worker, from the driver's word to its last news: a lane of its own on the server beside it.

The driver pulls the news; if it does not for `LEASE` seconds it is dead or cut off, and the stint submits nothing more:
whoever takes the results folder next looks the jobs up on the server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.cluster.messages import (
    BatchFinished,
    BatchItem,
    BatchStart,
    EventForwarded,
    JobFinished,
    JobLease,
    RunSpec,
    WorkerMessage,
    WorkerUpdate,
    unpack,
    worker_file_name,
)
from sweeper.cluster.worker_context import (
    BatchQueue,
    PendingTrials,
    RemotePlan,
    RemoteStore,
    WorkerRunContext,
    make_reporter,
)
from sweeper.errors import RefusedError, SweeperError
from sweeper.images.metrics.registry import MetricInput
from sweeper.running.run_events import TargetDown
from sweeper.running.scheduler import Scheduler
from sweeper.running.stop_control import INTERRUPT, REFUSED, UNREACHABLE, StopControl
from sweeper.running.work import WorkItem
from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.records import OPEN_STATES, UNSENT, JobRecord

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.model.trial import InputFile
    from sweeper.running.concurrency_limit import ConcurrencyLimit

LEASE_SECONDS: Final = 20.0  # seconds without a pull after which the driver counts as gone
_PULL_TIMEOUT: Final = 2.0  # seconds that a pull waits for news
_COALESCE_SECONDS: Final = 0.03  # seconds: news come in bursts, and a pull costs two hops
_INLINE_BYTES: Final = 2**20  # bytes of a file that travels with its news; larger ones are asked for in pieces
_MAX_UPDATE_BYTES: Final = 4 * 2**20  # bytes of files in one batch
_SETTLE_SECONDS: Final = 20.0  # seconds for submissions on their way to be answered before the stint is let go


class WorkerBatch:
    """`folder`: where artifacts go; where that is their place (`shared`), the driver need not bring them. `inputs`:
    where the driver has put input files, by SHA-256. `metrics`: name -> function.
    """

    def __init__(
        self,
        run_spec: RunSpec,
        run_id: int,
        *,
        folder: ArtifactFolder,
        stores_directly: bool,
        inputs_folder: Path,
        metrics: dict[str, Any],
        name: str,
    ) -> None:
        self.run_spec, self.folder, self.inputs_folder, self.metrics = run_spec, folder, inputs_folder, metrics
        self._run_id = run_id
        self._stores_directly = stores_directly
        self.control = StopControl()
        self.started = asyncio.Event()
        self.dropped = False
        self.last_heartbeat = asyncio.get_running_loop().time()
        self._name = name
        self._items: list[BatchItem] = []
        self._work_items: list[tuple[str, WorkItem]] = []
        self._pending = PendingTrials()
        self._returned_jobs: set[str] = set()  # jobs that were given back to the driver unsent
        self._inbox: asyncio.Queue[WorkerMessage | None] = asyncio.Queue()
        self._messages: deque[tuple[int, WorkerMessage]] = deque()
        self._last_number = 0
        self._changed = asyncio.Event()
        self._finished: BatchFinished | None = None
        self._store = RemoteStore(self._inbox.put_nowait)
        self._run_task: asyncio.Task[str | None] | None = None
        self._inbox_task: asyncio.Task[None] | None = None

    # --- the driver's side

    def start(self, batch_start: BatchStart) -> None:
        """Begin."""
        if self.started.is_set():
            return
        self._items = unpack(batch_start.packed_items)
        fresh = iter(batch_start.leases)
        for item in self._items:
            self._store.add_prompt_ids(item.other_prompt_ids)
            if item.job is not None:
                self._store.add_job(item.job)
                # One submission is behind it: without the driver's next intent there is none from here.
                work = WorkItem(item.trial, replace(item.job, target=self.target_name), submissions=1)
            else:
                grant = next(fresh)
                self._store.add_lease(item.trial.digest, grant)
                work = WorkItem(item.trial, self._make_job(item, grant))
            self._work_items.append((work.job.id if work.job else "", work))
            self._pending.work_items.append(work)
        self._inbox_task = asyncio.create_task(self._process_inbox())
        self.started.set()

    def _make_job(self, item: BatchItem, lease: JobLease) -> JobRecord:
        # UNSENT and of this run: the carrier then uses this id, and no other, for its submission.
        return JobRecord(
            lease.job_id, self._run_id, self.target_name, item.trial.digest, "", lease.attempt, None, UNSENT,
            lease.intended_at,
        )  # fmt: skip

    async def pull_update(self, after: int) -> WorkerUpdate:
        """The news behind number `after`, whose predecessors the driver has written down; waits a moment for some."""
        loop = asyncio.get_running_loop()
        self.last_heartbeat = loop.time()
        self._discard_messages(after)
        if not self._messages and self._finished is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PULL_TIMEOUT):
                    await self._changed.wait()
        if self._finished is None:
            await asyncio.sleep(_COALESCE_SECONDS)
        self.last_heartbeat = loop.time()
        return self._make_update(after)

    def _make_update(self, after: int) -> WorkerUpdate:
        news: list[WorkerMessage] = []
        contents: dict[str, bytes] = {}
        room = _MAX_UPDATE_BYTES
        number = after
        for number, item in self._messages:  # noqa: B007 (the last one is the batch's number)
            news.append(item)
            if isinstance(item, JobFinished) and not self._stores_directly:
                for artifact in item.artifacts:
                    if artifact.bytes <= _INLINE_BYTES:
                        contents[artifact.path] = self.folder.local_path(artifact.path).read_bytes()
                        room -= artifact.bytes
            if room <= 0:
                break
        whole = number == self._last_number
        self._changed.clear()
        return WorkerUpdate(number, tuple(news), contents, self._finished if whole else None)

    def _discard_messages(self, upto: int) -> None:
        while self._messages and self._messages[0][0] <= upto:
            _, item = self._messages.popleft()
            if isinstance(item, JobFinished) and not self._stores_directly:
                self._remove_files(item)

    def clear(self) -> None:
        """Everything is written down: nothing of ours is needed here any more."""
        self._discard_messages(self._last_number)

    def _remove_files(self, message: JobFinished) -> None:
        for artifact in message.artifacts:
            with contextlib.suppress(OSError):
                self.folder.local_path(artifact.path).unlink()

    def return_pending(self, count: int) -> int:
        """Give up to `count` trials that wait here back to the driver; how many there were."""
        waiting = self._pending.work_items
        given: deque[str] = deque()
        while len(given) < count and waiting and (job := waiting[-1].job) is not None and job.state == UNSENT:
            waiting.pop()
            given.appendleft(job.id)
        for job_id in given:
            self._return_job(job_id)
        return len(given)

    def _return_work(self, item: WorkItem) -> None:
        self._return_job(next(job for job, known in self._work_items if known is item))

    def _return_job(self, job_id: str) -> None:
        self._returned_jobs.add(job_id)
        self._inbox.put_nowait(JobFinished(job_id, UNSENT, None, None, None, ()))

    def stop(self, *, cancelling: bool) -> None:
        self.control.drain(INTERRUPT)  # told once for each group on this worker
        if cancelling and not self.control.cancelling:
            self.control.stop_with(INTERRUPT)

    async def drop(self) -> tuple[str, ...]:
        """Let go: submit nothing more, wait for what is being answered, follow nothing. The jobs that never left.

        Artifacts in the results folder itself stay: the driver may have written them down and died before it said so.
        Those that it has not are found again with their jobs, by name and content.
        """
        self.dropped = True
        self.control.drain(INTERRUPT)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SETTLE_SECONDS
        while self._store.submitting and loop.time() < deadline:  # noqa: ASYNC110 (the lane knows no event for it)
            await asyncio.sleep(0.02)
        if self._run_task is not None:
            self._run_task.cancel()
            await asyncio.wait([self._run_task])
        await self._drain_inbox()
        self.started.set()
        while self._messages:
            _, item = self._messages.popleft()
            if isinstance(item, JobFinished) and not self._stores_directly:
                self._remove_files(item)
        return tuple(job for job, state in self._store.job_states.items() if state == UNSENT)

    # --- the task's side

    @property
    def target_name(self) -> str:
        return self.run_spec.target.name

    async def run(self, client: ComfyClient, gate: ConcurrencyLimit) -> None:
        """Carry the group through its server's gate; returns when everything is in the news."""
        order = self.run_spec
        shared = WorkerRunContext(
            plan=RemotePlan(self._items, self._localize),
            experiment=order.experiment,
            run_id=self._run_id,
            store=self._store,
            folder=self.folder,
            settings=replace(order.settings, retries=0, fresh=False, limit=None),
            control=self.control,
            work_queue=BatchQueue(self._pending, self._return_work),
            report=make_reporter(self._inbox.put_nowait, self._name),
            target_names=(self.target_name,),
            duplicates={},
            send=self._inbox.put_nowait,
            node_classes={name: str(node["class_type"]) for name, node in self._items[0].graph.items()},
        )
        crew = Scheduler(shared, [(client, gate)])
        self._run_task = asyncio.create_task(crew.run())
        watch = asyncio.create_task(self._watch_lease())
        try:
            await self._run_task
        except asyncio.CancelledError:
            if not self.dropped:
                raise
        finally:
            watch.cancel()
            await self._drain_inbox()
        left, reason = self._report_unsent(), self.control.reason
        # What is left is the driver's to tell, which knows of every group's.
        times = shared.node_times.get(self.target_name, {})
        self._finished = BatchFinished(left, None if reason == INTERRUPT else reason, shared.error, times)
        self._changed.set()

    async def fail(self, error: Exception) -> None:
        """Nothing can be done here: what never left goes back, what is open is for others to look for."""
        reason = REFUSED if isinstance(error, RefusedError) else UNREACHABLE
        said = str(error) if isinstance(error, SweeperError) else f"{type(error).__name__}: {error}"
        await self._drain_inbox()
        self._add_message(EventForwarded(TargetDown(self._name, said, final=True)))
        self._finished = BatchFinished(self._report_unsent(), reason, f"{self._name}: {said}", {})
        self._changed.set()

    def _report_unsent(self) -> tuple[str, ...]:
        """Tell what never left; return what is still open."""
        states = self._store.job_states
        for job, _ in self._work_items:
            if states[job] == UNSENT and job not in self._returned_jobs:
                self._add_message(JobFinished(job, UNSENT, None, None, None, ()))
        return tuple(job for job, _ in self._work_items if states[job] in OPEN_STATES)

    async def _drain_inbox(self) -> None:
        """Everything that happened is in the news."""
        if self._inbox_task is not None:
            self._inbox.put_nowait(None)
            await self._inbox_task

    async def _process_inbox(self) -> None:
        """Put what happens into the news, measured where it has pictures and metrics are asked for."""
        while (item := await self._inbox.get()) is not None:
            measured = item
            if isinstance(item, JobFinished) and item.artifacts and self.metrics:
                measured = await asyncio.to_thread(self._with_measures, item)
            if isinstance(item, JobFinished):
                self.folder.drop_local_copies(artifact.path for artifact in item.artifacts)
            self._add_message(measured)

    def _add_message(self, message: WorkerMessage) -> None:
        self._last_number += 1
        self._messages.append((self._last_number, message))
        self._changed.set()

    def _with_measures(self, message: JobFinished) -> JobFinished:
        from sweeper.images.metrics.measure import measure_missing  # noqa: PLC0415 (NumPy and Pillow come with it)

        trial = next(work.trial for job, work in self._work_items if job == message.job_id)
        files = [
            MetricInput(artifact.sha256, self.folder.local_path(artifact.path), trial.digest, trial.params)
            for artifact in message.artifacts
        ]
        # The driver measures what is missing once more, and says why it cannot be done.
        return replace(message, measures=tuple(measure_missing(files, self.metrics, {}, {})))

    async def _watch_lease(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() - self.last_heartbeat < LEASE_SECONDS:  # noqa: ASYNC110 (each pull moves the end)
            await asyncio.sleep(1.0)
        await asyncio.shield(asyncio.ensure_future(self.drop()))

    def _localize(self, file: InputFile) -> InputFile:
        mask = None if file.mask is None else self._localize(file.mask)
        return replace(file, path=self.inputs_folder / worker_file_name(file), mask=mask)

    @property
    def is_orphaned(self) -> bool:
        """Whether nobody has asked for the news for so long that nobody will."""
        return self.seconds_since_heartbeat > 2 * LEASE_SECONDS

    @property
    def seconds_since_heartbeat(self) -> float:
        """Seconds since the driver last asked."""
        return asyncio.get_running_loop().time() - self.last_heartbeat

    @property
    def has_pending(self) -> bool:
        """Whether some of its trials have not been begun."""
        return not self._pending.is_empty and self._finished is None and not self.control.stopping
