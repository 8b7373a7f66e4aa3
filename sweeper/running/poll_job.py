"""Watching one job until it is over: polling is the authority, events only shorten the wait.

The interval grows from the dialect's shortest to its longest. A job counts as lost only after several looks in a row
that find no trace of it; as timed out from the start of its execution where the server tells that, from the submission
otherwise (CONTRACT.md 21).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sweeper.comfy.protocol import JobState
from sweeper.errors import TIMED_OUT_ERROR, TransientError
from sweeper.running.run_events import Noticed

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.event_stream import EventStream, Listener
    from sweeper.running.run_context import Shared
    from sweeper.store.records import Job

_GROWTH: Final = 1.5
_GRACE: Final = 10.0  # seconds for a server to confirm that a job was cancelled
_CANCEL_AGAIN: Final = 2.0  # seconds: a job may have moved from waiting to running while we asked


@dataclass(slots=True)
class InFlight:
    """What we have on one target: the prompt ids of ours that may still run there, and whether the target was given
    up, so that nobody is to wait for them any longer. `overdue`: those that ran too long. `sending`: how many more are
    on their way. `stirred`: when one of them was last seen to run or to have ended, by the loop's clock.
    """

    ids: set[str] = field(default_factory=set)
    overdue: set[str] = field(default_factory=set)
    sending: int = 0
    given_up: bool = False
    stirred: float = float("-inf")


async def watch(
    shared: Shared,
    client: ComfyClient,
    job: Job,
    listener: Listener,
    *,
    ours: InFlight,
    events: EventStream,
    seen: Callable[[], None],
) -> JobState | None:
    """How a submitted job ended; None when it was to be stopped and the server does not confirm it.

    `ours`: what we have in flight on that target, which is what a cancellation of the run stops. `seen` is called when
    a look shows the job on its way. Raises TransientError and TargetError of the target, the first also when the
    target was given up.
    """
    watching = _Watch(shared, client, job, listener, ours=ours, events=events, seen=seen)
    try:
        return await watching.run()
    finally:
        ours.overdue.discard(watching.prompt_id)


class _Watch:
    def __init__(
        self,
        shared: Shared,
        client: ComfyClient,
        job: Job,
        listener: Listener,
        *,
        ours: InFlight,
        events: EventStream,
        seen: Callable[[], None],
    ) -> None:
        assert job.prompt_id is not None
        self.shared, self.client, self.job, self.listener, self.ours = shared, client, job, listener, ours
        self.seen = seen
        self.prompt_id = job.prompt_id
        self.shortest, self.longest = client.polls
        # With a stream open the first looks are only there for the case that it says nothing.
        self.interval = self.shortest * (4 if events.connected else 1)
        self.clock = asyncio.get_running_loop().time
        self.thorough_at = self.clock() + self.longest
        self.queued = False
        self.misses = 0
        self.looked_closely = False
        self.ahead: str | None = None  # the job that the server was at when we looked, and since when
        self.ahead_since: float | None = None
        self.unstoppable = False  # and told so

    async def run(self) -> JobState | None:
        while True:
            await self._pause()
            if self.shared.control.cancelling:
                return await self._stopped(self.ours.ids, _GRACE)
            if self.ours.given_up:
                ended = await self._stopped({self.prompt_id}, _GRACE)
                if ended is None:
                    raise TransientError("this target was given up")
                return ended
            state = await self._look()
            if state is not None:
                return state
            if self._overdue():
                if not self.looked_closely:
                    self.thorough_at = self.clock()  # it may only be waiting behind others
                    self.interval = 0.0
                    continue
                return await self._timed_out()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self.interval):
                await self.listener.woken.wait()
        except TimeoutError:
            self.interval = min(max(self.interval, self.shortest) * _GROWTH, self.longest)
        else:
            # The word of an end can be faster than the history that shows it: look again soon.
            self.interval = self.shortest
        self.listener.woken.clear()

    async def _look(self) -> JobState | None:
        """The state, if that is the end of the job."""
        thorough = self.looked_closely = self.clock() >= self.thorough_at
        said, self.listener.succeeded = self.listener.succeeded, False
        state = await self.client.look(self.prompt_id, thorough=thorough, said=said)
        if state.state == "lost":
            self.misses += 1
            self.interval = min(self.shortest * 2**self.misses, self.longest)
            return state if self.misses >= self.client.dialect.lost_after else None
        self.misses = 0
        if state.over or state.state == "running":
            self.ours.stirred = self.clock()
        if state.over:
            return state
        self.seen()
        if thorough:
            self.thorough_at = self.clock() + self.longest
        if state.state in ("queued", "running"):
            self.queued = state.state == "queued"
            self._notice_wedged(state)
        if state.state == "running" and self.listener.began is None:
            self.listener.began = state.started or self.shared.now()
        return None

    def _notice_wedged(self, state: JobState) -> None:
        """Tell when the queue before this job has not moved for as long as a job may run: a worker that died leaves
        its job there for ever while the server answers (COMFYUI_BEHAVIOUR.md 1.3). A job of ours that runs has its
        own timeout, and one that ran shows that the queue moves where the server does not say what is ahead; somebody
        else's is not ours to stop, so this only tells.
        """
        limit, now = self.shared.settings.timeout, self.clock()
        moves = limit is not None and now - self.ours.stirred <= limit + self.longest  # as often as we look closely
        if not self.queued or limit is None or moves or state.behind in self.ours.ids:
            self.ahead_since = None
            return
        if self.ahead_since is None or state.behind != self.ahead:
            self.ahead, self.ahead_since = state.behind, now
        elif now - self.ahead_since > limit:
            self.ahead_since = now
            at = f"the server is at job {state.behind}, which is not ours" if state.behind else "nothing seems to run"
            self.shared.report(
                Noticed(
                    f"{self.job.target}: job {self.prompt_id} has waited for {limit:g} s while {at}; "
                    "if that makes no progress, restart the server: the run goes on by itself"
                )
            )

    def _overdue(self) -> bool:
        if self.misses:  # not too slow but perhaps gone, as when the server was restarted days after the submission
            return False
        limit = self.shared.settings.timeout
        since = self.listener.began
        if since is None and not self.queued:
            since = self.job.submitted
        return limit is not None and since is not None and self.shared.now() - since > limit

    async def _timed_out(self) -> JobState | None:
        """Stop a job that ran too long; its end, or None where that is not to be had now.

        One worker that will not let go of a job keeps every later job waiting: that is waited for longer, since a node
        cannot be interrupted while it is busy, and is then the end of the target. Elsewhere the job stays open: it may
        come to its end, and is paid for.
        """
        blocking = self.client.dialect.one_at_a_time
        self.ours.overdue.add(self.prompt_id)
        ended = await self._stopped(self.ours.overdue, self.shared.settings.patience if blocking else _GRACE)
        if ended is not None and ended.state == "succeeded":
            return ended  # it was done before it could be stopped
        if ended is None and (not blocking or self.shared.control.cancelling):
            return None
        told = "and was cancelled" if ended is not None else "and was told to stop, which the server does not confirm"
        message = f"ran longer than {self.shared.settings.timeout:g} s {told}"
        return JobState("failed", error_type=TIMED_OUT_ERROR, error=message, stuck=blocking and ended is None)

    async def _stopped(self, ids: set[str], grace: float) -> JobState | None:
        """Cancel these jobs, and wait for the word about this one: so many seconds once they were told to stop, less
        when the run is to end. Where a service stops all or none, that may be only after others of ours.
        """
        give_up, again, misses = float("inf"), 0.0, 0
        hurried = False
        while self.clock() < give_up:
            if not hurried and (self.shared.control.cancelling or self.ours.given_up):
                hurried, again = True, 0.0
                give_up = min(give_up, self.clock() + _GRACE)
            if self.clock() >= again:
                ids = self.ours.ids if self.shared.control.cancelling else ids
                told = await self.client.cancel(frozenset(ids), frozenset(self.ours.ids))
                if told and give_up == float("inf"):
                    give_up = self.clock() + grace
                elif not told:
                    self._tell_unstoppable()
                again = self.clock() + (_CANCEL_AGAIN if told else self.longest)
            state = await self.client.look(self.prompt_id, thorough=True)
            if state.state == "lost":  # a job that is taken out of a ComfyUI's queue leaves no trace
                misses += 1
                if misses >= self.client.dialect.lost_after:
                    return JobState("cancelled")
            elif state.over:
                return state
            await self._breathe()
        return None

    async def _breathe(self) -> None:
        """A moment between two looks at a job that is to stop, which ends when there is something to see."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.shortest * 2):
                await self.listener.woken.wait()
        self.listener.woken.clear()

    def _tell_unstoppable(self) -> None:
        """Only of a job that ran too long: who cancels a run, or gives a target up, waits for nothing."""
        if not self.unstoppable and self.prompt_id in self.ours.overdue and not self.shared.control.cancelling:
            self.unstoppable = True
            limit = self.shared.settings.timeout
            self.shared.report(
                Noticed(
                    f"{self.job.target}: job {self.prompt_id} ran longer than {limit:g} s, and cannot be stopped while "
                    "others of that account are there; it is stopped, or its files are fetched, when that is over"
                )
            )
