"""Finds jobs whose submission has an unknown outcome: the answer was lost, or the run ended before it came."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sweeper.comfy.client import ComfyClient, describe_open_outcome
from sweeper.comfy.protocol import JobSearch
from sweeper.errors import UNANSWERED_ERROR, TransientError
from sweeper.running.run_context import RunContext
from sweeper.store.records import JobRecord


class JobFinder:
    """Searches one server. `earlier_jobs`: those of earlier runs whose outcome is unknown."""

    def __init__(self, context: RunContext, client: ComfyClient, earlier_jobs: Iterable[JobRecord]) -> None:
        self.context, self.client = context, client
        self._earlier_jobs = {job.id: job for job in earlier_jobs}
        self._earlier_answers: dict[str, str | None] = {}  # what one search for all of them found, by job id
        self._search_lock = asyncio.Lock()
        self._had_by_server: set[str] = set()  # ids that the server refused because it has had them

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
        if prompt_id is None and job.id in self._had_by_server:
            raise TransientError("the server has this job, but does not list it yet")
        return prompt_id

    def record_had(self, job: JobRecord) -> None:
        """Note that the server refused the job because it has had its id, so that only its list can show it."""
        self._had_by_server.add(job.id)

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
