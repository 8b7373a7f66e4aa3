"""A group of works as the driver follows it, from a waiting task to the last news. A record, no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeper.store.records import INTENT, SUBMITTED

if TYPE_CHECKING:
    from distributed import Future

    from sweeper.cluster.messages import Seat
    from sweeper.running.work import Work
    from sweeper.store.records import Artifact


@dataclass(slots=True)
class Group:
    """`place`: where its jobs may stand, if they were sent before. `addresses`: the workers that may take it, None for
    all. `seat`: the worker that it was granted to. `jobs`: its works by the ids of their jobs, `ended` those of them
    that came to an end or went back. `born`: when its task was given to Dask, in seconds of the loop's clock.
    """

    id: str
    works: list[Work]
    born: float
    place: str | None = None
    addresses: tuple[str, ...] | None = None
    future: Future[str] | None = None
    seat: Seat | None = None
    jobs: dict[str, Work] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    kept: dict[str, tuple[Artifact, ...]] = field(default_factory=dict)

    @property
    def unended(self) -> list[Work]:
        return [work for job, work in self.jobs.items() if job not in self.ended]

    @property
    def waiting(self) -> list[Work]:
        """Those that no server is known to have."""
        return [work for work in self.unended if work.job is not None and work.job.state == INTENT]

    @property
    def sent(self) -> list[Work]:
        """Those that a server is known to have; others were intended, and wait on the worker."""
        return [work for work in self.unended if work.job is not None and work.job.state == SUBMITTED]
