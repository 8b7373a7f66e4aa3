"""What the embedded server has seen: counters and records that tests assert on.

Nothing here changes what the server does. Names of headers are kept, their values never: a key must not stay behind.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field

# Enough for any test; a server that runs for days must not grow by its own bookkeeping.
MAX_LOGGED_REQUESTS = 10_000


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One HTTP request or WebSocket handshake, as it arrived."""

    method: str  # GET, POST, ...; WS for an event stream
    path: str  # without the query, which may hold a token
    headers: frozenset[str]  # names, in lower case


@dataclass(slots=True)
class RequestLog:
    """Counters since the server started; read them at any time.

    `submits - accepted - rejected` requests were turned away or dropped.
    """

    submits: int = 0  # POST /prompt, whatever came of it
    accepted: int = 0  # jobs queued
    rejected: int = 0  # refused by validation with 400
    executions: Counter[str] = field(default_factory=Counter)  # prompt_id -> how often a worker began it
    nodes: Counter[str] = field(default_factory=Counter)  # class_type -> runs (not cache hits)
    node_ids: Counter[str] = field(default_factory=Counter)  # node id -> runs (not cache hits)
    interrupts: list[str | None] = field(default_factory=list)  # the id of each POST /interrupt; None: without one
    cancelled: list[str] = field(default_factory=list)  # ids taken out of the queue before they ran
    uploads: list[str] = field(default_factory=list)  # the names given back
    written: int = 0  # uploads that wrote a new file (not a known content)
    redirects: int = 0  # 302 answers that carry a signed URL
    downloads: int = 0  # files sent whole or in part, by either host
    most_running: int = 0  # highest number of jobs at once
    connections: int = 0  # event streams accepted
    requests: deque[LoggedRequest] = field(default_factory=lambda: deque(maxlen=MAX_LOGGED_REQUESTS))
    storage_requests: deque[LoggedRequest] = field(default_factory=lambda: deque(maxlen=MAX_LOGGED_REQUESTS))
    foreign_keys: int = 0  # requests to the storage host that carried a credential which is none of its business
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, **amounts: int) -> None:
        """Add to counters by name, safely from any thread."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def record_node_run(self, node_id: str, class_type: str) -> None:
        """A node was executed."""
        with self._lock:
            self.nodes[class_type] += 1
            self.node_ids[node_id] += 1

    def record_job_start(self, prompt_id: str, running: int) -> None:
        """A worker began a job; `running` are now under way."""
        with self._lock:
            self.executions[prompt_id] += 1
            self.most_running = max(self.most_running, running)

    def paths(self, method: str) -> list[str]:
        """The paths of all kept requests with this method, in order of arrival."""
        return [request.path for request in list(self.requests) if request.method == method]
