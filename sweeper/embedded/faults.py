"""What can be made to go wrong with the embedded server, on purpose: knobs that tests and rehearsals turn.

Beside the knobs stands a `Scenario`, which decides by shares and a seed; both are asked through the methods below.
Every knob may be turned at any time from any thread. A knob that ends in `_times` is a budget: each use takes one off,
and at 0 the server behaves again. Where several apply to one request, the order of the fields below decides.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, fields

from sweeper.embedded.scenario import Scenario


@dataclass(slots=True)
class Faults:
    """All off by default. Times are in seconds."""

    # --- any request -------------------------------------------------------------------------------------------------
    latency: float = 0.0  # wait before any request is answered
    error_500_times: int = 0  # answer 500 without doing anything
    error_503_times: int = 0  # answer 503 with Retry-After
    garbage_times: int = 0  # answer 200 with a body that is not JSON (a proxy's page)

    # --- POST /prompt ------------------------------------------------------------------------------------------------
    no_credits: bool = False  # 402
    inactive_subscription: bool = False  # 429 as Cloud words it for an account without subscription
    queue_full_times: int = 0  # 429 with Retry-After
    retry_after: float = 1.0  # the Retry-After of 429 and 503; 0 is sent as 0
    drop_before_accept: int = 0  # budget: close the socket without an answer; the job is NOT queued
    drop_after_accept: int = 0  # budget: close the socket without an answer; the job IS queued
    lose_times: int = 0  # take the job, answer 200, then forget it (comfyui), or end it as `lost` (cloud)

    # --- GET of the job's state --------------------------------------------------------------------------------------
    drop_status_times: int = 0  # close the socket without an answer
    odd_states: tuple[str, ...] = ()  # cloud: the raw states to tell, one per request, before the true one

    # --- GET /view and the storage host ------------------------------------------------------------------------------
    truncate_download_times: int = 0  # send the full Content-Length but only half of the bytes, then close
    expire_download_times: int = 0  # cloud: the signed URL answers 403 as an expired one does
    missing_download_times: int = 0  # /view answers 404

    # --- execution ---------------------------------------------------------------------------------------------------
    fail_nodes: set[str] = field(default_factory=set)  # node ids or class names that raise when they run
    fail_node_times: int | None = None  # how many of those runs fail; None: all
    fail_type: str = "RuntimeError"  # exception_type of the failure, such as InsufficientFundsError or OOMError
    fail_message: str = "This node was told to fail."
    stall_nodes: set[str] = field(default_factory=set)  # node ids or class names that hang until `release` or interrupt
    node_seconds: float = 0.0  # each executed node takes this much longer

    # --- events ------------------------------------------------------------------------------------------------------
    mute_events: bool = False  # event streams are accepted and stay silent
    refuse_events: bool = False  # event streams are refused with 403
    drop_events_times: int = 0  # close the stream after its greeting
    reconnect_trap: bool = False  # ComfyUI's: when an older socket of a clientId closes, the newer one falls silent

    # --- over time ---------------------------------------------------------------------------------------------------
    scenario: Scenario = field(default_factory=Scenario)

    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _counts: Counter[str] = field(default_factory=Counter, repr=False, compare=False)
    _released: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.fail_nodes = set(self.fail_nodes)
        self.stall_nodes = set(self.stall_nodes)

    def take(self, name: str) -> bool:
        """Use up one of a budget; False when it is spent."""
        with self._lock:
            left: int = getattr(self, name)
            if left <= 0:
                return False
            setattr(self, name, left - 1)
            return True

    def _count_call(self, kind: str) -> int:
        """How often the scenario was asked for a kind before."""
        with self._lock:
            self._counts[kind] += 1
            return self._counts[kind] - 1

    def should_inject(self, kind: str) -> bool:
        """Whether the scenario strikes now: "failure" (per job), "error" (per request) or "drop" (per submission)."""
        rate: float = getattr(self.scenario, f"{kind}_rate")
        return rate > 0 and self.scenario.should_inject(kind, self._count_call(kind))

    def draw_answer_delay(self) -> float:
        """Seconds before the next answer."""
        return self.latency + self.scenario.draw_seconds("latency", self._count_call("latency"))

    def draw_node_delay(self, *, loads: bool) -> float:
        """Seconds to add to the next executed node; `loads`: it reads a model file."""
        kinds = ("node_seconds", "model_seconds") if loads else ("node_seconds",)
        return self.node_seconds + sum(self.scenario.draw_seconds(kind, self._count_call(kind)) for kind in kinds)

    def is_out_of_credits(self) -> bool:
        """Whether the account can pay for no further job."""
        allowed = self.scenario.credits
        return self.no_credits or (allowed is not None and self._counts["paid"] >= allowed)

    def _charge_credit(self) -> bool:
        """Pay for a job that begins; False when the credits are gone."""
        with self._lock:
            allowed = self.scenario.credits
            if allowed is not None and self._counts["paid"] >= allowed:
                return False
            self._counts["paid"] += 1
            return True

    def draw_job_delay(self) -> float:
        """Seconds to add to the job which now begins."""
        return self.scenario.draw_seconds("job_seconds", self._count_call("job_seconds"))

    def is_queue_full(self, waiting: int) -> bool:
        """Whether a submission is to be turned away while so many jobs wait."""
        bound = self.scenario.queue_bound
        return self.take("queue_full_times") or (bound is not None and waiting >= bound)

    def pop_odd_state(self) -> str | None:
        """The next raw state to tell instead of the true one, or None."""
        with self._lock:
            if not self.odd_states:
                return None
            state, *rest = self.odd_states
            self.odd_states = tuple(rest)
            return state

    def take_node_failure(self, node_id: str, class_type: str) -> Exception | None:
        """The exception that this run of a node is to raise, or None."""
        if not self.fail_nodes & {node_id, class_type}:
            return None
        with self._lock:
            if self.fail_node_times is not None:
                if self.fail_node_times <= 0:
                    return None
                self.fail_node_times -= 1
        return make_exception(self.fail_type, self.fail_message)

    def draw_job_failure(self) -> Exception | None:
        """The exception that the job which now begins is to meet, by the scenario, or None. Ask once per job."""
        if not self._charge_credit():
            return make_exception("InsufficientFundsError", "The account's credits are used up.")
        if not self.should_inject("failure"):
            return None
        return make_exception(self.scenario.failure_type, "The scenario lets this job fail.")

    def get_stall(self, node_id: str, class_type: str) -> threading.Event | None:
        """What this run of a node has to wait for, or None."""
        return self._released if self.stall_nodes & {node_id, class_type} else None

    def release(self) -> None:
        """Let every stalled node go on, and stall none from now on."""
        self.stall_nodes.clear()
        released, self._released = self._released, threading.Event()
        released.set()

    def reset(self) -> None:
        """Turn every knob off."""
        self.release()
        off = Faults()
        for knob in fields(self):
            if not knob.name.startswith("_"):
                setattr(self, knob.name, getattr(off, knob.name))


def make_exception(name: str, message: str) -> Exception:
    """An exception of a class of this very name, so that `exception_type` says it as the real one would."""
    kind = type(name, (Exception,), {"__module__": "builtins"})
    problem: Exception = kind(message)
    return problem
