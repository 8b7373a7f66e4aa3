"""One batch of trials on a worker, from its start to its last message: a scheduler for the server beside the worker.

The driver pulls the messages. If it does not for `LEASE_SECONDS`, it is dead or disconnected. The batch then submits
nothing more, and the next driver of the results folder searches for its jobs on the server.

The plan, store and run context of a worker stand in for the driver's, so that the same job code runs here. They decide
nothing. They send the driver what the job code would have written to the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.cluster import messages
from sweeper.errors import RefusedError, SweeperError
from sweeper.images.metrics.registry import MetricInput
from sweeper.model.money import Charge
from sweeper.model.trial import InputFile, Trial
from sweeper.running import run_events as events
from sweeper.running.concurrency_limit import ConcurrencyLimit
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import TargetDown
from sweeper.running.scheduler import Scheduler
from sweeper.running.spending import JobUsage
from sweeper.running.stop_control import INTERRUPT, REFUSED, UNREACHABLE, StopControl, wait_at_most
from sweeper.running.work_queue import SingleQueue, WorkItem, WorkQueue
from sweeper.store import records
from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.records import OPEN_STATES, UNSENT, JobEnd, JobRecord

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


class BatchQueue(WorkQueue):
    """The work queue of a batch. Items that need a new job id before another submission go to the driver."""

    def __init__(self, source: SingleQueue, return_to_driver: Callable[[WorkItem], None]) -> None:
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
    """The run context of one batch. The driver reports the results of trials, and counts failures."""

    usage_by_job: dict[str, JobUsage] = field(default_factory=dict)

    async def flush(self) -> None:
        """Do nothing, because the driver recorded the intents before it started the batch."""

    def charge_end(self, item: WorkItem, job: JobRecord, usage: JobUsage) -> tuple[Charge, ...] | None:
        """Keep what the server says that a job used, to send it with the job's end. The driver computes the charges."""
        self.usage_by_job[job.id] = usage
        return None

    def finish_trial(self, *_: Any, **__: Any) -> None:
        """Do nothing, because the end of the job tells the driver the result."""


def make_reporter(send: Callable[[messages.WorkerMessage], None], name: str) -> Callable[[events.Event], None]:
    """A `report` that forwards events to the driver, with `name` (this worker and its target) as their target."""

    def report(event: events.Event) -> None:
        if isinstance(event, _NOT_FORWARDED):
            return
        renamed: Any = event
        send(replace(renamed, target=name) if hasattr(event, "target") else event)

    return report


if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient

LEASE_SECONDS: Final = 20.0  # without a pull for so long, the driver counts as gone
_PULL_TIMEOUT: Final = 2.0  # seconds that a pull waits for messages
_COALESCE_SECONDS: Final = 0.03  # messages come in bursts, and a pull takes two network hops
_SETTLE_SECONDS: Final = 20.0  # for the responses to submissions, before the batch is dropped


@dataclass(eq=False)
class WorkerBatch:
    """A batch on its worker.

    `folder`: where artifacts go; if that is their final place (`stores_directly`), the driver does not fetch them.
    `inputs_folder`: where the driver put the input files. `metrics`: the metrics to measure, by name. `name`: this
    worker and its target, for messages.
    """

    run_spec: messages.RunSpec
    run_id: int
    folder: ArtifactFolder
    stores_directly: bool
    inputs_folder: Path
    metrics: dict[str, Any]
    name: str

    def __post_init__(self) -> None:
        self.control = StopControl()
        self.started = asyncio.Event()
        self.dropped = False
        self.last_heartbeat = asyncio.get_running_loop().time()
        self._items: list[messages.BatchItem] = []
        self._pending = SingleQueue(iter(()))
        self._returned_jobs: set[str] = set()  # jobs that were returned to the driver, never submitted
        self._inbox: asyncio.Queue[messages.WorkerMessage | None] = asyncio.Queue()
        self._messages: deque[messages.WorkerMessage] = deque()
        self._pulled = 0  # how many of them the driver has
        self._changed = asyncio.Event()
        self._finished: messages.BatchFinished | None = None
        self._store = RemoteStore(self._inbox.put_nowait)
        self._run_task: asyncio.Task[str | None] | None = None
        self._inbox_task: asyncio.Task[None] | None = None

    # --- called by the driver

    def start(self, packed_items: bytes) -> None:
        """Start the batch, unless it has started."""
        if self.started.is_set():
            return
        self._items = messages.unpack(packed_items)
        for batch_item in self._items:
            self._store.add(batch_item)
            # The job code reuses the id of an unsent job of this run for its submission. Any other was submitted once,
            # and only the driver may record the intent for another submission.
            job = replace(batch_item.job, target=self.target_name)
            self._pending.ahead.append(WorkItem(batch_item.trial, job, submissions=int(job.state != UNSENT)))
        self._inbox_task = asyncio.create_task(self._process_inbox())
        self.started.set()

    async def pull_update(self, start: bytes | None) -> messages.WorkerUpdate | None:
        """The messages since the last call; waits a moment if there are none. None if the batch was dropped.

        Forgets those of the last call, because the driver has recorded them. `start` starts the batch.
        """
        if self.dropped:
            return None
        if start is not None:
            self.start(start)
        loop = asyncio.get_running_loop()
        self.last_heartbeat = loop.time()
        self.discard_messages(self._pulled)
        self._pulled = 0
        if not self._messages and self._finished is None:
            await wait_at_most(_PULL_TIMEOUT, self._changed.wait())
        if self._finished is None:
            await asyncio.sleep(_COALESCE_SECONDS)
        self.last_heartbeat = loop.time()
        self._changed.clear()
        self._pulled = len(self._messages)
        return tuple(self._messages), self._finished

    def discard_messages(self, count: int | None = None) -> None:
        """Forget the first messages, or all, and their artifacts, unless these are in their final place."""
        for _ in range(len(self._messages) if count is None else count):
            message = self._messages.popleft()
            if isinstance(message, messages.JobFinished) and not self.stores_directly:
                for artifact in message.end.artifacts:
                    with contextlib.suppress(OSError):
                        self.folder.local_path(artifact.path).unlink()

    def read_chunk(self, path: str, offset: int, size: int) -> bytes:
        """`size` bytes of an artifact that the driver has not recorded yet."""
        self.last_heartbeat = asyncio.get_running_loop().time()
        with self.folder.local_path(path).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def return_pending(self, count: int) -> int:
        """Return up to `count` of the last pending trials to the driver; return their number."""
        pending = self._pending.ahead
        job_ids: deque[str] = deque()
        while len(job_ids) < count and pending and (job := pending[-1].job) is not None and job.state == UNSENT:
            pending.pop()
            job_ids.appendleft(job.id)
        for job_id in job_ids:
            self._return_job(job_id)
        return len(job_ids)

    def _return_work(self, item: WorkItem) -> None:
        self._return_job(next(known.job.id for known in self._items if known.trial is item.trial))

    def _return_job(self, job_id: str) -> None:
        self._returned_jobs.add(job_id)
        self._inbox.put_nowait(messages.JobFinished(job_id, JobEnd(UNSENT)))

    def stop(self, *, cancelling: bool) -> None:
        """Submit nothing more; with `cancelling`, cancel the running jobs too."""
        self.control.drain(INTERRUPT)  # the driver calls this for each batch of the worker
        if cancelling and not self.control.cancelling:
            self.control.stop_with(INTERRUPT)

    async def drop(self) -> tuple[str, ...]:
        """Give up the batch: submit nothing more, wait for pending responses, follow no job.

        Returns the jobs that were never submitted. Artifacts in the results folder stay, because the driver may have
        recorded them before it died. A later run finds the others again with their jobs, by name and content.
        """
        self.dropped = True
        self.control.drain(INTERRUPT)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SETTLE_SECONDS
        while self._store.submitting and loop.time() < deadline:  # noqa: ASYNC110 (the job code sets no event for it)
            await asyncio.sleep(0.02)
        if self._run_task is not None:
            self._run_task.cancel()
            await asyncio.wait([self._run_task])
        await self._drain_inbox()
        self.started.set()
        self.discard_messages()
        return tuple(job_id for job_id, state in self._store.job_states.items() if state == UNSENT)

    # --- called by the Dask task

    @property
    def target_name(self) -> str:
        return self.run_spec.target.name

    async def run(self, client: ComfyClient, limit: ConcurrencyLimit) -> None:
        """Execute the trials on one server; return when all messages are in the queue."""
        context = WorkerRunContext(
            plan=RemotePlan(self._items, self._localize),
            experiment=self.run_spec.experiment,
            run_id=self.run_id,
            store=self._store,
            folder=self.folder,
            settings=replace(self.run_spec.settings, retries=0, fresh=False, limit=None, budget=None),
            control=self.control,
            work_queue=BatchQueue(self._pending, self._return_work),
            report=make_reporter(self._inbox.put_nowait, self.name),
            target_names=(self.target_name,),
            duplicates={},
            naming=self.run_spec.naming,
            usage_by_job=self._store.usage_by_job,
            charges_jobs=True,  # the driver may have prices
            sampler_nodes=self.run_spec.sampler_nodes,
            node_classes={name: str(node["class_type"]) for name, node in self._items[0].graph.items()},
        )
        self._run_task = asyncio.create_task(Scheduler(context, [(client, limit)]).run())
        lease_task = asyncio.create_task(self._watch_lease())
        try:
            await self._run_task
        except asyncio.CancelledError:
            if not self.dropped:
                raise
        finally:
            lease_task.cancel()
            await self._drain_inbox()
        times = context.node_times.sum_up().get(self.target_name, {})
        reason = None if self.control.reason == INTERRUPT else self.control.reason
        self._finish(reason, context.error, times)

    async def fail(self, error: Exception) -> None:
        """End the batch because it cannot run here. Other workers take its trials, or search for its jobs."""
        reason = REFUSED if isinstance(error, RefusedError) else UNREACHABLE
        message = str(error) if isinstance(error, SweeperError) else f"{type(error).__name__}: {error}"
        await self._drain_inbox()
        self._add_message(TargetDown(self.name, message, final=True))
        self._finish(reason, f"{self.name}: {message}", {})

    def _finish(self, reason: str | None, error: str | None, node_times: Mapping[str, tuple[int, float]]) -> None:
        """Queue the jobs that were never submitted, and end the batch."""
        states = self._store.job_states
        job_ids = [item.job.id for item in self._items]
        for job_id in job_ids:
            if states[job_id] == UNSENT and job_id not in self._returned_jobs:
                self._add_message(messages.JobFinished(job_id, JobEnd(UNSENT)))
        open_jobs = tuple(job_id for job_id in job_ids if states[job_id] in OPEN_STATES)
        self._finished = messages.BatchFinished(open_jobs, reason, error, node_times)
        self._changed.set()

    async def _drain_inbox(self) -> None:
        """Wait until every message so far is in the queue."""
        if self._inbox_task is not None:
            self._inbox.put_nowait(None)
            await self._inbox_task

    async def _process_inbox(self) -> None:
        """Move messages into the queue, with the measures of their artifacts."""
        while (message := await self._inbox.get()) is not None:
            if isinstance(message, messages.JobFinished) and message.end.artifacts and self.metrics:
                message = await asyncio.to_thread(self._with_measures, message)
            self._add_message(message)

    def _add_message(self, message: messages.WorkerMessage) -> None:
        self._messages.append(message)
        self._changed.set()

    def _with_measures(self, message: messages.JobFinished) -> messages.JobFinished:
        from sweeper.images.metrics.measure import measure_missing

        trial = next(item.trial for item in self._items if item.job.id == message.job_id)
        files = [
            MetricInput(artifact.sha256, self.folder.local_path(artifact.path), trial.digest, trial.params)
            for artifact in message.end.artifacts
        ]
        # The driver measures what is missing here, and reports why that fails.
        measures = tuple(measure_missing(files, self.metrics, {}, {}))
        if self.run_spec.artifact_url is not None:  # these were copies
            for file in files:
                file.path.unlink(missing_ok=True)
        return replace(message, measures=measures)

    async def _watch_lease(self) -> None:
        while self.seconds_since_heartbeat < LEASE_SECONDS:  # noqa: ASYNC110 (each pull moves the end)
            await asyncio.sleep(1.0)
        await asyncio.shield(asyncio.ensure_future(self.drop()))

    def _localize(self, file: InputFile) -> InputFile:
        mask = None if file.mask is None else self._localize(file.mask)
        return replace(file, path=self.inputs_folder / messages.worker_file_name(file), mask=mask)

    @property
    def seconds_since_heartbeat(self) -> float:
        return asyncio.get_running_loop().time() - self.last_heartbeat

    @property
    def has_pending(self) -> bool:
        """Whether some trials have not begun."""
        return not self._pending.is_empty and self._finished is None and not self.control.stopping
