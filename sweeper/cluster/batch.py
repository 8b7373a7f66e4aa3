"""A batch of work items, as the driver follows it from its Dask task to its last message."""

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
    """A batch. `created_at`: when its task was submitted to Dask, by the loop's clock.

    `server_id`: the server that may have its jobs, if they were submitted before. `addresses`: the workers that may
    take it, None for all. `worker`: the worker that runs it. `work_by_job`: its items by job id; `ended_jobs`: those
    jobs that ended or were returned. `saved_artifacts`: by job id, until its trial is reported.
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
        """The items whose job has not ended."""
        return [item for job_id, item in self.work_by_job.items() if job_id not in self.ended_jobs]

    @property
    def pending(self) -> list[WorkItem]:
        """The unfinished items that no server is known to have; they wait on the worker."""
        return [item for item in self.unfinished if item.job is not None and item.job.state == INTENT]

    @property
    def submitted(self) -> list[WorkItem]:
        """The unfinished items that a server is known to have."""
        return [item for item in self.unfinished if item.job is not None and item.job.state == SUBMITTED]
