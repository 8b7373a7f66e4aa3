"""The request that submits a job: its fields, read strictly.

ComfyUI answers 500 to some of what is refused here, and takes some of it only to die (COMFYUI_BEHAVIOUR, 1.1 and 1.3);
the embedded server says 400 to all of it. The graph inside is `validation.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class SubmissionError(Exception):
    """The request around the graph is wrong; `kind` is ComfyUI's `error.type` where it has one."""

    def __init__(self, message: str, kind: str = "invalid_request", details: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


@dataclass(frozen=True, slots=True)
class PromptSubmission:
    """The fields of POST /prompt."""

    graph: Any
    prompt_id: str | None  # the client's own
    number: float | None  # the client's own place in the queue
    front: bool
    extra_data: dict[str, Any]  # with `client_id` merged in, as ComfyUI keeps it
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
        prompt_id=_parse_prompt_id(data["prompt_id"]) if "prompt_id" in data else None,
        number=_parse_number(data["number"]) if "number" in data else None,
        front=bool(data.get("front")),
        extra_data=extra_data,
        targets=None if targets is None else tuple(targets),
    )


def _parse_prompt_id(value: Any) -> str:
    """Any scalar becomes text, as in ComfyUI: 7 -> "7", null -> "None"."""
    if isinstance(value, dict | list):
        raise SubmissionError("prompt_id must be a string.")
    return str(value)


def _parse_number(value: Any) -> float:
    if isinstance(value, str | int | float):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            pass
        else:
            if number == number and abs(number) != float("inf"):  # noqa: PLR0124 - not NaN
                return number
    raise SubmissionError(f"number must be a number, not {value!r}.")
