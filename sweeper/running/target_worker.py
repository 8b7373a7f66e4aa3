"""One target's share of a run: it pulls work as fast as the target takes it, and sits out the target's bad moments.

A target that does not answer gives what it was never sent to the others, and is asked again (see `presence`); what it
may have taken waits for it, unless it took that with it: the queue of a ComfyUI ends with its process.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sweeper.comfy.event_stream import EventStream
from sweeper.comfy.protocol import QueueFull
from sweeper.errors import (
    LOST_ERROR,
    RefusedError,
    SweeperError,
    TargetError,
    TransientError,
    Trouble,
    UnreachableError,
)
from sweeper.running.concurrency_limit import ConcurrencyLimit, Permit
from sweeper.running.job_executor import JobExecutor
from sweeper.running.run_events import Notice, Retrying, TargetBusy, TargetDown
from sweeper.running.stop_control import REFUSED, UNREACHABLE
from sweeper.store import records

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.protocol import Server
    from sweeper.running.health import HealthMonitor
    from sweeper.running.run_context import RunContext
    from sweeper.running.work import WorkItem

_MAX_FAILURES_IN_A_ROW: Final = (
    5  # times that a target is in trouble over one work before that is left for the next run
)
_MAX_SUSPICIOUS_ANSWERS: Final = (
    3  # answers in a row that no ComfyUI gives, or refusals, which something before it may have given
)
_MAX_WAIT: Final = 30.0  # seconds before a work over which a target was in trouble is tried again
_QUEUE_FULL_LIMIT: Final = 600.0  # seconds of nothing but "queue full", with nothing of ours in that queue


@dataclass(frozen=True, slots=True)
class PendingTarget:
    """A target that did not answer at the start of the run: why, and what is to be done with the server that answers
    after all before it gets work: `welcome` gives its gate, and raises a SweeperError where it cannot be used.
    """

    reason: str
    prepare: Callable[[ComfyClient, Server], Coroutine[Any, Any, ConcurrencyLimit]]


class TargetWorker:
    """`gate`: how many jobs the target may have now; `late` in its place for one that does not answer yet.
    `on_death(reason, message, account)` is called once, when this target gets no more work in this run; `account`:
    because its account cannot pay.
    """

    def __init__(
        self,
        context: RunContext,
        client: ComfyClient,
        limit: ConcurrencyLimit | PendingTarget,
        health: HealthMonitor,
        on_death: Callable[[str, str, bool], None],
    ) -> None:
        self.context = context
        self.client = client
        self.name = client.target.name
        self.dead = False
        self._process_gone = False  # dead, and so are its jobs
        self._suspicious_answers = 0
        self._prepare_semaphore = asyncio.Semaphore(1)
        self._pending = limit if isinstance(limit, PendingTarget) else None
        self.limit = limit if isinstance(limit, ConcurrencyLimit) else ConcurrencyLimit(1, context.random)
        self._health = health
        self._executor: JobExecutor | None = None
        self._on_death = on_death
        self._take_lock = asyncio.Lock()
        self._last_has_permit = asyncio.Event()  # set when whoever took a work last has a place for it
        self._last_has_permit.set()

    async def run(self) -> None:
        """Until there is no more work, the run stops, or the target is given up."""
        if self._pending is not None and not await self._wait_until_usable(self._pending):
            return
        self._prepare_semaphore = asyncio.Semaphore(self.limit.maximum)
        async with EventStream(self.client) as events:
            carrier = self._executor = JobExecutor(self.context, self.client, events)
            async with asyncio.TaskGroup() as group:
                # As many again bring in files of jobs that are over, while the next ones run.
                for _ in range(2 * max(self.limit.maximum, 2)):
                    group.create_task(self._process_items(carrier))

    async def _wait_until_usable(self, pending: PendingTarget) -> bool:
        """Wait for a target that was not there at the start. Whether it is to be used."""
        reason = pending.reason
        while True:
            try:
                server = await self._health.wait_until_up(self.client, reason)
                if server is None:
                    return False
                gate = await self._health.run_unless_finished(pending.prepare(self.client, server))
            except TransientError as error:
                reason = str(error)
            except SweeperError as error:  # whatever is wrong with that one, the others have their work
                self._give_up(error)
                return False
            else:
                self.limit = gate or self.limit
                return gate is not None

    @property
    def in_flight(self) -> int:
        ours = self._executor and self._executor.in_flight
        return len(ours.ids) + ours.sending if ours else 0

    def wake(self) -> None:
        """The run is stopping: whoever waits, for a place or for a job, is to look at that now."""
        self.limit.wake_all()
        if self.context.control.cancelling:
            self.client.retry_waiter.cut_short()
        if self._executor is not None:
            self._executor.events.wake_all()

    async def _process_items(self, executor: JobExecutor) -> None:
        while not self.dead:
            place = Permit(self.limit)
            try:
                work = await self._take_next(executor, place)
                if work is None:
                    return
                if self.dead or self._health.is_down(self.name):
                    executor.discard_prepared(work)
                    self._requeue(work)
                    continue
                trouble = await self._execute(work, executor, place)
            finally:
                place.release()
            if trouble is not None:
                await self._recover(trouble, work)

    async def _take_next(self, executor: JobExecutor, permit: Permit) -> WorkItem | None:
        """The next work, with a place for it.

        Where jobs are short, what must be on the disk before one is sent would show as time in which the server has
        nothing to do. There, works are prepared before a place is free; elsewhere none is taken before, so that another
        target may have it, and a kill leaves no intents that were never sent.
        """
        hurried = self._prepares_ahead
        async with self._prepare_semaphore if hurried else self._take_lock:
            if not hurried:
                await self.limit.wait_available()
            work = await self.context.work_queue.take(self.name)
            if work is None:
                return None
            before, self._last_has_permit = self._last_has_permit, asyncio.Event()
            behind = self._last_has_permit
            try:
                if hurried:
                    await executor.prepare(work)
                await before.wait()  # works are sent in the order of the plan, which is that of the server's cache
                await permit.acquire()
            finally:
                behind.set()
            return work

    @property
    def _prepares_ahead(self) -> bool:
        return self.context.is_only_target and self.limit.has_short_jobs

    async def _execute(self, item: WorkItem, executor: JobExecutor, permit: Permit) -> SweeperError | None:
        """Carry one work; the trouble that there is, if any, with the work still in hand."""
        backlog = self.context.work_queue
        try:
            answer = await executor.execute(item, permit)
        except asyncio.CancelledError:  # the run is over, for a server that says nothing
            self._complete_or_postpone(item)
            raise
        except TransientError as error:
            return error
        except TargetError as error:
            if not item.finished and self._should_ask_again(error):
                return error
            self._complete_or_postpone(item) if item.finished else self._requeue(item)
            self._give_up(error)
            return None
        if isinstance(answer, QueueFull):
            self._handle_queue_full(answer, executor)
            backlog.requeue(item, self.name)
            return None
        self._suspicious_answers = 0
        self._complete_or_postpone(item)
        return None

    def _complete_or_postpone(self, item: WorkItem) -> None:
        """Nobody does more for a work in this run; one whose job may still stand there is for the next."""
        if item.pinned_to is None or item.finished:
            self.context.work_queue.complete(self.name)
        else:
            self.context.work_queue.postpone(item, self.name)

    def _should_ask_again(self, error: TargetError) -> bool:
        """Whether to ask again after an answer that ends a target: a gateway gives such while it restarts."""
        if isinstance(error, RefusedError) and error.is_account_problem:
            return False
        self._suspicious_answers += 1
        return self._suspicious_answers <= _MAX_SUSPICIOUS_ANSWERS

    def _handle_queue_full(self, answer: QueueFull, executor: JobExecutor) -> None:
        seconds = self.limit.record_queue_full(answer.retry_after)
        self.context.report(TargetBusy(self.name, seconds, self.limit.current, answer.reason))
        since = self.limit.full_since
        if (
            since is not None
            and not executor.in_flight.ids
            and asyncio.get_running_loop().time() - since > _QUEUE_FULL_LIMIT
        ):
            self._mark_dead(
                UNREACHABLE, f"{self.name}: took nothing for {_QUEUE_FULL_LIMIT / 60:g} minutes: {answer.reason}"
            )

    async def _recover(self, failure: SweeperError, item: WorkItem) -> None:
        """Find out whether the target is in trouble, or only this work with it, and wait as long as that takes."""
        if self._should_hand_back():
            self._requeue(item)
            return
        try:
            answers = await self._health.ping(self.client)
        except TargetError as error:
            self._requeue(item)
            self._give_up(error)
            return
        if answers:
            await self._back_off(item, failure)
            return
        self._requeue(item)
        if self._should_hand_back():
            return
        try:
            if await self._health.wait_until_up(self.client, str(failure)) is not None:
                self.client.uploads.mark_unverified()
        except TargetError as error:
            self._give_up(error)

    def _should_hand_back(self) -> bool:
        """Whether it is known already what becomes of this target's works."""
        return self.dead or self.context.control.stopping or self._health.is_down(self.name)

    async def _back_off(self, item: WorkItem, failure: SweeperError) -> None:
        """A target that answers, but not over this work: a moment, each time a longer one; at last it is left."""
        shared, now = self.context, asyncio.get_running_loop().time()
        item.consecutive_failures += 1
        item.first_failure_at = now if item.first_failure_at is None else item.first_failure_at
        job = item.job
        if (
            item.consecutive_failures >= _MAX_FAILURES_IN_A_ROW
            and now - item.first_failure_at >= shared.settings.patience
        ):
            said = f"{self.name}: trial {item.trial.index} is left for the next run, which looks first: {failure}"
            shared.report(Notice(said))
            self._complete_or_postpone(item)
            return
        wait = shared.random.uniform(0.5, 1.0) * min(_MAX_WAIT, 0.25 * 2**item.consecutive_failures)
        shared.report(Retrying(self.name, item.trial.index, job.attempt if job else 1, wait, str(failure)))
        await shared.sleep(wait)
        self._requeue(item)

    def _give_up(self, error: SweeperError) -> None:
        """No more work in this run for a target. Where its process is gone, so are its jobs, and others do them."""
        if self.dead:
            return
        if isinstance(error, UnreachableError) and error.trouble is Trouble.REFUSED:
            self._process_gone = True
            for work in (lost := self.context.work_queue.find_pinned(self.name)):
                self._record_lost(work)
            count = f", and {len(lost)} of our jobs with it, which others do" if lost else ""
            self._mark_dead(UNREACHABLE, f"{error}; taken for ended{count}")
        elif isinstance(error, RefusedError):
            self._mark_dead(REFUSED, str(error), account=error.is_account_problem)
        else:
            self._mark_dead(UNREACHABLE, str(error))

    def _requeue(self, item: WorkItem) -> None:
        if self._process_gone and item.pinned_to == self.name:
            self._record_lost(item)
        self.context.work_queue.requeue(item, self.name)

    def _record_lost(self, item: WorkItem) -> None:
        said = "nothing listens at that port any more: a ComfyUI's queue ends with its process"
        self.context.finish_job(item, records.LOST, error=(LOST_ERROR, said))

    def _mark_dead(self, reason: str, message: str, *, account: bool = False) -> None:
        if self.dead:
            return
        self.dead = True
        said = message.removeprefix(f"{self.name}: ")
        self.context.report(TargetDown(self.name, said, final=True))
        self._health.mark_dead(self.name)
        self.context.work_queue.drop_target(self.name)
        self.limit.wake_all()
        self._on_death(reason, f"{self.name}: {said}", account)
