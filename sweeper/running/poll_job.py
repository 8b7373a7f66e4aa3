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
from sweeper.running.run_events import Notice

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.event_stream import EventStream, Listener
    from sweeper.running.run_context import RunContext
    from sweeper.store.records import JobRecord

_BACKOFF_FACTOR: Final = 1.5
_CANCEL_GRACE: Final = 10.0  # seconds for a server to confirm that a job was cancelled
_CANCEL_INTERVAL: Final = 2.0  # seconds: a job may have moved from waiting to running while we asked


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
    last_progress_at: float = float("-inf")


async def poll_job(
    context: RunContext,
    client: ComfyClient,
    job: JobRecord,
    listener: Listener,
    *,
    in_flight: InFlight,
    events: EventStream,
    on_seen: Callable[[], None],
) -> JobState | None:
    """How a submitted job ended; None when it was to be stopped and the server does not confirm it.

    `ours`: what we have in flight on that target, which is what a cancellation of the run stops. `seen` is called when
    a look shows the job on its way. Raises TransientError and TargetError of the target, the first also when the
    target was given up.
    """
    watching = _JobPoller(context, client, job, listener, in_flight=in_flight, events=events, on_seen=on_seen)
    try:
        return await watching.run()
    finally:
        in_flight.overdue.discard(watching.prompt_id)


class _JobPoller:
    def __init__(
        self,
        context: RunContext,
        client: ComfyClient,
        job: JobRecord,
        listener: Listener,
        *,
        in_flight: InFlight,
        events: EventStream,
        on_seen: Callable[[], None],
    ) -> None:
        assert job.prompt_id is not None
        self.context, self.client, self.job, self.listener, self.in_flight = context, client, job, listener, in_flight
        self.on_seen = on_seen
        self.prompt_id = job.prompt_id
        self.shortest, self.longest = client.poll_intervals
        # With a stream open the first looks are only there for the case that it says nothing.
        self.interval = self.shortest * (4 if events.is_connected else 1)
        self.clock = asyncio.get_running_loop().time
        self.thorough_at = self.clock() + self.longest
        self.queued = False
        self.misses = 0
        self.checked_closely = False
        self.blocking_job: str | None = None  # the job that the server was at when we looked, and since when
        self.blocked_since: float | None = None
        self.warned_unstoppable = False  # and told so

    async def run(self) -> JobState | None:
        while True:
            await self._wait()
            if self.context.control.cancelling:
                return await self._cancel_and_wait(self.in_flight.ids, _CANCEL_GRACE)
            if self.in_flight.given_up:
                ended = await self._cancel_and_wait({self.prompt_id}, _CANCEL_GRACE)
                if ended is None:
                    raise TransientError("this target was given up")
                return ended
            state = await self._check()
            if state is not None:
                return state
            if self._is_overdue():
                if not self.checked_closely:
                    self.thorough_at = self.clock()  # it may only be waiting behind others
                    self.interval = 0.0
                    continue
                return await self._handle_timeout()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self.interval):
                await self.listener.woken.wait()
        except TimeoutError:
            self.interval = min(max(self.interval, self.shortest) * _BACKOFF_FACTOR, self.longest)
        else:
            # The word of an end can be faster than the history that shows it: look again soon.
            self.interval = self.shortest
        self.listener.woken.clear()

    async def _check(self) -> JobState | None:
        """The state, if that is the end of the job."""
        thorough = self.checked_closely = self.clock() >= self.thorough_at
        said, self.listener.succeeded = self.listener.succeeded, False
        state = await self.client.get_job(self.prompt_id, thorough=thorough, success_reported=said)
        if state.state == "lost":
            self.misses += 1
            self.interval = min(self.shortest * 2**self.misses, self.longest)
            return state if self.misses >= self.client.dialect.lost_after_checks else None
        self.misses = 0
        if state.is_over or state.state == "running":
            self.in_flight.last_progress_at = self.clock()
        if state.is_over:
            return state
        self.on_seen()
        if thorough:
            self.thorough_at = self.clock() + self.longest
        if state.state in ("queued", "running"):
            self.queued = state.state == "queued"
            self._warn_if_stuck(state)
        if state.state == "running" and self.listener.started_at is None:
            self.listener.started_at = state.started or self.context.now()
        return None

    def _warn_if_stuck(self, state: JobState) -> None:
        """Tell when the queue before this job has not moved for as long as a job may run: a worker that died leaves
        its job there for ever while the server answers (COMFYUI_BEHAVIOUR.md 1.3). A job of ours that runs has its
        own timeout, and one that ran shows that the queue moves where the server does not say what is ahead; somebody
        else's is not ours to stop, so this only tells.
        """
        limit, now = self.context.settings.timeout, self.clock()
        moves = (
            limit is not None and now - self.in_flight.last_progress_at <= limit + self.longest
        )  # as often as we look closely
        if not self.queued or limit is None or moves or state.running_job in self.in_flight.ids:
            self.blocked_since = None
            return
        if self.blocked_since is None or state.running_job != self.blocking_job:
            self.blocking_job, self.blocked_since = state.running_job, now
        elif now - self.blocked_since > limit:
            self.blocked_since = now
            at = (
                f"the server is at job {state.running_job}, which is not ours"
                if state.running_job
                else "nothing seems to run"
            )
            self.context.report(
                Notice(
                    f"{self.job.target}: job {self.prompt_id} has waited for {limit:g} s while {at}; "
                    "if that makes no progress, restart the server: the run goes on by itself"
                )
            )

    def _is_overdue(self) -> bool:
        if self.misses:  # not too slow but perhaps gone, as when the server was restarted days after the submission
            return False
        limit = self.context.settings.timeout
        since = self.listener.started_at
        if since is None and not self.queued:
            since = self.job.submitted
        return limit is not None and since is not None and self.context.now() - since > limit

    async def _handle_timeout(self) -> JobState | None:
        """Stop a job that ran too long; its end, or None where that is not to be had now.

        One worker that will not let go of a job keeps every later job waiting: that is waited for longer, since a node
        cannot be interrupted while it is busy, and is then the end of the target. Elsewhere the job stays open: it may
        come to its end, and is paid for.
        """
        blocking = self.client.dialect.runs_one_job
        self.in_flight.overdue.add(self.prompt_id)
        ended = await self._cancel_and_wait(
            self.in_flight.overdue, self.context.settings.patience if blocking else _CANCEL_GRACE
        )
        if ended is not None and ended.state == "succeeded":
            return ended  # it was done before it could be stopped
        if ended is None and (not blocking or self.context.control.cancelling):
            return None
        told = "and was cancelled" if ended is not None else "and was told to stop, which the server does not confirm"
        message = f"ran longer than {self.context.settings.timeout:g} s {told}"
        return JobState("failed", error_type=TIMED_OUT_ERROR, error=message, is_stuck=blocking and ended is None)

    async def _cancel_and_wait(self, ids: set[str], grace: float) -> JobState | None:
        """Cancel these jobs, and wait for the word about this one: so many seconds once they were told to stop, less
        when the run is to end. Where a service stops all or none, that may be only after others of ours.
        """
        give_up, again, misses = float("inf"), 0.0, 0
        hurried = False
        while self.clock() < give_up:
            if not hurried and (self.context.control.cancelling or self.in_flight.given_up):
                hurried, again = True, 0.0
                give_up = min(give_up, self.clock() + _CANCEL_GRACE)
            if self.clock() >= again:
                ids = self.in_flight.ids if self.context.control.cancelling else ids
                told = await self.client.cancel(frozenset(ids), frozenset(self.in_flight.ids))
                if told and give_up == float("inf"):
                    give_up = self.clock() + grace
                elif not told:
                    self._warn_unstoppable()
                again = self.clock() + (_CANCEL_INTERVAL if told else self.longest)
            state = await self.client.get_job(self.prompt_id, thorough=True)
            if state.state == "lost":  # a job that is taken out of a ComfyUI's queue leaves no trace
                misses += 1
                if misses >= self.client.dialect.lost_after_checks:
                    return JobState("cancelled")
            elif state.is_over:
                return state
            await self._wait_briefly()
        return None

    async def _wait_briefly(self) -> None:
        """A moment between two looks at a job that is to stop, which ends when there is something to see."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.shortest * 2):
                await self.listener.woken.wait()
        self.listener.woken.clear()

    def _warn_unstoppable(self) -> None:
        """Only of a job that ran too long: who cancels a run, or gives a target up, waits for nothing."""
        if (
            not self.warned_unstoppable
            and self.prompt_id in self.in_flight.overdue
            and not self.context.control.cancelling
        ):
            self.warned_unstoppable = True
            limit = self.context.settings.timeout
            self.context.report(
                Notice(
                    f"{self.job.target}: job {self.prompt_id} ran longer than {limit:g} s, and cannot be stopped while "
                    "others of that account are there; it is stopped, or its files are fetched, when that is over"
                )
            )
