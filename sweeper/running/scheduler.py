"""All lanes of a run together: started, told to stop, and what is left when the last target is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from sweeper.running.health import Presence
from sweeper.running.run_events import Cancelling, Draining
from sweeper.running.stop_control import UNREACHABLE
from sweeper.running.target_worker import Lane, Late

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.running.concurrency_limit import Gate
    from sweeper.running.run_context import Shared

_GRACE: Final = 5.0  # seconds of silence that a server is allowed once its jobs are to be cancelled


class Crew:
    """One lane per client; `clients` come with the gate of the jobs that may be in flight on each, or as `Late`."""

    def __init__(self, shared: Shared, clients: list[tuple[ComfyClient, Gate | Late]]) -> None:
        self.shared = shared
        presence = Presence(shared, (client.target.name for client, gate in clients if not isinstance(gate, Late)))
        self.lanes = [Lane(shared, client, gate, presence, self._lane_died) for client, gate in clients]
        self._told = ""
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        self._cutting: list[asyncio.Task[None]] = []

    async def run(self) -> str | None:
        """Until nobody has work any more. Returns why it stopped early, for people.

        Raises what no single trial is to blame for, such as a full disk.
        """
        with self.shared.control.bound(self._control_changed):
            if self.shared.control.stopping:
                self._control_changed()
            try:
                async with asyncio.TaskGroup() as group:
                    self._tasks = {lane: group.create_task(lane.run()) for lane in self.lanes}
            except BaseExceptionGroup as errors:
                raise _first(errors) from None
            finally:
                for task in self._cutting:
                    task.cancel()
        said = [part for part in (self.shared.error, self._left()) if part]
        return "; ".join(said) or None

    def _left(self) -> str | None:
        """What is left for the next run because its jobs may stand somewhere; the end of a run that left some on a
        target that was given up is that target's.
        """
        shared = self.shared
        places = {}
        for target, works in shared.backlog.left().items():
            places[target] = sum(1 + len(shared.twins.get(work.trial.digest, ())) for work in works)
        if not places:
            return None
        given_up = [lane.name for lane in self.lanes if lane.dead and lane.name in places]
        if given_up:
            shared.control.drain(UNREACHABLE)
        return left_behind(places, given_up, others=len(self.lanes) > len(given_up))

    def _control_changed(self) -> None:
        control = self.shared.control
        if not control.stopping:
            return
        in_flight = sum(lane.in_flight for lane in self.lanes)
        told = "cancel" if control.cancelling else "drain"
        if told != self._told:
            self._told = told
            if control.cancelling:
                self.shared.report(Cancelling(in_flight))
                self._cutting = [asyncio.create_task(_cut(lane, task)) for lane, task in self._tasks.items()]
            else:
                self.shared.report(Draining(in_flight, control.reason or ""))
        self.shared.stopped.set()
        self.shared.backlog.close()
        for lane in self.lanes:
            lane.wake()

    def _lane_died(self, reason: str, message: str, account: bool) -> None:
        """An account that cannot pay ends the run, whatever the others could do: that is its owner's to decide about.
        What is in flight anywhere is brought home.
        """
        if account or all(lane.dead for lane in self.lanes):
            self.shared.error = message
            self.shared.control.halt(reason)


async def _cut(lane: Lane, task: asyncio.Task[None]) -> None:
    """End a cancelled lane whose server says nothing: its jobs stay on record, for the next run to look for."""
    loop = asyncio.get_running_loop()
    told = loop.time()
    while (left := max(told, lane.client.heard) + _GRACE - loop.time()) > 0:  # noqa: ASYNC110 (each answer moves the end)
        await asyncio.sleep(left)
    task.cancel()


def left_behind(places: Mapping[str, int], given_up: Sequence[str], *, others: bool) -> str:
    """What to say of trials, so many for each target, whose jobs may stand there, and what to do about it. `others`:
    whether there are targets that could do them.
    """
    where = ", ".join(f"{count} on {target}" for target, count in places.items())
    said = f"left for the next run, which looks for their jobs first: {sum(places.values())} of the trials ({where})"
    if not given_up:
        return said
    instead = ", or leave it out with `--target` for the others, which then do them" if others else ""
    return f"{said}; see that {' and '.join(given_up)} answers and run the same command{instead}"


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single exception of a tree of groups: the others are its echoes."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
