"""The refusals of Comfy Cloud that its account's owner must settle, by `error.type`, each with what to do. Pure.

Source: the OpenAPI document in ComfyUI's repository (openapi.yaml of 0.33.0 and later), which says to go by the type
and never by the message; the last two are types of failed jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sweeper.comfy.untrusted_json import to_text

_AGAIN: Final = "then run the same command again, which keeps all finished trials"
_FUNDS: Final = f"add credits or a subscription at https://cloud.comfy.org, {_AGAIN}"
_ADVICE: Final = {
    "PAYMENT_REQUIRED": _FUNDS,
    "CLOUD_SUBSCRIPTION_REQUIRED": f"subscribe to Comfy Cloud at https://cloud.comfy.org, {_AGAIN}",
    "FREE_TIER_EXHAUSTED": f"subscribe at https://cloud.comfy.org, or wait for the next period; {_AGAIN}",
    "FREE_TIER_UNAVAILABLE": f"subscribe at https://cloud.comfy.org, or wait until free jobs are back; {_AGAIN}",
    "PARTNER_NODE_PAYMENT_REQUIRED": f"add credits for partner nodes, or remove those nodes; {_AGAIN}",
    "MODEL_PAYMENT_REQUIRED": f"choose a model that the plan includes, or a larger plan; {_AGAIN}",
    "PARTNER_NODE_DISABLED": f"ask the workspace's owner to allow them, or remove them; {_AGAIN}",
    "InsufficientFundsError": _FUNDS,
    "InactiveSubscriptionError": _FUNDS,
}


def find_advice(error_type: str | None) -> str | None:
    """What the account's owner can do about an error of that type; None if it is not about the account."""
    return _ADVICE.get((error_type or "").rpartition(".")[2])


def read_error_type(answer: Mapping[str, Any]) -> str | None:
    """The `error.type` of an answer; None if it has none."""
    error = answer.get("error")
    kind = error.get("type") if isinstance(error, Mapping) else None
    return kind if isinstance(kind, str) else None


def name_classes(answer: Mapping[str, Any]) -> str:
    """The node classes that a refusal is about, for a message; empty if it names none."""
    error = answer.get("error")
    classes = error.get("class_types") if isinstance(error, Mapping) else None
    return f" ({', '.join(map(to_text, classes[:20]))})" if isinstance(classes, list) and classes else ""
