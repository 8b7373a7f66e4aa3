"""One granted group, from its intents to its last news: all is written down here before the worker forgets it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeper.cluster import worker_rpc
from sweeper.cluster.file_transfer import bring, send_inputs, with_masks
from sweeper.cluster.messages import Batch, Finished, Grant, Item, Opening, RowSaid, Taken, Told, pack
from sweeper.cluster.workers import Fleet, GoneError
from sweeper.comfy.job_marker import fingerprint
from sweeper.comfy.protocol import JobState
from sweeper.errors import LOST_ERROR
from sweeper.model import result
from sweeper.running.retry_rules import out_of_memory, passing
from sweeper.running.run_events import Retrying
from sweeper.store import records
from sweeper.store.records import Job

if TYPE_CHECKING:
    from sweeper.cluster.batch import Group
    from sweeper.cluster.messages import News, Over
    from sweeper.cluster.work_pool import Pool
    from sweeper.running.run_context import Shared
    from sweeper.running.work import Work


class Tending:
    """Writes down what groups do; `name` is the target's, under which every worker's work stands."""

    def __init__(self, shared: Shared, fleet: Fleet, pool: Pool, name: str) -> None:
        self.shared, self.fleet, self.pool, self.name = shared, fleet, pool, name

    async def tend(self, group: Group) -> Over | None:
        """Let a granted group begin and follow it to its end; None when its worker is gone."""
        assert group.seat is not None
        address = group.seat.address
        opening: Opening | None = None
        try:
            files = [file for work in group.works for file in self.shared.plan.files(work.trial)]
            await send_inputs(self.fleet, group.seat, with_masks(files))
            opening = Opening(pack(self._items(group)), await self._intend(group))
            number = 0
            while True:
                batch: Batch | None = await self.fleet.call(worker_rpc.pull, group.id, number, opening, address=address)
                if batch is None:
                    return None
                await self._receive(group, batch)
                number, opening = batch.number, None
                if batch.over is not None:
                    self._over(batch.over)
                    await self.fleet.call(worker_rpc.close, group.id, address=address)
                    return batch.over
        except GoneError:
            return None

    def _over(self, over: Over) -> None:
        times = self.shared.node_times.setdefault(self.name, {})
        for name, (runs, seconds) in over.node_times.items():
            before = times.get(name, (0, 0.0))
            times[name] = (before[0] + runs, before[1] + seconds)

    def _items(self, group: Group) -> list[Item]:
        plan, sought = self.shared.plan, group.place is not None
        return [
            Item(
                work.trial,
                plan.workflow(work.trial),
                plan.files(work.trial),
                work.job if sought else None,
                self._others(work) if sought else frozenset(),
            )
            for work in group.works
        ]

    def _others(self, work: Work) -> frozenset[str]:
        jobs = self.shared.store.jobs([work.trial.digest])
        own = work.job.id if work.job is not None else ""
        return frozenset(job.prompt_id for job in jobs if job.prompt_id is not None and job.id != own)

    # --- intents

    async def _intend(self, group: Group) -> tuple[Grant, ...]:
        """Have on the disk that the group's jobs go, and where. Adopted jobs were intended when they were sent."""
        assert group.seat is not None
        if group.place is not None:
            group.jobs = {work.job.id: work for work in group.works if work.job is not None}
            return ()
        store = self.shared.store
        jobs = [self._job(work) for work in group.works]
        with store.transaction(durable=False):
            store.servers.note_place(group.seat.place, [job.id for job in jobs])
            for work, job in zip(group.works, jobs, strict=True):
                store.intend(job)
                work.job = job
                work.sent += 1
        group.jobs = {job.id: work for job, work in zip(jobs, group.works, strict=True)}
        await self.shared.durable()
        return tuple(Grant(job.id, job.attempt, job.intended) for job in jobs)

    def _job(self, work: Work) -> Job:
        shared = self.shared
        attempt = shared.store.attempts(work.trial.digest, shared.names) + 1
        if shared.settings.fresh:
            attempt = work.sent + 1
        return Job(
            id=shared.new_id(),
            run=shared.run_id,
            target=self.name,
            digest=work.trial.digest,
            sent=fingerprint(shared.plan.workflow(work.trial)),
            attempt=attempt,
            prompt_id=None,
            state=records.INTENT,
            intended=shared.now(),
        )

    # --- news

    async def _receive(self, group: Group, batch: Batch) -> None:
        """Write a batch down: files first, then all rows in one transaction, then whoever watches hears of it."""
        for item in batch.news:
            if isinstance(item, Finished) and item.artifacts:
                kept = await bring(self.fleet, group, item, batch.contents, self.shared.folder)
                group.kept[item.job] = kept
        with self.shared.store.transaction(durable=False):
            for item in batch.news:
                self._write(group, item)
        await self.shared.durable()  # the worker forgets it next
        for item in batch.news:
            self._tell(group, item)

    def _write(self, group: Group, item: News) -> None:
        store = self.shared.store
        if isinstance(item, Taken):
            work = group.jobs[item.job]
            store.submitted(item.job, item.prompt_id, item.when)
            if work.job is not None:
                work.job = replace(work.job, state=records.SUBMITTED, prompt_id=item.prompt_id, submitted=item.when)
        elif isinstance(item, Finished):
            kept = group.kept.get(item.job, ())
            store.finish(item.job, item.state, started=item.started, ended=item.ended, error=item.error, artifacts=kept)
            if item.measures:
                store.cache_metrics(item.measures)
            self._finished(group.jobs[item.job], item)

    def _finished(self, work: Work, item: Finished) -> None:
        assert work.job is not None
        error_type, error = item.error or (None, None)
        work.job = replace(work.job, state=item.state, error_type=error_type, error=error)
        if item.state == records.UNSENT:
            work.sent -= 1

    def _tell(self, group: Group, item: News) -> None:
        if isinstance(item, Told):
            self.shared.report(item.event)
        elif isinstance(item, RowSaid):
            group.ended.add(item.job)
            self._row(group.jobs[item.job], item, group.kept.pop(item.job, ()))
        elif isinstance(item, Finished) and item.state == records.UNSENT:
            group.ended.add(item.job)
            self.pool.give_back(group.jobs[item.job])

    def _row(self, work: Work, said: RowSaid, artifacts: tuple[records.Artifact, ...]) -> None:
        if said.status == result.FAILED and not said.final and self.again(work):
            return
        self.shared.row_done(work, said.status, self.name, artifacts=artifacts, error=said.error, seconds=said.seconds)
        self.pool.done()

    def close(self, group: Group, job: str) -> None:
        """The end of a job was written down, and then its worker was gone: say what its row says."""
        work = group.jobs[job]
        assert work.job is not None
        state, error = work.job.state, (work.job.error_type or "", work.job.error or "")
        status = records.STATUS_OF_STATE[state]
        said = RowSaid(job, status, None if status == result.SUCCEEDED else error, state == records.REJECTED, None)
        self._tell(group, said)

    # --- another submission

    def lost(self, work: Work, message: str) -> None:
        """A job that nobody can be asked about any more: so says its row, unless another submission is allowed."""
        assert work.job is not None
        error = (LOST_ERROR, message)
        self.shared.store.finish(work.job.id, records.LOST, error=error)
        work.job = replace(work.job, state=records.LOST, error_type=error[0], error=error[1])
        if not self.again(work):
            self.shared.row_done(work, result.FAILED, self.name, error=error)
            self.pool.done()

    def again(self, work: Work) -> bool:
        """Whether the work goes back to be submitted once more, after a wait: the rules of one machine."""
        job, shared = work.job, self.shared
        assert job is not None
        enough = work.sent and (work.sent > shared.settings.retries or shared.control.stopping)
        if not self._worth(work, job) or enough:
            return False
        wait = shared.random.uniform(0, min(30.0, 0.25 * 2**work.sent)) if work.sent else 0.0
        reason = f"{job.error_type}: {job.error}"
        shared.report(Retrying(self.name, work.trial.index, job.attempt + 1, wait, reason))
        self.pool.later += 1

        def now() -> None:
            self.pool.later -= 1
            self.pool.give_back(work)

        asyncio.get_running_loop().call_later(wait, now)
        return True

    def _worth(self, work: Work, job: Job) -> bool:
        if job.state == records.LOST:
            return True
        if job.state != records.FAILED:
            return False
        state = JobState("failed", error_type=job.error_type, error=job.error)
        memory = out_of_memory(state)
        work.out_of_memory += memory
        return (memory and work.out_of_memory <= 1) or (passing(state) and not memory)
