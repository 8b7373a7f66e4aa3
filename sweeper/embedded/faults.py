"""Scenarios and faults that rehearsals and tests can make the embedded server have, and the log of what it has done.

`sweeper serve --scenario FILE` rehearses against a `Scenario`: a slow service, a small queue, a share of failing jobs.
Each decision depends on the seed and on the number of earlier decisions of its kind, never on the clock, so that a
rehearsal can be repeated. `scenario.schema.json` has the keys and their values, `README.md` their meanings.

A test sets the fields of `Faults` directly, at any time and from any thread. The server asks for both through the
methods below. A field that ends in `_times` is a budget: each fault takes one off, and at 0 the server works normally
again. If several faults apply to one request, the first of the fields below wins.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sweeper.errors import UsageError
from sweeper.model.money import UNKNOWN_AMOUNT, Amount, parse_usd
from sweeper.model.node_classes.price_badge import JsonataError, JsonataExpression, PriceCalculator, parse_price_badge
from sweeper.model.source import Source
from sweeper.schemas import find_schema_problems
from sweeper.schemas.values import KeyPath

# Subscription -> number of jobs that run at once, by Cloud's documentation.
TIERS = {"free": 1, "standard": 1, "creator": 3, "pro": 5}

# How Comfy Cloud refuses a submission for other reasons than its graph: `error.type` -> (status, message), as in its
# published specification (the `openapi.yaml` of Comfy-Org/ComfyUI, November 2026), which names no type for the 413.
QUEUE_LIMIT = "QUEUE_LIMIT"
REFUSALS = {
    "PAYMENT_REQUIRED": (402, "Payment required: no active subscription or no funds."),
    "CLOUD_SUBSCRIPTION_REQUIRED": (402, "Payment required: this needs a Comfy Cloud subscription."),
    "FREE_TIER_EXHAUSTED": (402, "The free jobs of this period are used up."),
    "PARTNER_NODE_PAYMENT_REQUIRED": (402, "Payment required: the workflow has partner nodes."),
    "MODEL_PAYMENT_REQUIRED": (402, "Payment required: the workflow names a model that the plan excludes."),
    "PARTNER_NODE_DISABLED": (403, "The workspace does not allow these partner nodes."),
    "WORKFLOW_TOO_LARGE": (413, "The workflow is too large."),
    QUEUE_LIMIT: (429, "Too many jobs are queued; try again later."),
    "FREE_TIER_UNAVAILABLE": (429, "The free tier is switched off for now."),
    "BILLING_UNAVAILABLE": (429, "Billing does not respond; nothing was queued."),
}

DEFAULT = "default"  # in `node_seconds` by class: all other classes
Span = tuple[float, float]  # seconds, from and to


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked scenario. `README.md` has the fields. Rates are shares from 0 to 1. `Scenario()` has no faults."""

    seed: int = 0
    latency: Span = (0.0, 0.0)
    node_seconds: Span | Mapping[str, Span] = (0.0, 0.0)  # for all nodes, or by class with `default` for the others
    job_seconds: Span = (0.0, 0.0)
    model_seconds: Span = (0.0, 0.0)
    tier: str | None = None
    credits: int | None = None
    concurrency: int | None = None
    queue_bound: int | None = None
    capacity_seconds: Span = (0.0, 0.0)
    failure_rate: float = 0.0
    failure_type: str = "RuntimeError"
    error_rate: float = 0.0
    drop_rate: float = 0.0
    refusal_rate: float = 0.0
    refusal: str = "BILLING_UNAVAILABLE"
    cancel_rate: float = 0.0
    noise: float = 0.0
    prices: Mapping[str, Any] = field(default_factory=dict)  # class -> `price_badge`
    price_per_second: float = 0.0  # USD
    balance: float | None = None  # USD
    tells_charges: bool = False

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Scenario:
        """Make a scenario from a mapping. Raises UsageError that lists every mistake."""
        return cls.from_source(Source("scenario", data, dict))

    @classmethod
    def from_source(cls, source: Source) -> Scenario:
        """Make a scenario from a parsed file. Raises UsageError that lists every wrong key and value, with its line."""
        data = {} if source.value is None else source.value
        if not isinstance(data, Mapping):
            message = f"is not a scenario: give a mapping such as 'latency: 0.1', not {type(data).__name__}"
            raise UsageError(source.make_problem((), message))
        wrong: list[tuple[KeyPath, str]] = find_schema_problems("scenario", data)
        values: dict[str, Any] = {}
        for key in data.keys() - {path[0] for path, _ in wrong}:
            try:
                values[key] = _convert(key, data[key])
            except ValueError as problem:
                wrong.append(((key,), f"{problem}, not {data[key]!r}"))
        if "tier" in data and "concurrency" in data:
            wrong.append((("tier",), "`tier` and `concurrency` both say how many jobs run at once; give one"))
        if wrong:
            order = list(data)
            wrong.sort(key=lambda found: order.index(found[0][0]))
            raise UsageError(source.make_problem(path, message) for path, message in wrong)
        return cls(**values)

    @property
    def jobs_at_once(self) -> int | None:
        """The number of jobs that run at once, by `tier` or `concurrency`; None if neither is set."""
        return self.concurrency if self.tier is None else TIERS[self.tier]


def _convert(key: str, value: Any) -> Any:
    """The value of a field from a valid value of its key. Raises ValueError."""
    if key.endswith("_seconds") or key == "latency":
        return _parse_each(value, _parse_span) if isinstance(value, dict) else _parse_span(value)
    if key in {"price_per_second", "balance"}:
        return _parse_sum(value)
    return _parse_each(value, _parse_badge) if key == "prices" else value


def _parse_span(value: Any) -> Span:
    low, high = value if isinstance(value, list) else (value, value)
    if low > high:
        raise ValueError("must be a range [from, to] in seconds")
    return float(low), float(high)


def _parse_each(value: dict[Any, Any], parse: Callable[[Any], Any]) -> dict[str, Any]:
    """Parse the values of a mapping of node classes. Raises ValueError that names the class."""
    parsed = {}
    for name, item in value.items():
        try:
            parsed[str(name)] = parse(item)
        except ValueError as problem:
            raise ValueError(f"{name}: {problem}") from None
    return parsed


def _parse_sum(value: Any) -> float:
    try:
        return float(parse_usd(value))
    except UsageError:
        raise ValueError("must be an amount in dollars such as 0.03 USD") from None


def _parse_badge(price: Any) -> Any:
    if not isinstance(price, dict):
        try:
            expr = f'{{"type": "usd", "usd": {_parse_sum(price):.12f}}}'
        except ValueError as problem:
            raise ValueError(f"{problem}, or a badge {{engine, expr, depends_on}}") from None
        return {"engine": "jsonata", "depends_on": {"widgets": [], "inputs": [], "input_groups": []}, "expr": expr}
    badge = parse_price_badge(price)
    assert badge is not None, "it is a mapping"
    if badge.error:
        raise ValueError(str(badge.error))
    try:
        JsonataExpression(badge.expr)
    except JsonataError as problem:
        raise ValueError(f"its price expression cannot be used: {problem}") from None
    return price


def compute_price(badge: Any, values: Mapping[str, Any], inputs: Mapping[str, Any]) -> Amount:
    """What one execution of a node costs. `values`: what it gets, by input; `inputs`: its inputs in the graph."""
    parsed = parse_price_badge(badge)
    if parsed is None:
        return UNKNOWN_AMOUNT
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float | bool)}
    return PriceCalculator().compute(parsed, plain, inputs).amount


# --- faults ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Faults:
    """The faults to inject, all off by default. Times are in seconds."""

    # --- any request -------------------------------------------------------------------------------------------------
    latency: float = 0.0  # wait before any request is answered
    error_500_times: int = 0  # answer 500 without doing anything
    error_503_times: int = 0  # answer 503 with Retry-After
    garbage_times: int = 0  # answer 200 with a body that is not JSON (a proxy's page)

    # --- POST /prompt ------------------------------------------------------------------------------------------------
    refusal: str = ""  # refuse with this `error.type` of `scenario.REFUSALS`
    refusal_times: int | None = None  # how many submissions are refused with it; None: all
    queue_full_times: int = 0  # 429 with Retry-After
    retry_after: float = 1.0  # the Retry-After of 429 and 503; 0 is sent as 0
    drop_before_accept: int = 0  # budget: close the socket without an answer; the job is NOT queued
    drop_after_accept: int = 0  # budget: close the socket without an answer; the job IS queued
    lose_times: int = 0  # take the job, answer 200, then forget it (comfyui), or end it as `lost` (cloud)

    stopped: bool = False  # API v2: the deployment is switched off, so that it takes no job (422)
    forget_keys: bool = False  # API v2: a used Idempotency-Key is accepted again, as after 24 hours

    # --- GET of the job's state --------------------------------------------------------------------------------------
    drop_status_times: int = 0  # close the socket without an answer
    list_lag: float = 0.0  # cloud: a listing shows a job only so many seconds after its submission
    odd_states: tuple[str, ...] = ()  # cloud: raw states to report, one per request, before the true one

    # --- GET /view and the storage host ------------------------------------------------------------------------------
    truncate_download_times: int = 0  # send the full Content-Length but only half of the bytes, then close
    expire_download_times: int = 0  # cloud: the signed URL answers 403 as an expired one does
    missing_download_times: int = 0  # /view answers 404

    # --- execution ---------------------------------------------------------------------------------------------------
    fail_nodes: set[str] = field(default_factory=set)  # node ids or class names that raise when they run
    fail_node_times: int | None = None  # how many of those runs fail; None: all
    fail_type: str = "RuntimeError"  # exception_type of the failure, such as InsufficientFundsError or OOMError
    fail_message: str = "This node fails on purpose."
    stall_nodes: set[str] = field(default_factory=set)  # node ids or class names that hang until `release` or interrupt
    node_seconds: float = 0.0  # each executed node takes this much longer

    # --- events ------------------------------------------------------------------------------------------------------
    mute_events: bool = False  # event streams are accepted and stay silent
    refuse_events: bool = False  # event streams are refused with 403
    drop_events_times: int = 0  # close the stream after its greeting

    # --- over time ---------------------------------------------------------------------------------------------------
    scenario: Scenario = field(default_factory=Scenario)

    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _counts: Counter[str] = field(default_factory=Counter, repr=False, compare=False)
    _released: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.fail_nodes = set(self.fail_nodes)
        self.stall_nodes = set(self.stall_nodes)

    def take(self, name: str) -> bool:
        """Take one from a budget. Returns False if it is used up."""
        with self._lock:
            remaining: int = getattr(self, name)
            if remaining <= 0:
                return False
            setattr(self, name, remaining - 1)
            return True

    def _count_call(self, kind: str) -> str:
        """The seed of the next decision of a kind: that of the scenario, and how many there were before."""
        with self._lock:
            self._counts[kind] += 1
            return f"{self.scenario.seed} {kind} {self._counts[kind] - 1}"

    def _draw(self, kind: str) -> float:
        return random.Random(self._count_call(kind)).random()

    def draw_between(self, low: float, high: float, kind: str) -> float:
        """A number of a range, by the next decision of a kind."""
        return low + (high - low) * self._draw(kind)

    def should_inject(self, kind: str) -> bool:
        """Whether the scenario has a fault now.

        "failure" and "cancel" are per job, "drop" and "refusal" per submission, "error" per request.
        """
        rate: float = getattr(self.scenario, f"{kind}_rate")
        return rate > 0 and self._draw(kind) < rate

    def draw_seconds(self, kind: str, class_type: str = "") -> float:
        """Seconds to add now, by the field `kind` of the scenario; `class_type` is that of the node that runs."""
        span: Any = getattr(self.scenario, kind)
        if isinstance(span, Mapping):
            span = span.get(class_type, span.get(DEFAULT, (0.0, 0.0)))
        low, high = span
        return self.draw_between(low, high, kind)

    def take_refusal(self, waiting: int, default_bound: int) -> str | None:
        """The `error.type` with which to refuse the next submission, or None.

        `waiting` jobs are queued. A scenario overrides the default bound for them.
        """
        if not self._has_credits():
            return "FREE_TIER_EXHAUSTED" if self.scenario.tier == "free" else "PAYMENT_REQUIRED"
        if self.should_inject("refusal"):
            return self.scenario.refusal
        if self.refusal and (self.refusal_times is None or self.take("refusal_times")):
            return self.refusal
        bound = default_bound if self.scenario.queue_bound is None else self.scenario.queue_bound
        return QUEUE_LIMIT if self.take("queue_full_times") or waiting >= bound else None

    def _has_credits(self) -> bool:
        """Whether the account can pay for one more job."""
        allowed = self.scenario.credits
        return allowed is None or self._counts["paid"] < allowed

    def pop_odd_state(self) -> str | None:
        """The raw state to report now instead of the true one, or None."""
        with self._lock:
            if not self.odd_states:
                return None
            state, *rest = self.odd_states
            self.odd_states = tuple(rest)
            return state

    def take_node_failure(self, node_id: str, class_type: str) -> Exception | None:
        """The exception that this run of a node should raise, or None."""
        if not self.fail_nodes & {node_id, class_type}:
            return None
        if self.fail_node_times is not None and not self.take("fail_node_times"):
            return None
        return make_exception(self.fail_type, self.fail_message)

    def draw_job_failure(self) -> Exception | None:
        """The exception with which the job that starts now should fail, or None. Call this once per job."""
        with self._lock:
            if not self._has_credits():
                return make_exception("InsufficientFundsError", "The account's credits are used up.")
            self._counts["paid"] += 1
        if not self.should_inject("failure"):
            return None
        return make_exception(self.scenario.failure_type, "The scenario lets this job fail.")

    def draw_noise(self) -> tuple[float, str]:
        """The standard deviation, of 255, of the noise in the next picture, and its seed."""
        return self.scenario.noise, self._count_call("noise")

    def get_stall(self, node_id: str, class_type: str) -> threading.Event | None:
        """The event that this run of a node has to wait for, or None."""
        return self._released if self.stall_nodes & {node_id, class_type} else None

    def release(self) -> None:
        """Let every stalled node continue, and stall no more nodes."""
        self.stall_nodes.clear()
        released, self._released = self._released, threading.Event()
        released.set()

    def reset(self) -> None:
        self.release()
        off = Faults()
        for fault in fields(self):
            if not fault.name.startswith("_"):
                setattr(self, fault.name, getattr(off, fault.name))


def make_exception(name: str, message: str) -> Exception:
    """Make an exception whose class has this name, so that `exception_type` reports the name of the real one."""
    kind = type(name, (Exception,), {"__module__": "builtins"})
    problem: Exception = kind(message)
    return problem


# --- what the server has done ----------------------------------------------------------------------------------------

# The log records the names of headers but never their values, so that no key is stored.
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

    def paths(self, method: str) -> list[str]:
        """The paths of the recorded requests with this method, oldest first."""
        return [request.path for request in list(self.requests) if request.method == method]

    def record_node_run(self, node_id: str, class_type: str) -> None:
        with self._lock:
            self.nodes[class_type] += 1
            self.node_ids[node_id] += 1

    def record_job_start(self, prompt_id: str, running: int) -> None:
        """Count a job that a worker started; `running` is the number of jobs that run now."""
        with self._lock:
            self.executions[prompt_id] += 1
            self.most_running = max(self.most_running, running)
