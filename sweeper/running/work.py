"""One piece of work of a run: a trial to be executed, and what was tried so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeper.store.records import OPEN

if TYPE_CHECKING:
    from sweeper.model.trial import Trial
    from sweeper.store.records import Job


@dataclass(slots=True)
class Work:
    """One digest to be brought to an end: the trial that shows it, and what was tried so far.

    `job`: the last submission, None where there is none that matters. `sent`: submissions in this run. `untried`: the
    store has no submission of it, so it need not be asked.
    """

    trial: Trial
    job: Job | None = None
    sent: int = 0
    out_of_memory: int = 0
    setbacks: int = 0  # times in a row that the target was in trouble over it
    troubled: float | None = None  # since when, by the loop's clock
    final: bool = False  # its row has got its last word
    untried: bool = False

    @property
    def pinned(self) -> str | None:
        """The target that alone can tell what became of it."""
        return self.job.target if self.job is not None and self.job.state in OPEN else None

    def well(self) -> None:
        """Its job was seen to be on its way: what was wrong before is over."""
        self.setbacks, self.troubled = 0, None
