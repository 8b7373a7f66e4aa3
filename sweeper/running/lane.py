"""One target's share of a run: it pulls work as fast as the target takes it, and sits out the target's bad moments.

A target that stops answering is asked again for `patience` seconds; one that stays away, or refuses us, gives what it
had back to the others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sweeper.comfy.events import EventStream
from sweeper.comfy.wire import Busy
from sweeper.errors import RefusedError, TargetError, TransientError, UnreachableError
from sweeper.running.carry import Carrier
from sweeper.running.control import REFUSED, UNREACHABLE
from sweeper.running.gate import Slot
from sweeper.running.progress import Noticed, TargetDown, TargetUp, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweeper.comfy.client import ComfyClient
    from sweeper.running.backlog import Work
    from sweeper.running.gate import Gate
    from sweeper.running.shared import Shared

_SETBACKS: Final = 5  # times that one work may bring a target down before it is left for the next run
_FULL_FOR: Final = 600.0  # seconds of nothing but "queue full", with nothing of ours in that queue


class Lane:
    """`gate`: how many jobs the target may have now. `on_death(reason, message)` is called once, when this target gets
    no more work in this run.
    """

    def __init__(self, shared: Shared, client: ComfyClient, gate: Gate, on_death: Callable[[str, str], None]) -> None:
        self.shared = shared
        self.client = client
        self.name = client.target.name
        self.gate = gate
        self.dead = False
        self._carrier: Carrier | None = None
        self._on_death = on_death
        self._turn = asyncio.Lock()
        self._queue_end = asyncio.Event()  # set when whoever took a work last has a slot for it
        self._queue_end.set()
        self._ahead = asyncio.Semaphore(self.gate.most)
        self._up = asyncio.Event()
        self._up.set()

    async def run(self) -> None:
        """Until there is no more work, the run stops, or the target is given up."""
        async with EventStream(self.client) as events:
            carrier = self._carrier = Carrier(self.shared, self.client, events)
            async with asyncio.TaskGroup() as group:
                # As many again bring in files of jobs that are over, while the next ones run.
                for _ in range(2 * max(self.gate.most, 2)):
                    group.create_task(self._worker(carrier))

    @property
    def in_flight(self) -> int:
        return len(self._carrier.in_flight.ids) if self._carrier is not None else 0

    def wake(self) -> None:
        """The run is stopping: whoever waits, for a slot or for a job, is to look at that now."""
        self.gate.open()
        self._up.set()
        if self.shared.control.cancelling:
            self.client.pauses.hurry()
        if self._carrier is not None:
            self._carrier.events.wake_all()

    async def _worker(self, carrier: Carrier) -> None:
        while not self.dead:
            await self._up.wait()
            slot = Slot(self.gate)
            try:
                work = await self._next(carrier, slot)
                if work is None:
                    return
                if self.dead or not self._up.is_set():
                    carrier.withdraw(work)
                    self.shared.backlog.give_back(work)
                    continue
                trouble = await self._carry(work, carrier, slot)
            finally:
                slot.leave()
            if trouble is not None:
                await self._recover(trouble)

    async def _next(self, carrier: Carrier, slot: Slot) -> Work | None:
        """The next work, with a slot for it.

        Where jobs are short, what must be on the disk before one is sent would show as time in which the server has
        nothing to do. There, works are prepared before a slot is free; elsewhere none is taken before, so that another
        target may have it, and a kill leaves no intents that were never sent.
        """
        hurried = self._hurried
        async with self._ahead if hurried else self._turn:
            if not hurried:
                await self.gate.vacancy()
            work = await self.shared.backlog.take(self.name)
            if work is None:
                return None
            before, self._queue_end = self._queue_end, asyncio.Event()
            behind = self._queue_end
            try:
                if hurried:
                    await carrier.prepare(work)
                await before.wait()  # works are sent in the order of the plan, which is that of the server's cache
                await slot.enter()
            finally:
                behind.set()
            return work

    @property
    def _hurried(self) -> bool:
        return self.shared.alone and self.gate.hurried

    async def _carry(self, work: Work, carrier: Carrier, slot: Slot) -> TransientError | None:
        """Carry one work; the trouble that the target is in, if any."""
        backlog = self.shared.backlog
        try:
            answer = await carrier.carry(work, slot)
        except TransientError as error:
            work.setbacks += 1
            if work.setbacks >= _SETBACKS:  # the target lives, but not over this one; its job stays on record
                said = f"{self.name}: trial {work.trial.index} is left for the next run, which looks first: {error}"
                self.shared.report(Noticed(said))
                backlog.leave()
            else:
                backlog.give_back(work)
            return error
        except TargetError as error:
            if work.final:
                backlog.done()
            else:
                backlog.give_back(work)
            self._die(REFUSED if isinstance(error, RefusedError) else UNREACHABLE, f"{self.name}: {error}")
            return None
        if isinstance(answer, Busy):
            self._busy(answer, carrier)
            backlog.give_back(work)
            return None
        if work.sent:
            self.gate.accepted()
        backlog.done()
        return None

    def _busy(self, answer: Busy, carrier: Carrier) -> None:
        seconds = self.gate.refused(answer.retry_after)
        self.shared.report(Waiting(self.name, seconds, self.gate.limit, answer.reason))
        since = self.gate.refused_since
        if since is not None and not carrier.in_flight.ids and asyncio.get_running_loop().time() - since > _FULL_FOR:
            self._die(UNREACHABLE, f"{self.name}: took nothing for {_FULL_FOR / 60:g} minutes: {answer.reason}")

    async def _recover(self, trouble: TransientError) -> None:
        """Ask a silent target again until it answers or patience is over; the first worker asks, the others wait."""
        if self.dead or self.shared.control.stopping:
            self._up.set()
            return
        if not self._up.is_set():
            return
        self._up.clear()
        self.shared.report(TargetDown(self.name, str(trouble), final=False))
        loop = asyncio.get_running_loop()
        deadline, wait = loop.time() + self.shared.settings.patience, 0.1
        try:
            while not self.shared.control.stopping:
                await self.shared.sleep(self.shared.random.uniform(wait / 2, wait))
                try:
                    await self.client.connect()
                except UnreachableError as error:
                    if loop.time() > deadline:
                        self._die(UNREACHABLE, str(error))
                        return
                    wait = min(2 * wait, 5.0)
                except RefusedError as error:
                    self._die(REFUSED, f"{self.name}: {error}")
                    return
                else:
                    self.shared.report(TargetUp(self.name))
                    return
        finally:
            self._up.set()

    def _die(self, reason: str, message: str) -> None:
        if self.dead:
            return
        self.dead = True
        self.shared.report(TargetDown(self.name, message.removeprefix(f"{self.name}: "), final=True))
        self.shared.backlog.release(self.name, durable=self.client.dialect.durable)
        self.gate.open()
        self._up.set()
        self._on_death(reason, message)
