"""Reads the request that submits a job, and checks its fields strictly.

All errors here are answered with 400. ComfyUI answers some of them with 500 (a `number` that is not a number, an
`extra_data` that is not an object), and accepts others with 200 only to lose its worker thread. `validation.py` checks
the graph.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import Any


class SubmissionError(Exception):
    """A field of the request is wrong; `kind` is ComfyUI's `error.type` if it has one for this case."""

    def __init__(self, message: str, kind: str = "invalid_request", details: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


@dataclass(frozen=True, slots=True)
class PromptSubmission:
    """The fields of POST /prompt."""

    graph: Any
    prompt_id: str | None  # chosen by the client
    number: float | None  # position in the queue, chosen by the client
    front: bool
    extra_data: dict[str, Any]  # with `client_id` merged into it, as ComfyUI does
    targets: tuple[str, ...] | None


def read_submission(data: dict[str, Any]) -> PromptSubmission:
    """Read the body of POST /prompt. Raises SubmissionError."""
    if "prompt" not in data:
        raise SubmissionError("No prompt provided", "no_prompt", "No prompt provided")
    extra_data = data.get("extra_data", {})
    if not isinstance(extra_data, dict):
        raise SubmissionError(f"extra_data must be an object, not {extra_data!r}.")
    extra_data = dict(extra_data)
    if "client_id" in data:
        extra_data["client_id"] = data["client_id"]
    if "client_id" in extra_data and not isinstance(extra_data["client_id"], str):
        raise SubmissionError(f"client_id must be a string, not {extra_data['client_id']!r}.")
    targets = data.get("partial_execution_targets")
    if targets is not None and not (isinstance(targets, list) and all(isinstance(item, str) for item in targets)):
        raise SubmissionError("partial_execution_targets must be a list of node ids.")
    return PromptSubmission(
        graph=data["prompt"],
        prompt_id=_parse_prompt_id(data.get("prompt_id")),
        number=_parse_number(data["number"]) if "number" in data else None,
        front=bool(data.get("front")),
        extra_data=extra_data,
        targets=None if targets is None else tuple(targets),
    )


def is_canonical_id(value: Any) -> bool:
    """Whether a value is a UUID in the form that ComfyUI takes: lower case, with hyphens."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _parse_prompt_id(value: Any) -> str | None:
    if value is None or is_canonical_id(value):
        return value if value is None else str(value)
    advice = "prompt_id must be a UUID string in canonical lowercase hyphenated form"
    raise SubmissionError(
        "prompt_id must be a valid UUID", "invalid_prompt_id", f"{advice}; omit it to let the server generate one"
    )


def _parse_number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise SubmissionError(f"number must be a number, not {value!r}.")
    return number
