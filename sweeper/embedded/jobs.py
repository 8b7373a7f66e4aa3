"""Jobs and their queue: order, states, history, cancelling, interrupting. Thread-safe.

A `ServerJob` is queued, then runs, then has ended. Each change happens under one lock, so that a job is never missing
from all three lists. Workers wait in `JobQueue.take`. `SQLiteJournal` stores jobs on disk, and the executor runs them.
"""

from __future__ import annotations

import bisect
import json
import logging
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from sweeper.errors import UsageError

# Raw states, named as Comfy Cloud names them.
SUBMITTED = "submitted"
LIMITED = "queued_limited"  # queued, and every worker is busy
WAITING = "queued_waiting"
ALLOCATED = "allocated"  # past the account's limit, and waiting for a machine
PREPARING = "preparing"
EXECUTING = "executing"
CANCEL_REQUESTED = "cancel_requested"
SUCCESS = "success"
ERROR = "error"
CANCELLED = "cancelled"
LOST = "lost"
ENDED = frozenset({SUCCESS, ERROR, CANCELLED, LOST})

# Raw state -> status; other states are "in_progress".
_STATUS_BY_STATE = {
    **dict.fromkeys((SUBMITTED, WAITING, ALLOCATED), "pending"),
    **dict.fromkeys((ERROR, LOST), "failed"),
    SUCCESS: "completed",
    CANCELLED: "cancelled",
}
STATUS_WORDS = ("pending", "in_progress", "completed", "failed", "cancelled")

Location = tuple[str, str, str]  # of a file: type (input, output, temp), subfolder, file name

_LOG = logging.getLogger(__name__)


def now_ms() -> int:
    """The time in milliseconds since the epoch, the unit of ComfyUI's timestamps."""
    return time.time_ns() // 1_000_000


class JournalError(Exception):
    """A job cannot be stored, because the disk is full or missing."""


def pack_graph(graph: dict[str, Any]) -> bytes:
    """Compress a graph, node id -> node, for a `ServerJob`."""
    return zlib.compress(json.dumps(graph).encode("ascii"), 1)


@dataclass(slots=True, eq=False)
class ServerJob:
    """A job of the server. Only the queue and the worker that runs the job change it."""

    id: str
    number: float
    packed_graph: bytes  # see `pack_graph`; a server keeps thousands
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
    labels: dict[str, str] = field(default_factory=dict)  # of API v2
    charges: dict[str, float] = field(default_factory=dict)  # in USD, by node id; "" is the time (see `Account`)
    idempotency_key: str | None = None  # with which it was submitted by API v2
    cancel_event: threading.Event = field(default_factory=threading.Event)

    @property
    def graph(self) -> dict[str, Any]:
        """The graph to run: node id -> node."""
        graph: dict[str, Any] = json.loads(zlib.decompress(self.packed_graph))
        return graph

    @property
    def error(self) -> dict[str, Any] | None:
        """The data of the `execution_error` message, or None if the job has not failed."""
        return next((data for event, data in reversed(self.messages) if event == "execution_error"), None)

    @property
    def output_files(self) -> list[tuple[Location, dict[str, Any]]]:
        """The files in the `ui` outputs of the job, each as the preview of a job names it."""
        return [
            ((file.get("type", ""), file.get("subfolder", ""), file["filename"]), file)
            for node_id, ui in self.results.items()
            for kind, entries in ui.items()
            for file in (
                {"nodeId": node_id, "mediaType": kind, **entry} for entry in entries if isinstance(entry, dict)
            )
            if "filename" in file
        ]

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    # --- how `/api/jobs` and the history describe a job, alike on Comfy Cloud and on a ComfyUI

    @property
    def status(self) -> str:
        """One of STATUS_WORDS."""
        return _STATUS_BY_STATE.get(self.state, "in_progress")

    @property
    def workflow_id(self) -> str | None:
        """The id of the UI-format workflow, if the client sent that workflow with the graph."""
        value: Any = self.extra_data
        for key in ("extra_pnginfo", "workflow", "id"):
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, str) else None

    @property
    def workflow(self) -> dict[str, Any]:
        """The `workflow` of the details."""
        return {"prompt": self.graph, "extra_data": self.extra_data}

    def make_row(self) -> dict[str, Any]:
        """The fields that a listing has, without the error. Times are milliseconds since the epoch."""
        row: dict[str, Any] = {"id": self.id, "status": self.status, "create_time": self.created}
        if self.workflow_id is not None:
            row["workflow_id"] = self.workflow_id
        if self.has_ended:
            if self.started is not None:
                row |= {"execution_start_time": self.started, "execution_end_time": self.ended}
            # Its preview is the first saved file, else the first temporary one.
            files = [file for _, file in self.output_files]
            saved = [file for file in files if file.get("type") == "output"]
            preview = {"preview_output": (saved or files)[0]} if files else {}
            row |= {"outputs_count": len(files), "previewable_outputs_count": len(files), **preview}
        return row

    def describe_end(self) -> dict[str, Any]:
        """The fields that only the details of an ended job have."""
        # `success` or `error`, ComfyUI's only values: an interrupted job is an `error` too.
        succeeded = bool(self.messages) and self.messages[-1][0] == "execution_success"
        words = {"status_str": "success" if succeeded else "error", "completed": succeeded, "messages": self.messages}
        return {"outputs": self.results, "execution_status": words}

    # --- changes

    def set_state(self, state: str) -> None:
        """Enter a state. A job whose cancellation was requested keeps that state until it has ended."""
        if self.state != CANCEL_REQUESTED or state in ENDED:
            self.state = state
        self.changed = now_ms()
        if state == EXECUTING and self.started is None:
            self.started = self.changed
        if state in ENDED:
            self.ended = self.changed


@dataclass(eq=False)
class JobQueue:
    """Waiting jobs in order of (number, id), running jobs, and ended jobs in order of completion."""

    workers: int  # jobs at once; here it only affects the state that `get_state` reports
    on_change: Callable[[int], None]  # called with the number of queued and running jobs when it may have changed
    _: KW_ONLY
    keep_cancelled: bool  # whether to remember jobs that were cancelled while they waited, as Cloud does
    journal: SQLiteJournal | None = None  # stores the jobs on disk; None: nothing does, as in ComfyUI

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._job_arrived = threading.Condition(self._lock)
        self._waiting: list[ServerJob] = []  # sorted
        self._running: list[ServerJob] = []
        self._ended: dict[str, ServerJob] = {}
        self._by_id: dict[str, ServerJob] = {}
        self._closing = False

    def restore(self, jobs: list[ServerJob]) -> None:
        """Add the jobs that a journal has stored: ended jobs to the history, all others to the queue."""
        with self._lock:
            for job in jobs:
                self._by_id[job.id] = job
                if job.has_ended:
                    self._ended[job.id] = job
                else:
                    self._push(job)

    def put(self, job: ServerJob) -> None:
        """Store a job and queue it. Raises JournalError, and queues nothing, if it cannot be stored."""
        with self._lock:
            if self.journal is not None:
                self.journal.save(job)
            self._by_id[job.id] = job
            self._push(job)
            self._notify()

    def _push(self, job: ServerJob) -> None:
        job.set_state(WAITING)
        bisect.insort(self._waiting, job, key=lambda waiting: (waiting.number, waiting.id))
        self._job_arrived.notify()

    def take(self) -> ServerJob | None:
        """Wait for the next job, and mark it as running. Returns None when the queue closes."""
        with self._lock:
            while not self._waiting and not self._closing:
                self._job_arrived.wait()
            if self._closing:
                return None
            job = self._waiting.pop(0)
            self._running.append(job)
            job.set_state(PREPARING)
            self._save(job)
            self._notify()
            return job

    def hold(self, job: ServerJob, seconds: float) -> None:
        """Let a job that was taken wait for a machine, unless it is cancelled."""
        with self._lock:
            job.set_state(ALLOCATED)
        job.cancel_event.wait(seconds)
        with self._lock:
            job.set_state(PREPARING)

    def finish(self, job: ServerJob, state: str) -> None:
        """Record the end of a running job. If the queue is closing, an interrupted job is queued again instead."""
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
        # A reused id keeps its position, as in ComfyUI.
        self._ended[job.id] = job
        self._save(job)

    def _save(self, job: ServerJob) -> None:
        """Store a job, or log why that failed: the job goes on in memory, and the worker must not die of it."""
        try:
            if self.journal is not None:
                self.journal.save(job)
        except JournalError:
            _LOG.exception("job %s: its state %s is not on disk", job.id, job.state)

    def _notify(self) -> None:
        self.on_change(len(self._waiting) + len(self._running))

    # --- queries -----------------------------------------------------------------------------------------------------

    def get_state(self, job: ServerJob) -> str:
        """The raw state of a job. A waiting job is `LIMITED` if all workers are busy."""
        with self._lock:
            return LIMITED if job.state == WAITING and len(self._running) >= self.workers else job.state

    @property
    def remaining(self) -> int:
        with self._lock:
            return len(self._waiting) + len(self._running)

    def snapshot(self) -> tuple[list[ServerJob], list[ServerJob]]:
        """(running jobs, waiting jobs), the waiting ones in the order in which they will run."""
        with self._lock:
            return list(self._running), list(self._waiting)

    def get_position(self, job: ServerJob) -> int | None:
        """The position of a waiting job in the queue, from 1; None if it does not wait."""
        with self._lock:
            return self._waiting.index(job) + 1 if job in self._waiting else None

    def find(self, prompt_id: str) -> ServerJob | None:
        """The latest job with this id, in any state, or None."""
        with self._lock:
            return self._by_id.get(prompt_id)

    def list_jobs(self) -> list[ServerJob]:
        """All remembered jobs, in order of submission."""
        with self._lock:
            return list(self._by_id.values())

    def find_ended(self, prompt_id: str) -> ServerJob | None:
        with self._lock:
            return self._ended.get(prompt_id)

    def list_ended(self, max_items: int | None = None, offset: int = -1) -> list[ServerJob]:
        """Ended jobs, oldest first: the last `max_items`, or `max_items` from index `offset` on if it is 0 or more."""
        with self._lock:
            jobs = list(self._ended.values())
        if offset < 0:
            offset = 0 if max_items is None else max(0, len(jobs) - max_items)
        return jobs[offset:] if max_items is None else jobs[offset : offset + max(0, max_items)]

    # --- changes -----------------------------------------------------------------------------------------------------

    def delete(self, ids: Collection[str] | None) -> list[str]:
        """Remove waiting jobs from the queue: those with one of `ids`, or all (None). Returns their ids."""
        with self._lock:
            cancelled = [job for job in self._waiting if ids is None or job.id in ids]
            if not cancelled:
                return []
            self._waiting = [job for job in self._waiting if not (ids is None or job.id in ids)]
            for job in cancelled:
                if self.keep_cancelled:
                    self._record_end(job, CANCELLED)
                elif self._by_id.get(job.id) is job:
                    del self._by_id[job.id]
            self._notify()
            return [job.id for job in cancelled]

    def interrupt(self, prompt_id: str | None = None) -> list[str]:
        """Ask the running job with this id, or all running jobs, to stop. Returns their ids.

        A job stops at its next check for it, or ends before. Its final state shows which. Cloud asks a job only once.
        """
        with self._lock:
            jobs = [job for job in self._running if prompt_id in (None, job.id) and job.state != CANCEL_REQUESTED]
            for job in jobs:
                job.cancel_event.set()
                if self.keep_cancelled:
                    job.set_state(CANCEL_REQUESTED)
            return [job.id for job in jobs]

    def lose(self, job: ServerJob) -> None:
        """Lose a job as a broken server does: Cloud reports it as `lost`, ComfyUI does not know it."""
        with self._lock:
            if self.keep_cancelled:
                self._by_id[job.id] = job
                self._record_end(job, LOST)

    def forget(self, ids: Collection[str] | None = None) -> None:
        """Remove ended jobs from the history: these, or all. Their files stay."""
        with self._lock:
            for prompt_id in [*self._ended] if ids is None else ids:
                job = self._ended.pop(prompt_id, None)
                if job is not None and self._by_id.get(prompt_id) is job:
                    del self._by_id[prompt_id]

    def close(self) -> None:
        """Make every waiting worker return from `take`, and ask running jobs to stop."""
        with self._lock:
            self._closing = True
            for job in self._running:
                job.cancel_event.set()
            self._job_arrived.notify_all()


_FIELDS = (
    "number", "extra_data", "outputs", "state", "created", "changed", "started", "ended", "results", "meta", "labels",
    "charges", "idempotency_key", "messages",
)  # fmt: skip


class SQLiteJournal:
    """Stores jobs in an SQLite file. Not thread-safe by itself, because the queue calls it under its lock.

    Raises UsageError if another server uses the file, or if it is not an SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0.1)
        try:
            # A lock until this process ends, even by kill -9, so that two servers never share a folder.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing that it has written. Only a power failure may lose the last seconds.
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS job (id TEXT PRIMARY KEY, place INTEGER, graph BLOB, record TEXT)"
            )
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("COMMIT")
        except sqlite3.Error as problem:
            self._db.close()
            raise UsageError(
                f"{path}: cannot keep jobs here ({problem}); is another server using this folder?"
            ) from problem

    def close(self) -> None:
        """Close the file and release its lock."""
        self._db.close()

    def save(self, job: ServerJob) -> None:
        """Store the current state of a job. Raises JournalError."""
        text = json.dumps({name: getattr(job, name) for name in _FIELDS})
        try:
            if self._db.execute("UPDATE job SET record = ? WHERE id = ?", (text, job.id)).rowcount == 0:
                self._db.execute("INSERT INTO job VALUES (?, ?, ?, ?)", (job.id, job.created, job.packed_graph, text))
        except sqlite3.Error as problem:
            raise JournalError(str(problem)) from problem

    def load(self) -> list[ServerJob]:
        """All jobs, in order of submission. Jobs that ran when the last server was killed become `lost`."""
        jobs = []
        for prompt_id, graph, text in self._db.execute("SELECT id, graph, record FROM job ORDER BY place, rowid"):
            record = json.loads(text)
            messages = [(event, data) for event, data in record.pop("messages")]
            record["outputs"] = tuple(record["outputs"])
            job = ServerJob(id=prompt_id, packed_graph=graph, messages=messages, **record)
            if not job.has_ended and job.state not in {SUBMITTED, WAITING}:
                job.set_state(LOST)
                self.save(job)
            jobs.append(job)
        return jobs


def select_jobs(query: Mapping[str, str], jobs: list[ServerJob]) -> tuple[list[ServerJob], list[str]]:
    """The jobs with one of the `status` words and with the `workflow_id` of a query; and the words that are unknown."""
    words = [word.strip().lower() for word in query.get("status", "").split(",") if word.strip()]
    workflow_id = query.get("workflow_id")
    jobs = [job for job in jobs if not words or job.status in words]
    jobs = [job for job in jobs if not workflow_id or job.workflow_id == workflow_id]
    return jobs, [word for word in words if word not in STATUS_WORDS]
