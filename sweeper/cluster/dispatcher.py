"""Groups as Dask tasks: a bounded window of them, who begins, who is gone, and what is taken back at the end.

Dask chooses the worker. There are never more than two tasks per worker that can take one, so a plan of any length costs
the scheduler the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, cast

from sweeper.cluster import worker_rpc
from sweeper.cluster.batch import Batch
from sweeper.cluster.batch_follower import BatchFollower
from sweeper.cluster.messages import BatchTask
from sweeper.cluster.work_pool import MAX_BATCH_SIZE
from sweeper.cluster.worker_plugin import RESOURCE_NAME, run_batch
from sweeper.cluster.workers import WorkerGoneError, WorkerRegistry
from sweeper.errors import SweeperError
from sweeper.running.async_tools import first_error
from sweeper.running.run_events import Cancelling, Draining, Notice, TargetDown, TargetReady
from sweeper.running.scheduler import describe_postponed
from sweeper.running.stop_control import REFUSED, UNREACHABLE
from sweeper.store.records import OPEN_STATES, UNSENT

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sweeper.cluster.messages import BatchFinished, WorkerInfo
    from sweeper.cluster.work_pool import WorkPool
    from sweeper.running.run_context import RunContext
    from sweeper.running.work import WorkItem
    from sweeper.store import Store

_REFRESH_INTERVAL: Final = 1.0  # seconds between two looks at who is there
_STALE_AFTER: Final = 3.0  # seconds that a task may wait while a worker is idle; then it is given to Dask anew
_MAX_START_ERRORS: Final = 5  # tasks that may fail on workers before anything is granted


class Dispatcher:
    """One run's groups. `run` returns when nothing is left, or the run was stopped."""

    def __init__(self, context: RunContext, store: Store, registry: WorkerRegistry, pool: WorkPool) -> None:
        self.context, self.registry, self.pool = context, registry, pool
        self.name = registry.run_spec.target.name
        self.follower = BatchFollower(context, store, registry, pool, self.name)
        self.batches: dict[str, Batch] = {}
        self._unreachable_since: dict[str, float] = {}  # place -> since when nobody there can be asked
        self._task_group: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        self._reported_stop = ""
        self._no_workers = False
        self._start_errors = 0
        self._stealing = False
        self._postponed_counts: Counter[str] = (
            Counter()
        )  # by place: trials left for the next run, because their jobs may stand
        self._given_up_servers: set[str] = set()  # places that got no more work
        pool.on_change = self._changed.set

    async def run(self) -> str | None:
        """Returns why the run stopped early, for people. Raises what no trial is to blame for."""
        topic = self.registry.run_spec.driver_id
        self.registry.client.subscribe_topic(topic, self._on_batch_started)
        try:
            with self.context.control.subscribe(self._on_stop_changed):
                async with asyncio.TaskGroup() as self._task_group:
                    ticking = self._task_group.create_task(self._refresh_loop())
                    await self._dispatch_all()
                    ticking.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            with contextlib.suppress(ValueError):
                self.registry.client.unsubscribe_topic(topic)
            self._task_group = None
            for group in self.batches.values():
                await self._forget_task(group)
        said = [self.context.error] if self.context.error else []
        if self._postponed_counts:
            given_up = sorted(self._given_up_servers & set(self._postponed_counts))
            said.append(describe_postponed(self._postponed_counts, given_up, has_other_targets=False))
            if given_up:
                self.context.control.drain(UNREACHABLE)
        return "; ".join(said) or None

    async def _dispatch_all(self) -> None:
        self._on_stop_changed()
        while True:
            self._changed.clear()
            self._fill_window()
            if self.pool.empty and not self.batches:
                return
            if not self._stealing and self._idle_count:
                self._spawn(self._steal_back())
            await self._changed.wait()

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        assert self._task_group is not None
        self._task_group.create_task(coroutine)

    # --- tasks out

    def _fill_window(self) -> None:
        if self.context.control.stopping:
            return
        self._submit_searches()
        workers = len(self.registry.workers)
        window = sum(seat.max_batches for seat in self.registry.workers.values())
        while len(self.batches) < window and (works := self.pool.take(self.pool.batch_size(workers))):
            self._submit_batch(works)

    def _submit_searches(self) -> None:
        """Send somebody to look for jobs of unknown fate, where there is somebody."""
        now = self.context.now()
        for place in list(self.pool.open_by_server):
            found = self.registry.workers_for_server(place)
            if found:
                self._unreachable_since.pop(place, None)
                works = self.pool.open_by_server.pop(place)
                for start in range(0, len(works), MAX_BATCH_SIZE):
                    self._submit_batch(works[start : start + MAX_BATCH_SIZE], server_id=place, addresses=found)
            elif found is None or (
                " " in place and now - self._unreachable_since.setdefault(place, now) > self.context.settings.patience
            ):
                self._give_up_server(place, gone=found is None)

    def _give_up_server(self, server_id: str, *, gone: bool) -> None:
        """Nobody can ask the server at that place: it died with its worker (`gone`), or lives where no worker is."""
        for work in self.pool.open_by_server.pop(server_id):
            if gone:
                self.follower.mark_lost(work, f"nobody can be asked any more where it was sent ({server_id})")
            else:
                self._postpone(work, server_id)
                self._given_up_servers.add(server_id)

    def _postpone(self, item: WorkItem, server_id: str) -> None:
        """A work stays on record as open, for the next run to look for."""
        self._postponed_counts[server_id] += 1 + len(self.context.duplicates.get(item.trial.digest, ()))
        self.pool.complete()

    def _submit_batch(
        self, items: list[WorkItem], *, server_id: str | None = None, addresses: list[tuple[str, str]] | None = None
    ) -> None:
        fleet = self.registry
        group = Batch(self.context.new_id(), items, asyncio.get_running_loop().time(), server_id=server_id)
        url = None if addresses is None else addresses[0][1]
        parcel = BatchTask(group.id, fleet.run_spec.driver_id, self.context.run_id, url)
        if addresses is not None:
            group.addresses = tuple(address for address, _ in addresses)
        group.future = fleet.client.submit(
            cast("Any", run_batch),  # Dask awaits it on the worker
            parcel,
            key=f"sweeper-{group.id}",
            pure=False,
            resources={RESOURCE_NAME: 1, **fleet.resources},
            workers=list(group.addresses) if group.addresses else None,
            allow_other_workers=False,
        )
        self.batches[group.id] = group
        self._spawn(self._watch_task(group))

    async def _watch_task(self, batch: Batch) -> None:
        """A task that ends without its group having been granted gives its works back."""
        assert batch.future is not None
        trouble: Exception | None = None
        try:
            await batch.future
        except Exception as error:  # noqa: BLE001 (whatever a worker, or Dask about it, may say)
            trouble = error
        if batch.worker is not None or batch.id not in self.batches:
            return
        if trouble is not None and batch.future.status == "error":
            self._start_errors += 1
            if self._start_errors >= _MAX_START_ERRORS:
                raise SweeperError(f"the cluster's workers cannot begin: {type(trouble).__name__}: {trouble}")
            self.context.report(Notice(f"a worker could not begin: {type(trouble).__name__}: {trouble}"))
        self._requeue(batch)

    def _requeue(self, batch: Batch) -> None:
        """A group that nobody began: its works wait again, where they waited before."""
        self.batches.pop(batch.id, None)
        for work in batch.work_items:
            if batch.server_id is None:
                self.pool.requeue(work)
            else:
                self.pool.add_open_item(batch.server_id, work)
        self._changed.set()

    async def _forget_task(self, batch: Batch) -> None:
        """Let the scheduler forget the task."""
        if batch.future is not None:
            with contextlib.suppress(Exception):  # the client closes, or the scheduler is gone
                await batch.future.cancel()

    # --- tasks begun

    def _on_batch_started(self, event: tuple[float, dict[str, str]]) -> None:
        """A worker has a group and waits for our word."""
        if self._task_group is None:
            return
        _, said = event
        group, seat = self.batches.get(said["group"]), self.registry.workers.get(said["address"])
        if group is None or group.worker is not None or seat is None or self.context.control.stopping:
            self._spawn(self._refuse_batch(said["group"], said["address"]))
            return
        group.worker = seat
        self._spawn(self._follow(group))

    async def _refuse_batch(self, batch_id: str, address: str) -> None:
        with contextlib.suppress(WorkerGoneError):
            await self.registry.call(worker_rpc.drop_batch, batch_id, address=address)

    async def _follow(self, batch: Batch) -> None:
        over = await self.follower.follow(batch)
        if over is None:
            await self._on_worker_lost(batch)
        else:
            await self._on_batch_finished(batch, over)
        self.batches.pop(batch.id, None)
        await self._forget_task(batch)
        self._changed.set()

    async def _on_batch_finished(self, batch: Batch, finished: BatchFinished) -> None:
        place = batch.server_id or (batch.worker.server_id if batch.worker is not None else self.name)
        for job in finished.open_jobs:
            self._postpone(batch.work_by_job[job], place)
        if finished.reason is not None:
            self._given_up_servers.add(place)
        for job in set(batch.work_by_job) - batch.ended_jobs - set(finished.open_jobs):
            self._resolve_unknown(batch, job)
        if finished.reason is not None and batch.worker is not None:
            await self.registry.retire(batch.worker.address)
            if finished.reason == REFUSED or not self.registry.workers:
                self.context.error = finished.error
                self.context.control.stop_with(finished.reason)

    async def _on_worker_lost(self, batch: Batch) -> None:
        """Its worker died, was cut off, or let go of it: what never left goes back, the rest is looked for."""
        seat = batch.worker
        assert seat is not None
        unsent: tuple[str, ...] | None = None
        with contextlib.suppress(WorkerGoneError):
            unsent = await self.registry.call(worker_rpc.drop_batch, batch.id, address=seat.address)
        await self._refresh_workers()
        granted = set(batch.work_by_job)
        for job, work in batch.work_by_job.items():
            if job in batch.ended_jobs:
                continue
            assert work.job is not None
            if job in (unsent or ()) and work.job.state not in OPEN_STATES[1:]:
                self.context.store.record_finished(job, UNSENT)
                work.job, work.submissions = None, work.submissions - 1
                self.pool.requeue(work)
            else:
                self._resolve_unknown(batch, job)
        if not granted:
            self._requeue(batch)

    def _resolve_unknown(self, batch: Batch, job: str) -> None:
        """A job whose end, or the word about its row, did not come through."""
        work = batch.work_by_job[job]
        assert work.job is not None
        assert batch.worker is not None
        if work.job.state in OPEN_STATES:
            self.pool.add_open_item(batch.server_id or batch.worker.server_id, work)
        else:
            self.follower.finish_recorded(batch, job)

    # --- who is there

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
        for seat in left:
            self.context.report(TargetDown(f"{seat.name}: {self.name}", "the worker left the cluster", final=True))
        self.report_workers(came)
        if not self.registry.present and not self._no_workers and not self.context.control.stopping:
            self.context.report(Notice("no worker is left; waiting for the cluster to bring one"))
        self._no_workers = not self.registry.present

    def report_workers(self, workers: list[WorkerInfo]) -> None:
        """Tell of workers that came; stop where none can be used."""
        for seat in workers:
            name = f"{seat.name}: {self.name}"
            if seat.problem is None:
                self.context.report(TargetReady(name, seat.dialect, seat.version, seat.concurrency))
            else:
                self.context.report(TargetDown(name, seat.problem, final=True))
        unusable = list(self.registry.unusable.values())
        if unusable and not self.registry.workers and not self.batches:
            self.context.error = unusable[0].problem or self.context.error
            self.context.control.stop_with(REFUSED if unusable[0].refused else UNREACHABLE)

    def _resubmit_stale(self) -> None:
        """Tasks that wait behind a busy worker, or for one that left, while another is idle: to Dask once more."""
        now = asyncio.get_running_loop().time()
        busy = {group.worker.address for group in self.batches.values() if group.worker is not None}
        idle = set(self.registry.workers) - busy
        for group in list(self.batches.values()):
            if group.worker is not None or now - group.created_at < _STALE_AFTER:
                continue
            reachable = idle if group.addresses is None else idle & set(group.addresses)
            gone = group.addresses is not None and not set(group.addresses) & set(self.registry.workers)
            if reachable or gone:
                self._requeue(group)
                self._spawn(self._forget_task(group))

    async def _steal_back(self) -> None:
        """At the end, when workers are idle and nothing waits: the far half of what waits on the busiest comes back,
        where that ends the run sooner.
        """
        if not self.pool.idle or any(group.worker is None for group in self.batches.values()):
            return
        self._stealing = True
        for groups in self._find_busiest():
            sent = [work for group in groups for work in group.submitted]
            count = self.pool.count_to_steal(sent, [work for group in groups for work in group.pending])
            for group in reversed(groups):  # the one that is next has all of it waiting
                if count > 0:
                    count -= await self._reclaim_pending(group, count)
        self._stealing = False

    def _find_busiest(self) -> list[list[Batch]]:
        """The groups of each worker, oldest first: of as many workers as there are idle ones, the busiest first."""
        by_worker: dict[str, list[Batch]] = {}
        for group in self.batches.values():
            if group.worker is not None and group.server_id is None:
                by_worker.setdefault(group.worker.address, []).append(group)
        found = sorted(by_worker.values(), key=lambda groups: -sum(len(group.pending) for group in groups))
        return found[: self._idle_count]

    @property
    def _idle_count(self) -> int:
        busy = {group.worker.address for group in self.batches.values() if group.worker is not None}
        return len(set(self.registry.workers) - busy)

    async def _reclaim_pending(self, batch: Batch, count: int) -> int:
        assert batch.worker is not None
        with contextlib.suppress(WorkerGoneError):
            found: int = await self.registry.call(
                worker_rpc.return_pending, batch.id, count, address=batch.worker.address
            )
            return found
        return 0

    # --- the brake

    def _on_stop_changed(self) -> None:
        control = self.context.control
        if not control.stopping:
            return
        in_flight = sum(len(group.submitted) for group in self.batches.values())
        told = "cancel" if control.cancelling else "drain"
        if told != self._reported_stop:
            self._reported_stop = told
            self.context.report(
                Cancelling(in_flight) if control.cancelling else Draining(in_flight, control.reason or "")
            )
            self._stop_batches(cancelling=control.cancelling)
        self.context.stopped.set()
        self._changed.set()

    def _stop_batches(self, *, cancelling: bool) -> None:
        self.pool.closed = True
        self.pool.open_by_server.clear()  # open on record: the next run looks for them
        for group in list(self.batches.values()):
            if group.worker is None:
                self.batches.pop(group.id)
                self._spawn(self._forget_task(group))
            else:
                self._spawn(self._stop_worker(group.worker.address, cancelling=cancelling))

    async def _stop_worker(self, address: str, *, cancelling: bool) -> None:
        with contextlib.suppress(WorkerGoneError):
            await self.registry.call(
                worker_rpc.stop_batches, self.registry.run_spec.driver_id, cancelling, address=address
            )
