"""One granted group, from its intents to its last news: all is written down here before the worker forgets it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeper.cluster import worker_rpc
from sweeper.cluster.file_transfer import fetch_artifacts, index_by_worker_name, send_inputs
from sweeper.cluster.messages import (
    BatchItem,
    BatchStart,
    EventForwarded,
    JobAccepted,
    JobFinished,
    JobLease,
    TrialFinished,
    WorkerUpdate,
    pack,
)
from sweeper.cluster.workers import WorkerGoneError, WorkerRegistry
from sweeper.comfy.job_marker import fingerprint
from sweeper.comfy.protocol import JobState
from sweeper.errors import LOST_ERROR
from sweeper.model import result
from sweeper.running.retry_rules import RESUBMIT_BACKOFF, is_out_of_memory, is_transient
from sweeper.running.run_events import Retrying
from sweeper.store import records
from sweeper.store.records import JobRecord

if TYPE_CHECKING:
    from sweeper.cluster.batch import Batch
    from sweeper.cluster.messages import BatchFinished, WorkerMessage
    from sweeper.cluster.work_pool import WorkPool
    from sweeper.running.run_context import RunContext
    from sweeper.running.work import WorkItem
    from sweeper.store import Store


class BatchFollower:
    """Writes down what groups do; `name` is the target's, under which every worker's work stands."""

    def __init__(self, context: RunContext, store: Store, registry: WorkerRegistry, pool: WorkPool, name: str) -> None:
        self.context, self.store, self.registry, self.pool, self.name = context, store, registry, pool, name

    async def follow(self, batch: Batch) -> BatchFinished | None:
        """Let a granted group begin and follow it to its end; None when its worker is gone."""
        assert batch.worker is not None
        address = batch.worker.address
        opening: BatchStart | None = None
        try:
            files = [file for work in batch.work_items for file in self.context.plan.files(work.trial)]
            await send_inputs(self.registry, batch.worker, index_by_worker_name(files))
            opening = BatchStart(pack(self._build_items(batch)), await self._record_intents(batch))
            number = 0
            while True:
                update: WorkerUpdate | None = await self.registry.call(
                    worker_rpc.pull_update, batch.id, number, opening, address=address
                )
                if update is None:
                    return None
                await self._record_update(batch, update)
                number, opening = update.number, None
                if update.finished is not None:
                    self._add_node_times(update.finished)
                    await self.registry.call(worker_rpc.close_batch, batch.id, address=address)
                    return update.finished
        except WorkerGoneError:
            return None

    def _add_node_times(self, finished: BatchFinished) -> None:
        times = self.context.node_times.setdefault(self.name, {})
        for name, (runs, seconds) in finished.node_times.items():
            before = times.get(name, (0, 0.0))
            times[name] = (before[0] + runs, before[1] + seconds)

    def _build_items(self, batch: Batch) -> list[BatchItem]:
        plan, sought = self.context.plan, batch.server_id is not None
        return [
            BatchItem(
                work.trial,
                plan.workflow(work.trial),
                plan.files(work.trial),
                work.job if sought else None,
                self._other_prompt_ids(work) if sought else frozenset(),
            )
            for work in batch.work_items
        ]

    def _other_prompt_ids(self, item: WorkItem) -> frozenset[str]:
        jobs = self.store.jobs([item.trial.digest])
        own = item.job.id if item.job is not None else ""
        return frozenset(job.prompt_id for job in jobs if job.prompt_id is not None and job.id != own)

    # --- intents

    async def _record_intents(self, batch: Batch) -> tuple[JobLease, ...]:
        """Have on the disk that the group's jobs go, and where. Adopted jobs were intended when they were sent."""
        assert batch.worker is not None
        if batch.server_id is not None:
            batch.work_by_job = {work.job.id: work for work in batch.work_items if work.job is not None}
            return ()
        store = self.store
        jobs = [self._make_job(work) for work in batch.work_items]
        with store.transaction(durable=False):
            store.servers.save_server_id(batch.worker.server_id, [job.id for job in jobs])
            for work, job in zip(batch.work_items, jobs, strict=True):
                store.record_intent(job)
                work.job = job
                work.submissions += 1
        batch.work_by_job = {job.id: work for job, work in zip(jobs, batch.work_items, strict=True)}
        await self.context.flush()
        return tuple(JobLease(job.id, job.attempt, job.intended) for job in jobs)

    def _make_job(self, item: WorkItem) -> JobRecord:
        shared = self.context
        attempt = self.store.count_attempts(item.trial.digest, shared.target_names) + 1
        if shared.settings.fresh:
            attempt = item.submissions + 1
        return JobRecord(
            id=shared.new_id(),
            run=shared.run_id,
            target=self.name,
            digest=item.trial.digest,
            sent=fingerprint(shared.plan.workflow(item.trial)),
            attempt=attempt,
            prompt_id=None,
            state=records.INTENT,
            intended=shared.now(),
        )

    # --- news

    async def _record_update(self, group: Batch, update: WorkerUpdate) -> None:
        """Write a batch down: files first, then all rows in one transaction, then whoever watches hears of it."""
        for item in update.messages:
            if isinstance(item, JobFinished) and item.artifacts:
                kept = await fetch_artifacts(self.registry, group, item, update.file_contents, self.context.folder)
                group.saved_artifacts[item.job_id] = kept
        with self.store.transaction(durable=False):
            for item in update.messages:
                self._record_message(group, item)
        await self.context.flush()  # the worker forgets it next
        for item in update.messages:
            self._report_message(group, item)

    def _record_message(self, batch: Batch, message: WorkerMessage) -> None:
        store = self.store
        if isinstance(message, JobAccepted):
            work = batch.work_by_job[message.job_id]
            store.record_submitted(message.job_id, message.prompt_id, message.submitted_at)
            if work.job is not None:
                work.job = replace(
                    work.job, state=records.SUBMITTED, prompt_id=message.prompt_id, submitted=message.submitted_at
                )
        elif isinstance(message, JobFinished):
            kept = batch.saved_artifacts.get(message.job_id, ())
            store.record_finished(
                message.job_id,
                message.state,
                started=message.started,
                ended=message.ended,
                error=message.error,
                artifacts=kept,
            )
            if message.measures:
                store.cache_metrics(message.measures)
            self._update_job(batch.work_by_job[message.job_id], message)

    def _update_job(self, work: WorkItem, message: JobFinished) -> None:
        assert work.job is not None
        error_type, error = message.error or (None, None)
        work.job = replace(work.job, state=message.state, error_type=error_type, error=error)
        if message.state == records.UNSENT:
            work.submissions -= 1

    def _report_message(self, batch: Batch, message: WorkerMessage) -> None:
        if isinstance(message, EventForwarded):
            self.context.report(message.event)
        elif isinstance(message, TrialFinished):
            batch.ended_jobs.add(message.job_id)
            self._finish_trial(
                batch.work_by_job[message.job_id], message, batch.saved_artifacts.pop(message.job_id, ())
            )
        elif isinstance(message, JobFinished) and message.state == records.UNSENT:
            batch.ended_jobs.add(message.job_id)
            self.pool.requeue(batch.work_by_job[message.job_id])

    def _finish_trial(self, item: WorkItem, message: TrialFinished, artifacts: tuple[records.Artifact, ...]) -> None:
        if message.status == result.FAILED and not message.final and self.schedule_retry(item):
            return
        self.context.finish_trial(
            item, message.status, self.name, artifacts=artifacts, error=message.error, seconds=message.seconds
        )
        self.pool.complete()

    def finish_recorded(self, batch: Batch, job_id: str) -> None:
        """The end of a job was written down, and then its worker was gone: say what its row says."""
        work = batch.work_by_job[job_id]
        assert work.job is not None
        state, error = work.job.state, (work.job.error_type or "", work.job.error or "")
        status = records.STATUS_OF_STATE[state]
        said = TrialFinished(
            job_id, status, None if status == result.SUCCEEDED else error, state == records.REJECTED, None
        )
        self._report_message(batch, said)

    # --- another submission

    def mark_lost(self, item: WorkItem, message: str) -> None:
        """A job that nobody can be asked about any more: so says its row, unless another submission is allowed."""
        assert item.job is not None
        error = (LOST_ERROR, message)
        self.store.record_finished(item.job.id, records.LOST, error=error)
        item.job = replace(item.job, state=records.LOST, error_type=error[0], error=error[1])
        if not self.schedule_retry(item):
            self.context.finish_trial(item, result.FAILED, self.name, error=error)
            self.pool.complete()

    def schedule_retry(self, item: WorkItem) -> bool:
        """Whether the work goes back to be submitted once more, after a wait: the rules of one machine."""
        job, shared = item.job, self.context
        assert job is not None
        enough = item.submissions and (item.submissions > shared.settings.retries or shared.control.stopping)
        if not self._is_worth_retrying(item, job) or enough:
            return False
        wait = RESUBMIT_BACKOFF.draw(item.submissions, shared.random) if item.submissions else 0.0
        reason = f"{job.error_type}: {job.error}"
        shared.report(Retrying(self.name, item.trial.index, job.attempt + 1, wait, reason))
        self.pool.delayed += 1

        def requeue() -> None:
            self.pool.delayed -= 1
            self.pool.requeue(item)

        asyncio.get_running_loop().call_later(wait, requeue)
        return True

    def _is_worth_retrying(self, item: WorkItem, job: JobRecord) -> bool:
        if job.state == records.LOST:
            return True
        if job.state != records.FAILED:
            return False
        state = JobState("failed", error_type=job.error_type, error=job.error)
        memory = is_out_of_memory(state)
        item.memory_failures += memory
        return (memory and item.memory_failures <= 1) or (is_transient(state) and not memory)
