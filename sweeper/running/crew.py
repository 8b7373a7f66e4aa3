"""All lanes of a run together: started, told to stop, and what is left when the last target is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sweeper.running.lane import Lane
from sweeper.running.progress import Cancelling, Draining

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.running.shared import Shared


class Crew:
    """One lane per client; `clients` come with the number of jobs that may be in flight on each."""

    def __init__(self, shared: Shared, clients: list[tuple[ComfyClient, int]]) -> None:
        self.shared = shared
        self.lanes = [Lane(shared, client, concurrency, self._lane_died) for client, concurrency in clients]
        self._told = ""

    async def run(self) -> str | None:
        """Until nobody has work any more. Returns why it stopped early, for people.

        Raises what no single trial is to blame for, such as a full disk.
        """
        with self.shared.control.bound(self._control_changed):
            if self.shared.control.stopping:
                self._control_changed()
            try:
                async with asyncio.TaskGroup() as group:
                    for lane in self.lanes:
                        group.create_task(lane.run())
            except BaseExceptionGroup as errors:
                raise _first(errors) from None
        left = self.shared.backlog.left
        return self.shared.error or (f"not done, and left for the next run: {left} of the trials" if left else None)

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
            else:
                self.shared.report(Draining(in_flight, control.reason or ""))
        self.shared.stopped.set()
        self.shared.backlog.close()
        for lane in self.lanes:
            lane.wake()

    def _lane_died(self, reason: str, message: str) -> None:
        if all(lane.dead for lane in self.lanes):
            self.shared.error = message
            self.shared.control.halt(reason)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single exception of a tree of groups: the others are its echoes."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
