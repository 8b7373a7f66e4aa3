"""A work item: one trial to execute in a run, and what this run tried so far."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.model.trial import Trial
from sweeper.store.records import OPEN_STATES, JobRecord


@dataclass(slots=True)
class WorkItem:
    """One digest to execute, by the first trial that has it; trials with the same digest share the result.

    `job`: the last submission that matters, if any. `submissions`: how many this run made. `never_submitted`: the
    store has no submission of this digest, so it need not be queried.
    """

    trial: Trial
    job: JobRecord | None = None
    submissions: int = 0
    memory_failures: int = 0
    consecutive_failures: int = 0  # failed attempts to reach the target about this item
    first_failure_at: float | None = None  # when they began, by the event loop's clock
    ended_job: str | None = None  # the id of the last job that the target was seen to have ended
    finished: bool = False  # its result rows are final for this run
    never_submitted: bool = False
    known_losses: int = 0  # `Uploads.losses` of the target when the item's files were last uploaded

    @property
    def open_job(self) -> JobRecord | None:
        """The last job, if it may still be on its server."""
        return self.job if self.job is not None and self.job.state in OPEN_STATES else None

    @property
    def pinned_to(self) -> str | None:
        """The target that may still have this item's job, so that no other may execute the item."""
        return self.open_job.target if self.open_job is not None else None

    def reset_failures(self) -> None:
        """Forget earlier failures, because the target was seen to process the job.

        Not if the job had ended before: what fails since then are its files, and no job runs after its end.
        """
        if self.job is None or self.job.id != self.ended_job:
            self.consecutive_failures, self.first_failure_at = 0, None
