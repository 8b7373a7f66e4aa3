"""Submit batches to Dask in a bounded window, react to their start and end, and steal work back for idle workers.

Dask chooses the worker of a batch. At most two tasks per worker exist at a time, so a plan of any length costs the
scheduler the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Final, cast

from sweeper.cluster.batch_follower import BATCHES_PER_WORKER, MAX_BATCH_SIZE, Batch, BatchFollower, WorkPool
from sweeper.cluster.messages import BatchFinished, WorkerInfo
from sweeper.cluster.worker_batch import WorkerBatch
from sweeper.cluster.worker_plugin import RESOURCE_NAME, SweeperWorkerPlugin, run_batch
from sweeper.cluster.workers import WorkerGoneError, WorkerRegistry, make_worker_event
from sweeper.errors import SweeperError
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import Notice, TargetDown
from sweeper.running.scheduler import describe_postponed
from sweeper.running.stop_control import BUDGET, REFUSED, UNREACHABLE, first_error
from sweeper.running.work_queue import WorkItem
from sweeper.store import Store
from sweeper.store.records import SUBMITTED, UNSENT, JobEnd

_REFRESH_INTERVAL: Final = 1.0  # seconds between two checks which workers are present
_STALE_AFTER: Final = 3.0  # seconds that a task may wait while a worker is idle, before it is submitted again
_MAX_START_ERRORS: Final = 5  # tasks that may fail on workers before their batch starts


class Dispatcher:
    """The batches of one run. `run` returns when no work is left, or when the run was stopped."""

    def __init__(self, context: RunContext, store: Store, registry: WorkerRegistry, pool: WorkPool) -> None:
        self.context, self.registry, self.pool = context, registry, pool
        self.name = registry.run_spec.target.name
        self.follower = BatchFollower(context, store, registry, pool, self.name)
        self.batches: dict[str, Batch] = {}
        self._unreachable_since: dict[str, float] = {}  # by server id: since when no worker can reach it
        self._task_group: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        self._no_workers = False
        self._start_errors = 0
        self._stealing = self._is_over_budget = False
        self._postponed_counts: Counter[str] = Counter()  # by server id: trials whose job may still be there
        self._given_up_servers: set[str] = set()  # by server id: they get no more work
        pool.on_change = self._changed.set

    async def run(self) -> str | None:
        """Dispatch all work. Returns why the run stopped early, for the user; raises errors that no trial caused."""
        topic = self.registry.run_spec.driver_id
        self.registry.client.subscribe_topic(topic, self._on_batch_started)
        try:
            with self.context.control.subscribe(self._on_stop_changed):
                async with asyncio.TaskGroup() as self._task_group:
                    refreshing = self._task_group.create_task(self._refresh_loop())
                    await self._dispatch_all()
                    refreshing.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            with contextlib.suppress(ValueError):
                self.registry.client.unsubscribe_topic(topic)
            self._task_group = None
            for batch in self.batches.values():
                await self._forget_task(batch)
        reasons = [self.context.error] if self.context.error else []
        if self._postponed_counts:
            given_up = sorted(self._given_up_servers & set(self._postponed_counts))
            reasons.append(describe_postponed(self._postponed_counts, given_up, has_other_targets=False))
            if given_up:
                self.context.control.drain(UNREACHABLE)
        return "; ".join(reasons) or None

    async def _dispatch_all(self) -> None:
        self._on_stop_changed()
        while True:
            self._changed.clear()
            self._fill_window()
            if self.pool.empty and not self.batches:
                return
            if self._is_over_budget and not self.batches and not self.pool.is_waiting:
                self.context.control.drain(BUDGET)
            if not self._stealing and self._idle_addresses:
                self._spawn(self._steal_back())
            await self._changed.wait()

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        assert self._task_group is not None
        self._task_group.create_task(coroutine)

    # --- submitting tasks

    def _fill_window(self) -> None:
        if self.context.control.stopping:
            return
        self._submit_searches()
        workers = self.registry.workers
        window = sum(worker.max_batches for worker in workers.values())
        while len(self.batches) < window and (items := self._take_batch(len(workers))):
            self._submit_batch(items)

    def _take_batch(self, workers: int) -> list[WorkItem]:
        """Take the items of the next batch; none if there are none now, or if their jobs do not fit into the budget."""
        items = self.pool.take(self.pool.batch_size(workers))
        spending, self._is_over_budget = self.context.spending, False
        if not items or spending is None:
            return items
        affordable = spending.count_affordable(self.name, items[0].trial)
        # As with the trials that are left, so that every worker gets a part of what the budget allows.
        count = math.ceil(min(affordable / (BATCHES_PER_WORKER * max(1, workers)), len(items)))
        self.pool.put_back(items[count:])
        self._is_over_budget = not count
        return items[:count]

    def _submit_searches(self) -> None:
        """Let workers search for open jobs, on each server that a worker can reach."""
        now = self.context.now()
        for server_id in list(self.pool.open_by_server):
            workers = self.registry.workers_for_server(server_id)
            if workers:
                self._unreachable_since.pop(server_id, None)
                items = self.pool.open_by_server.pop(server_id)
                for start in range(0, len(items), MAX_BATCH_SIZE):
                    self._submit_batch(items[start : start + MAX_BATCH_SIZE], server_id=server_id, workers=workers)
            elif workers is None:
                self._give_up_server(server_id, gone=True)
            elif " " in server_id:  # it is on the machine of a worker, and no worker can reach it
                since = self._unreachable_since.setdefault(server_id, now)
                if now - since > self.context.settings.patience:
                    self._give_up_server(server_id, gone=False)

    def _give_up_server(self, server_id: str, *, gone: bool) -> None:
        """Stop searching for jobs on a server that died with its worker (`gone`), or that no worker can reach."""
        for item in self.pool.open_by_server.pop(server_id):
            if gone:
                self.follower.mark_lost(item, f"the server it was sent to ({server_id}) is gone")
            else:
                self._postpone(item, server_id)
                self._given_up_servers.add(server_id)

    def _postpone(self, item: WorkItem, server_id: str) -> None:
        """Leave an item to the next run, which searches for its open job."""
        self._postponed_counts[server_id] += 1 + len(self.context.duplicates.get(item.trial.digest, ()))
        self.pool.complete()

    def _submit_batch(
        self, items: list[WorkItem], *, server_id: str | None = None, workers: list[tuple[str, str]] | None = None
    ) -> None:
        """Submit a task to Dask. `workers`: (address, server URL) of those that may take it, None for all."""
        registry = self.registry
        batch = Batch(self.context.new_id(), items, asyncio.get_running_loop().time(), server_id=server_id)
        server_url = None if workers is None else workers[0][1]
        if workers is not None:
            batch.addresses = tuple(address for address, _ in workers)
        batch.future = registry.client.submit(
            cast("Any", run_batch),  # a coroutine function, which Dask awaits on the worker
            *(batch.id, registry.run_spec.driver_id, self.context.run_id, server_url),
            key=f"sweeper-{batch.id}",
            pure=False,
            resources={RESOURCE_NAME: 1, **registry.resources},
            workers=list(batch.addresses) if batch.addresses else None,
            allow_other_workers=False,
        )
        self.batches[batch.id] = batch
        self._spawn(self._watch_task(batch, batch.future))

    async def _watch_task(self, batch: Batch, future: Any) -> None:
        """Requeue the items of a task that ends before its batch starts."""
        failure: Exception | None = None
        try:
            await future
        except Exception as error:  # noqa: BLE001 (any error of the worker, or of Dask)
            failure = error
        if batch.worker is not None or batch.id not in self.batches:
            return
        if failure is not None and future.status == "error":
            self._start_errors += 1
            reason = f"{type(failure).__name__}: {failure}"
            if self._start_errors >= _MAX_START_ERRORS:
                raise SweeperError(f"the cluster's workers cannot start batches: {reason}")
            self.context.report(Notice(f"a worker could not start a batch: {reason}"))
        self._requeue(batch)

    def _requeue(self, batch: Batch) -> None:
        """Return the items of a batch that never started to the pool."""
        self.batches.pop(batch.id, None)
        for item in batch.work_items:
            if batch.server_id is None:
                self.pool.requeue(item)
            else:
                self.pool.add_open_item(batch.server_id, item)
        self._changed.set()

    async def _forget_task(self, batch: Batch) -> None:
        """Let the scheduler forget the task of a batch."""
        if batch.future is not None:
            with contextlib.suppress(Exception):  # the client is closing, or the scheduler is gone
                await batch.future.cancel()

    # --- running batches

    def _on_batch_started(self, event: tuple[float, dict[str, str]]) -> None:
        """Start a batch on the worker that reports it, or refuse it."""
        if self._task_group is None:
            return
        _, content = event
        batch, worker = self.batches.get(content["batch_id"]), self.registry.workers.get(content["address"])
        if batch is None or batch.worker is not None or worker is None or self.context.control.stopping:
            drop = SweeperWorkerPlugin.drop_batch, content["batch_id"]
            self._spawn(self.registry.call_if_present(*drop, address=content["address"]))
            return
        batch.worker = worker
        self._spawn(self._follow(batch, worker))

    async def _follow(self, batch: Batch, worker: WorkerInfo) -> None:
        finished = await self.follower.follow(batch, worker)
        if finished is None:
            await self._on_worker_lost(batch, worker)
        else:
            await self._on_batch_finished(batch, worker, finished)
        self.batches.pop(batch.id, None)
        await self._forget_task(batch)
        self._changed.set()

    async def _on_batch_finished(self, batch: Batch, worker: WorkerInfo, finished: BatchFinished) -> None:
        server_id = batch.server_id or worker.server_id
        for job_id in finished.open_jobs:
            self._postpone(batch.work_by_job[job_id], server_id)
        for job_id in set(batch.work_by_job) - batch.ended_jobs - set(finished.open_jobs):
            self.pool.add_open_item(server_id, batch.work_by_job[job_id])
        if finished.reason is not None:
            self._given_up_servers.add(server_id)
            await self.registry.retire(worker.address)
            if finished.reason == REFUSED or not self.registry.workers:
                self.context.error = finished.error
                self.context.control.stop_with(finished.reason)

    async def _on_worker_lost(self, batch: Batch, worker: WorkerInfo) -> None:
        """Requeue the jobs that were never submitted, and search for the others.

        The worker died, lost its connection, or dropped the batch.
        """
        unsent = await self.registry.call_if_present(SweeperWorkerPlugin.drop_batch, batch.id, address=worker.address)
        await self._refresh_workers()
        if not batch.work_by_job:
            self._requeue(batch)
        for job_id, item in batch.work_by_job.items():
            if job_id in batch.ended_jobs:
                continue
            assert item.job is not None
            if job_id in (unsent or ()) and item.job.state != SUBMITTED:
                self.context.finish_job(item, item.job, JobEnd(UNSENT))
                item.job = None
                self.pool.requeue(item)
            else:
                self.pool.add_open_item(batch.server_id or worker.server_id, item)

    # --- workers

    async def _refresh_loop(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_INTERVAL)
            await self._refresh_workers()
            self._resubmit_stale()
            self._changed.set()

    async def _refresh_workers(self) -> None:
        try:
            came, left = await self.registry.refresh()
        except WorkerGoneError as error:
            self.context.error = str(error)
            self.context.control.stop_with(UNREACHABLE)
            return
        for worker in left:
            self.context.report(TargetDown(f"{worker.name}: {self.name}", "the worker left the cluster", final=True))
        for worker in came:
            self.context.report(make_worker_event(worker, self.name))
        unusable = list(self.registry.unusable.values())
        if unusable and not self.registry.workers and not self.batches:
            self.context.error = unusable[0].problem or self.context.error
            self.context.control.stop_with(REFUSED if unusable[0].refused else UNREACHABLE)
        if not self.registry.present and not self._no_workers and not self.context.control.stopping:
            self.context.report(Notice("the last worker left; waiting for the cluster to start one"))
        self._no_workers = not self.registry.present

    def _resubmit_stale(self) -> None:
        """Resubmit tasks that wait behind a busy worker while another is idle, or for a worker that left."""
        now, idle = asyncio.get_running_loop().time(), self._idle_addresses
        for batch in list(self.batches.values()):
            if batch.worker is not None or now - batch.created_at < _STALE_AFTER:
                continue
            reachable = idle if batch.addresses is None else idle & set(batch.addresses)
            gone = batch.addresses is not None and not set(batch.addresses) & set(self.registry.workers)
            if reachable or gone:
                self._requeue(batch)
                self._spawn(self._forget_task(batch))

    async def _steal_back(self) -> None:
        """At the end of the run, take pending trials back from busy workers for idle ones, if that saves time."""
        if not self.pool.idle or any(batch.worker is None for batch in self.batches.values()):
            return
        self._stealing = True
        for batches in self._find_busiest():
            submitted = [item for batch in batches for item in batch.submitted]
            count = self.pool.count_to_steal(submitted, [item for batch in batches for item in batch.pending])
            for batch in reversed(batches):  # the last one has not begun, so all its trials are pending
                if count > 0 and batch.worker is not None:
                    returning = SweeperWorkerPlugin.call_batch, batch.id, WorkerBatch.return_pending, count
                    count -= await self.registry.call_if_present(*returning, address=batch.worker.address) or 0
        self._stealing = False

    def _find_busiest(self) -> list[list[Batch]]:
        """The batches of each of the busiest workers, as many workers as are idle; the oldest batch first."""
        by_worker: dict[str, list[Batch]] = {}
        for batch in self.batches.values():
            if batch.worker is not None and batch.server_id is None:
                by_worker.setdefault(batch.worker.address, []).append(batch)
        busiest = sorted(by_worker.values(), key=lambda batches: -sum(len(batch.pending) for batch in batches))
        return busiest[: len(self._idle_addresses)]

    @property
    def _idle_addresses(self) -> set[str]:
        busy = {batch.worker.address for batch in self.batches.values() if batch.worker is not None}
        return set(self.registry.workers) - busy

    # --- stopping

    def _on_stop_changed(self) -> None:
        control = self.context.control
        if not control.stopping:
            return
        if self.context.report_stop(sum(len(batch.submitted) for batch in self.batches.values())):
            self.pool.closed = True
            self.pool.open_by_server.clear()  # they stay open on record, so the next run searches for them
            for batch in list(self.batches.values()):
                if batch.worker is None:
                    self.batches.pop(batch.id)
                    self._spawn(self._forget_task(batch))
                else:
                    stop = SweeperWorkerPlugin.stop_batches, self.registry.run_spec.driver_id, control.cancelling
                    self._spawn(self.registry.call_if_present(*stop, address=batch.worker.address))
        self._changed.set()
