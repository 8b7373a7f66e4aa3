"""Polls one job until it has ended, and searches for jobs whose submission has an unknown outcome.

Polling decides; events from the server only shorten the wait between two polls.

The interval grows from the dialect's shortest to its longest. A job is lost only if several polls in a row find no
trace of it. Its timeout counts from the start of its execution if the server reports that, else from its submission;
for a job of an earlier run, from when this run began to watch it. It is measured by the monotonic clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from sweeper.comfy.client import ComfyClient, describe_open_outcome
from sweeper.comfy.event_stream import EventStream
from sweeper.comfy.job_listener import Listener
from sweeper.comfy.protocol import JobSearch, JobState
from sweeper.errors import TIMED_OUT_ERROR, UNANSWERED_ERROR, TransientError
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import Notice
from sweeper.running.stop_control import wait_at_most
from sweeper.store.records import JobRecord

_BACKOFF_FACTOR: Final = 1.5
_CANCEL_GRACE: Final = 10.0  # seconds for a server to confirm that it cancelled a job
_CANCEL_INTERVAL: Final = 2.0  # seconds between two cancel requests: the job may start between our poll and the request


@dataclass(slots=True)
class InFlight:
    """Our jobs in flight on one target.

    `ids`: their prompt ids. `cancelled`: those that were cancelled together because the run is. `sending`: how many
    submissions are under way. `given_up`: the target was given up, so nothing more waits for its jobs.
    `last_progress_at`: when one of them was last seen running or ended, by the event loop's clock. `followed_since`: by
    prompt id, since when this run watches a job, in monotonic seconds; `running_since`: since when it sees it running.
    """

    ids: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    sending: int = 0
    given_up: bool = False
    last_progress_at: float = float("-inf")
    followed_since: dict[str, float] = field(default_factory=dict)
    running_since: dict[str, float] = field(default_factory=dict)


class JobPoller:
    """Polls the job `prompt_id`.

    `on_seen` is called with each state that shows the job waiting or running, unless it is overdue. `in_flight`: our
    jobs on that target, all of which are cancelled if the run is cancelled.
    """

    def __init__(
        self,
        context: RunContext,
        client: ComfyClient,
        job: JobRecord,
        prompt_id: str,
        listener: Listener,
        *,
        in_flight: InFlight,
        events: EventStream,
        on_seen: Callable[[JobState], None],
    ) -> None:
        self.context, self.client, self.job, self.prompt_id = context, client, job, prompt_id
        self.listener, self.in_flight, self.on_seen = listener, in_flight, on_seen
        self.shortest, self.longest = client.poll_intervals
        # With an open event stream, the first polls are only needed in case it stays silent.
        self.interval = self.shortest * (4 if events.is_connected else 1)
        self.clock = asyncio.get_running_loop().time
        self.queued = False
        self.misses = 0
        self.blocked_since: float | None = None
        self.blocking_jobs: frozenset[str] = frozenset()  # those that the server executed then
        self.in_flight.followed_since.setdefault(prompt_id, time.monotonic())

    async def run(self) -> JobState | None:
        """Poll until the job has ended, and return its state; None if we cancelled it and the server did not confirm.

        Raises TransientError if the target does not respond or was given up, and TargetError.
        """
        state = await self._poll()
        self.in_flight.followed_since.pop(self.prompt_id, None)
        self.in_flight.running_since.pop(self.prompt_id, None)
        return state

    async def _poll(self) -> JobState | None:
        while True:
            await self._wait()
            if self.context.control.cancelling:
                return await self._cancel_and_wait(_CANCEL_GRACE)
            if self.in_flight.given_up:
                state = await self._cancel_and_wait(_CANCEL_GRACE)
                if state is None:
                    raise TransientError("this target was given up")
                return state
            state = await self._check()
            if state is not None:
                return state
            if self._is_overdue():
                return await self._handle_timeout()

    async def _wait(self) -> None:
        if await self._wait_for_event(self.interval):
            self.interval = self.shortest  # the event may arrive before the server's history shows the end
        else:
            self.interval = min(max(self.interval, self.shortest) * _BACKOFF_FACTOR, self.longest)

    async def _wait_for_event(self, seconds: float) -> bool:
        """Wait until an event says that polling is worthwhile, or for so long. Whether there was an event."""
        await wait_at_most(seconds, self.listener.woken.wait())
        was_woken = self.listener.woken.is_set()
        self.listener.woken.clear()
        return was_woken

    async def _check(self) -> JobState | None:
        """Poll once. Returns the state if the job has ended."""
        state = await self.client.get_job(self.prompt_id)
        if state.state == "lost":
            self.misses += 1
            self.interval = min(self.shortest * 2**self.misses, self.longest)
            return state if self.misses >= self.client.dialect.lost_after_checks else None
        self.misses = 0
        if state.is_over or state.state == "running":
            self.in_flight.last_progress_at = self.clock()
        if state.is_over:
            return state
        self.queued = state.state == "queued"
        if state.state == "running" and self.listener.started_at is None:
            self.listener.mark_started(state.started or self.context.now())
        if not self._is_overdue():  # a job that should have ended makes no progress
            self.on_seen(state)
        await self._warn_if_stuck()
        return None

    async def _warn_if_stuck(self) -> None:
        """Warn if the queue before this job has not moved for as long as a job may run.

        If ComfyUI's worker thread dies, its job stays in the list of running jobs for ever, while the server goes on
        responding. If a job of ours is running, its own timeout handles that. Jobs of others are not ours to cancel, so
        we only warn.
        """
        limit, now = self.context.settings.timeout, self.clock()
        # `longest` is added because the polls that show progress are that far apart.
        is_moving = limit is not None and now - self.in_flight.last_progress_at <= limit + self.longest
        if not self.queued or limit is None or is_moving:
            self.blocked_since = None
        elif self.blocked_since is None or now - self.blocked_since > limit:
            running = await self.client.list_running()
            if self.blocked_since is not None and running == self.blocking_jobs:
                names = ", ".join(sorted(running)[:3])
                cause = f"the server runs {names}, not ours," if running else "the server seems to run nothing"
                advice = f" while {cause}; if that does not change, restart the server, and this run will go on"
                if not self.client.dialect.lists_jobs:
                    advice = "; look in the service's console whether it starts a worker, and how many it may start"
                self.context.report(
                    Notice(f"{self.job.target}: job {self.prompt_id} has waited for {limit:g} s{advice}")
                )
            self.blocked_since, self.blocking_jobs = now, running

    def _is_overdue(self) -> bool:
        if self.misses:  # it may be gone rather than slow, for example if the server was restarted long ago
            return False
        limit = self.context.settings.timeout
        since = self.listener.running_since
        if since is not None:  # or longer: this may be another look at the job, after the target did not respond
            since = self.in_flight.running_since.setdefault(self.prompt_id, since)
        elif not self.queued:
            since = self.in_flight.followed_since[self.prompt_id]
        # Monotonic, because a clock that is set in the middle of a run must not cancel a job.
        return limit is not None and since is not None and time.monotonic() - since > limit

    async def _handle_timeout(self) -> JobState | None:
        """Cancel a job that exceeded its timeout. Returns its end, or None if that is not known now.

        On a server that runs one job at a time, a job that does not stop blocks all later ones. We wait longer for it,
        because ComfyUI cannot interrupt a busy node, and then give the target up. Elsewhere the job stays open, because
        it may still succeed and is paid for.
        """
        is_blocking = self.client.dialect.runs_one_job
        grace = self.context.settings.patience if is_blocking else _CANCEL_GRACE
        state = await self._cancel_and_wait(grace)
        if state is not None and state.state == "succeeded":
            return state  # it succeeded before it could be cancelled
        if state is None and (not is_blocking or self.context.control.cancelling):
            return None
        outcome = "was cancelled" if state is not None else "the server does not confirm that it cancelled it"
        message = f"ran longer than {self.context.settings.timeout:g} s and {outcome}"
        return JobState("failed", error_type=TIMED_OUT_ERROR, error=message, is_stuck=is_blocking and state is None)

    async def _cancel_and_wait(self, grace: float) -> JobState | None:
        """Cancel this job, and wait until it has ended: `grace` seconds, and less if the run is to end."""
        give_up_at, cancel_at, misses = float("inf"), 0.0, 0
        is_hurried = False
        while self.clock() < give_up_at:
            if not is_hurried and (self.context.control.cancelling or self.in_flight.given_up):
                is_hurried, cancel_at = True, 0.0
                give_up_at = min(give_up_at, self.clock() + _CANCEL_GRACE)
            if self.clock() >= cancel_at:
                await self.client.cancel(self._choose_cancelled())
                give_up_at = min(give_up_at, self.clock() + grace)
                cancel_at = self.clock() + _CANCEL_INTERVAL
            state = await self.client.get_job(self.prompt_id)
            if state.state == "lost":  # ComfyUI leaves no trace of a job that is removed from its queue
                misses += 1
                if misses >= self.client.dialect.lost_after_checks:
                    return JobState("cancelled" if self.client.dialect.lists_jobs else "lost")
            elif state.is_over:
                return state
            await self._wait_for_event(self.shortest * 2)
        return None

    def _choose_cancelled(self) -> frozenset[str]:
        """Return this job only; if the run is cancelled, all in flight, so that none starts in the place of another."""
        if not self.context.control.cancelling or self.prompt_id in self.in_flight.cancelled:
            return frozenset([self.prompt_id])
        chosen = frozenset(self.in_flight.ids)
        self.in_flight.cancelled |= chosen
        return chosen


class JobFinder:
    """Searches one server for jobs whose answer was lost, or whose run ended before it came: the `earlier_jobs`."""

    def __init__(self, context: RunContext, client: ComfyClient, earlier_jobs: Iterable[JobRecord]) -> None:
        self.context, self.client = context, client
        self._earlier_jobs = {job.id: job for job in earlier_jobs}
        self._earlier_answers: dict[str, str | None] = {}  # what one search for all of them found, by job id
        self._search_lock = asyncio.Lock()
        self.had_by_server: set[str] = set()  # ids that it refused because it has had them

    @property
    def sends_again(self) -> bool:
        """Whether a job that is not found is sent again with the same id, which the server accepts only once."""
        return self.client.dialect.key_seconds > 0

    async def find(self, job: JobRecord, *, allow_late_arrival: bool = True, trusts_key: bool = True) -> str | None:
        """The prompt_id of a job; None if the server lacks it. See `ComfyClient.find_submission`.

        Raises TransientError if the outcome stays open, also if the server is known to have had the job.
        """
        if job.id in self._earlier_jobs:
            return await self._find_earlier(job)
        search = self._make_search(job)
        prompt_id = await self.client.find_submission(
            search, allow_late_arrival=allow_late_arrival, trusts_key=trusts_key
        )
        if prompt_id is None and job.id in self.had_by_server:
            raise TransientError("the server has this job, but does not list it yet")
        return prompt_id

    async def _find_earlier(self, job: JobRecord) -> str | None:
        """As `find`, for an earlier run's job. One search, which walks the server's list, answers for all of them."""
        async with self._search_lock:
            if job.id not in self._earlier_answers:
                searches = [self._make_search(earlier) for earlier in self._earlier_jobs.values()]
                self._earlier_answers = await self.client.find_submissions(searches)
            if job.id not in self._earlier_answers:
                raise TransientError(describe_open_outcome(self._make_search(job)))
            del self._earlier_jobs[job.id]
            return self._earlier_answers.pop(job.id)

    def _make_search(self, job: JobRecord) -> JobSearch:
        store, now = self.context.store, self.context.now()
        intended_at, asked_at = store.load_server_time(job.id), self.client.server_time
        age = now - job.intended if intended_at is None or asked_at is None else asked_at - intended_at
        return JobSearch(
            job.id, job.sent, job.intended, now, store.has_prompt_id, intended_at,
            is_unanswered=job.error_type == UNANSWERED_ERROR, age=max(0.0, age),
        )  # fmt: skip
