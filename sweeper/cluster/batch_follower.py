"""Cut the work that no worker has into batches, and follow each from its intents to its last message.

Consecutive trials share expensive nodes. A batch is therefore a piece of the run order, cut where the next trial costs
most anyway. Everything is recorded before the worker forgets it. Artifacts come from a worker, and input files go to
it, in bounded, verified chunks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from sweeper.cluster import messages
from sweeper.cluster.worker_batch import WorkerBatch
from sweeper.cluster.worker_plugin import SweeperWorkerPlugin
from sweeper.cluster.workers import WorkerGoneError, WorkerRegistry
from sweeper.comfy.jobs_api import fingerprint
from sweeper.comfy.protocol import find_advice
from sweeper.comfy.retry import SUBMIT_AGAIN
from sweeper.errors import LOST_ERROR
from sweeper.model import result
from sweeper.model.trial import InputFile
from sweeper.planning.order import TransitionCost
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import Event, Retrying
from sweeper.running.work_queue import Lookahead, Shard, WorkItem, find_shard_length, is_worth_retrying
from sweeper.store import Store, records
from sweeper.store.records import INTENT, OPEN_STATES, SUBMITTED, Artifact

if TYPE_CHECKING:
    from distributed import Future


CHUNK_BYTES: Final = 4 * 2**20
MAX_BATCH_SIZE: Final = 64  # trials; a dead worker leaves at most that many jobs to search for
BATCHES_PER_WORKER: Final = 2  # parts into which the remaining work is cut; idle workers steal the rest at the end


class WorkPool:
    """The work that no worker has: fresh trials in run order, returned ones, and open jobs to search for.

    Batches get smaller as the remaining work does. `total`: the number of all items, also those in `open_by_server`.
    """

    def __init__(self, fresh: Iterator[WorkItem], total: int, transition_cost: TransitionCost) -> None:
        self._transition_cost = transition_cost
        self._fresh = Lookahead(fresh, 1)
        self._returned: deque[WorkItem] = deque()
        self.open_by_server: dict[str, list[WorkItem]] = {}  # items whose job may be on that server
        self.delayed = 0  # items that wait for their retry
        self.remaining = total
        self.closed = False
        self.on_change: Callable[[], None] = lambda: None  # called when there is something to hand out

    def batch_size(self, workers: int) -> int:
        """How many trials the next batch should have."""
        return max(1, min(MAX_BATCH_SIZE, math.ceil(self.remaining / (BATCHES_PER_WORKER * max(1, workers)))))

    def take(self, size: int) -> list[WorkItem]:
        """Take about `size` items for a batch, returned ones first; an empty list if there are none now."""
        if self.closed:
            return []
        source = self._returned or self._fresh.fill(size + size // 2 + 1)
        count = find_shard_length(source, size, self._transition_cost)
        items = [source.popleft() for _ in range(count)]
        self._fresh.fill(1)
        return items

    def count_to_steal(self, submitted: list[WorkItem], pending: list[WorkItem]) -> int:
        """How many of the last `pending` items, queued on one worker behind `submitted`, an idle worker should take."""
        if len(pending) == 1 and submitted:
            cost = self._transition_cost.compute(submitted[-1].trial, pending[0].trial)
            return int(self._transition_cost.full_cost < cost * (len(submitted) + 1))
        tail = Shard(pending, self._transition_cost).split_tail(self._transition_cost)
        return 0 if tail is None else len(tail)

    def requeue(self, item: WorkItem) -> None:
        """Return an item that any worker may submit."""
        self._returned.append(item)
        self.on_change()

    def put_back(self, items: list[WorkItem]) -> None:
        """Put items back that were taken, to be taken next."""
        self._returned.extendleft(reversed(items))

    def add_open_item(self, server_id: str, item: WorkItem) -> None:
        """Add an item whose job may be on that server. In a closed pool, it stays open on record instead."""
        if self.closed:
            return
        self.open_by_server.setdefault(server_id, []).append(item)
        self.on_change()

    def complete(self) -> None:
        self.remaining -= 1

    @property
    def idle(self) -> bool:
        """Whether no item waits to be submitted."""
        return not self._fresh and not self._returned

    @property
    def is_waiting(self) -> bool:
        """Whether items wait for their retry, or for a worker that can reach the server of their job."""
        return bool(self.delayed or self.open_by_server)

    @property
    def empty(self) -> bool:
        """Whether no item waits at all, and none will."""
        return (self.closed or (self.idle and not self.delayed)) and not self.open_by_server


@dataclass(slots=True)
class Batch:
    """A batch. `created_at`: when its task was submitted to Dask, by the loop's clock.

    `server_id`: the server that may have its jobs, if they were submitted before. `addresses`: the workers that may
    take it, None for all. `worker`: the worker that runs it. `work_by_job`: its items by job id; `ended_jobs`: those
    jobs that ended or were returned. `saved_artifacts`: by job id, until its trial is reported.
    """

    id: str
    work_items: list[WorkItem]
    created_at: float
    server_id: str | None = None
    addresses: tuple[str, ...] | None = None
    future: Future[str] | None = None
    worker: messages.WorkerInfo | None = None
    work_by_job: dict[str, WorkItem] = field(default_factory=dict)
    ended_jobs: set[str] = field(default_factory=set)
    saved_artifacts: dict[str, tuple[Artifact, ...]] = field(default_factory=dict)

    @property
    def unfinished(self) -> list[WorkItem]:
        """The items whose job has not ended."""
        return [item for job_id, item in self.work_by_job.items() if job_id not in self.ended_jobs]

    @property
    def pending(self) -> list[WorkItem]:
        """The unfinished items that no server is known to have; they wait on the worker."""
        return [item for item in self.unfinished if item.job is not None and item.job.state == INTENT]

    @property
    def submitted(self) -> list[WorkItem]:
        """The unfinished items that a server is known to have."""
        return [item for item in self.unfinished if item.job is not None and item.job.state == SUBMITTED]


class BatchFollower:
    """Records what batches do. `name`: the target's, under which the store keeps the work of all workers."""

    def __init__(self, context: RunContext, store: Store, registry: WorkerRegistry, pool: WorkPool, name: str) -> None:
        self.context, self.store, self.registry, self.pool, self.name = context, store, registry, pool, name

    async def follow(self, batch: Batch, worker: messages.WorkerInfo) -> messages.BatchFinished | None:
        """Start a batch on a worker and follow it to its end.

        Returns None if the worker is gone, or if no job of the batch fits into the budget.
        """
        start: bytes | None = None
        try:
            files = [file for item in batch.work_items for file in self.context.plan.files(item.trial)]
            await self._send_inputs(worker, files)
            await self._record_intents(batch, worker)
            if not batch.work_items:
                return None
            start = messages.pack(
                self._build_item(item, is_search=batch.server_id is not None) for item in batch.work_items
            )
            while True:
                pull = SweeperWorkerPlugin.call_batch, batch.id, WorkerBatch.pull_update, start
                update: messages.WorkerUpdate | None = await self.registry.call(*pull, address=worker.address)
                if update is None:
                    return None
                (received, finished), start = update, None
                await self._record_messages(batch, worker, received)
                if finished is not None:
                    self.context.node_times.add_sums(self.name, finished.node_times)
                    await self.registry.call(SweeperWorkerPlugin.close_batch, batch.id, address=worker.address)
                    return finished
        except WorkerGoneError:
            return None

    def _build_item(self, item: WorkItem, *, is_search: bool) -> messages.BatchItem:
        trial, job, plan = item.trial, item.job, self.context.plan
        assert job is not None
        graph, files = plan.workflow(trial), plan.files(trial)
        if not is_search:
            return messages.BatchItem(trial, graph, files, replace(job, state=records.UNSENT))
        same = self.store.jobs([job.digest])
        others = frozenset(other.prompt_id for other in same if other.prompt_id is not None and other.id != job.id)
        return messages.BatchItem(trial, graph, files, job, others, self.store.load_server_time(job.id))

    # --- intents

    async def _record_intents(self, batch: Batch, worker: messages.WorkerInfo) -> None:
        """Record the intents to submit the batch's jobs to the worker's server. Open jobs have theirs already.

        Returns items to the pool that do not fit into the budget.
        """
        if batch.server_id is not None:
            batch.work_by_job = {item.job.id: item for item in batch.work_items if item.job is not None}
            return
        spending, jobs = self.context.spending, []
        server_time = self.registry.get_server_time(worker.address)
        with self.store.transaction(durable=False):
            for item in batch.work_items:
                if spending is not None and not spending.fits(self.name, item.trial):
                    break
                sent = fingerprint(self.context.plan.workflow(item.trial))
                jobs.append(self.context.record_intent(item, self.name, sent, server_time))
            self.store.servers.save_server_id(worker.server_id, [job.id for job in jobs])
        self.pool.put_back(batch.work_items[len(jobs) :])
        del batch.work_items[len(jobs) :]
        batch.work_by_job = {job.id: item for job, item in zip(jobs, batch.work_items, strict=True)}
        await self.context.flush()

    # --- messages

    async def _record_messages(
        self, batch: Batch, worker: messages.WorkerInfo, received: Sequence[messages.WorkerMessage]
    ) -> None:
        """Record messages: the files first, then all records in one transaction. Report the events at last."""
        for message in received:
            if isinstance(message, messages.JobFinished) and message.end.artifacts:
                batch.saved_artifacts[message.job_id] = await self._fetch_artifacts(batch, worker, message)
        with self.store.transaction(durable=False):
            for message in received:
                self._record_message(batch, message)
        await self.context.flush()  # with the next pull, the worker forgets these messages
        for message in received:
            self._report_message(batch, message)

    def _record_message(self, batch: Batch, message: messages.WorkerMessage) -> None:
        if isinstance(message, messages.JobAccepted):
            item = batch.work_by_job[message.job_id]
            self.store.record_submitted(message.job_id, message.prompt_id, message.submitted_at)
            if item.job is not None:
                item.job = replace(
                    item.job, state=records.SUBMITTED, prompt_id=message.prompt_id, submitted=message.submitted_at
                )
        elif isinstance(message, messages.JobFinished):
            item = batch.work_by_job[message.job_id]
            assert item.job is not None
            end = replace(message.end, artifacts=batch.saved_artifacts.get(message.job_id, ()))
            self.context.finish_job(item, item.job, end, message.usage)
            if message.measures:
                self.store.cache_metrics(message.measures)

    def _report_message(self, batch: Batch, message: messages.WorkerMessage) -> None:
        if isinstance(message, Event):
            self.context.report(message)
        elif isinstance(message, messages.JobFinished) and message.end.state not in OPEN_STATES:
            batch.ended_jobs.add(message.job_id)
            item, artifacts = batch.work_by_job[message.job_id], batch.saved_artifacts.pop(message.job_id, ())
            if message.end.state == records.UNSENT:
                self.pool.requeue(item)
            else:
                self._finish_trial(item, artifacts)

    def _finish_trial(self, item: WorkItem, artifacts: tuple[Artifact, ...] = ()) -> None:
        """Report the trial of a job that has ended, unless it is retried."""
        assert item.job is not None
        is_refused = find_advice(item.job.error_type) is not None  # by the account, so the run ends, too
        if not is_refused and self._schedule_retry(item, item.job):
            return
        job, status = item.job, result.FAILED if is_refused else records.STATUS_OF_STATE[item.job.state]
        if status == result.SUCCEEDED:
            self.context.finish_trial(item, status, self.name, artifacts=artifacts, seconds=job.seconds)
        else:
            self.context.finish_trial(item, status, self.name, error=(job.error_type or "", job.error or ""))
        self.pool.complete()

    # --- files

    async def _fetch_artifacts(
        self, batch: Batch, worker: messages.WorkerInfo, message: messages.JobFinished
    ) -> tuple[Artifact, ...]:
        """Save the artifacts of a job in the results folder, unless the worker wrote them there itself.

        Raises WorkerGoneError if the worker is gone or a file arrives damaged, ResultsError if the disk is full.
        """
        if worker.stores_directly:
            return message.end.artifacts
        saved: list[Artifact] = []
        for index, artifact in enumerate(message.end.artifacts):
            with self.context.folder.open_incoming(message.job_id, index) as file:
                digest, received = hashlib.sha256(), 0
                while received < artifact.bytes:
                    read = batch.id, WorkerBatch.read_chunk, artifact.path, received, CHUNK_BYTES
                    chunk = await self.registry.call(SweeperWorkerPlugin.call_batch, *read, address=worker.address)
                    if not chunk:
                        break
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                if received != artifact.bytes or digest.hexdigest() != artifact.sha256:
                    raise WorkerGoneError(f"{worker.name}: {artifact.path} arrived damaged")
                name = PurePosixPath(artifact.path).name
                saved.append(replace(artifact, path=await asyncio.to_thread(self.context.folder.save, file, name)))
        return tuple(saved)

    async def _send_inputs(self, worker: messages.WorkerInfo, inputs: Iterable[InputFile]) -> None:
        """Send a worker the input files and masks that it lacks. Raises WorkerGoneError.

        Skips a file that cannot be read. The worker then reports it in the result of its trial.
        """
        files = {
            messages.worker_file_name(part): part for file in inputs for part in (file, file.mask) if part is not None
        }
        if not files:
            return
        find = SweeperWorkerPlugin.find_missing_inputs, tuple(files)
        for name in await self.registry.call(*find, address=worker.address):
            with contextlib.suppress(OSError), files[name].path.open("rb") as file:
                offset, is_last = 0, False
                while not is_last:
                    chunk = await asyncio.to_thread(file.read, CHUNK_BYTES)
                    is_last = len(chunk) < CHUNK_BYTES
                    write = SweeperWorkerPlugin.write_input, name, offset, chunk, is_last
                    await self.registry.call(*write, address=worker.address)
                    offset += len(chunk)

    # --- retries

    def mark_lost(self, item: WorkItem, message: str) -> None:
        """Record that a job is lost, because its server is gone. Retries its trial if that is allowed."""
        assert item.job is not None
        self.context.finish_job(item, item.job, records.JobEnd(records.LOST, error=(LOST_ERROR, message)))
        self._finish_trial(item)

    def _schedule_retry(self, item: WorkItem, job: records.JobRecord) -> bool:
        """Return an item to the pool after a wait, if it may be retried. Follows the same rules as a single machine."""
        context = self.context
        is_last = item.submissions and (item.submissions > context.settings.retries or context.control.stopping)
        if not (job.state == records.LOST or is_worth_retrying(item, job)) or is_last:
            return False
        wait = SUBMIT_AGAIN.draw(item.submissions, context.random) if item.submissions else 0.0
        reason = f"{job.error_type}: {job.error}"
        context.report(Retrying(self.name, item.trial.index, job.attempt + 1, wait, reason))
        self.pool.delayed += 1

        def requeue() -> None:
            self.pool.delayed -= 1
            self.pool.requeue(item)

        asyncio.get_running_loop().call_later(wait, requeue)
        return True
