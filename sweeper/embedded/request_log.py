"""Counters and records of what the embedded server has done, for tests.

Nothing here changes the behaviour of the server. It records the names of headers but never their values, so that no
key is stored.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field

# Enough for any test. The limit keeps the memory of a server that runs for days constant.
MAX_LOGGED_REQUESTS = 10_000


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One HTTP request or WebSocket handshake."""

    method: str  # GET, POST, ...; WS for an event stream
    path: str  # without the query, which may hold a token
    headers: frozenset[str]  # names, in lower case


@dataclass(slots=True)
class RequestLog:
    """Counters since the server started. Read them at any time, from any thread.

    `submits - accepted - rejected` requests were refused for other reasons than validation, or dropped.
    """

    submits: int = 0  # POST /prompt, whatever the result
    accepted: int = 0  # jobs queued
    rejected: int = 0  # refused by validation with 400
    executions: Counter[str] = field(default_factory=Counter)  # prompt_id -> how often a worker started it
    nodes: Counter[str] = field(default_factory=Counter)  # class_type -> runs (not cache hits)
    node_ids: Counter[str] = field(default_factory=Counter)  # node id -> runs (not cache hits)
    interrupts: list[str | None] = field(default_factory=list)  # the id of each POST /interrupt; None: without one
    cancelled: list[str] = field(default_factory=list)  # ids removed from the queue before they ran
    uploads: list[str] = field(default_factory=list)  # the names under which they were stored
    written: int = 0  # uploads that wrote a new file (the content was not stored yet)
    redirects: int = 0  # 302 answers that carry a signed URL
    downloads: int = 0  # files sent in whole or in part, also by the storage host
    most_running: int = 0  # highest number of jobs at once
    connections: int = 0  # event streams accepted
    requests: deque[LoggedRequest] = field(default_factory=lambda: deque(maxlen=MAX_LOGGED_REQUESTS))
    storage_requests: deque[LoggedRequest] = field(default_factory=lambda: deque(maxlen=MAX_LOGGED_REQUESTS))
    foreign_keys: int = 0  # requests to the storage host that carried a credential, which belongs to the API only
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, **amounts: int) -> None:
        """Add to counters by name. Thread-safe."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def record_node_run(self, node_id: str, class_type: str) -> None:
        """Count a node that ran."""
        with self._lock:
            self.nodes[class_type] += 1
            self.node_ids[node_id] += 1

    def record_job_start(self, prompt_id: str, running: int) -> None:
        """Count a job that a worker started; `running` is the number of jobs that run now."""
        with self._lock:
            self.executions[prompt_id] += 1
            self.most_running = max(self.most_running, running)

    def paths(self, method: str) -> list[str]:
        """The paths of the recorded requests with this method, oldest first."""
        return [request.path for request in list(self.requests) if request.method == method]
