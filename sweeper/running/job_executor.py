"""One job's way on one target: intent, submission, watch, artifacts, row.

Every step is committed before the next begins, so that a kill between any two of them leaves enough to look the job
up by. What to do when the target itself is gone is the lane's affair: TransientError and RefusedError go there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sweeper.comfy.download import download
from sweeper.comfy.event_stream import Listener
from sweeper.comfy.job_marker import add_marker, fingerprint
from sweeper.comfy.protocol import JobSearch, JobState, JobSubmission, QueueFull
from sweeper.errors import (
    CANCELLED_ERROR,
    EXECUTION_ERROR,
    LOST_ERROR,
    LostError,
    RefusedError,
    RejectedError,
    TargetError,
    TransientError,
    UnreachableError,
)
from sweeper.model import result
from sweeper.model.trial import make_content_key
from sweeper.running.async_tools import cancel_when
from sweeper.running.poll_job import InFlight, poll_job
from sweeper.running.retry_rules import is_out_of_memory, is_transient
from sweeper.running.run_events import JobPreview, JobProgress, JobSubmitted, Retrying
from sweeper.store import records
from sweeper.store.artifacts import build_file_name, build_stem, guess_extension
from sweeper.store.records import Artifact, JobRecord

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.event_stream import EventStream
    from sweeper.running.concurrency_limit import Permit
    from sweeper.running.run_context import RunContext
    from sweeper.running.work import WorkItem

_HEAD_BYTES: Final = 32  # bytes that tell a file's kind


class JobExecutor:
    """Carries works to their end on one target."""

    def __init__(self, context: RunContext, client: ComfyClient, events: EventStream) -> None:
        self.context = context
        self.client = client
        self.events = events
        self.target_name = client.target.name
        self.in_flight = InFlight()
        self._prepared_graphs: dict[str, dict[str, Any]] = {}  # by job: the workflows of intents that are not sent yet

    async def execute(self, item: WorkItem, permit: Permit) -> QueueFull | None:
        """Bring a work to its end, which may be that the run is stopping and it stays as it is. Its place is given free
        as soon as its job is over, before its files are here: the next job need not wait for them.

        Busy: the server took nothing, the work is to be given back. Raises TransientError when the target does not
        answer (give it back too: its job is looked for first), RefusedError when it refuses us, UnreachableError for
        an answer that no ComfyUI gives and, with the work `final`, when it is stuck.
        """
        # A ComfyUI's word that a job succeeded frees the place before a look confirms it: its queue has no bound, and
        # takes one more should that be wrong. Elsewhere it may be turned away then, which only short jobs are worth.
        early = permit.release if self.client.dialect.runs_one_job else permit.release_if_short
        listener = Listener(on_success=early)
        if item.pinned_to is not None and not self._is_prepared(item) and not await self._resume(item):
            return None
        while True:
            if item.pinned_to is None or self._is_prepared(item):
                if self.context.control.stopping:
                    self.discard_prepared(item)
                    return None
                await permit.acquire()
                self.in_flight.sending += 1
                try:
                    answer = await self._submit(item, listener)
                finally:
                    self.in_flight.sending -= 1
                if isinstance(answer, QueueFull):
                    return answer
                if item.pinned_to is not None:
                    permit.record_accepted()
            if item.pinned_to is not None and not await self._follow(item, listener, permit):
                return None
            if item.pinned_to is None and not await self._should_retry(item):
                return None
            listener = Listener(on_success=early)

    async def prepare(self, item: WorkItem) -> None:
        """Do before there is a place what `carry` would do in it: render the workflow, commit the intent, wait for the
        disk. Not where files must be uploaded, nor where a job must be looked for.
        """
        if item.pinned_to is None and not self.context.control.stopping and not self.context.plan.files(item.trial):
            graph: dict[str, Any] = self.context.plan.workflow(item.trial)
            job = self._record_intent(item, fingerprint(graph))
            self._prepared_graphs[job.id] = add_marker(graph, self.context.experiment, job.id)
            await self.context.flush()

    def discard_prepared(self, item: WorkItem) -> None:
        """A prepared work will not be sent now."""
        if self._is_prepared(item):
            assert item.job is not None
            del self._prepared_graphs[item.job.id]
            self.context.finish_job(item, records.UNSENT)

    def _is_prepared(self, item: WorkItem) -> bool:
        return item.job is not None and item.job.id in self._prepared_graphs

    # --- from intent to prompt_id

    async def _resume(self, item: WorkItem) -> bool:
        """A job of unknown fate: find it, or know that the server has no trace of it. Whether to go on."""
        job = item.job
        assert job is not None
        if job.prompt_id is None:
            await self._resolve_unknown(item)
        else:
            self._report_submitted(item, found=True)
        return item.pinned_to is not None or await self._should_retry(item)

    async def _submit(self, item: WorkItem, listener: Listener) -> QueueFull | None:
        """Commit the intent and send the job. Afterwards it has a prompt_id, or its state says that it is over."""
        graph = self._prepared_graphs.pop(item.job.id, None) if item.job is not None else None
        if graph is None:
            graph = await self._prepare_submission(item)
            if graph is None:
                return None
        job = item.job
        assert job is not None
        submission = JobSubmission(job.id, graph, self.events.client_id, self.client.extra_data)
        self.events.expect_status()
        sent = self.context.now()
        try:
            with self.events.listen(job.id, listener):  # ComfyUI takes our id, and may be done before it answers
                answer = await self.client.submit(submission)
        except RejectedError as error:
            if not item.consecutive_failures and await self._has_missing_inputs(item):
                self.context.finish_job(item, records.UNSENT)
                item.job = None  # what could be done without them may have been begun: its id is not used again
                raise TransientError("input files are gone there, and are brought again", sent=False) from None
            self._record_rejection(item, error)
            return None
        except TargetError:  # whatever that was, it took nothing
            self.context.finish_job(item, records.UNSENT)
            raise
        except TransientError as error:
            if error.sent:
                await self._resolve_unknown(item)
                return None
            self.context.finish_job(item, records.UNSENT)
            raise
        if isinstance(answer, QueueFull):
            return await self._handle_queue_full(item, job, answer)
        self._record_submitted(item, answer, sent)
        return None

    async def _handle_queue_full(self, item: WorkItem, job: JobRecord, answer: QueueFull) -> QueueFull | None:
        """The server took nothing; None where it did, and somebody between us did not know."""
        if (
            answer.may_be_accepted
            and (there := await self.client.find_submission(self._make_search(job), allow_late_arrival=False))
            is not None
        ):
            self._record_submitted(item, there, job.intended, found=True)
            return None
        self.context.finish_job(item, records.UNSENT)
        if answer.may_be_accepted:  # it may have been there before a restart: its id is not used again
            item.job = None
        return answer

    async def _prepare_submission(self, item: WorkItem) -> dict[str, Any] | None:
        """The workflow as it is to be sent, its files uploaded and its intent on the disk; None where the server will
        not have a file, which is then the end of the work, or where the run is stopped before they are there.
        """
        shared = self.context
        graph: dict[str, Any] = shared.plan.workflow(item.trial)
        refusal: RejectedError | None = None
        try:
            for file in shared.plan.files(item.trial):
                mask = (file.mask.path, file.mask.sha256) if file.mask is not None else None
                there = await cancel_when(shared.stopped.wait(), self.client.upload(file.path, file.sha256, mask))
                if there is None:  # the run is to end, and nothing of this work has left
                    return None
                graph[file.node]["inputs"][file.input] = there
        except RejectedError as error:
            refusal = error
        job = self._record_intent(item, fingerprint(graph))
        if refusal is not None:
            self._record_rejection(item, refusal)
            return None
        await shared.flush()
        return add_marker(graph, shared.experiment, job.id)

    async def _has_missing_inputs(self, item: WorkItem) -> bool:
        """Whether a server that will not have a workflow lacks a file that it was brought, as after a restart."""
        contents = [
            content
            for file in self.context.plan.files(item.trial)
            for content in {file.sha256, make_content_key(file.sha256, file.mask.sha256 if file.mask else None)}
        ]
        return await self.client.uploads.are_missing(contents)

    def _record_intent(self, item: WorkItem, graph_fingerprint: str) -> JobRecord:
        shared = self.context
        last = item.job
        # An id that certainly never arrived is used again: a server that is busy for hours leaves one record, not many.
        job_id = last.id if last and last.state == records.UNSENT and last.run == shared.run_id else None
        attempt = 1 if item.never_submitted else shared.store.count_attempts(item.trial.digest, shared.target_names) + 1
        item.never_submitted = False
        if shared.settings.fresh:
            attempt = item.submissions + 1
        item.job = JobRecord(
            id=job_id or shared.new_id(),
            run=shared.run_id,
            target=self.target_name,
            digest=item.trial.digest,
            sent=graph_fingerprint,
            attempt=attempt,
            prompt_id=None,
            state=records.INTENT,
            intended=shared.now(),
        )
        shared.store.record_intent(item.job, durable=False)
        item.submissions += 1
        return item.job

    async def _resolve_unknown(self, item: WorkItem) -> None:
        """Look for a job whose submission has an unknown outcome, before anything is sent again."""
        job = item.job
        assert job is not None
        found = await self.client.find_submission(self._make_search(job))
        if found is None:
            self.context.finish_job(
                item, records.LOST, error=(LOST_ERROR, "the server has no trace of this submission")
            )
        else:
            self._record_submitted(item, found, job.intended, found=True)

    def _make_search(self, job: JobRecord) -> JobSearch:
        return JobSearch(job.id, job.sent, job.intended, self.context.now(), self.context.store.has_prompt_id)

    def _record_submitted(self, item: WorkItem, prompt_id: str, sent: float, *, found: bool = False) -> None:
        job = item.job
        assert job is not None
        self.context.store.record_submitted(job.id, prompt_id, sent)
        item.job = replace(job, state=records.SUBMITTED, prompt_id=prompt_id, submitted=sent)
        self._report_submitted(item, found=found)

    def _report_submitted(self, item: WorkItem, *, found: bool) -> None:
        job = item.job
        assert job is not None
        assert job.prompt_id is not None
        self.context.report(JobSubmitted(self.target_name, item.trial.index, job.prompt_id, job.attempt, found=found))

    # --- from prompt_id to the row

    async def _follow(self, item: WorkItem, listener: Listener, permit: Permit) -> bool:
        """Watch a submitted job to its end and record it. Whether another submission is to be thought about."""
        job = item.job
        assert job is not None
        assert job.prompt_id is not None
        prompt_id = job.prompt_id

        def report_progress(node: str, value: float, maximum: float) -> None:
            self.context.report(JobProgress(self.target_name, item.trial.index, prompt_id, node, value, maximum))

        def report_preview(node: str, image: bytes) -> None:
            self.context.report(JobPreview(self.target_name, item.trial.index, prompt_id, node, image))

        listener.on_progress, listener.on_preview = report_progress, report_preview
        self.in_flight.ids.add(prompt_id)
        try:
            with self.events.listen(prompt_id, listener):
                state = await poll_job(
                    self.context,
                    self.client,
                    job,
                    listener,
                    in_flight=self.in_flight,
                    events=self.events,
                    on_seen=item.reset_failures,
                )
        finally:
            self.in_flight.ids.discard(prompt_id)
        if state is None:  # stopped, but the server would not confirm: it stays open, to be looked for next time
            return False
        if state.state == "succeeded":
            permit.release()
            return await self._record_success(item, state, listener)
        return self._record_failure(item, state, listener)

    async def _record_success(self, item: WorkItem, state: JobState, listener: Listener) -> bool:
        job = item.job
        assert job is not None
        try:
            artifacts = await self._fetch_artifacts(item, state)
        except LostError as error:  # files that may come another time are waited for: the job is done, and paid for
            failure = (error.error_type, f"the job succeeded, but: {error}")
            self.context.finish_job(item, records.FAILED, error=failure, times=self._get_times(state, listener))
            self.context.finish_trial(item, result.FAILED, self.target_name, error=failure)
            return False
        started, ended = self._get_times(state, listener)
        self.context.store.record_finished(job.id, records.SUCCEEDED, started=started, ended=ended, artifacts=artifacts)
        item.finished = True
        seconds = ended - started if started is not None and ended is not None else None
        self.context.record_node_times(self.target_name, listener.node_seconds())
        self.context.finish_trial(item, result.SUCCEEDED, self.target_name, artifacts=artifacts, seconds=seconds)
        return False

    async def _fetch_artifacts(self, item: WorkItem, state: JobState) -> tuple[Artifact, ...]:
        """Every output of a job as an artifact of ours."""
        job = item.job
        assert job is not None
        base = build_stem(item.trial.columns, job.id)
        numbers: Counter[str] = Counter()
        kept: list[Artifact] = []
        try:
            for place, output in enumerate(state.outputs):
                if output.type == "temp" and not self.context.settings.keep_temp:
                    continue
                with self.context.folder.open_incoming(job.id, place) as file:
                    fetched = await download(self.client, output, file)
                    ending = guess_extension(output.filename, fetched.content_type, file.read_head(_HEAD_BYTES))
                    name = build_file_name(base, output.node, numbers[output.node], ending)
                    path = await asyncio.to_thread(self.context.folder.save, file, name)
                numbers[output.node] += 1
                label = f"{output.subfolder}/{output.filename}" if output.subfolder else output.filename
                kept.append(
                    Artifact(output.node, output.kind, output.position, path, fetched.sha256, fetched.bytes, label)
                )
        except BaseException:
            self.context.folder.delete(artifact.path for artifact in kept)  # all of a job's files, or none
            raise
        return tuple(kept)

    def _record_failure(self, item: WorkItem, state: JobState, listener: Listener) -> bool:
        """Record any end but success. Whether another submission may help."""
        job, times = item.job, self._get_times(state, listener)
        assert job is not None
        if state.state == "cancelled":
            error = (CANCELLED_ERROR, state.error or "the job was cancelled")
            self.context.finish_job(item, records.CANCELLED, error=error, times=times)
            if self.in_flight.given_up:  # by us, and the server has let go of it: another target may do it
                raise TransientError("this target was given up")
            self.context.finish_trial(item, result.CANCELLED, self.target_name, error=error)
            return False
        if state.state == "lost":
            self.context.finish_job(
                item, records.LOST, error=(LOST_ERROR, "the server no longer knows the job"), times=times
            )
            return True
        error = (state.error_type or EXECUTION_ERROR, state.error or "failed without a reason")
        if state.is_account_refusal:
            # Recorded as lost, so that the plain command submits it again once the account is in order.
            self.context.finish_job(item, records.LOST, error=error, times=times)
            item.finished = True
            self.context.finish_trial(item, result.FAILED, self.target_name, error=error)
            raise RefusedError(f"{error[0]}: {error[1]}", is_account_problem=True)
        self.context.finish_job(item, records.FAILED, error=error, times=times)
        memory = is_out_of_memory(state)
        item.memory_failures += memory
        if (memory and item.memory_failures <= 1) or (is_transient(state) and not memory):
            return True
        self.context.finish_trial(item, result.FAILED, self.target_name, error=error)
        if state.is_stuck:
            item.finished = self.in_flight.given_up = True
            self.events.wake_all()
            raise UnreachableError(f"it answers, but does not let go of job {job.prompt_id}: restart that server")
        return False

    async def _should_retry(self, item: WorkItem) -> bool:
        """Whether the work, whose last job is over, is to be submitted once more now; waits where that is wise."""
        job, shared = item.job, self.context
        if job is None:  # stopped before anything was to be sent
            return False
        if job.state not in (records.LOST, records.FAILED) or item.finished:
            return False
        if item.submissions and (item.submissions > shared.settings.retries or shared.control.stopping):
            shared.finish_trial(item, result.FAILED, self.target_name, error=(job.error_type or "", job.error or ""))
            return False
        if item.submissions:
            wait = shared.random.uniform(0, min(30.0, 0.25 * 2**item.submissions))
            reason = f"{job.error_type}: {job.error}"
            shared.report(Retrying(self.target_name, item.trial.index, job.attempt + 1, wait, reason))
            await shared.sleep(wait)
        return True

    def _record_rejection(self, item: WorkItem, error: RejectedError) -> None:
        found = (error.error_type, str(error))
        self.context.finish_job(item, records.REJECTED, error=found)
        item.finished = True
        self.context.finish_trial(item, result.FAILED, self.target_name, error=found)

    def _get_times(self, state: JobState, listener: Listener) -> tuple[float | None, float | None]:
        """Start and end of the execution: the server's word, else ours; never one of each clock."""
        if state.started is not None and state.ended is not None:
            return state.started, state.ended
        return listener.started_at, self.context.now() if listener.started_at is not None else None
