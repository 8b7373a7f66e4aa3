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
from sweeper.cluster.batch import Group
from sweeper.cluster.batch_follower import Tending
from sweeper.cluster.messages import Parcel
from sweeper.cluster.work_pool import MOST
from sweeper.cluster.worker_plugin import RESOURCE, carry_group
from sweeper.cluster.workers import Fleet, GoneError
from sweeper.errors import SweeperError
from sweeper.running.run_events import Cancelling, Draining, Noticed, TargetDown, TargetReady
from sweeper.running.scheduler import left_behind
from sweeper.running.stop_control import REFUSED, UNREACHABLE
from sweeper.store.records import OPEN, UNSENT

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sweeper.cluster.messages import Over, Seat
    from sweeper.cluster.work_pool import Pool
    from sweeper.running.run_context import Shared
    from sweeper.running.work import Work

_TICK: Final = 1.0  # seconds between two looks at who is there
_STALE: Final = 3.0  # seconds that a task may wait while a worker is idle; then it is given to Dask anew
_ERRORS: Final = 5  # tasks that may fail on workers before anything is granted


class Dispatch:
    """One run's groups. `run` returns when nothing is left, or the run was stopped."""

    def __init__(self, shared: Shared, fleet: Fleet, pool: Pool) -> None:
        self.shared, self.fleet, self.pool = shared, fleet, pool
        self.name = fleet.order.target.name
        self.tending = Tending(shared, fleet, pool, self.name)
        self.groups: dict[str, Group] = {}
        self._missing: dict[str, float] = {}  # place -> since when nobody there can be asked
        self._background: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        self._told = ""
        self._alone = False
        self._errors = 0
        self._withdrawing = False
        self._left: Counter[str] = Counter()  # by place: trials left for the next run, because their jobs may stand
        self._given_up: set[str] = set()  # places that got no more work
        pool.wake = self._changed.set

    async def run(self) -> str | None:
        """Returns why the run stopped early, for people. Raises what no trial is to blame for."""
        topic = self.fleet.order.epoch
        self.fleet.client.subscribe_topic(topic, self._started)
        try:
            with self.shared.control.bound(self._control_changed):
                async with asyncio.TaskGroup() as self._background:
                    ticking = self._background.create_task(self._tick())
                    await self._feed()
                    ticking.cancel()
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            with contextlib.suppress(ValueError):
                self.fleet.client.unsubscribe_topic(topic)
            self._background = None
            for group in self.groups.values():
                await self._release(group)
        said = [self.shared.error] if self.shared.error else []
        if self._left:
            given_up = sorted(self._given_up & set(self._left))
            said.append(left_behind(self._left, given_up, others=False))
            if given_up:
                self.shared.control.drain(UNREACHABLE)
        return "; ".join(said) or None

    async def _feed(self) -> None:
        self._control_changed()
        while True:
            self._changed.clear()
            self._fill()
            if self.pool.empty and not self.groups:
                return
            if not self._withdrawing and self._idle:
                self._spawn(self._withdraw())
            await self._changed.wait()

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        assert self._background is not None
        self._background.create_task(coroutine)

    # --- tasks out

    def _fill(self) -> None:
        if self.shared.control.stopping:
            return
        self._seek()
        workers = len(self.fleet.seats)
        window = sum(seat.groups for seat in self.fleet.seats.values())
        while len(self.groups) < window and (works := self.pool.take(self.pool.size(workers))):
            self._submit(works)

    def _seek(self) -> None:
        """Send somebody to look for jobs of unknown fate, where there is somebody."""
        now = self.shared.now()
        for place in list(self.pool.opened):
            found = self.fleet.at(place)
            if found:
                self._missing.pop(place, None)
                works = self.pool.opened.pop(place)
                for start in range(0, len(works), MOST):
                    self._submit(works[start : start + MOST], place=place, addresses=found)
            elif found is None or (
                " " in place and now - self._missing.setdefault(place, now) > self.shared.settings.patience
            ):
                self._unreachable(place, gone=found is None)

    def _unreachable(self, place: str, *, gone: bool) -> None:
        """Nobody can ask the server at that place: it died with its worker (`gone`), or lives where no worker is."""
        for work in self.pool.opened.pop(place):
            if gone:
                self.tending.lost(work, f"nobody can be asked any more where it was sent ({place})")
            else:
                self._leave(work, place)
                self._given_up.add(place)

    def _leave(self, work: Work, place: str) -> None:
        """A work stays on record as open, for the next run to look for."""
        self._left[place] += 1 + len(self.shared.twins.get(work.trial.digest, ()))
        self.pool.done()

    def _submit(
        self, works: list[Work], *, place: str | None = None, addresses: list[tuple[str, str]] | None = None
    ) -> None:
        fleet = self.fleet
        group = Group(self.shared.new_id(), works, asyncio.get_running_loop().time(), place=place)
        url = None if addresses is None else addresses[0][1]
        parcel = Parcel(group.id, fleet.order.epoch, self.shared.run_id, url)
        if addresses is not None:
            group.addresses = tuple(address for address, _ in addresses)
        group.future = fleet.client.submit(
            cast("Any", carry_group),  # Dask awaits it on the worker
            parcel,
            key=f"sweeper-{group.id}",
            pure=False,
            resources={RESOURCE: 1, **fleet.resources},
            workers=list(group.addresses) if group.addresses else None,
            allow_other_workers=False,
        )
        self.groups[group.id] = group
        self._spawn(self._watch(group))

    async def _watch(self, group: Group) -> None:
        """A task that ends without its group having been granted gives its works back."""
        assert group.future is not None
        trouble: Exception | None = None
        try:
            await group.future
        except Exception as error:  # noqa: BLE001 (whatever a worker, or Dask about it, may say)
            trouble = error
        if group.seat is not None or group.id not in self.groups:
            return
        if trouble is not None and group.future.status == "error":
            self._errors += 1
            if self._errors >= _ERRORS:
                raise SweeperError(f"the cluster's workers cannot begin: {type(trouble).__name__}: {trouble}")
            self.shared.report(Noticed(f"a worker could not begin: {type(trouble).__name__}: {trouble}"))
        self._return(group)

    def _return(self, group: Group) -> None:
        """A group that nobody began: its works wait again, where they waited before."""
        self.groups.pop(group.id, None)
        for work in group.works:
            if group.place is None:
                self.pool.give_back(work)
            else:
                self.pool.seek(group.place, work)
        self._changed.set()

    async def _release(self, group: Group) -> None:
        """Let the scheduler forget the task."""
        if group.future is not None:
            with contextlib.suppress(Exception):  # the client closes, or the scheduler is gone
                await group.future.cancel()

    # --- tasks begun

    def _started(self, event: tuple[float, dict[str, str]]) -> None:
        """A worker has a group and waits for our word."""
        if self._background is None:
            return
        _, said = event
        group, seat = self.groups.get(said["group"]), self.fleet.seats.get(said["address"])
        if group is None or group.seat is not None or seat is None or self.shared.control.stopping:
            self._spawn(self._refuse(said["group"], said["address"]))
            return
        group.seat = seat
        self._spawn(self._tend(group))

    async def _refuse(self, group: str, address: str) -> None:
        with contextlib.suppress(GoneError):
            await self.fleet.call(worker_rpc.drop, group, address=address)

    async def _tend(self, group: Group) -> None:
        over = await self.tending.tend(group)
        if over is None:
            await self._abandoned(group)
        else:
            await self._ended(group, over)
        self.groups.pop(group.id, None)
        await self._release(group)
        self._changed.set()

    async def _ended(self, group: Group, over: Over) -> None:
        place = group.place or (group.seat.place if group.seat is not None else self.name)
        for job in over.left:
            self._leave(group.jobs[job], place)
        if over.reason is not None:
            self._given_up.add(place)
        for job in set(group.jobs) - group.ended - set(over.left):
            self._unclear(group, job)
        if over.reason is not None and group.seat is not None:
            await self.fleet.discharge(group.seat.address)
            if over.reason == REFUSED or not self.fleet.seats:
                self.shared.error = over.error
                self.shared.control.halt(over.reason)

    async def _abandoned(self, group: Group) -> None:
        """Its worker died, was cut off, or let go of it: what never left goes back, the rest is looked for."""
        seat = group.seat
        assert seat is not None
        unsent: tuple[str, ...] | None = None
        with contextlib.suppress(GoneError):
            unsent = await self.fleet.call(worker_rpc.drop, group.id, address=seat.address)
        await self._look_round()
        granted = set(group.jobs)
        for job, work in group.jobs.items():
            if job in group.ended:
                continue
            assert work.job is not None
            if job in (unsent or ()) and work.job.state not in OPEN[1:]:
                self.shared.store.finish(job, UNSENT)
                work.job, work.sent = None, work.sent - 1
                self.pool.give_back(work)
            else:
                self._unclear(group, job)
        if not granted:
            self._return(group)

    def _unclear(self, group: Group, job: str) -> None:
        """A job whose end, or the word about its row, did not come through."""
        work = group.jobs[job]
        assert work.job is not None
        assert group.seat is not None
        if work.job.state in OPEN:
            self.pool.seek(group.place or group.seat.place, work)
        else:
            self.tending.close(group, job)

    # --- who is there

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            await self._look_round()
            self._restart_stale()
            self._changed.set()

    async def _look_round(self) -> None:
        try:
            came, left = await self.fleet.refresh()
        except GoneError as error:
            self.shared.error = str(error)
            self.shared.control.halt(UNREACHABLE)
            return
        for seat in left:
            self.shared.report(TargetDown(f"{seat.name}: {self.name}", "the worker left the cluster", final=True))
        self.announce(came)
        if not self.fleet.present and not self._alone and not self.shared.control.stopping:
            self.shared.report(Noticed("no worker is left; waiting for the cluster to bring one"))
        self._alone = not self.fleet.present

    def announce(self, seats: list[Seat]) -> None:
        """Tell of workers that came; stop where none can be used."""
        for seat in seats:
            name = f"{seat.name}: {self.name}"
            if seat.problem is None:
                self.shared.report(TargetReady(name, seat.dialect, seat.version, seat.concurrency))
            else:
                self.shared.report(TargetDown(name, seat.problem, final=True))
        unusable = list(self.fleet.lost.values())
        if unusable and not self.fleet.seats and not self.groups:
            self.shared.error = unusable[0].problem or self.shared.error
            self.shared.control.halt(REFUSED if unusable[0].refused else UNREACHABLE)

    def _restart_stale(self) -> None:
        """Tasks that wait behind a busy worker, or for one that left, while another is idle: to Dask once more."""
        now = asyncio.get_running_loop().time()
        busy = {group.seat.address for group in self.groups.values() if group.seat is not None}
        idle = set(self.fleet.seats) - busy
        for group in list(self.groups.values()):
            if group.seat is not None or now - group.born < _STALE:
                continue
            reachable = idle if group.addresses is None else idle & set(group.addresses)
            gone = group.addresses is not None and not set(group.addresses) & set(self.fleet.seats)
            if reachable or gone:
                self._return(group)
                self._spawn(self._release(group))

    async def _withdraw(self) -> None:
        """At the end, when workers are idle and nothing waits: the far half of what waits on the busiest comes back,
        where that ends the run sooner.
        """
        if not self.pool.idle or any(group.seat is None for group in self.groups.values()):
            return
        self._withdrawing = True
        for groups in self._busiest():
            sent = [work for group in groups for work in group.sent]
            count = self.pool.far_half(sent, [work for group in groups for work in group.waiting])
            for group in reversed(groups):  # the one that is next has all of it waiting
                if count > 0:
                    count -= await self._take_back(group, count)
        self._withdrawing = False

    def _busiest(self) -> list[list[Group]]:
        """The groups of each worker, oldest first: of as many workers as there are idle ones, the busiest first."""
        by_worker: dict[str, list[Group]] = {}
        for group in self.groups.values():
            if group.seat is not None and group.place is None:
                by_worker.setdefault(group.seat.address, []).append(group)
        found = sorted(by_worker.values(), key=lambda groups: -sum(len(group.waiting) for group in groups))
        return found[: self._idle]

    @property
    def _idle(self) -> int:
        busy = {group.seat.address for group in self.groups.values() if group.seat is not None}
        return len(set(self.fleet.seats) - busy)

    async def _take_back(self, group: Group, count: int) -> int:
        assert group.seat is not None
        with contextlib.suppress(GoneError):
            found: int = await self.fleet.call(worker_rpc.withdraw, group.id, count, address=group.seat.address)
            return found
        return 0

    # --- the brake

    def _control_changed(self) -> None:
        control = self.shared.control
        if not control.stopping:
            return
        in_flight = sum(len(group.sent) for group in self.groups.values())
        told = "cancel" if control.cancelling else "drain"
        if told != self._told:
            self._told = told
            self.shared.report(
                Cancelling(in_flight) if control.cancelling else Draining(in_flight, control.reason or "")
            )
            self._brake(cancelling=control.cancelling)
        self.shared.stopped.set()
        self._changed.set()

    def _brake(self, *, cancelling: bool) -> None:
        self.pool.closed = True
        self.pool.opened.clear()  # open on record: the next run looks for them
        for group in list(self.groups.values()):
            if group.seat is None:
                self.groups.pop(group.id)
                self._spawn(self._release(group))
            else:
                self._spawn(self._brake_one(group.seat.address, cancelling=cancelling))

    async def _brake_one(self, address: str, *, cancelling: bool) -> None:
        with contextlib.suppress(GoneError):
            await self.fleet.call(worker_rpc.brake, self.fleet.order.epoch, cancelling, address=address)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single exception of a tree of groups: the others are its echoes."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
