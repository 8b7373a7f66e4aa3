"""Read the JSON that ComfyUI and Comfy Cloud write alike: outputs, validation errors, execution errors. Pure.

Servers are not trusted: these readers ignore a part that does not have the expected shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.comfy.protocol import JobOutput, JobState
from sweeper.errors import EXECUTION_ERROR


def read_outputs(outputs_json: Any) -> tuple[JobOutput, ...]:
    """Every file that a job lists: each record with a `filename`, whatever its kind.

    Sorted by node (numbers numerically), kind and position, because the order in which nodes ran depends on the
    server's cache.
    """
    if not isinstance(outputs_json, Mapping):
        return ()
    outputs = [output for node, kinds in outputs_json.items() for output in _read_node_outputs(str(node), kinds)]
    return tuple(sorted(outputs, key=lambda output: (_natural_sort_key(output.node), output.kind, output.position)))


def _read_node_outputs(node: str, kinds: Any) -> Iterator[JobOutput]:
    if not isinstance(kinds, Mapping):
        return
    for kind, records in kinds.items():
        if not isinstance(records, list):
            continue
        for position, record in enumerate(records):
            if isinstance(record, Mapping) and isinstance(record.get("filename"), str) and record["filename"]:
                subfolder, category = record.get("subfolder"), record.get("type")
                yield JobOutput(
                    node=node,
                    kind=str(kind),
                    position=position,
                    filename=record["filename"],
                    subfolder=subfolder if isinstance(subfolder, str) else "",
                    type=category if isinstance(category, str) and category else "output",
                )


def _natural_sort_key(text: str) -> tuple[tuple[int, int, str], ...]:
    return tuple(
        (0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", text)
        if part
    )


def rejection_message(answer: Mapping[str, Any], graph: Mapping[str, Any]) -> str | None:
    """Why the server rejected a submission, in words for the user; None if the answer holds no error.

    Uses `node_errors`, because ComfyUI leaves `error.details` empty unless an output node itself is invalid.
    """
    lines = list(_node_error_lines(answer.get("node_errors"), graph))
    if lines:
        return "; ".join(lines)
    error = answer.get("error")
    if isinstance(error, Mapping):
        parts = [str(error[name]).strip() for name in ("message", "details") if error.get(name)]
        return " ".join(parts) or str(error.get("type") or "rejected without a reason")
    if error:
        return str(error)
    return None


def _node_error_lines(node_errors: Any, graph: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(node_errors, Mapping):
        if node_errors:
            yield str(node_errors)
        return
    for node, entry in sorted(node_errors.items(), key=lambda item: _natural_sort_key(str(item[0]))):
        kind = entry.get("class_type") if isinstance(entry, Mapping) else None
        kind = kind or (graph.get(node) or {}).get("class_type") or "?"
        errors = entry.get("errors") if isinstance(entry, Mapping) else None
        # The server iterates over a set, so the order varies. Sorted, the same mistake always reads the same.
        for line in sorted(_format_error(error) for error in errors or [{}]):
            yield f"node {node} ({kind}) {line}"


def _format_error(error: Any) -> str:
    if not isinstance(error, Mapping):
        return str(error)
    details, message = str(error.get("details") or "").strip(), str(error.get("message") or "").strip()
    extra = error.get("extra_info")
    name = extra.get("input_name") if isinstance(extra, Mapping) else None
    if name and details.startswith(f"{name}:"):
        return details  # "sampler_name: 'nope' not in ['euler', ...]" says it all
    text = f"{message} ({details})" if message and details and details != name else message or details or "is not valid"
    return f"{name}: {text}" if name else text


def make_failed_state(error: Any, **rest: Any) -> JobState:
    """The state of a job whose node failed, from an `execution_error` of either dialect."""
    details = error if isinstance(error, Mapping) else {"exception_message": str(error or "failed without a reason")}
    kind = str(details.get("exception_type") or EXECUTION_ERROR)
    message = str(details.get("exception_message") or "failed without a reason").strip()
    node, node_type = details.get("node_id"), details.get("node_type")
    prefix = f"node {node} ({node_type}): " if node not in (None, "") else ""
    return JobState("failed", error_type=kind, error=f"{prefix}{message}", **rest)


def to_seconds(value: Any) -> float | None:
    """A server's timestamp, in seconds or milliseconds, as seconds since 1970; None if it is not a time."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return value / 1000 if value > 1e11 else float(value)  # 1e11 s is the year 5138; 1e11 ms was in 1973


def read_messages(status: Any) -> tuple[str | None, dict[str, Any], float | None, float | None]:
    """Read ComfyUI's `status.messages`: (type of the last message, its data, start, end), times in seconds.

    The last message tells how a job ended. `status_str` does not: it is `error` for an interrupted job too, and may
    still have the value of the previous job if this one failed before any node ran.
    """
    messages = status.get("messages") if isinstance(status, Mapping) else None
    pairs = [
        (message[0], message[1])
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict)
    ]
    if not pairs:
        return None, {}, None, None
    kind, data = pairs[-1]
    return str(kind), data, to_seconds(pairs[0][1].get("timestamp")), to_seconds(data.get("timestamp"))
