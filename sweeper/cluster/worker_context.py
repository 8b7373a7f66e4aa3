"""The plan, store and run context of a worker, in place of the driver's, so that the same job code runs on a worker.

They decide nothing. They send the driver what the job code would have written to the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sweeper.cluster import messages
from sweeper.model.charges import Charge
from sweeper.model.trial import InputFile, Trial
from sweeper.running import run_events as events
from sweeper.running.run_context import RunContext
from sweeper.running.spending import JobUsage
from sweeper.running.work import WorkItem
from sweeper.running.work_queue import WorkQueue
from sweeper.store import records
from sweeper.store.records import Artifact, JobEnd, JobRecord

# The driver reports the stop itself, the progress of every node would flood the network, and while this worker waits
# for its target, others may go on.
_NOT_FORWARDED = (
    events.Draining, events.Cancelling, events.JobQueued, events.JobProgress, events.JobPreview,
    events.WaitingForTarget,
)  # fmt: skip


class RemoteStore:
    """A `JobStore` that sends each record to the driver, which has recorded the intents already.

    `job_states`: the state of each job of the batch. `submitting`: jobs whose submission has no response yet.
    `usage_by_job`: what the server says about a job that is about to be recorded as ended.
    """

    def __init__(self, send: Callable[[messages.WorkerMessage], None]) -> None:
        self._send = send
        self._prompt_ids: set[str] = set()
        self._server_times: dict[str, float | None] = {}
        self.job_states: dict[str, str] = {}
        self.submitting: set[str] = set()
        self.attempt_by_digest: dict[str, int] = {}
        self.usage_by_job: dict[str, JobUsage] = {}

    def add(self, item: messages.BatchItem) -> None:
        """Add what the driver's store has about the job of an item."""
        self.job_states[item.job.id] = item.job.state
        self.attempt_by_digest[item.job.digest] = item.job.attempt
        self._server_times[item.job.id] = item.server_time
        self._prompt_ids.update(item.other_prompt_ids)

    def count_attempts(self, digest: str, targets: Sequence[str]) -> int:
        """The attempts before that of the item."""
        return self.attempt_by_digest[digest] - 1

    def has_prompt_id(self, prompt_id: str) -> bool:
        return prompt_id in self._prompt_ids

    def load_server_time(self, job_id: str) -> float | None:
        """When the intent of an earlier job was recorded, by the server's clock; None if unknown."""
        return self._server_times.get(job_id)

    def record_intent(self, job: JobRecord, **_: Any) -> None:
        """Note that a job is about to be submitted, whose intent the driver has recorded."""
        assert job.id in self.job_states, "the driver has not recorded the intent of this job"
        self.job_states[job.id] = records.INTENT
        self.submitting.add(job.id)

    def sync(self) -> None:
        """Do nothing, because the driver writes to the disk."""

    def record_submitted(self, job_id: str, prompt_id: str, now: float) -> None:
        self.job_states[job_id] = records.SUBMITTED
        self.submitting.discard(job_id)
        self._prompt_ids.add(prompt_id)
        self._send(messages.JobAccepted(job_id, prompt_id, now))

    def record_finished(self, job_id: str, end: JobEnd) -> None:
        """Send how a job ended. An unsent job may be submitted later, so the batch reports it at its own end."""
        self.job_states[job_id] = end.state
        self.submitting.discard(job_id)
        usage = self.usage_by_job.pop(job_id, JobUsage())
        if end.state != records.UNSENT:
            self._send(messages.JobFinished(job_id, end, usage=usage))


class PendingTrials:
    """The `WorkSource` of a batch: its trials that have not begun. The last ones may be returned to the driver."""

    def __init__(self) -> None:
        self.work_items: deque[WorkItem] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether all trials have begun or were returned."""
        return not self.work_items

    def take(self, target: str) -> WorkItem | None:
        """The next trial, if there is one."""
        return self.work_items.popleft() if self.work_items else None

    def unassign(self, target: str) -> None:
        """Do nothing: at its end, the batch returns what is left to the driver."""


class BatchQueue(WorkQueue):
    """The work queue of a batch. Items that need a new job id before another submission go to the driver."""

    def __init__(self, source: PendingTrials, return_to_driver: Callable[[WorkItem], None]) -> None:
        super().__init__([], source)
        self._return_to_driver = return_to_driver

    def requeue(self, item: WorkItem, target: str) -> None:
        """Requeue as the base class does. An item without a job goes to the driver, which records a new intent."""
        if item.job is None:
            self._return_to_driver(item)
            self.complete(target)
        else:
            super().requeue(item, target)


class RemotePlan:
    """A `WorkflowSource` with the graphs that the driver rendered. `localize`: an input file's copy on this worker."""

    def __init__(self, items: Iterable[messages.BatchItem], localize: Callable[[InputFile], InputFile]) -> None:
        self._items = {item.trial.digest: item for item in items}
        self._localize = localize

    def workflow(self, trial: Trial) -> dict[str, Any]:
        """A copy of the trial's graph, two levels deep, because the job code inserts the names of uploaded files."""
        graph = self._items[trial.digest].graph
        return {key: {**node, "inputs": dict(node.get("inputs", {}))} for key, node in graph.items()}

    def files(self, trial: Trial) -> tuple[InputFile, ...]:
        return tuple(map(self._localize, self._items[trial.digest].files))


@dataclass(slots=True)
class WorkerRunContext(RunContext):
    """The run context of one batch. The driver counts failures and records the results of trials."""

    send: Callable[[messages.WorkerMessage], None] = lambda _: None
    usage_by_job: dict[str, JobUsage] = field(default_factory=dict)

    async def flush(self) -> None:
        """Do nothing, because the driver recorded the intents before it started the batch."""

    def charge_end(self, item: WorkItem, job: JobRecord, usage: JobUsage) -> tuple[Charge, ...] | None:
        """Keep what the server says that a job used, to send it with the job's end. The driver computes the charges."""
        self.usage_by_job[job.id] = usage
        return None

    def finish_trial(
        self,
        item: WorkItem,
        status: str,
        target: str,
        *,
        artifacts: tuple[Artifact, ...] = (),
        error: tuple[str, str] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Send the result of a trial. Its artifacts were sent with the end of its job."""
        assert item.job is not None
        self.send(messages.TrialFinished(item.job.id, status, error, item.finished, seconds))


def make_reporter(send: Callable[[messages.WorkerMessage], None], name: str) -> Callable[[events.Event], None]:
    """A `report` that forwards events to the driver, with `name` (this worker and its target) as their target."""

    def report(event: events.Event) -> None:
        if isinstance(event, _NOT_FORWARDED):
            return
        renamed: Any = event
        send(replace(renamed, target=name) if hasattr(event, "target") else event)

    return report
