"""What the jobs of a server are charged: partner nodes when they run, and the time of a job. Thread-safe.

A node costs what the scenario says of its class, else what the `price_badge` in the description of its class says. A
result from the cache costs nothing. If a price is a range, the scenario's seed decides; without an upper limit, the
account takes the lower one. A job that fails or is cancelled is charged for what ran.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeper.embedded.faults import Faults, compute_price
from sweeper.embedded.jobs import ServerJob
from sweeper.embedded.nodes.base import NodeClass
from sweeper.model.money import COMFY_CREDITS_PER_USD, to_usd

TIME = ""  # in the charges of a job, in place of a node id


def make_credits_header(credit_count: float | None) -> dict[str, str]:
    """The header in which Comfy's servers say what a call cost; none if there is nothing to say."""
    return {} if credit_count is None else {"X-Comfy-Credits-Used": f"{credit_count:.4f}"}


class Account:
    """The account of all jobs of one `EmbeddedServer`, over its restarts too."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._charged = 0.0
        self._is_open = False
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
        """Count the jobs of earlier processes, which a journal has stored. Later calls have no effect."""
        with self._lock:
            if not self._is_open:
                self._charged += sum(sum(job.charges.values()) for job in jobs)
            self._is_open = True

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
    required, optional = node_class.find_inputs(inputs)
    defaults = {}
    for name, (kind, options) in {**required, **optional}.items():
        choices = kind if isinstance(kind, list) else options.get("options")
        if "default" in options:
            defaults[name] = options["default"]
        elif isinstance(choices, list) and choices:
            defaults[name] = choices[0]
    return defaults
