"""What stands on a worker for the driver's plan, store and common ground, so that the lane carries trials as ever.

Nothing here decides: it notes what the lane would have written, for the driver to write.
"""

from __future__ import annotations

import filecmp
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sweeper.cluster.messages import (
    BatchItem,
    EventForwarded,
    JobAccepted,
    JobFinished,
    JobLease,
    TrialFinished,
    WorkerMessage,
)
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import Cancelling, Draining, JobPreview, JobProgress
from sweeper.running.work_queue import WorkQueue
from sweeper.store import records
from sweeper.store.artifacts import FOLDER, ArtifactFolder

if TYPE_CHECKING:
    from sweeper.model.trial import InputFile, Trial
    from sweeper.running.run_events import Event
    from sweeper.running.work import WorkItem
    from sweeper.store.artifacts import IncomingFile
    from sweeper.store.records import Artifact, JobRecord

# A stint has its own words for its end; steps and pictures of every node would fill the network for a bar.
_NOT_FORWARDED = (Draining, Cancelling, JobProgress, JobPreview)


class RemoteStore:
    """Stands for the store: `intend` was committed by the driver before, the rest becomes news. `states`: what is known
    of each granted job here; `submitting`: those whose submission has left and is not answered yet.
    """

    def __init__(self, send: Callable[[WorkerMessage], None]) -> None:
        self._send = send
        self._prompt_ids: set[str] = set()
        self.job_states: dict[str, str] = {}
        self.submitting: set[str] = set()
        self.attempt_by_digest: dict[str, int] = {}

    def add_lease(self, digest: str, lease: JobLease) -> None:
        self.job_states[lease.job_id] = records.UNSENT
        self.attempt_by_digest[digest] = lease.attempt

    def add_job(self, job: JobRecord) -> None:
        self.job_states[job.id] = job.state

    def count_attempts(self, digest: str, targets: Sequence[str]) -> int:  # noqa: ARG002 (a batch has one target)
        return self.attempt_by_digest[digest] - 1

    def has_prompt_id(self, prompt_id: str) -> bool:
        return prompt_id in self._prompt_ids

    def add_prompt_ids(self, prompt_ids: Iterable[str]) -> None:
        self._prompt_ids.update(prompt_ids)

    def record_intent(self, job: JobRecord, *, durable: bool = True) -> None:  # noqa: ARG002 (it is, on the driver's disk)
        assert job.id in self.job_states, "only what the driver has committed may leave"
        self.job_states[job.id] = records.INTENT
        self.submitting.add(job.id)

    def sync(self) -> None:
        """Nothing to do: what must be on a disk is on the driver's."""

    def record_submitted(self, job_id: str, prompt_id: str, now: float) -> None:
        self.job_states[job_id] = records.SUBMITTED
        self.submitting.discard(job_id)
        self._prompt_ids.add(prompt_id)
        self._send(JobAccepted(job_id, prompt_id, now))

    def record_finished(
        self,
        job_id: str,
        state: str,
        *,
        started: float | None = None,
        ended: float | None = None,
        error: tuple[str, str] | None = None,
        artifacts: Sequence[Artifact] = (),
    ) -> None:
        self.job_states[job_id] = state
        self.submitting.discard(job_id)
        if state != records.UNSENT:  # that one may leave again in a moment; the stint tells at its end
            self._send(JobFinished(job_id, state, started, ended, error, tuple(artifacts)))


class ClusterArtifactFolder(ArtifactFolder):
    """Artifacts of a cluster: what a process brought before it died is found again, not brought twice."""

    def save(self, file: IncomingFile, name: str) -> str:
        """As the base class; but where this very file is under that name, which bears its job's id, it is the one."""
        place = self.path / name
        if place.is_file() and filecmp.cmp(file.finalize(), place, shallow=False):
            file.path.unlink()
            return f"{FOLDER}/{name}"
        return super().save(file, name)


class PendingTrials:
    """A group's trials that are not begun, as a lane's supply; the far ones may be taken back."""

    def __init__(self) -> None:
        self.work_items: deque[WorkItem] = deque()

    @property
    def is_empty(self) -> bool:
        return not self.work_items

    def take(self, target: str) -> WorkItem | None:  # noqa: ARG002 (there is one here)
        return self.work_items.popleft() if self.work_items else None

    def unassign(self, target: str) -> None:
        """What waits goes back to the driver."""


class BatchQueue(WorkQueue):
    """The backlog of one group: what its server may not be sent under the driver's id goes back to the driver."""

    def __init__(self, source: PendingTrials, return_to_driver: Callable[[WorkItem], None]) -> None:
        super().__init__([], source)
        self._return_to_driver = return_to_driver

    def requeue(self, item: WorkItem, target: str) -> None:
        """As the base class; a work whose id is spent needs the driver's next intent."""
        if item.job is None:
            self._return_to_driver(item)
            self.complete(target)
        else:
            super().requeue(item, target)


class RemotePlan:
    """Stands for the plan: the graphs that the driver rendered, by digest."""

    def __init__(self, items: Iterable[BatchItem], localize: Callable[[InputFile], InputFile]) -> None:
        self._items = {item.trial.digest: item for item in items}
        self._localize = localize

    def workflow(self, trial: Trial) -> dict[str, Any]:
        # A copy of two levels: the carrier writes the names of uploaded files into it.
        graph = self._items[trial.digest].graph
        return {key: {**node, "inputs": dict(node.get("inputs", {}))} for key, node in graph.items()}

    def files(self, trial: Trial) -> tuple[InputFile, ...]:
        return tuple(map(self._localize, self._items[trial.digest].files))


@dataclass(slots=True)
class WorkerRunContext(RunContext):
    """The common ground of one group's lane. Failures are counted by the driver, rows are written there."""

    send: Callable[[WorkerMessage], None] = lambda _: None

    @property
    def is_only_target(self) -> bool:
        """No: what waits here may be taken back for another worker."""
        return False

    async def flush(self) -> None:
        """The driver committed the intents before the group was granted."""

    def finish_trial(
        self,
        item: WorkItem,
        status: str,
        target: str,  # noqa: ARG002
        *,
        artifacts: tuple[Artifact, ...] = (),  # noqa: ARG002 (told with the job's end)
        error: tuple[str, str] | None = None,
        seconds: float | None = None,
    ) -> None:
        assert item.job is not None
        self.send(TrialFinished(item.job.id, status, error, item.finished, seconds))


def make_reporter(send: Callable[[WorkerMessage], None], name: str) -> Callable[[Event], None]:
    """A `report` that hands on what the driver's watcher should know, under this worker's name."""

    def report(event: Event) -> None:
        if isinstance(event, _NOT_FORWARDED):
            return
        named: Any = event
        send(EventForwarded(replace(named, target=name) if hasattr(event, "target") else event))

    return report
