"""All lanes of a run together: started, told to stop, and what is left when the last target is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from sweeper.running.async_tools import first_error
from sweeper.running.health import HealthMonitor
from sweeper.running.run_events import Cancelling, Draining
from sweeper.running.stop_control import UNREACHABLE
from sweeper.running.target_worker import PendingTarget, TargetWorker

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.running.concurrency_limit import ConcurrencyLimit
    from sweeper.running.run_context import RunContext

_SILENCE_GRACE: Final = 5.0  # seconds of silence that a server is allowed once its jobs are to be cancelled


class Scheduler:
    """One lane per client; `clients` come with the gate of the jobs that may be in flight on each, or as `Late`."""

    def __init__(
        self, context: RunContext, clients: list[tuple[ComfyClient, ConcurrencyLimit | PendingTarget]]
    ) -> None:
        self.context = context
        presence = HealthMonitor(
            context, (client.target.name for client, gate in clients if not isinstance(gate, PendingTarget))
        )
        self.workers = [
            TargetWorker(context, client, gate, presence, self._on_worker_death) for client, gate in clients
        ]
        self._reported_stop = ""
        self._tasks: dict[TargetWorker, asyncio.Task[None]] = {}
        self._watchdogs: list[asyncio.Task[None]] = []

    async def run(self) -> str | None:
        """Until nobody has work any more. Returns why it stopped early, for people.

        Raises what no single trial is to blame for, such as a full disk.
        """
        with self.context.control.subscribe(self._on_stop_changed):
            if self.context.control.stopping:
                self._on_stop_changed()
            try:
                async with asyncio.TaskGroup() as group:
                    self._tasks = {lane: group.create_task(lane.run()) for lane in self.workers}
            except BaseExceptionGroup as errors:
                raise first_error(errors) from None
            finally:
                for task in self._watchdogs:
                    task.cancel()
        said = [part for part in (self.context.error, self._summarize_postponed()) if part]
        return "; ".join(said) or None

    def _summarize_postponed(self) -> str | None:
        """What is left for the next run because its jobs may stand somewhere; the end of a run that left some on a
        target that was given up is that target's.
        """
        shared = self.context
        places = {}
        for target, works in shared.work_queue.list_postponed().items():
            places[target] = sum(1 + len(shared.duplicates.get(work.trial.digest, ())) for work in works)
        if not places:
            return None
        given_up = [lane.name for lane in self.workers if lane.dead and lane.name in places]
        if given_up:
            shared.control.drain(UNREACHABLE)
        return describe_postponed(places, given_up, has_other_targets=len(self.workers) > len(given_up))

    def _on_stop_changed(self) -> None:
        control = self.context.control
        if not control.stopping:
            return
        in_flight = sum(lane.in_flight for lane in self.workers)
        told = "cancel" if control.cancelling else "drain"
        if told != self._reported_stop:
            self._reported_stop = told
            if control.cancelling:
                self.context.report(Cancelling(in_flight))
                self._watchdogs = [
                    asyncio.create_task(_cancel_when_silent(lane, task)) for lane, task in self._tasks.items()
                ]
            else:
                self.context.report(Draining(in_flight, control.reason or ""))
        self.context.stopped.set()
        self.context.work_queue.close()
        for lane in self.workers:
            lane.wake()

    def _on_worker_death(self, reason: str, message: str, account: bool) -> None:
        """An account that cannot pay ends the run, whatever the others could do: that is its owner's to decide about.
        What is in flight anywhere is brought home.
        """
        if account or all(lane.dead for lane in self.workers):
            self.context.error = message
            self.context.control.stop_with(reason)


async def _cancel_when_silent(worker: TargetWorker, task: asyncio.Task[None]) -> None:
    """End a cancelled lane whose server says nothing: its jobs stay on record, for the next run to look for."""
    loop = asyncio.get_running_loop()
    told = loop.time()
    while (left := max(told, worker.client.last_response_at) + _SILENCE_GRACE - loop.time()) > 0:  # noqa: ASYNC110 (each answer moves the end)
        await asyncio.sleep(left)
    task.cancel()


def describe_postponed(counts: Mapping[str, int], given_up_targets: Sequence[str], *, has_other_targets: bool) -> str:
    """What to say of trials, so many for each target, whose jobs may stand there, and what to do about it. `others`:
    whether there are targets that could do them.
    """
    where = ", ".join(f"{count} on {target}" for target, count in counts.items())
    said = f"left for the next run, which looks for their jobs first: {sum(counts.values())} of the trials ({where})"
    if not given_up_targets:
        return said
    instead = ", or leave it out with `--target` for the others, which then do them" if has_other_targets else ""
    return f"{said}; see that {' and '.join(given_up_targets)} answers and run the same command{instead}"
