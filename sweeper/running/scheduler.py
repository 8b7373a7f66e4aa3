"""The workers of all targets. Each takes items as fast as its target accepts jobs, and handles the target's failures.

If a target does not respond, its unsent items go to the other targets, and `health` retries it. Items whose jobs it
may have wait for it, unless its process has exited: ComfyUI keeps its queue in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.event_stream import EventStream
from sweeper.comfy.protocol import QueueFull, Server
from sweeper.comfy.retry import MIN_PATIENCE, SUBMIT_AGAIN
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
from sweeper.running.health import HealthMonitor
from sweeper.running.job_executor import JobExecutor
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import Notice, Retrying, TargetBusy, TargetDown
from sweeper.running.spending import OverBudgetError
from sweeper.running.stop_control import BUDGET, REFUSED, UNREACHABLE, first_error
from sweeper.running.work_queue import WorkItem
from sweeper.store import records
from sweeper.store.records import JobEnd
from sweeper.wording import count_things, join_names

_MAX_FAILURES_IN_A_ROW: Final = 5  # of one item, before it is postponed to the next run
_MAX_POSTPONED_IN_A_ROW: Final = 3  # items, before the target is given up, because it completes nothing
_MAX_SUSPICIOUS_ANSWERS: Final = 3  # in a row: refusals and answers that no ComfyUI gives, perhaps from a gateway
_QUEUE_FULL_LIMIT: Final = 600.0  # seconds of "queue full" without a job of ours in it, before the target is given up


@dataclass(frozen=True, slots=True)
class PendingTarget:
    """A target that did not respond at the start of the run, and why.

    If it responds later, `prepare` checks it before it gets work. It returns the target's limit, or raises a
    SweeperError if the target cannot be used.
    """

    reason: str
    prepare: Callable[[ComfyClient, Server], Coroutine[Any, Any, ConcurrencyLimit]]


class TargetWorker:
    """Executes items on one target. `limit`: how many jobs it may have, or a PendingTarget if it does not respond yet.

    `on_death(reason, message, is_account_problem)` is called once, if this target gets no more work in this run.
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
        self._process_gone = False  # dead, and its jobs are lost
        self._suspicious_answers = 0
        self._postponed_in_a_row = 0
        self._prepare_semaphore = asyncio.Semaphore(1)
        self._pending = limit if isinstance(limit, PendingTarget) else None
        self.limit = limit if isinstance(limit, ConcurrencyLimit) else ConcurrencyLimit(1, context.random)
        self._health = health
        self._executor: JobExecutor | None = None
        self._on_death = on_death
        self._take_lock = asyncio.Lock()
        self._last_has_permit = asyncio.Event()  # set when the item taken last has its permit
        self._last_has_permit.set()

    async def run(self) -> None:
        """Run until there is no more work, the run stops, or the target is given up."""
        if self._pending is not None and not await self._wait_until_usable(self._pending):
            return
        self._prepare_semaphore = asyncio.Semaphore(self.limit.maximum)
        async with EventStream(self.client) as events, AsyncExitStack() as stack:
            executor = self._executor = JobExecutor(self.context, self.client, events)
            if (supervisor := self.context.launched.get(self.name)) is not None:
                supervisor.user = self
                stack.callback(setattr, supervisor, "user", None)
            async with asyncio.TaskGroup() as group:
                # Twice as many as jobs in flight, because half of them may be downloading the files of ended jobs.
                for _ in range(2 * max(self.limit.maximum, 2)):
                    group.create_task(self._process_items(executor))

    async def _wait_until_usable(self, pending: PendingTarget) -> bool:
        """Wait for a target that did not respond at the start. Whether it can be used."""
        reason = pending.reason
        while True:
            try:
                server = await self._health.wait_until_up(self.client, reason)
                if server is None:
                    return False
                limit = await self._health.run_unless_finished(pending.prepare(self.client, server))
            except TransientError as error:
                reason = str(error)
            except SweeperError as error:  # whatever is wrong with this target, the others go on
                self._give_up(error)
                return False
            else:
                self.limit = limit or self.limit
                return limit is not None

    @property
    def in_flight(self) -> int:
        jobs = self._executor and self._executor.in_flight
        return len(jobs.ids) + jobs.sending if jobs else 0

    def is_idle(self) -> bool:
        return self.context.work_queue.is_idle(self.name)

    def hold(self, is_held: bool, /) -> None:
        (self.context.work_queue.suspend if is_held else self.context.work_queue.resume)(self.name)

    def handle_death(self, how: str, since: float | None, /) -> bool:
        """Blame the trial that a launched ComfyUI executed when it died, and let its jobs run again."""
        is_blamed = False
        for item in self.context.sent.values():  # it executes them in this order
            job = item.open_job
            if since is not None and job is not None and job.target == self.name and job.intended >= since:
                item.deaths.append(how)
                is_blamed = True
                break
        self.limit.record_death()
        self.client.uploads.mark_unverified()
        for item in self.context.work_queue.find_pinned(self.name):
            self.context.drop_lost(item)
        self.context.report(Notice(f"{self.name}: its ComfyUI ended: {how}; sweeper starts it again"))
        return is_blamed

    def wake(self) -> None:
        """Let everything that waits for a permit or a job check again, because the run is stopping."""
        self.limit.wake_all()
        if self.context.control.cancelling:
            self.client.retry_waiter.cut_short()
        if self._executor is not None:
            self._executor.events.wake_all()

    async def _process_items(self, executor: JobExecutor) -> None:
        while not self.dead:
            permit = Permit(self.limit)
            try:
                item = await self._take_next(executor, permit)
                if item is None:
                    return
                if self.dead or self._health.is_down(self.name):
                    executor.discard_prepared(item)
                    self._requeue(item)
                    continue
                self.context.drop_lost(item)
                if item.finished:
                    self.context.work_queue.complete(self.name)
                    continue
                failure = await self._execute(item, executor, permit)
            finally:
                permit.release()
            if failure is not None:
                await self._recover(failure, item)

    async def _take_next(self, executor: JobExecutor, permit: Permit) -> WorkItem | None:
        """Take the next item and acquire a permit for it. None: there is no more work.

        If jobs are short, waiting for the disk before each submission would leave the server idle, so items are
        prepared before a permit is free. Otherwise no item is taken before that, so that another target can have it,
        and a kill leaves no intents that were never sent.
        """
        prepares_ahead = self._prepares_ahead
        async with self._prepare_semaphore if prepares_ahead else self._take_lock:
            if not prepares_ahead:
                await self.limit.wait_available()
            item = await self.context.work_queue.take(self.name)
            if item is None:
                return None
            previous_has_permit, has_permit = self._last_has_permit, asyncio.Event()
            self._last_has_permit = has_permit
            try:
                if prepares_ahead:
                    await executor.prepare(item)
                await previous_has_permit.wait()  # submit in the plan's order, which suits the server's cache
                await permit.acquire()
            finally:
                has_permit.set()
            return item

    @property
    def _prepares_ahead(self) -> bool:
        # With a budget, an intent that is not sent yet would keep others from being sent. Without a list of jobs, a
        # kill would leave such intents unknown for ever.
        may_leave_intents = self.client.dialect.lists_jobs and self.context.settings.budget is None
        return self.context.is_only_target and self.limit.has_short_jobs and may_leave_intents

    async def _execute(self, item: WorkItem, executor: JobExecutor, permit: Permit) -> SweeperError | None:
        """Execute one item. Returns the error, if the caller has to recover from one and to requeue the item."""
        try:
            with self.context.follow(item):
                answer = await executor.execute(item, permit)
        except asyncio.CancelledError:  # the run is being cancelled, and the server is silent
            self._complete_or_postpone(item)
            raise
        except OverBudgetError:
            self.context.work_queue.block(self.name)
            self._requeue(item)
            return None
        except TransientError as error:
            return error
        except TargetError as error:
            if item.finished:
                self._complete_or_postpone(item)
            elif self._should_ask_again(error):
                return error
            else:
                self._requeue(item)
            self._give_up(error)
            return None
        if isinstance(answer, QueueFull):
            self._handle_queue_full(answer, executor)
            self.context.work_queue.requeue(item, self.name)
            return None
        self._suspicious_answers = 0
        if item.finished:
            self._postponed_in_a_row = 0
        if item.is_unknown and item.submissions:
            self._postpone(item, "the answer to the submission was lost, or the server no longer knows the job")
        else:
            self._complete_or_postpone(item)
        return None

    def _complete_or_postpone(self, item: WorkItem) -> None:
        """Do nothing more for an item in this run. If its job may still be on the server, the next run checks it."""
        if item.pinned_to is None or item.finished:
            self.context.work_queue.complete(self.name)
        else:
            self.context.work_queue.postpone(item, self.name)

    def _should_ask_again(self, error: TargetError) -> bool:
        """Whether to retry after an answer that makes a target unusable, because a restarting gateway may give it."""
        if isinstance(error, RefusedError) and error.is_final:
            return False
        self._suspicious_answers += 1
        return self._suspicious_answers <= _MAX_SUSPICIOUS_ANSWERS

    def _handle_queue_full(self, answer: QueueFull, executor: JobExecutor) -> None:
        limit = min(_QUEUE_FULL_LIMIT, 2 * max(self.context.settings.patience, MIN_PATIENCE))
        seconds = self.limit.record_queue_full(None if answer.retry_after is None else min(answer.retry_after, limit))
        self.context.report(TargetBusy(self.name, seconds, self.limit.current, answer.reason))
        full_since = self.limit.full_since
        if full_since is None or executor.in_flight.ids:
            return
        if asyncio.get_running_loop().time() - full_since > limit:
            self._mark_dead(UNREACHABLE, f"{self.name}: accepted no job for {limit:g} s: {answer.reason}")

    async def _recover(self, failure: SweeperError, item: WorkItem) -> None:
        """Find out whether the target failed or only this item on it, and wait as long as that takes."""
        if self._should_hand_back():
            self._requeue(item)
            return
        try:
            is_up = await self._health.ping(self.client)
        except TargetError as error:
            self._requeue(item)
            self._give_up(error)
            return
        if is_up:
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
        """Whether items of this target are to be requeued at once, without finding out what is wrong."""
        return self.dead or self.context.control.stopping or self._health.is_down(self.name)

    async def _back_off(self, item: WorkItem, failure: SweeperError) -> None:
        """Wait before an item is tried again that fails on a target which responds; in the end, postpone it."""
        context, now = self.context, asyncio.get_running_loop().time()
        item.consecutive_failures += 1
        item.first_failure_at = now if item.first_failure_at is None else item.first_failure_at
        seconds = now - item.first_failure_at
        has_failed_enough = item.consecutive_failures >= _MAX_FAILURES_IN_A_ROW or seconds >= MIN_PATIENCE
        if has_failed_enough and seconds >= context.settings.patience:
            context.report(
                Notice(
                    f"{self.name}: trial {item.trial.index} is postponed to the next run, which first checks "
                    f"whether it already ran: {failure}"
                )
            )
            if item.pinned_to is None:
                context.error = f"{self.name}: trial {item.trial.index} was not sent: {failure}; run the command again"
            self._postpone(item, str(failure))
            return
        wait = SUBMIT_AGAIN.draw(item.consecutive_failures, context.random)
        attempt = item.job.attempt if item.job else 1
        context.report(Retrying(self.name, item.trial.index, attempt, wait, str(failure)))
        await context.sleep(wait)
        self._requeue(item)

    def _postpone(self, item: WorkItem, failure: str) -> None:
        """Leave an item to the next run, and give the target up if it completes none."""
        self._complete_or_postpone(item)
        self._postponed_in_a_row += 1
        if self._postponed_in_a_row >= _MAX_POSTPONED_IN_A_ROW:
            reason = f"{self.name}: responds, but completed none of the last {self._postponed_in_a_row} trials"
            self._mark_dead(UNREACHABLE, f"{reason}: {failure}")

    def _give_up(self, error: SweeperError) -> None:
        """Give the target no more work in this run. If its process has exited, other targets execute its jobs."""
        if self.dead:
            return
        if isinstance(error, UnreachableError) and error.trouble is Trouble.REFUSED:
            self._process_gone = True
            lost = self.context.work_queue.find_pinned(self.name)
            for item in lost:
                self._record_lost(item)
            consequence = f"; its {count_things(len(lost), 'job')} will run on other targets" if lost else ""
            how = "" if self.name in self.context.launched else "; assuming it has exited"
            self._mark_dead(UNREACHABLE, f"{error}{how}{consequence}")
        elif isinstance(error, RefusedError):
            self._mark_dead(REFUSED, str(error), is_account_problem=error.is_account_problem)
        else:
            self._mark_dead(UNREACHABLE, str(error))

    def _requeue(self, item: WorkItem) -> None:
        if not self.context.drop_lost(item) and self._process_gone and item.pinned_to == self.name:
            self._record_lost(item)
        if item.finished:
            self.context.work_queue.complete(self.name)
        else:
            self.context.work_queue.requeue(item, self.name)

    def _record_lost(self, item: WorkItem) -> None:
        if (job := item.open_job) is not None:
            error = (LOST_ERROR, "nothing listens at that port any more, and ComfyUI loses its queue when it exits")
            self.context.finish_job(item, job, JobEnd(records.LOST, error=error))

    def _mark_dead(self, reason: str, message: str, *, is_account_problem: bool = False) -> None:
        if self.dead:
            return
        self.dead = True
        message = message.removeprefix(f"{self.name}: ")
        self.context.report(TargetDown(self.name, message, final=True))
        self._health.mark_dead(self.name)
        self.context.work_queue.drop_target(self.name)
        self.limit.wake_all()
        self._on_death(reason, f"{self.name}: {message}", is_account_problem)


_SILENCE_GRACE: Final = 5.0  # seconds without a response after which a cancelled worker is ended


class Scheduler:
    """Runs one worker per client. Each client comes with its concurrency limit, or as a PendingTarget."""

    def __init__(
        self, context: RunContext, clients: list[tuple[ComfyClient, ConcurrencyLimit | PendingTarget]]
    ) -> None:
        self.context = context
        health = HealthMonitor(
            context, (client.target.name for client, limit in clients if not isinstance(limit, PendingTarget))
        )
        self.workers = [
            TargetWorker(context, client, limit, health, self._on_worker_death) for client, limit in clients
        ]
        self._tasks: dict[TargetWorker, asyncio.Task[None]] = {}
        self._watchdogs: list[asyncio.Task[None]] = []

    async def run(self) -> str | None:
        """Run until there is no more work. Returns why the run stopped early, as a message.

        Raises errors that are not the fault of a single trial, such as a full disk.
        """
        with self.context.control.subscribe(self._on_stop_changed):
            if self.context.control.stopping:
                self._on_stop_changed()
            if self.context.settings.budget is not None:
                self._watchdogs = [asyncio.create_task(self._stop_when_over_budget())]
            try:
                async with asyncio.TaskGroup() as group:
                    self._tasks = {worker: group.create_task(worker.run()) for worker in self.workers}
            except BaseExceptionGroup as errors:
                raise first_error(errors) from None
            finally:
                for task in self._watchdogs:
                    task.cancel()
        return "; ".join(filter(None, (self.context.error, self._summarize_postponed()))) or None

    def _summarize_postponed(self) -> str | None:
        """Describe the trials that are left for the next run, if any.

        If some are on a target that was given up, that is why the run ends.
        """
        context = self.context
        postponed = context.work_queue.list_postponed()
        unknown = describe_unknown([item for items in postponed.values() for item in items if item.is_unknown])
        counts = {
            target: sum(1 + len(context.duplicates.get(item.trial.digest, ())) for item in items if not item.is_unknown)
            for target, items in postponed.items()
        }
        counts = {target: count for target, count in counts.items() if count}
        if not counts:
            return unknown
        given_up = [worker.name for worker in self.workers if worker.dead and worker.name in counts]
        if given_up:
            context.control.drain(UNREACHABLE)
        rest = describe_postponed(counts, given_up, has_other_targets=len(self.workers) > len(given_up))
        return "; ".join(filter(None, (unknown, rest)))

    def _on_stop_changed(self) -> None:
        context = self.context
        if not context.control.stopping:
            return
        is_new = context.report_stop(sum(worker.in_flight for worker in self.workers))
        if is_new and context.control.cancelling:
            self._watchdogs += [
                asyncio.create_task(_cancel_when_silent(worker, task)) for worker, task in self._tasks.items()
            ]
        context.work_queue.close()
        for worker in self.workers:
            worker.wake()

    async def _stop_when_over_budget(self) -> None:
        """Drain the run when no target can submit another job within the budget, and none is to come back."""
        work_queue = self.context.work_queue
        while not work_queue.is_over_budget([worker.name for worker in self.workers if not worker.dead]):
            await work_queue.wait_changed()
        self.context.control.drain(BUDGET)

    def _on_worker_death(self, reason: str, message: str, is_account_problem: bool) -> None:
        """Stop the run if this was the last worker, or if the account cannot pay, which only its owner can change.

        The run then waits for the jobs in flight on other targets.
        """
        if is_account_problem or all(worker.dead for worker in self.workers):
            self.context.error = message
            self.context.control.stop_with(reason)


async def _cancel_when_silent(worker: TargetWorker, task: asyncio.Task[None]) -> None:
    """Cancel a worker whose server stays silent. Its jobs stay on record, and the next run searches for them."""
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    while True:
        remaining = max(started_at, worker.client.last_response_at) + _SILENCE_GRACE - loop.time()
        if remaining <= 0:
            break
        await asyncio.sleep(remaining)
    task.cancel()


def describe_unknown(items: Sequence[WorkItem]) -> str | None:
    """Describe the trials of which no server can say whether they ran, and what the user can do; None without any."""
    if not items:
        return None
    names = join_names(f"{job.id[:8]}+" for item in items if (job := item.open_job) is not None)
    return (
        f"{count_things(len(items), 'trial')} of unknown outcome: the answer to a submission was lost, or a result has "
        f"expired, and the server lists no jobs. In its console, the files of these jobs begin with {names}. "
        "`sweeper run --retry-unknown` submits such trials again, and pays twice for those that ran"
    )


def describe_postponed(counts: Mapping[str, int], given_up_targets: Sequence[str], *, has_other_targets: bool) -> str:
    """Describe the trials that may still be running, by target, and say what to do about them."""
    total = sum(counts.values())
    trials, them = ("1 trial", "it") if total == 1 else (f"{total} trials", "them")
    where = ", ".join(f"{count} on {target}" for target, count in counts.items())
    message = f"{trials} may still be running ({where}); the next run checks {them} before submitting"
    if not given_up_targets:
        return message
    targets = " and ".join(given_up_targets)
    alternative = f", or drop {targets} with `--target` to have the others do {them}" if has_other_targets else ""
    return f"{message}; see that {targets} responds and run the same command{alternative}"
