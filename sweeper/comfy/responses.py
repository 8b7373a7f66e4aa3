"""Read the JSON that ComfyUI and Comfy Cloud write alike: outputs, validation errors, execution errors. Pure.

Servers are not trusted: these readers ignore a part that does not have the expected shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from sweeper.comfy.protocol import JobOutput, JobState, is_id
from sweeper.comfy.untrusted_json import to_text
from sweeper.errors import EXECUTION_ERROR, MAX_MESSAGE_LENGTH
from sweeper.schemas.values import is_number
from sweeper.wording import shorten

# Files of one job that sweeper downloads. A film of ten minutes saved as single pictures has 15,000.
MAX_OUTPUTS: Final = 20_000
_MAX_PATH_LENGTH: Final = 4096  # characters of a file's name or folder; Linux allows no longer path
_MAX_TIMESTAMP: Final = 1e14  # milliseconds: the year 5138; Python has dates up to the year 9999
_MAX_NODES: Final = 10_000  # of one job; a list of more says nothing
_MAX_NAME_LENGTH: Final = 200  # characters of a node's id, an output's kind and an error's type


def read_outputs(outputs_json: Any) -> tuple[JobOutput, ...]:
    """Every file that a job lists: each record with a `filename`, whatever its kind; see `sort_outputs`."""
    if not isinstance(outputs_json, Mapping):
        return ()
    return sort_outputs(
        output for node, kinds in outputs_json.items() for output in _read_node_outputs(str(node), kinds)
    )


def sort_outputs(outputs: Iterable[JobOutput]) -> tuple[JobOutput, ...]:
    """Outputs by node (numbers numerically), kind and position; at most `MAX_OUTPUTS` + 1 of them.

    The order in which nodes ran depends on the server's cache.
    """
    return tuple(
        sorted(
            islice(outputs, MAX_OUTPUTS + 1),
            key=lambda output: (_natural_sort_key(output.node), output.kind, output.position),
        )
    )


def make_succeeded_state(outputs: tuple[JobOutput, ...], **rest: Any) -> JobState:
    """The state of a job that succeeded. One with more outputs than `MAX_OUTPUTS` counts as failed."""
    if len(outputs) <= MAX_OUTPUTS:
        return JobState("succeeded", outputs, **rest)
    error = (
        f"the job succeeded, but the server lists more than {MAX_OUTPUTS:,} output files; "
        "sweeper downloads none of them, so let the workflow save fewer files"
    )
    return JobState("failed", error_type="TooManyOutputs", error=error, **rest)


def _read_node_outputs(node: str, kinds: Any) -> Iterator[JobOutput]:
    if not isinstance(kinds, Mapping):
        return
    for kind, records in kinds.items():
        if not isinstance(records, list):
            continue
        for position, record in enumerate(records):
            filename = _read_path(record.get("filename")) if isinstance(record, Mapping) else ""
            if filename:
                yield JobOutput(
                    node=node[:_MAX_NAME_LENGTH],
                    kind=str(kind)[:_MAX_NAME_LENGTH],
                    position=position,
                    filename=filename,
                    subfolder=_read_path(record.get("subfolder")),
                    type=_read_path(record.get("type")) or "output",
                )


def _read_path(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_PATH_LENGTH else ""


def _natural_sort_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts numbers by value: by length, then digits, because Python refuses to convert long ones."""
    parts = [part.lstrip("0") if part.isdigit() else part for part in re.split(r"([0-9]+)", text) if part]
    return tuple((0, len(part), part) if not part or part[0] in "123456789" else (1, 0, part) for part in parts)


def rejection_message(answer: Mapping[str, Any], graph: Mapping[str, Any]) -> str | None:
    """Why the server rejected a submission, in words for the user; None if the answer holds no error.

    Uses `node_errors`, because ComfyUI leaves `error.details` empty unless an output node itself is invalid.
    """
    lines = list(_node_error_lines(answer.get("node_errors"), graph))
    if lines:
        return shorten("; ".join(lines), MAX_MESSAGE_LENGTH)
    error = answer.get("error")
    if isinstance(error, Mapping):
        parts = [to_text(error[name]).strip() for name in ("message", "details") if error.get(name)]
        return shorten(" ".join(parts) or to_text(error.get("type") or "rejected without a reason"), MAX_MESSAGE_LENGTH)
    if error:
        return shorten(to_text(error), MAX_MESSAGE_LENGTH)
    return None


def _node_error_lines(node_errors: Any, graph: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(node_errors, Mapping):
        if node_errors:
            yield to_text(node_errors)
        return
    for node, entry in sorted(node_errors.items(), key=lambda item: _natural_sort_key(str(item[0]))):
        kind = entry.get("class_type") if isinstance(entry, Mapping) else None
        kind = to_text(kind or (graph.get(node) or {}).get("class_type") or "?")
        errors = entry.get("errors") if isinstance(entry, Mapping) else None
        errors = errors if isinstance(errors, list) else None
        # The server iterates over a set, so the order varies. Sorted, the same mistake always reads the same.
        for line in sorted(_format_error(error) for error in errors or [{}]):
            yield f"node {node} ({kind}) {line}"


def _format_error(error: Any) -> str:
    if not isinstance(error, Mapping):
        return to_text(error)
    details, message = to_text(error.get("details") or "").strip(), to_text(error.get("message") or "").strip()
    extra = error.get("extra_info")
    name = to_text(extra.get("input_name") or "") if isinstance(extra, Mapping) else ""
    if name and details.startswith(f"{name}:"):
        return details  # "sampler_name: 'nope' not in ['euler', ...]" says it all
    text = f"{message} ({details})" if message and details and details != name else message or details or "is not valid"
    return f"{name}: {text}" if name else text


def make_failed_state(error: Any, **rest: Any) -> JobState:
    """The state of a job whose node failed, from its `execution_error`."""
    details = error if isinstance(error, Mapping) else {"exception_message": error}
    kind = shorten(to_text(details.get("exception_type") or EXECUTION_ERROR), _MAX_NAME_LENGTH)
    message = to_text(details.get("exception_message") or "failed without a reason").strip()
    node, node_type = (shorten(to_text(details.get(name)), _MAX_NAME_LENGTH) for name in ("node_id", "node_type"))
    prefix = f"node {node} ({node_type}): " if details.get("node_id") not in (None, "") else ""
    failed_node = details.get("node_id") if is_id(details.get("node_id")) else None
    text = shorten(f"{prefix}{message}", MAX_MESSAGE_LENGTH)
    return JobState("failed", error_type=kind, error=text, failed_node=failed_node, **rest)


def to_seconds(value: Any) -> float | None:
    """A server's timestamp, in seconds or milliseconds, as seconds since 1970; None if it is not a time."""
    if not is_number(value) or not 0 < value < _MAX_TIMESTAMP:
        return None
    return value / 1000 if value > 1e11 else float(value)  # 1e11 s is the year 5138; 1e11 ms was in 1973


def read_messages(status: Any) -> tuple[str | None, dict[str, Any], float | None, float | None]:
    """Read ComfyUI's `status.messages`: (type of the last message, its data, start, end), times in seconds.

    The last message tells how a job ended. `status_str` does not: it is `error` for an interrupted job too, and may
    still have the value of the previous job if this one failed before any node ran.
    """
    pairs = _list_messages(status)
    if not pairs:
        return None, {}, None, None
    kind, data = pairs[-1]
    return kind, data, to_seconds(pairs[0][1].get("timestamp")), to_seconds(data.get("timestamp"))


def read_node_runs(status: Any) -> dict[str, frozenset[str] | None]:
    """What ComfyUI's `status.messages` say about the nodes of an ended job: `cached` and `executed` of a `JobState`.

    `execution_cached` lists the nodes whose results were in the cache. The message of a job that did not succeed lists
    those that ran to their end, and names the one that was running.
    """
    pairs = _list_messages(status)
    cached = next((_read_ids(data.get("nodes")) for kind, data in pairs if kind == "execution_cached"), None)
    _, last = pairs[-1] if pairs else ("", {})
    executed = _read_ids(last.get("executed"))
    if executed is not None and is_id(last.get("node_id")):
        executed |= {last["node_id"]}
    return {"cached": cached, "executed": executed}


def _list_messages(status: Any) -> list[tuple[str, dict[str, Any]]]:
    messages = status.get("messages") if isinstance(status, Mapping) else None
    return [
        (str(message[0]), message[1])
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict)
    ]


def _read_ids(value: Any) -> frozenset[str] | None:
    return frozenset(filter(is_id, value)) if isinstance(value, list) and len(value) <= _MAX_NODES else None
