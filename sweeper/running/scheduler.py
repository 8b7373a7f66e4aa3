"""Runs the workers of all targets, passes on that the run stops, and reports what is left at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from sweeper.comfy.client import ComfyClient
from sweeper.running.async_tools import first_error
from sweeper.running.concurrency_limit import ConcurrencyLimit
from sweeper.running.health import HealthMonitor
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import Cancelling, Draining
from sweeper.running.stop_control import BUDGET, UNREACHABLE
from sweeper.running.target_worker import PendingTarget, TargetWorker

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
        self._reported_stop = ""
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
        counts = {
            target: sum(1 + len(context.duplicates.get(item.trial.digest, ())) for item in items)
            for target, items in context.work_queue.list_postponed().items()
        }
        if not counts:
            return None
        given_up = [worker.name for worker in self.workers if worker.dead and worker.name in counts]
        if given_up:
            context.control.drain(UNREACHABLE)
        return describe_postponed(counts, given_up, has_other_targets=len(self.workers) > len(given_up))

    def _on_stop_changed(self) -> None:
        control = self.context.control
        if not control.stopping:
            return
        in_flight = sum(worker.in_flight for worker in self.workers)
        stop = "cancel" if control.cancelling else "drain"
        if stop != self._reported_stop:
            self._reported_stop = stop
            if control.cancelling:
                self.context.report(Cancelling(in_flight))
                self._watchdogs += [
                    asyncio.create_task(_cancel_when_silent(worker, task)) for worker, task in self._tasks.items()
                ]
            else:
                self.context.report(Draining(in_flight, control.reason or ""))
        self.context.stopped.set()
        self.context.work_queue.close()
        for worker in self.workers:
            worker.wake()

    async def _stop_when_over_budget(self) -> None:
        """Drain the run when no target can submit another job within the budget, and none is to come back."""
        work_queue = self.context.work_queue
        while not work_queue.is_over_budget([worker.name for worker in self.workers if not worker.dead]):
            await work_queue.wait_changed()
        self.context.control.drain(BUDGET)

    def _on_worker_death(self, reason: str, message: str, is_account_problem: bool) -> None:
        """Stop the run if this was the last worker, or if the account cannot pay, which its owner has to settle.

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
