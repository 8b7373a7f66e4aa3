"""The embedded server without HTTP: it accepts jobs and queues them for its worker threads, which `executor` runs.

The apps of both dialects use this one object. It opens no socket.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

from sweeper.embedded.event_streams import Hub
from sweeper.embedded.faults import Faults, RequestLog, compute_price
from sweeper.embedded.folders import ServerFolders
from sweeper.embedded.jobs import JobQueue, JournalError, ServerJob, SQLiteJournal, pack_graph
from sweeper.embedded.nodes import NodeClass, list_choices
from sweeper.embedded.stand_ins.class_descriptions import add_defaults, guess_classes
from sweeper.embedded.validation import GraphValidator, PromptSubmission, SubmissionError, make_error, read_submission
from sweeper.model.money import COMFY_CREDITS_PER_USD, to_usd

# How many jobs may wait. Comfy Cloud's bound is 100. ComfyUI has none, so this one only keeps the memory in bounds.
CLOUD_QUEUE_BOUND = 100
COMFYUI_QUEUE_BOUND = 10_000

# extra_data may hold credentials for partner nodes. No node here uses them, so they are never stored or shown.
SENSITIVE_KEYS = frozenset({"auth_token_comfy_org", "api_key_comfy_org"})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    dialect: str = "cloud"
    api_key: str | None = field(default=None, repr=False)
    strict_models: bool = False
    workers: int = 1
    cache: str = "classic"
    permissive: bool = False

    @property
    def cloud(self) -> bool:
        """Whether the server behaves like Comfy Cloud: its jobs are durable, and it chooses their ids and order."""
        return self.dialect != "comfyui"

    @property
    def queue_bound(self) -> int:
        return CLOUD_QUEUE_BOUND if self.cloud else COMFYUI_QUEUE_BOUND


@dataclass(eq=False)
class Service:
    """Jobs, nodes, files and events of one server."""

    settings: ServerSettings
    nodes: Mapping[str, NodeClass]
    folders: ServerFolders
    faults: Faults
    account: Account
    journal: InitVar[SQLiteJournal | None] = None

    def __post_init__(self, journal: SQLiteJournal | None) -> None:
        settings = self.settings
        self.seen = RequestLog()
        self.hub = Hub(self.faults, broadcast_all=settings.cloud)
        self.queue = JobQueue(settings.workers, self.hub.send_status, keep_cancelled=settings.cloud, journal=journal)
        self._counter = 0
        self.clearings = 0  # how often the caches of node results were to be cleared
        self._threads: list[threading.Thread] = []

    def restore(self, jobs: list[ServerJob]) -> None:
        """Add the jobs that a journal has stored. New jobs come after them."""
        self.queue.restore(jobs)
        self.account.restore(jobs)
        self._counter = 1 + max((int(job.number) for job in jobs), default=-1)

    def start(self, run_jobs: Callable[[Service], None]) -> None:
        """Start the workers: threads that execute `run_jobs`."""
        for index in range(self.settings.workers):
            name = f"embedded-worker-{index}"
            thread = threading.Thread(target=run_jobs, args=(self,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Interrupt running jobs, and wait until all workers have ended."""
        self.queue.close()
        self.faults.release()
        for thread in self._threads:
            thread.join()
        self.hub.close()

    def select_classes(self, graph: Any) -> Mapping[str, NodeClass]:
        """The node classes for a graph: those of the server, and if it is permissive, stand-ins for all others."""
        return guess_classes(graph, self.nodes) if self.settings.permissive else self.nodes

    def submit(self, data: dict[str, Any], **job_fields: Any) -> tuple[int, dict[str, Any]]:
        """Handle POST /prompt. Returns (HTTP status, body); with status 200 the job is queued and stored.

        `job_fields`: further fields of the `ServerJob`, of a submission by API v2.
        """
        counter = self._counter
        if "number" not in data or self.settings.cloud:
            self._counter += 1  # also if the request is refused below, as in ComfyUI
        try:
            # Cloud names the jobs itself: a client's `prompt_id` is not in its specification, and has no effect.
            submission = read_submission({**data, "prompt_id": None} if self.settings.cloud else data)
            outputs, node_errors = self._validate(submission)
        except SubmissionError as refused:
            self.seen.count(rejected=1)
            return 400, refused.body
        job = self._make_job(submission, outputs, counter, **job_fields)
        if self.faults.take("lose_times"):
            self.queue.lose(job)
        else:
            try:
                self.queue.put(job)
            except JournalError as problem:
                error = make_error("service_unavailable", f"The job cannot be stored: {problem}.")
                return 503, {"error": error, "node_errors": {}}
        self.seen.count(accepted=1)
        return 200, {"prompt_id": job.id, "number": job.number, "node_errors": node_errors}

    def _validate(self, submission: PromptSubmission) -> tuple[tuple[str, ...], dict[str, Any]]:
        graph, settings = submission.graph, self.settings
        if settings.permissive:
            add_defaults(graph, self.nodes)
        classes, strict, lenient = self.select_classes(graph), settings.strict_models, settings.permissive
        return GraphValidator(graph, classes, self.folders, strict, lenient).run(submission.targets)

    def _make_job(
        self, submission: PromptSubmission, outputs: tuple[str, ...], counter: int, **fields: Any
    ) -> ServerJob:
        number: float = counter
        if not self.settings.cloud:  # Cloud chooses the order itself
            number = -counter if submission.front else counter
            number = number if submission.number is None else submission.number
        extra, job_id = submission.extra_data, submission.prompt_id or str(uuid.uuid4())
        job = ServerJob(job_id, number, pack_graph(submission.graph), extra, outputs, **fields)
        if self.settings.cloud:  # it shows that there was a key
            extra |= dict.fromkeys(extra.keys() & SENSITIVE_KEYS, "[REDACTED]")
        else:
            job.extra_data = {name: value for name, value in extra.items() if name not in SENSITIVE_KEYS}
            job.extra_data["create_time"] = job.created
        return job

    def cancel_waiting(self, ids: list[str] | None) -> list[str]:
        """Remove these jobs (None: all) from the queue if they still wait. Returns the ids of the removed jobs."""
        removed = self.queue.delete(ids)
        self.seen.cancelled.extend(removed)
        return removed

    def cancel(self, prompt_id: str) -> bool:
        """Cancel a job, whether it waits or runs. Returns False if it has ended, is being cancelled, or is unknown."""
        if self.cancel_waiting([prompt_id]):
            return True
        stopped = bool(self.queue.interrupt(prompt_id))  # a job that was not waiting above cannot wait again
        if stopped:
            self.seen.interrupts.append(prompt_id)
        return stopped

    def interrupt(self, prompt_id: str | None) -> None:
        """Ask the running job with this id, or all running jobs, to stop."""
        self.seen.interrupts.append(prompt_id)
        self.queue.interrupt(prompt_id)


# --- what jobs are charged: partner nodes when they run, and the time of a job ----------------------------------------

TIME = ""  # in the charges of a job, in place of a node id


def make_credits_header(credit_count: float | None) -> dict[str, str]:
    """The header in which Comfy's servers say what a call cost; none if there is nothing to say."""
    return {} if credit_count is None else {"X-Comfy-Credits-Used": f"{credit_count:.4f}"}


class Account:
    """What all jobs of one `EmbeddedServer` are charged, over its restarts too. Thread-safe.

    A node costs what the scenario says of its class, else what the `price_badge` in the description of its class says.
    A result from the cache costs nothing. If a price is a range, the scenario's seed decides; without an upper limit,
    the account takes the lower one. A job that fails or is cancelled is charged for what ran.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._charged = 0.0
        self._lock = threading.Lock()

    @property
    def charge_total(self) -> float:
        """What all jobs were charged, in USD."""
        with self._lock:
            return self._charged

    @property
    def balance(self) -> float | None:
        """What is left of the scenario's `balance`, in USD, negative if it is overdrawn; None without one."""
        opening = self._faults.scenario.balance
        return None if opening is None else opening - self.charge_total

    def restore(self, jobs: Iterable[ServerJob]) -> None:
        """Count the jobs of earlier processes, which a journal has stored beside those of this one."""
        with self._lock:
            self._charged = max(self._charged, sum(sum(job.charges.values()) for job in jobs))

    def charge_node(
        self, job: ServerJob, node_id: str, node_class: NodeClass, calls: Sequence[Mapping[str, Any]]
    ) -> float | None:
        """Charge a node that ran, once for each of its `calls` (input -> value).

        Returns what the node cost in this job; None if its class has no price.
        """
        badge = self.get_badge(node_class)
        if badge is None:
            return None
        inputs = job.graph[node_id]["inputs"]
        defaults = _list_defaults(node_class, inputs)
        usd = sum(self._draw_price(badge, {**defaults, **values}, inputs) for values in calls)
        return self._charge(job, node_id, usd)

    def charge_time(self, job: ServerJob, seconds: float) -> None:
        rate = self._faults.scenario.price_per_second
        if rate:
            self._charge(job, TIME, rate * seconds)

    def get_badge(self, node_class: NodeClass) -> Any:
        """The `price_badge` of a class, as /object_info has it; None if it costs nothing."""
        return self._faults.scenario.prices.get(node_class.name) or node_class.declaration.get("price_badge")

    def describe(self, node_class: NodeClass, info: dict[str, Any]) -> dict[str, Any]:
        badge = self.get_badge(node_class)
        return info if badge is None else info | {"api_node": True, "price_badge": badge}

    def get_reported_credits(self, job: ServerJob) -> float | None:
        """The charge of a job in credits, as the server tells it to clients; None as long as it tells nothing."""
        if not self._faults.scenario.tells_charges or not job.has_ended:
            return None
        return round(sum(job.charges.values()) * COMFY_CREDITS_PER_USD, 4)

    def make_price_text(self, usd: float | None) -> str | None:
        """The text that a partner node shows at its end, as ComfyUI 0.33.0 writes it; None if it shows none."""
        if usd is None or not self._faults.scenario.tells_charges:
            return None
        credit_count = f"{usd * COMFY_CREDITS_PER_USD:,.2f}".rstrip("0").rstrip(".")
        return "Status: Completed" if credit_count == "0" else f"Status: Completed\nPrice: {credit_count} credits"

    def _draw_price(self, badge: Any, values: Mapping[str, Any], inputs: Mapping[str, Any]) -> float:
        price = compute_price(badge, values, inputs)
        low = to_usd(price.low)
        return low if price.high is None else self._faults.draw_between(low, to_usd(price.high), "price")

    def _charge(self, job: ServerJob, part: str, usd: float) -> float:
        with self._lock:
            self._charged += usd
            job.charges[part] = job.charges.get(part, 0.0) + usd
            return job.charges[part]


def _list_defaults(node_class: NodeClass, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the inputs of a node are if its graph leaves them out: the default, or else the first choice."""
    defaults = {}
    for name, spec in node_class.list_inputs(inputs).items():
        for value in (list_choices(spec) or [])[:1]:
            defaults[name] = value
        if "default" in spec[1]:
            defaults[name] = spec[1]["default"]
    return defaults
