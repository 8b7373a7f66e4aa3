"""The answers with which Comfy Cloud refuses a submission for other reasons than its graph.

Clients tell them apart by `error.type`. Statuses, types and further fields are those of Comfy Cloud's published
specification (the `openapi.yaml` of Comfy-Org/ComfyUI, November 2026), which names no type for the 413.
"""

from __future__ import annotations

from typing import Any

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


def make_refusal(kind: str, graph: Any, retry_after: float) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The body, status and headers for an `error.type` of REFUSALS.

    `retry_after`: seconds, sent with the types for which the specification tells clients to wait.
    """
    status, message = REFUSALS[kind]
    error: dict[str, Any] = {"type": kind, "message": message, "details": "", "extra_info": {}}
    if kind == "PARTNER_NODE_DISABLED":
        nodes = graph.values() if isinstance(graph, dict) else ()
        classes = sorted({str(node.get("class_type")) for node in nodes if isinstance(node, dict)})
        error |= {"class_types": classes, "providers": ["embedded"]}
    if kind == "BILLING_UNAVAILABLE":
        error["reason"] = "funds_unavailable"
    code = "queue_full" if kind == QUEUE_LIMIT else kind.lower()
    waits = kind in {QUEUE_LIMIT, "BILLING_UNAVAILABLE"}
    headers = {"retry-after": f"{retry_after:.0f}"} if waits else {}
    return {"error": error, "node_errors": {}, "code": code, "message": message}, status, headers
