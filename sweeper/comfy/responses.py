"""What servers of both dialects write alike: outputs, validation errors, execution errors. Pure readers of JSON.

Servers are not trusted here: a part of an unexpected shape is passed over, never followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.comfy.protocol import JobOutput, JobState
from sweeper.errors import EXECUTION_ERROR


def read_outputs(outputs_json: Any) -> tuple[JobOutput, ...]:
    """Every file that a job names: any list of records with a `filename`, under any kind.

    Sorted by node (numbers as numbers), kind and place: the order in which nodes ran is an accident of the cache.
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
    """Why a submission was refused, for people, or None where the answer holds no error.

    Built from `node_errors`: `error.details` is empty in all but a few cases (COMFYUI_BEHAVIOUR.md 1.1).
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
    for node, found in sorted(node_errors.items(), key=lambda item: _natural_sort_key(str(item[0]))):
        kind = found.get("class_type") if isinstance(found, Mapping) else None
        kind = kind or (graph.get(node) or {}).get("class_type") or "?"
        errors = found.get("errors") if isinstance(found, Mapping) else None
        # The order inside a node is an accident of a set on the server; sorted, the same mistake reads the same.
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
    told = f"{message} ({details})" if message and details and details != name else message or details or "is not valid"
    return f"{name}: {told}" if name else told


def make_failed_state(error: Any, **rest: Any) -> JobState:
    """The state of a job whose node failed, from an `execution_error` of either dialect."""
    found = error if isinstance(error, Mapping) else {"exception_message": str(error or "failed without a reason")}
    kind = str(found.get("exception_type") or EXECUTION_ERROR)
    message = str(found.get("exception_message") or "failed without a reason").strip()
    node, node_type = found.get("node_id"), found.get("node_type")
    where = f"node {node} ({node_type}): " if node not in (None, "") else ""
    return JobState("failed", error_type=kind, error=f"{where}{message}", **rest)


def to_seconds(value: Any) -> float | None:
    """A time of the server's as seconds since 1970: it may come in seconds or in milliseconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return value / 1000 if value > 1e11 else float(value)  # 1e11 s is the year 5138; 1e11 ms was in 1973


def read_messages(status: Any) -> tuple[str | None, dict[str, Any], float | None, float | None]:
    """ComfyUI's `status.messages`: (last word, its data, start, end).

    The last message decides, not `status_str`: an interrupted job says `error` too (COMFYUI_BEHAVIOUR.md 3.2, 9).
    """
    messages = status.get("messages") if isinstance(status, Mapping) else None
    pairs = [
        (message[0], message[1])
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict)
    ]
    if not pairs:
        return None, {}, None, None
    word, data = pairs[-1]
    return str(word), data, to_seconds(pairs[0][1].get("timestamp")), to_seconds(data.get("timestamp"))
