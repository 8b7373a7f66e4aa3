"""One job's way on one target: intent, submission, watch, artifacts, row.

Every step is committed before the next begins, so that a kill between any two of them leaves enough to look the job
up by. What to do when the target itself is gone is the lane's affair: TransientError and RefusedError go there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sweeper.comfy.download import fetch
from sweeper.comfy.event_stream import Listener
from sweeper.comfy.job_marker import fingerprint, marked
from sweeper.comfy.protocol import Busy, JobState, Sought, Submission
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
from sweeper.model.trial import content_of
from sweeper.running.async_tools import before
from sweeper.running.poll_job import InFlight, watch
from sweeper.running.retry_rules import out_of_memory, passing
from sweeper.running.run_events import JobPreview, JobProgress, JobSubmitted, Retrying
from sweeper.store import records
from sweeper.store.artifacts import extension, file_name, stem
from sweeper.store.records import Artifact, Job

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.event_stream import EventStream
    from sweeper.running.concurrency_limit import Place
    from sweeper.running.run_context import Shared
    from sweeper.running.work import Work

_HEAD: Final = 32  # bytes that tell a file's kind


class Carrier:
    """Carries works to their end on one target."""

    def __init__(self, shared: Shared, client: ComfyClient, events: EventStream) -> None:
        self.shared = shared
        self.client = client
        self.events = events
        self.target = client.target.name
        self.in_flight = InFlight()
        self._ready: dict[str, dict[str, Any]] = {}  # by job: the workflows of intents that are not sent yet

    async def carry(self, work: Work, place: Place) -> Busy | None:
        """Bring a work to its end, which may be that the run is stopping and it stays as it is. Its place is given free
        as soon as its job is over, before its files are here: the next job need not wait for them.

        Busy: the server took nothing, the work is to be given back. Raises TransientError when the target does not
        answer (give it back too: its job is looked for first), RefusedError when it refuses us, UnreachableError for
        an answer that no ComfyUI gives and, with the work `final`, when it is stuck.
        """
        # A ComfyUI's word that a job succeeded frees the place before a look confirms it: its queue has no bound, and
        # takes one more should that be wrong. Elsewhere it may be turned away then, which only short jobs are worth.
        early = place.leave if self.client.dialect.one_at_a_time else place.leave_if_hurried
        listener = Listener(on_success=early)
        if work.pinned is not None and not self._prepared(work) and not await self._resume(work):
            return None
        while True:
            if work.pinned is None or self._prepared(work):
                if self.shared.control.stopping:
                    self.withdraw(work)
                    return None
                await place.enter()
                self.in_flight.sending += 1
                try:
                    answer = await self._submit(work, listener)
                finally:
                    self.in_flight.sending -= 1
                if isinstance(answer, Busy):
                    return answer
                if work.pinned is not None:
                    place.accepted()
            if work.pinned is not None and not await self._follow(work, listener, place):
                return None
            if work.pinned is None and not await self._again(work):
                return None
            listener = Listener(on_success=early)

    async def prepare(self, work: Work) -> None:
        """Do before there is a place what `carry` would do in it: render the workflow, commit the intent, wait for the
        disk. Not where files must be uploaded, nor where a job must be looked for.
        """
        if work.pinned is None and not self.shared.control.stopping and not self.shared.plan.files(work.trial):
            graph: dict[str, Any] = self.shared.plan.workflow(work.trial)
            job = self._intend(work, fingerprint(graph))
            self._ready[job.id] = marked(graph, self.shared.experiment, job.id)
            await self.shared.durable()

    def withdraw(self, work: Work) -> None:
        """A prepared work will not be sent now."""
        if self._prepared(work):
            assert work.job is not None
            del self._ready[work.job.id]
            self.shared.job_over(work, records.UNSENT)

    def _prepared(self, work: Work) -> bool:
        return work.job is not None and work.job.id in self._ready

    # --- from intent to prompt_id

    async def _resume(self, work: Work) -> bool:
        """A job of unknown fate: find it, or know that the server has no trace of it. Whether to go on."""
        job = work.job
        assert job is not None
        if job.prompt_id is None:
            await self._settle(work)
        else:
            self._tell_submitted(work, found=True)
        return work.pinned is not None or await self._again(work)

    async def _submit(self, work: Work, listener: Listener) -> Busy | None:
        """Commit the intent and send the job. Afterwards it has a prompt_id, or its state says that it is over."""
        graph = self._ready.pop(work.job.id, None) if work.job is not None else None
        if graph is None:
            graph = await self._make_ready(work)
            if graph is None:
                return None
        job = work.job
        assert job is not None
        submission = Submission(job.id, graph, self.events.client_id, self.client.extra_data)
        self.events.expect_status()
        sent = self.shared.now()
        try:
            with self.events.listening(job.id, listener):  # ComfyUI takes our id, and may be done before it answers
                answer = await self.client.submit(submission)
        except RejectedError as error:
            if not work.setbacks and await self._files_are_gone(work):
                self.shared.job_over(work, records.UNSENT)
                work.job = None  # what could be done without them may have been begun: its id is not used again
                raise TransientError("input files are gone there, and are brought again", sent=False) from None
            self._reject(work, error)
            return None
        except TargetError:  # whatever that was, it took nothing
            self.shared.job_over(work, records.UNSENT)
            raise
        except TransientError as error:
            if error.sent:
                await self._settle(work)
                return None
            self.shared.job_over(work, records.UNSENT)
            raise
        if isinstance(answer, Busy):
            return await self._turned_away(work, job, answer)
        self._submitted(work, answer, sent)
        return None

    async def _turned_away(self, work: Work, job: Job, answer: Busy) -> Busy | None:
        """The server took nothing; None where it did, and somebody between us did not know."""
        if answer.unsure and (there := await self.client.find(self._sought(job), late=False)) is not None:
            self._submitted(work, there, job.intended, found=True)
            return None
        self.shared.job_over(work, records.UNSENT)
        if answer.unsure:  # it may have been there before a restart: its id is not used again
            work.job = None
        return answer

    async def _make_ready(self, work: Work) -> dict[str, Any] | None:
        """The workflow as it is to be sent, its files uploaded and its intent on the disk; None where the server will
        not have a file, which is then the end of the work, or where the run is stopped before they are there.
        """
        shared = self.shared
        graph: dict[str, Any] = shared.plan.workflow(work.trial)
        refusal: RejectedError | None = None
        try:
            for file in shared.plan.files(work.trial):
                mask = (file.mask.path, file.mask.sha256) if file.mask is not None else None
                there = await before(shared.stopped.wait(), self.client.upload(file.path, file.sha256, mask))
                if there is None:  # the run is to end, and nothing of this work has left
                    return None
                graph[file.node]["inputs"][file.input] = there
        except RejectedError as error:
            refusal = error
        job = self._intend(work, fingerprint(graph))
        if refusal is not None:
            self._reject(work, refusal)
            return None
        await shared.durable()
        return marked(graph, shared.experiment, job.id)

    async def _files_are_gone(self, work: Work) -> bool:
        """Whether a server that will not have a workflow lacks a file that it was brought, as after a restart."""
        contents = [
            content
            for file in self.shared.plan.files(work.trial)
            for content in {file.sha256, content_of(file.sha256, file.mask.sha256 if file.mask else None)}
        ]
        return await self.client.uploads.gone(contents)

    def _intend(self, work: Work, sent: str) -> Job:
        shared = self.shared
        last = work.job
        # An id that certainly never arrived is used again: a server that is busy for hours leaves one record, not many.
        job_id = last.id if last and last.state == records.UNSENT and last.run == shared.run_id else None
        attempt = 1 if work.untried else shared.store.attempts(work.trial.digest, shared.names) + 1
        work.untried = False
        if shared.settings.fresh:
            attempt = work.sent + 1
        work.job = Job(
            id=job_id or shared.new_id(),
            run=shared.run_id,
            target=self.target,
            digest=work.trial.digest,
            sent=sent,
            attempt=attempt,
            prompt_id=None,
            state=records.INTENT,
            intended=shared.now(),
        )
        shared.store.intend(work.job, durable=False)
        work.sent += 1
        return work.job

    async def _settle(self, work: Work) -> None:
        """Look for a job whose submission has an unknown outcome, before anything is sent again."""
        job = work.job
        assert job is not None
        found = await self.client.find(self._sought(job))
        if found is None:
            self.shared.job_over(work, records.LOST, error=(LOST_ERROR, "the server has no trace of this submission"))
        else:
            self._submitted(work, found, job.intended, found=True)

    def _sought(self, job: Job) -> Sought:
        return Sought(job.id, job.sent, job.intended, self.shared.now(), self.shared.store.knows)

    def _submitted(self, work: Work, prompt_id: str, sent: float, *, found: bool = False) -> None:
        job = work.job
        assert job is not None
        self.shared.store.submitted(job.id, prompt_id, sent)
        work.job = replace(job, state=records.SUBMITTED, prompt_id=prompt_id, submitted=sent)
        self._tell_submitted(work, found=found)

    def _tell_submitted(self, work: Work, *, found: bool) -> None:
        job = work.job
        assert job is not None
        assert job.prompt_id is not None
        self.shared.report(JobSubmitted(self.target, work.trial.index, job.prompt_id, job.attempt, found=found))

    # --- from prompt_id to the row

    async def _follow(self, work: Work, listener: Listener, place: Place) -> bool:
        """Watch a submitted job to its end and record it. Whether another submission is to be thought about."""
        job = work.job
        assert job is not None
        assert job.prompt_id is not None
        prompt_id = job.prompt_id

        def progress(node: str, value: float, maximum: float) -> None:
            self.shared.report(JobProgress(self.target, work.trial.index, prompt_id, node, value, maximum))

        def preview(node: str, image: bytes) -> None:
            self.shared.report(JobPreview(self.target, work.trial.index, prompt_id, node, image))

        listener.on_progress, listener.on_preview = progress, preview
        self.in_flight.ids.add(prompt_id)
        try:
            with self.events.listening(prompt_id, listener):
                state = await watch(
                    self.shared, self.client, job, listener, ours=self.in_flight, events=self.events, seen=work.well
                )
        finally:
            self.in_flight.ids.discard(prompt_id)
        if state is None:  # stopped, but the server would not confirm: it stays open, to be looked for next time
            return False
        if state.state == "succeeded":
            place.leave()
            return await self._deliver(work, state, listener)
        return self._failed(work, state, listener)

    async def _deliver(self, work: Work, state: JobState, listener: Listener) -> bool:
        job = work.job
        assert job is not None
        try:
            artifacts = await self._collect(work, state)
        except LostError as error:  # files that may come another time are waited for: the job is done, and paid for
            failure = (error.error_type, f"the job succeeded, but: {error}")
            self.shared.job_over(work, records.FAILED, error=failure, times=self._times(state, listener))
            self.shared.row_done(work, result.FAILED, self.target, error=failure)
            return False
        started, ended = self._times(state, listener)
        self.shared.store.finish(job.id, records.SUCCEEDED, started=started, ended=ended, artifacts=artifacts)
        work.final = True
        seconds = ended - started if started is not None and ended is not None else None
        self.shared.took(self.target, listener.seconds())
        self.shared.row_done(work, result.SUCCEEDED, self.target, artifacts=artifacts, seconds=seconds)
        return False

    async def _collect(self, work: Work, state: JobState) -> tuple[Artifact, ...]:
        """Every output of a job as an artifact of ours."""
        job = work.job
        assert job is not None
        base = stem(work.trial.columns, job.id)
        numbers: Counter[str] = Counter()
        kept: list[Artifact] = []
        try:
            for place, output in enumerate(state.outputs):
                if output.type == "temp" and not self.shared.settings.keep_temp:
                    continue
                with self.shared.folder.incoming(job.id, place) as file:
                    fetched = await fetch(self.client, output, file)
                    ending = extension(output.filename, fetched.content_type, file.head(_HEAD))
                    name = file_name(base, output.node, numbers[output.node], ending)
                    path = await asyncio.to_thread(self.shared.folder.keep, file, name)
                numbers[output.node] += 1
                label = f"{output.subfolder}/{output.filename}" if output.subfolder else output.filename
                kept.append(
                    Artifact(output.node, output.kind, output.position, path, fetched.sha256, fetched.bytes, label)
                )
        except BaseException:
            self.shared.folder.discard(artifact.path for artifact in kept)  # all of a job's files, or none
            raise
        return tuple(kept)

    def _failed(self, work: Work, state: JobState, listener: Listener) -> bool:
        """Record any end but success. Whether another submission may help."""
        job, times = work.job, self._times(state, listener)
        assert job is not None
        if state.state == "cancelled":
            error = (CANCELLED_ERROR, state.error or "the job was cancelled")
            self.shared.job_over(work, records.CANCELLED, error=error, times=times)
            if self.in_flight.given_up:  # by us, and the server has let go of it: another target may do it
                raise TransientError("this target was given up")
            self.shared.row_done(work, result.CANCELLED, self.target, error=error)
            return False
        if state.state == "lost":
            self.shared.job_over(
                work, records.LOST, error=(LOST_ERROR, "the server no longer knows the job"), times=times
            )
            return True
        error = (state.error_type or EXECUTION_ERROR, state.error or "failed without a reason")
        if state.refusal:
            # Recorded as lost, so that the plain command submits it again once the account is in order.
            self.shared.job_over(work, records.LOST, error=error, times=times)
            work.final = True
            self.shared.row_done(work, result.FAILED, self.target, error=error)
            raise RefusedError(f"{error[0]}: {error[1]}", account=True)
        self.shared.job_over(work, records.FAILED, error=error, times=times)
        memory = out_of_memory(state)
        work.out_of_memory += memory
        if (memory and work.out_of_memory <= 1) or (passing(state) and not memory):
            return True
        self.shared.row_done(work, result.FAILED, self.target, error=error)
        if state.stuck:
            work.final = self.in_flight.given_up = True
            self.events.wake_all()
            raise UnreachableError(f"it answers, but does not let go of job {job.prompt_id}: restart that server")
        return False

    async def _again(self, work: Work) -> bool:
        """Whether the work, whose last job is over, is to be submitted once more now; waits where that is wise."""
        job, shared = work.job, self.shared
        if job is None:  # stopped before anything was to be sent
            return False
        if job.state not in (records.LOST, records.FAILED) or work.final:
            return False
        if work.sent and (work.sent > shared.settings.retries or shared.control.stopping):
            shared.row_done(work, result.FAILED, self.target, error=(job.error_type or "", job.error or ""))
            return False
        if work.sent:
            wait = shared.random.uniform(0, min(30.0, 0.25 * 2**work.sent))
            reason = f"{job.error_type}: {job.error}"
            shared.report(Retrying(self.target, work.trial.index, job.attempt + 1, wait, reason))
            await shared.sleep(wait)
        return True

    def _reject(self, work: Work, error: RejectedError) -> None:
        found = (error.error_type, str(error))
        self.shared.job_over(work, records.REJECTED, error=found)
        work.final = True
        self.shared.row_done(work, result.FAILED, self.target, error=found)

    def _times(self, state: JobState, listener: Listener) -> tuple[float | None, float | None]:
        """Start and end of the execution: the server's word, else ours; never one of each clock."""
        if state.started is not None and state.ended is not None:
            return state.started, state.ended
        return listener.began, self.shared.now() if listener.began is not None else None
