"""One piece of work of a run: a trial to be executed, and what was tried so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeper.store.records import OPEN_STATES

if TYPE_CHECKING:
    from sweeper.model.trial import Trial
    from sweeper.store.records import JobRecord


@dataclass(slots=True)
class WorkItem:
    """One digest to be brought to an end: the trial that shows it, and what was tried so far.

    `job`: the last submission, None where there is none that matters. `sent`: submissions in this run. `untried`: the
    store has no submission of it, so it need not be asked.
    """

    trial: Trial
    job: JobRecord | None = None
    submissions: int = 0
    memory_failures: int = 0
    consecutive_failures: int = 0  # times in a row that the target was in trouble over it
    first_failure_at: float | None = None  # since when, by the loop's clock
    finished: bool = False  # its row has got its last word
    never_submitted: bool = False

    @property
    def pinned_to(self) -> str | None:
        """The target that alone can tell what became of it."""
        return self.job.target if self.job is not None and self.job.state in OPEN_STATES else None

    def reset_failures(self) -> None:
        """Its job was seen to be on its way: what was wrong before is over."""
        self.consecutive_failures, self.first_failure_at = 0, None
