"""The embedded server without its HTTP: submitting, the queue, the workers and what they share.

Both dialects' apps talk to this one object. It starts worker threads and ends them; it opens no socket.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeper.embedded.cache import Cache, make_cache
from sweeper.embedded.event_streams import Hub
from sweeper.embedded.executor import Executor, ServerContext
from sweeper.embedded.job_messages import JobMessages
from sweeper.embedded.jobs import JobQueue, Journal, JournalError, ServerJob, StoredGraph
from sweeper.embedded.request_log import RequestLog
from sweeper.embedded.submission import PromptSubmission, SubmissionError, read_submission
from sweeper.embedded.validation import make_error, validate

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from sweeper.embedded.faults import Faults
    from sweeper.embedded.folders import ServerFolders
    from sweeper.embedded.nodes.base import NodeClass

# ComfyUI forgets the oldest beyond this (MAXIMUM_HISTORY_SIZE, and one more by its comparison).
COMFYUI_HISTORY = 10_001

# Credentials for partner nodes may stand in extra_data; they are for the run only and never shown again.
SENSITIVE_KEYS = ("auth_token_comfy_org", "api_key_comfy_org")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What an EmbeddedServer was asked to be."""

    dialect: str = "cloud"
    api_key: str | None = None
    strict_models: bool = False
    workers: int = 1
    cache: str = "classic"
    previews: bool = True

    @property
    def cloud(self) -> bool:
        """Whether it speaks Cloud's dialect."""
        return self.dialect == "cloud"

    def __repr__(self) -> str:
        key = None if self.api_key is None else "***"
        return f"Settings(dialect={self.dialect!r}, api_key={key!r}, workers={self.workers}, cache={self.cache!r})"


class Service:
    """Jobs, nodes, files and events of one server."""

    def __init__(
        self,
        settings: ServerSettings,
        nodes: Mapping[str, NodeClass],
        folders: ServerFolders,
        faults: Faults,
        journal: Journal | None = None,
    ) -> None:
        self.settings = settings
        self.nodes = nodes
        self.folders = folders
        self.faults = faults
        self.seen = RequestLog()
        self.hub = Hub(faults, broadcast_all=settings.cloud)
        self.queue = JobQueue(
            settings.workers,
            self.hub.send_status,
            history_limit=None if settings.cloud else COMFYUI_HISTORY,
            keep_cancelled=settings.cloud,
            journal=journal,
        )
        self._counter = 0
        self._caches: list[Cache] = [make_cache(settings.cache) for _ in range(settings.workers)]
        self._clear_caches = [threading.Event() for _ in self._caches]
        self._threads: list[threading.Thread] = []

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """The event loop on which events are delivered."""
        self.hub.loop = loop

    def start(self) -> None:
        """Start the workers."""
        shop = ServerContext(
            self.nodes, self.folders, self.hub, self.faults, self.seen, previews=self.settings.previews
        )
        for place, cache in enumerate(self._caches):
            thread = threading.Thread(
                target=self._run_worker,
                args=(Executor(shop, cache), place),
                name=f"embedded-worker-{place}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Interrupt what runs and wait until every worker is gone."""
        self.queue.close()
        self.faults.release()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _run_worker(self, executor: Executor, index: int) -> None:
        while (job := self.queue.take()) is not None:
            if self._clear_caches[index].is_set():
                self._clear_caches[index].clear()
                executor.cache.clear()
            self.seen.record_job_start(job.id, self.queue.running)
            voice = JobMessages(self.hub, job)
            state = executor.run(job, voice)
            for key in SENSITIVE_KEYS:
                job.extra_data.pop(key, None)
            self.queue.finish(job, state)
            voice.send_end()

    def free_memory(self) -> None:
        """Forget all node results before the next job."""
        for event in self._clear_caches:
            event.set()

    def submit(self, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """POST /prompt: (HTTP status, body). The job is queued, and written down, when this returns 200."""
        place = self._counter
        if "number" not in data or self.settings.cloud:
            self._counter += 1  # also for requests that are then refused, as in ComfyUI
        try:
            submission = read_submission(data)
        except SubmissionError as problem:
            self.seen.count(rejected=1)
            error = make_error(problem.kind, str(problem), problem.details)
            return 400, {"error": error, "node_errors": {}}
        verdict = validate(
            submission.graph,
            self.nodes,
            self.folders,
            targets=submission.targets,
            strict_models=self.settings.strict_models,
        )
        if verdict.error is not None:
            self.seen.count(rejected=1)
            return 400, {"error": verdict.error, "node_errors": verdict.node_errors}
        job = self._make_job(submission, verdict.outputs, place)
        if self.faults.take("lose_times"):
            self.queue.lose(job)
        else:
            try:
                self.queue.put(job)
            except JournalError as problem:
                error = make_error("service_unavailable", f"The job cannot be written down: {problem}.")
                return 503, {"error": error, "node_errors": {}}
        self.seen.count(accepted=1)
        return 200, {"prompt_id": job.id, "number": job.number, "node_errors": verdict.node_errors}

    def _make_job(self, submission: PromptSubmission, outputs: tuple[str, ...], counter: int) -> ServerJob:
        prompt_id: str | None = None
        number: float = counter
        if not self.settings.cloud:  # Cloud's ids and order are its own
            prompt_id = submission.prompt_id
            number = -counter if submission.front else counter
            number = number if submission.number is None else submission.number
        graph = StoredGraph(submission.graph)
        return ServerJob(
            str(uuid.uuid4()) if prompt_id is None else prompt_id, number, graph, submission.extra_data, outputs
        )

    def cancel_waiting(self, ids: list[str] | None) -> list[str]:
        """Take those jobs (None: all) out of the queue, if they still wait."""
        found = self.queue.clear() if ids is None else self.queue.delete(ids)
        self.seen.cancelled.extend(found)
        return found

    def interrupt(self, prompt_id: str | None) -> None:
        """Ask that running job, or all, to stop."""
        self.seen.interrupts.append(prompt_id)
        self.queue.interrupt(prompt_id)


def status_string(job: ServerJob) -> str:
    """`success` or `error`: ComfyUI has no other word, an interrupted job is an `error` too."""
    return "success" if job.messages and job.messages[-1][0] == "execution_success" else "error"
