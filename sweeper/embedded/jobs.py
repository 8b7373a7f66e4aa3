"""Jobs and their queue: order, states, history, cancelling, interrupting; safe from any thread.

A `Job` goes queued -> running -> ended, each move under one lock, so that no instant finds it nowhere. Workers wait in
`take` on a condition. What survives a restart is the journal's business (`journal.py`), what runs the executor's.
"""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

# Raw states, as Comfy Cloud words them.
SUBMITTED = "submitted"
LIMITED = "queued_limited"  # queued, and every worker is busy
WAITING = "queued_waiting"
PREPARING = "preparing"
EXECUTING = "executing"
CANCEL_REQUESTED = "cancel_requested"
SUCCESS = "success"
ERROR = "error"
CANCELLED = "cancelled"
LOST = "lost"
ENDED = frozenset({SUCCESS, ERROR, CANCELLED, LOST})


_LOG = logging.getLogger(__name__)


def now_ms() -> int:
    """Milliseconds since the epoch, as ComfyUI's timestamps are."""
    return time.time_ns() // 1_000_000


class JournalError(Exception):
    """A job cannot be written down: the disk is full, or gone."""


class StoredGraph:
    """A job's graph: a dict while it is needed, packed once the job has ended, because a server keeps thousands."""

    __slots__ = ("_packed", "_value")

    def __init__(self, value: dict[str, Any] | None, text: str | None = None) -> None:
        self._value = value
        self._packed = b"" if text is None else zlib.compress(text.encode("ascii"), 1)

    def unpack(self) -> dict[str, Any]:
        """The graph: node id -> node."""
        if self._value is not None:
            return self._value
        value: dict[str, Any] = json.loads(zlib.decompress(self._packed))
        return value

    def to_json(self) -> str:
        """The graph as JSON, ASCII only."""
        return json.dumps(self._value) if self._value is not None else zlib.decompress(self._packed).decode("ascii")

    def pack(self) -> None:
        """Give up the dict."""
        if self._value is not None:
            self._packed, self._value = zlib.compress(self.to_json().encode("ascii"), 1), None


@dataclass(slots=True, eq=False)
class ServerJob:
    """The server's side of a trial. Written by the queue and by the one worker that runs it."""

    id: str
    number: float
    stored_graph: StoredGraph
    extra_data: dict[str, Any]
    outputs: tuple[str, ...]  # the output nodes to run
    state: str = SUBMITTED
    created: int = field(default_factory=now_ms)
    changed: int = 0
    started: int | None = None
    ended: int | None = None
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)  # node id -> ui
    meta: dict[str, Any] = field(default_factory=dict)
    cancel_event: threading.Event = field(default_factory=threading.Event)

    @property
    def graph(self) -> dict[str, Any]:
        """What is to run: node id -> node."""
        return self.stored_graph.unpack()

    @property
    def client_id(self) -> str | None:
        """The event stream that hears of this job."""
        client: str | None = self.extra_data.get("client_id")
        return client

    @property
    def error(self) -> dict[str, Any] | None:
        """The payload of `execution_error`, if that is how it ended."""
        return next((data for event, data in reversed(self.messages) if event == "execution_error"), None)

    def set_state(self, state: str) -> None:
        """Enter a state. A job that was asked to stop stays so until it has ended."""
        if self.state != CANCEL_REQUESTED or state in ENDED:
            self.state = state
        self.changed = now_ms()
        if state == EXECUTING and self.started is None:
            self.started = self.changed
        if state in ENDED:
            self.ended = self.changed


class Journal(Protocol):
    """Where jobs are written down. Called under the queue's lock, so in order. `save` may raise JournalError."""

    def save(self, job: ServerJob) -> None: ...
    def forget(self, ids: Collection[str]) -> None: ...


class NoJournal:
    """Nothing survives, as in ComfyUI."""

    def save(self, job: ServerJob) -> None:
        """Keep nothing."""

    def forget(self, ids: Collection[str]) -> None:
        """Keep nothing."""


class JobQueue:
    """Pending jobs in order of (number, id), running ones, and ended ones in order of completion.

    Args:
        workers: how many jobs run at once; only the words of the states depend on it here.
        announce: called with the number of jobs queued or running whenever it may have changed.
        keep: how many ended jobs are remembered (ComfyUI: 10,001); None: all.
        traces: whether a job that is cancelled while it waits is remembered as cancelled (Cloud) or not (ComfyUI).

    """

    def __init__(
        self,
        workers: int,
        on_change: Callable[[int], None],
        *,
        history_limit: int | None,
        keep_cancelled: bool,
        journal: Journal | None = None,
    ) -> None:
        self.workers = workers
        self.on_change = on_change
        self.history_limit = history_limit
        self.keep_cancelled = keep_cancelled
        self.journal: Journal = journal or NoJournal()
        self._lock = threading.RLock()
        self._job_arrived = threading.Condition(self._lock)
        self._heap: list[tuple[float, str, int, ServerJob]] = []
        self._running: list[ServerJob] = []
        self._ended: dict[str, ServerJob] = {}
        self._by_id: dict[str, ServerJob] = {}
        self._counter = itertools.count()
        self._closing = False

    def restore(self, jobs: list[ServerJob]) -> None:
        """Take back the jobs of an earlier life: ended ones as they are, all others into the queue again."""
        with self._lock:
            for job in jobs:
                self._by_id[job.id] = job
                if job.state in ENDED:
                    self._ended[job.id] = job
                else:
                    self._push(job)

    def put(self, job: ServerJob) -> None:
        """Queue a job; when this returns it is written down. Raises JournalError, taking nothing, if it cannot be."""
        with self._lock:
            self.journal.save(job)
            self._by_id[job.id] = job
            self._push(job)
            self._notify()

    def _push(self, job: ServerJob) -> None:
        job.set_state(WAITING)
        heapq.heappush(self._heap, (job.number, job.id, next(self._counter), job))
        self._job_arrived.notify()

    def take(self) -> ServerJob | None:
        """The next job, now running; waits for one. None when the queue is closing."""
        with self._lock:
            while not self._heap and not self._closing:
                self._job_arrived.wait()
            if self._closing:
                return None
            job = heapq.heappop(self._heap)[3]
            self._running.append(job)
            job.set_state(PREPARING)
            self._save(job)
            self._notify()
            return job

    def finish(self, job: ServerJob, state: str) -> None:
        """A running job has ended. While closing, a job that was interrupted goes back into the queue instead."""
        with self._lock:
            self._running.remove(job)
            if self._closing and state == CANCELLED:
                job.state = WAITING
                self._save(job)
                return
            self._record_end(job, state)
            self._notify()

    def _record_end(self, job: ServerJob, state: str) -> None:
        job.set_state(state)
        # A re-used id keeps its old place, as a dict does; the oldest goes first when there are too many.
        if self.history_limit is not None and job.id not in self._ended and len(self._ended) >= self.history_limit:
            oldest = next(iter(self._ended))
            self._remove_ended(oldest)
        self._ended[job.id] = job
        self._save(job)
        job.stored_graph.pack()

    def _save(self, job: ServerJob) -> None:
        """Write down what became of a job; one that cannot be written lives on in memory, and the worker with it."""
        try:
            self.journal.save(job)
        except JournalError:
            _LOG.exception("job %s: its state %s is not on disk", job.id, job.state)

    def _remove_ended(self, prompt_id: str) -> None:
        job = self._ended.pop(prompt_id, None)
        if job is not None and self._by_id.get(prompt_id) is job:
            del self._by_id[prompt_id]

    def _notify(self) -> None:
        self.on_change(len(self._heap) + len(self._running))

    # --- asking ------------------------------------------------------------------------------------------------------

    def get_state(self, job: ServerJob) -> str:
        """The job's raw state; a waiting one is told apart by whether a worker is free."""
        with self._lock:
            return LIMITED if job.state == WAITING and len(self._running) >= self.workers else job.state

    @property
    def remaining(self) -> int:
        """Jobs queued or running."""
        with self._lock:
            return len(self._heap) + len(self._running)

    @property
    def waiting(self) -> int:
        """Jobs queued."""
        with self._lock:
            return len(self._heap)

    @property
    def running(self) -> int:
        """Jobs running."""
        with self._lock:
            return len(self._running)

    def snapshot(self) -> tuple[list[ServerJob], list[ServerJob]]:
        """(running, pending), the pending ones in the order in which they will run."""
        with self._lock:
            return list(self._running), [entry[3] for entry in sorted(self._heap, key=lambda entry: entry[:3])]

    def find(self, prompt_id: str) -> ServerJob | None:
        """The latest job of this id, in whatever state."""
        with self._lock:
            return self._by_id.get(prompt_id)

    def list_jobs(self) -> list[ServerJob]:
        """Every job that is remembered, in order of submission."""
        with self._lock:
            return list(self._by_id.values())

    def find_ended(self, prompt_id: str) -> ServerJob | None:
        """The ended job of this id."""
        with self._lock:
            return self._ended.get(prompt_id)

    def list_ended(self, max_items: int | None = None, offset: int = -1) -> list[ServerJob]:
        """Ended jobs, oldest first: the last `max_items`, or that many from place `offset` on."""
        with self._lock:
            jobs = list(self._ended.values())
        if offset < 0:
            offset = 0 if max_items is None else max(0, len(jobs) - max_items)
        return jobs[offset:] if max_items is None else jobs[offset : offset + max(0, max_items)]

    # --- changing ----------------------------------------------------------------------------------------------------

    def delete(self, ids: Collection[str]) -> list[str]:
        """Take waiting jobs out of the queue; one per id given. Returns the ids that were found."""
        with self._lock:
            wanted = Counter(ids)
            kept, dropped = [], []
            for entry in self._heap:
                if wanted[entry[1]] > 0:
                    wanted[entry[1]] -= 1
                    dropped.append(entry[3])
                else:
                    kept.append(entry)
            self._cancel(kept, dropped)
            return [job.id for job in dropped]

    def clear(self) -> list[str]:
        """Take every waiting job out of the queue."""
        with self._lock:
            dropped = [entry[3] for entry in self._heap]
            self._cancel([], dropped)
            return [job.id for job in dropped]

    def _cancel(self, kept: list[tuple[float, str, int, ServerJob]], dropped: list[ServerJob]) -> None:
        if not dropped:
            return
        self._heap = kept
        heapq.heapify(self._heap)
        for job in dropped:
            if self.keep_cancelled:
                self._record_end(job, CANCELLED)
            elif self._by_id.get(job.id) is job:
                del self._by_id[job.id]
        self._notify()

    def interrupt(self, prompt_id: str | None = None) -> list[str]:
        """Ask running jobs to stop: that one, or all. Returns the ids asked; whether they do is seen in their end."""
        with self._lock:
            asked = [job for job in self._running if prompt_id in (None, job.id)]
            for job in asked:
                job.cancel_event.set()
                if self.keep_cancelled:
                    job.set_state(CANCEL_REQUESTED)
            return [job.id for job in asked]

    def lose(self, job: ServerJob) -> None:
        """Let a job vanish as a broken server does: `lost` where jobs leave traces, otherwise unknown."""
        with self._lock:
            if self.keep_cancelled:
                self._by_id[job.id] = job
                self._record_end(job, LOST)

    def forget(self, ids: Collection[str] | None = None) -> None:
        """Drop ended jobs from the history: those, or all. Files stay."""
        with self._lock:
            dropped = [prompt_id for prompt_id in (self._ended if ids is None else ids) if prompt_id in self._ended]
            for prompt_id in dropped:
                self._remove_ended(prompt_id)
            self.journal.forget(dropped)

    def close(self) -> None:
        """Wake every waiting worker to go home, and ask running jobs to stop."""
        with self._lock:
            self._closing = True
            for job in self._running:
                job.cancel_event.set()
            self._job_arrived.notify_all()
