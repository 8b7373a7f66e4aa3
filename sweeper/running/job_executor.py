"""Executes work items on one target: record the intent, submit the job, poll it, download its files, record the result.

Every step is committed before the next begins, so that after a kill at any moment the next run can find the job. What
to do if the target itself fails does not belong here; TransientError and TargetError go to the target worker.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any, Final

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.download import DownloadResult, download
from sweeper.comfy.event_stream import EventStream
from sweeper.comfy.job_listener import Listener, find_charged, find_executed
from sweeper.comfy.jobs_api import add_marker, fingerprint
from sweeper.comfy.protocol import JobOutput, JobState, JobSubmission, KnownJob, QueueFull
from sweeper.comfy.retry import SUBMIT_AGAIN
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
from sweeper.model.node_classes.graph_check import PREVIEW_CLASSES
from sweeper.running.concurrency_limit import Permit
from sweeper.running.poll_job import InFlight, JobFinder, JobPoller
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import JobPreview, JobProgress, JobQueued, JobSubmitted, Notice, Retrying
from sweeper.running.spending import JobUsage
from sweeper.running.stop_control import cancel_when
from sweeper.running.work_queue import WorkItem, is_worth_retrying
from sweeper.store import records
from sweeper.store.artifacts import IncomingFile, guess_extension
from sweeper.store.file_names import build_file_name
from sweeper.store.records import Artifact, JobEnd, JobRecord

_HEAD_BYTES: Final = 32  # enough to recognize a file's type


class JobExecutor:
    def __init__(self, context: RunContext, client: ComfyClient, events: EventStream) -> None:
        self.context = context
        self.client = client
        self.events = events
        self.target_name = client.target.name
        self.in_flight = InFlight()
        self._prepared_graphs: dict[str, dict[str, Any]] = {}  # by job id: the workflows of intents not yet sent
        pinned = (item.open_job for item in context.work_queue.find_pinned(self.target_name))
        self._finder = JobFinder(context, client, (job for job in pinned if job is not None and job.prompt_id is None))

    async def execute(self, item: WorkItem, permit: Permit) -> QueueFull | None:
        """Execute one item to the end, or leave it unchanged if the run is stopping.

        Releases the permit when the job ends, before its files are downloaded, so that the next job need not wait.
        Returns QueueFull if the server did not accept the job; the caller requeues the item.

        Raises TransientError if the target does not respond; requeue the item, and its job is searched for first.
        Raises OverBudgetError if its next job does not fit into the budget, RefusedError if the target refuses us, and
        UnreachableError for an answer that no ComfyUI gives or, with `item.finished` set, for a job it does not cancel.
        """
        listener = self._make_listener(item, permit)
        job = item.open_job
        if job is not None and job.prompt_id is not None:
            found = JobSubmitted(self.target_name, item.trial.index, job.prompt_id, job.attempt, found=True)
            self.context.report(found)
        while True:
            job = item.open_job
            if job is not None and job.prompt_id is not None:
                if not await self._follow(item, job, job.prompt_id, listener=listener, permit=permit):
                    return None
            elif job is None or self._is_prepared(job) or not await self._resolve_unknown(item, job):
                if self.context.control.stopping or item.is_unknown:
                    self.discard_prepared(item)
                    return None
                queue_full = await self._submit_with_permit(item, listener, permit)
                if queue_full is not None:
                    return queue_full
            if item.open_job is None:
                if not await self._should_retry(item):
                    return None
                listener = self._make_listener(item, permit)

    def _make_listener(self, item: WorkItem, permit: Permit) -> Listener:
        # ComfyUI's event "succeeded" releases the permit before polling confirms it. ComfyUI's queue has no limit, so
        # one job more does no harm if the event was wrong. Other queues may be full then; only short jobs are worth it.
        release_early = permit.release if self.client.dialect.runs_one_job else permit.release_if_short

        def handle_success() -> None:
            self.context.mark_ended(item.open_job)
            release_early()

        return Listener(on_success=handle_success)

    async def prepare(self, item: WorkItem) -> None:
        """Do in advance what `execute` does before sending: render the workflow, record the intent, wait for the disk.

        Does nothing if files must be uploaded or an earlier job must be searched for.
        """
        is_needed = item.open_job is None and not item.finished
        if is_needed and not self.context.control.stopping and not self.context.plan.files(item.trial):
            graph: dict[str, Any] = self.context.plan.workflow(item.trial)
            job = self._record_intent(item, fingerprint(graph))
            self._prepared_graphs[job.id] = add_marker(graph, self.context.experiment, job.id)
            await self.context.flush()

    def discard_prepared(self, item: WorkItem) -> None:
        """Undo `prepare`, because the item will not be sent now."""
        if (job := item.open_job) is not None and self._is_prepared(job):
            del self._prepared_graphs[job.id]
            self.context.finish_job(item, job, JobEnd(records.UNSENT))

    def _is_prepared(self, job: JobRecord) -> bool:
        return job.id in self._prepared_graphs

    # --- from the intent to the prompt_id

    async def _submit_with_permit(self, item: WorkItem, listener: Listener, permit: Permit) -> QueueFull | None:
        await permit.acquire()
        self.in_flight.sending += 1
        try:
            queue_full = await self._submit(item, listener)
        finally:
            self.in_flight.sending -= 1
        if item.open_job is not None and item.open_job.prompt_id is not None:
            permit.limit.record_accepted()
        return queue_full

    async def _submit(self, item: WorkItem, listener: Listener) -> QueueFull | None:
        """Record the intent and send the job; or send an open job again, with the same id.

        Afterwards the job has ended, has a prompt_id, or is open because its outcome is unknown. If the run stopped
        before it was sent, nothing has changed.
        """
        is_again = item.open_job is not None and not self._is_prepared(item.open_job)
        prepared = await self._prepare_submission(item)
        if prepared is None:
            return None
        job, graph = prepared
        submission = JobSubmission(
            job.id, graph, self.events.client_id, self.client.extra_data, wants_previews=self.context.is_watched()
        )
        self.events.expect_status()
        sent_at = self.context.now()
        try:
            await self.context.free_outdated(self.client, item.trial)
            self.context.sent[job.id] = item
            with self.events.listen(job.id, listener):  # ComfyUI uses our id, and may be done before it responds
                answer = await self.client.submit(submission)
        except (RejectedError, TargetError) as error:
            await self._handle_refusal(item, job, error, is_again=is_again)
            return None
        except TransientError as error:
            if error.sent:
                self.context.record_unanswered(item, job, error)
            elif not is_again:
                self.context.finish_job(item, job, JobEnd(records.UNSENT))
            if is_again or not error.sent:
                raise
            return None
        if isinstance(answer, QueueFull):
            return await self._handle_queue_full(item, job, answer, is_again=is_again)
        if isinstance(answer, KnownJob):
            self._finder.had_by_server.add(job.id)
        else:
            self._record_submitted(item, job, answer, sent_at)
        return None

    async def _handle_queue_full(
        self, item: WorkItem, job: JobRecord, answer: QueueFull, *, is_again: bool
    ) -> QueueFull | None:
        """Record that the server did not accept a job; None if it did. The job stays open as in `_handle_refusal`."""
        if answer.may_be_accepted and await self._was_accepted(item, job, allow_late_arrival=False):
            return None
        if not is_again and not (answer.may_be_accepted and self._finder.sends_again):
            self._record_unsent(item, job, reuse_id=not answer.may_be_accepted)
        return answer

    async def _was_accepted(self, item: WorkItem, job: JobRecord, **options: bool) -> bool:
        """Search the server for a job, and record it if it is there. `options`: of `JobFinder.find`."""
        prompt_id = await self._finder.find(job, **options)
        if prompt_id is not None:
            self._record_submitted(item, job, prompt_id, job.intended, found=True)
        return prompt_id is not None

    async def _handle_refusal(
        self, item: WorkItem, job: JobRecord, error: RejectedError | TargetError, *, is_again: bool
    ) -> None:
        """Record that the server did not accept a job. Raises the error if other trials would fail there too.

        An open job stays open if it was sent before, or is sent again because a gateway may have answered.
        """
        if error.may_be_accepted and self._finder.sends_again and not is_again:
            return
        if is_again and isinstance(error, TargetError):
            raise error
        if (is_again or error.may_be_accepted) and await self._was_accepted(item, job, trusts_key=False):
            return
        if isinstance(error, RejectedError):
            if not item.consecutive_failures and await self._has_missing_inputs(item):
                if not is_again:
                    self._record_unsent(item, job, reuse_id=False)  # the nodes that need no files may have run
                raise TransientError("the server lost input files; they are uploaded again", sent=False) from None
            self._record_rejection(item, job, error)
            return
        self._record_unsent(item, job, reuse_id=not error.may_be_accepted)
        raise error

    def _record_unsent(self, item: WorkItem, job: JobRecord, *, reuse_id: bool) -> None:
        """Record that the server did not accept the job. An id that the server may have had is never used again."""
        self.context.finish_job(item, job, JobEnd(records.UNSENT))
        if not reuse_id:
            item.job = None

    async def _prepare_submission(self, item: WorkItem) -> tuple[JobRecord, dict[str, Any]] | None:
        """Upload the item's files, and flush its intent to the disk unless that is there. Returns job and workflow.

        Returns None if the run stops before the files are uploaded, or if the server rejects a file. Raises
        OverBudgetError.
        """
        context, job = self.context, item.open_job
        if job is not None and self._is_prepared(job):
            return job, self._prepared_graphs.pop(job.id)
        try:
            graph = await self._upload_files(item)
        except RejectedError as error:
            if job is not None:
                await self._handle_refusal(item, job, error, is_again=True)
            else:
                job = self._record_intent(item, fingerprint(context.plan.workflow(item.trial)))
                self._record_rejection(item, job, error)
            return None
        if graph is None:
            return None
        if job is None:
            if context.spending is not None:  # the intent is recorded at once, before anything else can be submitted
                await context.spending.wait_until_fits(self.target_name, item.trial, context.stopped)
            if context.control.stopping:
                return None
            job = self._record_intent(item, fingerprint(graph))
        await context.flush()
        return job, add_marker(graph, context.experiment, job.id)

    async def _upload_files(self, item: WorkItem) -> dict[str, Any] | None:
        """Upload the item's files; return its workflow. None if the run stops before. Raises RejectedError."""
        graph: dict[str, Any] = self.context.plan.workflow(item.trial)
        item.known_losses = self.client.uploads.losses
        for file in self.context.plan.files(item.trial):
            mask = (file.mask.path, file.mask.sha256) if file.mask is not None else None
            uploaded = await cancel_when(
                self.context.stopped.wait(), self.client.uploads.ensure_uploaded(file.path, file.sha256, mask)
            )
            if uploaded is None:
                return None
            graph[file.node]["inputs"][file.input] = uploaded
        return graph

    async def _has_missing_inputs(self, item: WorkItem) -> bool:
        """Whether the server lost a file that we uploaded for this item, for example in a restart.

        Another item may have found that first and uploaded the file again, so that the server has it by now.
        """
        if self.client.uploads.losses != item.known_losses:
            return True
        files = self.context.plan.files(item.trial)
        return await self.client.uploads.are_missing([key for file in files for key in {file.sha256, file.content_key}])

    def _record_intent(self, item: WorkItem, graph_fingerprint: str) -> JobRecord:
        context, last = self.context, item.job
        # Reuse an id that was certainly never sent, so that a server that is busy for hours leaves one record only.
        job_id = last.id if last and last.state == records.UNSENT and last.run == context.run_id else None
        return context.record_intent(item, self.target_name, graph_fingerprint, self.client.server_time, job_id)

    async def _resolve_unknown(self, item: WorkItem, job: JobRecord) -> bool:
        """Search the server for a submission whose outcome is unknown, before anything is sent again.

        False if it stays unknown; and if the server does not list it: send it again with the same id, which the server
        accepts only once. Elsewhere the job counts as lost then, and the next submission has another id.
        """
        if self._leave_unknown(item, job) or self.context.drop_lost(item):
            return not item.is_unknown
        if self.client.dialect.lists_jobs and await self._was_accepted(item, job):
            return True
        if not self._finder.sends_again:
            error = (LOST_ERROR, "the server has no trace of this submission")
            self.context.finish_job(item, job, JobEnd(records.LOST, error=error))
        return not self._finder.sends_again

    def _leave_unknown(self, item: WorkItem, job: JobRecord) -> bool:
        """Leave a job open if nobody can say whether it ran, which only the user may risk to pay for twice."""
        may_repeat = self.context.settings.retry_unknown and job.run != self.context.run_id
        item.is_unknown = not self.client.dialect.lists_jobs and not may_repeat
        return item.is_unknown

    def _record_submitted(
        self, item: WorkItem, job: JobRecord, prompt_id: str, sent_at: float, *, found: bool = False
    ) -> None:
        self.context.store.record_submitted(job.id, prompt_id, sent_at)
        item.job = replace(job, state=records.SUBMITTED, prompt_id=prompt_id, submitted=sent_at)
        self.context.report(JobSubmitted(self.target_name, item.trial.index, prompt_id, job.attempt, found=found))

    # --- from the prompt_id to the result

    async def _follow(
        self, item: WorkItem, job: JobRecord, prompt_id: str, *, listener: Listener, permit: Permit
    ) -> bool:
        """Follow a submitted job to its end and record it. Whether another submission may help."""

        def report_progress(node: str, value: float, maximum: float) -> None:
            self.context.report(JobProgress(self.target_name, item.trial.index, prompt_id, node, value, maximum))

        def report_preview(node: str, image: bytes) -> None:
            self.context.report(JobPreview(self.target_name, item.trial.index, prompt_id, node, image))

        reported: tuple[str, int | None] = ("", None)  # why it waits, and its place in the queue

        def handle_state(state: JobState) -> None:
            nonlocal reported
            item.reset_failures()
            waiting = (state.queue_reason, state.queue_position if state.queue_reason else None)
            if waiting != reported:
                reported = waiting
                self.context.report(JobQueued(self.target_name, item.trial.index, prompt_id, *waiting))

        listener.on_progress, listener.on_preview = report_progress, report_preview
        self.in_flight.ids.add(prompt_id)
        try:
            with self.events.follow(prompt_id, listener):
                state = await JobPoller(
                    self.context, self.client, job, prompt_id, listener,
                    in_flight=self.in_flight, events=self.events, on_seen=handle_state,
                ).run()  # fmt: skip
        finally:
            self.in_flight.ids.discard(prompt_id)
        self.context.mark_ended(job)
        if state is None:  # cancelled without confirmation: the job stays open, and the next run searches for it
            return False
        item.ended_job = job.id
        if state.state == "succeeded":
            permit.release()
            return await self._record_success(item, job, state, listener)
        return self._record_failure(item, job, state, listener)

    async def _record_success(self, item: WorkItem, job: JobRecord, state: JobState, listener: Listener) -> bool:
        """Download the files of a job and record it. Whether another submission may help.

        If the server does not serve a file, the job stays open, because it is paid for: the next run looks for the file
        before anything else. Only `remake` submits the trial again.
        """
        try:
            artifacts = await self._fetch_artifacts(item, job, state)
        except LostError as error:
            if self.context.settings.remake:
                failure = (error.error_type, f"the job succeeded, but: {error}")
                self._finish_job(item, job, records.LOST, state, listener, error=failure)
                return True
            self.context.report(
                Notice(
                    f"{self.target_name}: trial {item.trial.index} succeeded, but {error}; the next run looks for the "
                    "file again, at no cost. If it is gone for good, `--remake` submits the trial again"
                )
            )
            return False
        self._finish_job(item, job, records.SUCCEEDED, state, listener, artifacts=artifacts)
        item.finished = True
        seconds = item.job.seconds if item.job is not None else None
        self.context.record_node_times(self.target_name, listener.node_seconds(), item.job)
        self.context.finish_trial(item, result.SUCCEEDED, self.target_name, artifacts=artifacts, seconds=seconds)
        return False

    async def _fetch_artifacts(self, item: WorkItem, job: JobRecord, state: JobState) -> tuple[Artifact, ...]:
        """Download the job's outputs: all of them, or none if one fails."""
        kept = [output for output in state.outputs if self.context.settings.keep_temp or not self._is_preview(output)]
        files_of_node = Counter(output.node for output in kept)
        stem = self.context.naming.build_stem(item.trial)
        job_id = job.id if self.context.folder.is_outside else ""
        numbers: Counter[str] = Counter()
        artifacts: list[Artifact] = []
        new_paths: list[str] = []
        try:
            for index, output in enumerate(kept):
                node = output.node if len(files_of_node) > 1 else ""
                number = numbers[output.node] if files_of_node[output.node] > 1 else None
                with self.context.folder.open_incoming(job.id, index) as file:
                    fetched = await self._download(output, file)
                    suffix = guess_extension(output.filename, fetched.content_type, file.read_head(_HEAD_BYTES))
                    name = build_file_name(stem, suffix, node=node, number=number, job=job_id)
                    path = await asyncio.to_thread(self.context.folder.save, file, name)
                    new_paths += [path] * file.is_new
                numbers[output.node] += 1
                label = f"{output.subfolder}/{output.filename}" if output.subfolder else output.filename
                artifacts.append(
                    Artifact(output.node, output.kind, output.position, path, fetched.sha256, fetched.bytes, label)
                )
        except BaseException:
            self.context.folder.delete(new_paths)
            raise
        return tuple(artifacts)

    def _is_preview(self, output: JobOutput) -> bool:
        """Whether the file only shows a result. API v2 lists such files like saved ones."""
        return output.type == "temp" or self.context.node_classes.get(output.node) in PREVIEW_CLASSES

    async def _download(self, output: JobOutput, file: IncomingFile) -> DownloadResult:
        """Download a file. Also retries a 403 or 404, which a gateway sends while its server restarts."""
        waits = self.client.retry_policy.draw_waits(self.client.random)
        while True:
            try:
                return await download(self.client, output, file)
            except LostError:
                wait = next(waits, None)
                if wait is None or self.context.control.cancelling:
                    raise
            file.restart()
            await asyncio.sleep(wait)

    def _record_failure(self, item: WorkItem, job: JobRecord, state: JobState, listener: Listener) -> bool:
        """Record any end but success. Whether another submission may help."""
        if state.state == "cancelled":
            error = (CANCELLED_ERROR, state.error or "the job was cancelled")
            self._finish_job(item, job, records.CANCELLED, state, listener, error=error)
            if self.in_flight.given_up:  # we cancelled it, and the server confirms: another target may execute the item
                raise TransientError("this target was given up")
            self.context.finish_trial(item, result.CANCELLED, self.target_name, error=error)
            return False
        if state.state == "lost":
            if not (self.context.drop_lost(item) or self._leave_unknown(item, job)):
                error = (LOST_ERROR, "the server lost the job")
                self._finish_job(item, job, records.LOST, state, listener, error=error)
            return not item.is_unknown
        error = (state.error_type or EXECUTION_ERROR, state.error or "failed without a reason")
        if state.account_advice is not None:
            # Recorded as lost, so that the next run submits it again once the account is in order.
            self._finish_job(item, job, records.LOST, state, listener, error=error)
            item.finished = True
            self.context.finish_trial(item, result.FAILED, self.target_name, error=error)
            raise RefusedError(f"{error[0]}: {error[1].rstrip('.')}; {state.account_advice}", is_account_problem=True)
        self._finish_job(item, job, records.FAILED, state, listener, error=error)
        if is_worth_retrying(item, state):
            return True
        self.context.finish_trial(item, result.FAILED, self.target_name, error=error)
        if state.is_stuck:
            if (server := self.context.launched.get(self.target_name)) is not None:
                server.restart(f"it did not cancel job {job.prompt_id}")
                return False
            item.finished = self.in_flight.given_up = True
            self.events.wake_all()
            raise UnreachableError(f"the server responds but will not cancel job {job.prompt_id}; restart it")
        return False

    async def _should_retry(self, item: WorkItem) -> bool:
        """Whether to submit an item again whose last job has ended. Waits for the backoff first."""
        context, job = self.context, item.job
        # Without a job, the run stopped before the first submission.
        if job is None or job.state not in (records.LOST, records.FAILED) or item.finished:
            return False
        if not item.submissions:
            return True
        if item.submissions > context.settings.retries or context.control.stopping:
            error = (job.error_type or "", job.error or "")
            context.finish_trial(item, result.FAILED, self.target_name, error=error)
            return False
        wait = SUBMIT_AGAIN.draw(item.submissions, context.random)
        reason = f"{job.error_type}: {job.error}"
        context.report(Retrying(self.target_name, item.trial.index, job.attempt + 1, wait, reason))
        await context.sleep(wait)
        return True

    def _record_rejection(self, item: WorkItem, job: JobRecord, rejection: RejectedError) -> None:
        error = (rejection.error_type, str(rejection))
        self.context.finish_job(item, job, JobEnd(records.REJECTED, error=error))
        item.finished = True
        self.context.finish_trial(item, result.FAILED, self.target_name, error=error)

    def _finish_job(
        self, item: WorkItem, job: JobRecord, end: str, state: JobState, listener: Listener, **facts: Any
    ) -> None:
        """Record that a job which the server had ended as `end`. `facts`: fields of JobEnd."""
        usage = JobUsage(sampling_s=listener.compute_step_seconds(self.context.sampler_nodes))
        if self.context.charges_jobs:
            nodes = self.context.plan.workflow(item.trial).keys()
            executed = find_executed(nodes, state, listener)
            charged = find_charged(state, listener)
            usage = replace(usage, executed=executed, failed_node=state.failed_node, charged=charged)
        self.context.finish_job(item, job, JobEnd(end, *listener.get_times(state, job.submitted), **facts), usage)
