"""One target's share of a run: it pulls work as fast as the target takes it, and sits out the target's bad moments.

A target that does not answer gives what it was never sent to the others, and is asked again (see `presence`); what it
may have taken waits for it, unless it took that with it: the queue of a ComfyUI ends with its process.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sweeper.comfy.event_stream import EventStream
from sweeper.comfy.protocol import Busy
from sweeper.errors import LOST_ERROR, RefusedError, SweeperError, TargetError, TransientError, UnreachableError
from sweeper.running.concurrency_limit import Gate, Place
from sweeper.running.job_executor import Carrier
from sweeper.running.run_events import Noticed, Retrying, TargetDown, Waiting
from sweeper.running.stop_control import REFUSED, UNREACHABLE
from sweeper.store import records

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.protocol import Server
    from sweeper.running.health import Presence
    from sweeper.running.run_context import Shared
    from sweeper.running.work import Work

_SETBACKS: Final = 5  # times that a target is in trouble over one work before that is left for the next run
_DOUBTS: Final = 3  # answers in a row that no ComfyUI gives, or refusals, which something before it may have given
_LONGEST_WAIT: Final = 30.0  # seconds before a work over which a target was in trouble is tried again
_FULL_FOR: Final = 600.0  # seconds of nothing but "queue full", with nothing of ours in that queue


@dataclass(frozen=True, slots=True)
class Late:
    """A target that did not answer at the start of the run: why, and what is to be done with the server that answers
    after all before it gets work: `welcome` gives its gate, and raises a SweeperError where it cannot be used.
    """

    reason: str
    welcome: Callable[[ComfyClient, Server], Coroutine[Any, Any, Gate]]


class Lane:
    """`gate`: how many jobs the target may have now; `late` in its place for one that does not answer yet.
    `on_death(reason, message, account)` is called once, when this target gets no more work in this run; `account`:
    because its account cannot pay.
    """

    def __init__(
        self,
        shared: Shared,
        client: ComfyClient,
        gate: Gate | Late,
        presence: Presence,
        on_death: Callable[[str, str, bool], None],
    ) -> None:
        self.shared = shared
        self.client = client
        self.name = client.target.name
        self.dead = False
        self._gone = False  # dead, and so are its jobs
        self._doubts = 0
        self._ahead = asyncio.Semaphore(1)
        self._late = gate if isinstance(gate, Late) else None
        self.gate = gate if isinstance(gate, Gate) else Gate(1, shared.random)
        self._presence = presence
        self._carrier: Carrier | None = None
        self._on_death = on_death
        self._turn = asyncio.Lock()
        self._queue_end = asyncio.Event()  # set when whoever took a work last has a place for it
        self._queue_end.set()

    async def run(self) -> None:
        """Until there is no more work, the run stops, or the target is given up."""
        if self._late is not None and not await self._arrived(self._late):
            return
        self._ahead = asyncio.Semaphore(self.gate.most)
        async with EventStream(self.client) as events:
            carrier = self._carrier = Carrier(self.shared, self.client, events)
            async with asyncio.TaskGroup() as group:
                # As many again bring in files of jobs that are over, while the next ones run.
                for _ in range(2 * max(self.gate.most, 2)):
                    group.create_task(self._worker(carrier))

    async def _arrived(self, late: Late) -> bool:
        """Wait for a target that was not there at the start. Whether it is to be used."""
        reason = late.reason
        while True:
            try:
                server = await self._presence.back(self.client, reason)
                if server is None:
                    return False
                gate = await self._presence.wanted(late.welcome(self.client, server))
            except TransientError as error:
                reason = str(error)
            except SweeperError as error:  # whatever is wrong with that one, the others have their work
                self._give_up(error)
                return False
            else:
                self.gate = gate or self.gate
                return gate is not None

    @property
    def in_flight(self) -> int:
        ours = self._carrier and self._carrier.in_flight
        return len(ours.ids) + ours.sending if ours else 0

    def wake(self) -> None:
        """The run is stopping: whoever waits, for a place or for a job, is to look at that now."""
        self.gate.open()
        if self.shared.control.cancelling:
            self.client.pauses.hurry()
        if self._carrier is not None:
            self._carrier.events.wake_all()

    async def _worker(self, carrier: Carrier) -> None:
        while not self.dead:
            place = Place(self.gate)
            try:
                work = await self._next(carrier, place)
                if work is None:
                    return
                if self.dead or self._presence.silent(self.name):
                    carrier.withdraw(work)
                    self._hand_back(work)
                    continue
                trouble = await self._carry(work, carrier, place)
            finally:
                place.leave()
            if trouble is not None:
                await self._recover(trouble, work)

    async def _next(self, carrier: Carrier, place: Place) -> Work | None:
        """The next work, with a place for it.

        Where jobs are short, what must be on the disk before one is sent would show as time in which the server has
        nothing to do. There, works are prepared before a place is free; elsewhere none is taken before, so that another
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
                await place.enter()
            finally:
                behind.set()
            return work

    @property
    def _hurried(self) -> bool:
        return self.shared.alone and self.gate.hurried

    async def _carry(self, work: Work, carrier: Carrier, place: Place) -> SweeperError | None:
        """Carry one work; the trouble that there is, if any, with the work still in hand."""
        backlog = self.shared.backlog
        try:
            answer = await carrier.carry(work, place)
        except asyncio.CancelledError:  # the run is over, for a server that says nothing
            self._put_down(work)
            raise
        except TransientError as error:
            return error
        except TargetError as error:
            if not work.final and self._doubtful(error):
                return error
            self._put_down(work) if work.final else self._hand_back(work)
            self._give_up(error)
            return None
        if isinstance(answer, Busy):
            self._busy(answer, carrier)
            backlog.give_back(work, self.name)
            return None
        self._doubts = 0
        self._put_down(work)
        return None

    def _put_down(self, work: Work) -> None:
        """Nobody does more for a work in this run; one whose job may still stand there is for the next."""
        if work.pinned is None or work.final:
            self.shared.backlog.done(self.name)
        else:
            self.shared.backlog.leave(work, self.name)

    def _doubtful(self, error: TargetError) -> bool:
        """Whether to ask again after an answer that ends a target: a gateway gives such while it restarts."""
        if isinstance(error, RefusedError) and error.account:
            return False
        self._doubts += 1
        return self._doubts <= _DOUBTS

    def _busy(self, answer: Busy, carrier: Carrier) -> None:
        seconds = self.gate.turned_away(answer.retry_after)
        self.shared.report(Waiting(self.name, seconds, self.gate.limit, answer.reason))
        since = self.gate.full_since
        if since is not None and not carrier.in_flight.ids and asyncio.get_running_loop().time() - since > _FULL_FOR:
            self._die(UNREACHABLE, f"{self.name}: took nothing for {_FULL_FOR / 60:g} minutes: {answer.reason}")

    async def _recover(self, trouble: SweeperError, work: Work) -> None:
        """Find out whether the target is in trouble, or only this work with it, and wait as long as that takes."""
        if self._stood_down():
            self._hand_back(work)
            return
        try:
            answers = await self._presence.there(self.client)
        except TargetError as error:
            self._hand_back(work)
            self._give_up(error)
            return
        if answers:
            await self._wait_over(work, trouble)
            return
        self._hand_back(work)
        if self._stood_down():
            return
        try:
            if await self._presence.back(self.client, str(trouble)) is not None:
                self.client.uploads.doubt()
        except TargetError as error:
            self._give_up(error)

    def _stood_down(self) -> bool:
        """Whether it is known already what becomes of this target's works."""
        return self.dead or self.shared.control.stopping or self._presence.silent(self.name)

    async def _wait_over(self, work: Work, trouble: SweeperError) -> None:
        """A target that answers, but not over this work: a moment, each time a longer one; at last it is left."""
        shared, now = self.shared, asyncio.get_running_loop().time()
        work.setbacks += 1
        work.troubled = now if work.troubled is None else work.troubled
        job = work.job
        if work.setbacks >= _SETBACKS and now - work.troubled >= shared.settings.patience:
            said = f"{self.name}: trial {work.trial.index} is left for the next run, which looks first: {trouble}"
            shared.report(Noticed(said))
            self._put_down(work)
            return
        wait = shared.random.uniform(0.5, 1.0) * min(_LONGEST_WAIT, 0.25 * 2**work.setbacks)
        shared.report(Retrying(self.name, work.trial.index, job.attempt if job else 1, wait, str(trouble)))
        await shared.sleep(wait)
        self._hand_back(work)

    def _give_up(self, error: SweeperError) -> None:
        """No more work in this run for a target. Where its process is gone, so are its jobs, and others do them."""
        if self.dead:
            return
        if isinstance(error, UnreachableError) and error.trouble == "nobody":
            self._gone = True
            for work in (lost := self.shared.backlog.pinned(self.name)):
                self._lose(work)
            count = f", and {len(lost)} of our jobs with it, which others do" if lost else ""
            self._die(UNREACHABLE, f"{error}; taken for ended{count}")
        elif isinstance(error, RefusedError):
            self._die(REFUSED, str(error), account=error.account)
        else:
            self._die(UNREACHABLE, str(error))

    def _hand_back(self, work: Work) -> None:
        if self._gone and work.pinned == self.name:
            self._lose(work)
        self.shared.backlog.give_back(work, self.name)

    def _lose(self, work: Work) -> None:
        said = "nothing listens at that port any more: a ComfyUI's queue ends with its process"
        self.shared.job_over(work, records.LOST, error=(LOST_ERROR, said))

    def _die(self, reason: str, message: str, *, account: bool = False) -> None:
        if self.dead:
            return
        self.dead = True
        said = message.removeprefix(f"{self.name}: ")
        self.shared.report(TargetDown(self.name, said, final=True))
        self._presence.gone(self.name)
        self.shared.backlog.release(self.name)
        self.gate.open()
        self._on_death(reason, f"{self.name}: {said}", account)
