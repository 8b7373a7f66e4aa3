"""A group of works as the driver follows it, from a waiting task to the last news. A record, no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeper.store.records import INTENT, SUBMITTED

if TYPE_CHECKING:
    from distributed import Future

    from sweeper.cluster.messages import WorkerInfo
    from sweeper.running.work import WorkItem
    from sweeper.store.records import Artifact


@dataclass(slots=True)
class Batch:
    """`place`: where its jobs may stand, if they were sent before. `addresses`: the workers that may take it, None for
    all. `seat`: the worker that it was granted to. `jobs`: its works by the ids of their jobs, `ended` those of them
    that came to an end or went back. `born`: when its task was given to Dask, in seconds of the loop's clock.
    """

    id: str
    work_items: list[WorkItem]
    created_at: float
    server_id: str | None = None
    addresses: tuple[str, ...] | None = None
    future: Future[str] | None = None
    worker: WorkerInfo | None = None
    work_by_job: dict[str, WorkItem] = field(default_factory=dict)
    ended_jobs: set[str] = field(default_factory=set)
    saved_artifacts: dict[str, tuple[Artifact, ...]] = field(default_factory=dict)

    @property
    def unfinished(self) -> list[WorkItem]:
        return [work for job, work in self.work_by_job.items() if job not in self.ended_jobs]

    @property
    def pending(self) -> list[WorkItem]:
        """Those that no server is known to have."""
        return [work for work in self.unfinished if work.job is not None and work.job.state == INTENT]

    @property
    def submitted(self) -> list[WorkItem]:
        """Those that a server is known to have; others were intended, and wait on the worker."""
        return [work for work in self.unfinished if work.job is not None and work.job.state == SUBMITTED]
