"""Validates a graph before it runs, as ComfyUI does: same order, messages and conversions.

A client gets the same `error` and `node_errors` as from ComfyUI 0.33.0 (measured). In addition, this refuses graphs
that ComfyUI accepts but that then kill its worker thread: an unknown input with a link to a missing node, or a node
without inputs that no output depends on.

`node_inputs.py` checks the inputs of one node. `submission.py` reads the request around the graph.
"""

from __future__ import annotations

import math
import traceback
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.embedded.folders import ServerFolders
from sweeper.embedded.node_inputs import InputValidator, is_link, iter_upstream
from sweeper.embedded.nodes.base import NodeClass

# The validation follows links by recursion, as ComfyUI does, which fails a little below 1,000 of them.
MAX_CHAIN = 800


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """The result of `validate`: `error` is None if at least one output can run, and `outputs` are the ids of those.

    If `error` is None and `node_errors` is not empty, only some of the outputs run, as in ComfyUI.
    """

    error: dict[str, Any] | None
    outputs: tuple[str, ...] = ()
    node_errors: Mapping[str, Any] | None = None


def make_error(kind: str, message: str, details: str = "", **extra_info: Any) -> dict[str, Any]:
    """Make an error in ComfyUI's form."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def validate(
    graph: Any,
    nodes: Mapping[str, NodeClass],
    folders: ServerFolders,
    *,
    targets: Collection[str] | None = None,
    strict_models: bool = False,
) -> ValidationResult:
    """Check a graph, and convert its widget values in place as ComfyUI does ("7" -> 7 for an INT).

    Args:
        graph: the `prompt` of a request, any JSON value.
        nodes: class_type -> node class.
        folders: the folders with the files that inputs name.
        targets: run only these output nodes (`partial_execution_targets`); None: all.
        strict_models: refuse model file names that the loaders do not list.

    """
    if graph == []:  # ComfyUI treats it like `{}`
        graph = {}
    if not isinstance(graph, dict):
        message = f"The prompt must be an object of nodes, not {_describe_json_type(graph)}."
        return ValidationResult(make_error("invalid_prompt", message), (), {})
    outputs: list[str] = []
    for node_id, node in graph.items():
        error = _check_class(node_id, node, nodes)
        if error is not None:
            return ValidationResult(error, (), {})
        if nodes[node["class_type"]].output_node and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return ValidationResult(make_error("prompt_no_outputs", "Prompt has no outputs"), (), {})
    verdict = _GraphValidator(graph, InputValidator(nodes, folders, strict_models)).run(outputs)
    if verdict.error is None:
        error = _find_fatal_error(graph, nodes, verdict.outputs)
        if error is not None:
            return ValidationResult(error, (), {})
    return verdict


def _check_class(node_id: str, node: Any, nodes: Mapping[str, NodeClass]) -> dict[str, Any] | None:
    class_type = node.get("class_type") if isinstance(node, dict) else None
    if isinstance(class_type, str) and class_type in nodes:
        return None
    meta = node.get("_meta") if isinstance(node, dict) else None
    title = meta.get("title") if isinstance(meta, dict) else None
    if not isinstance(node, dict) or "class_type" not in node:
        message = "has no class_type. The workflow may be corrupted or a custom node is missing."
        name = title or f"ID #{node_id}"
    else:
        message = "not found. The custom node may not be installed."
        name = title = class_type if title is None else title
    info = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return make_error("missing_node_type", f"Node '{name}' {message}", f"Node ID '#{node_id}'", **info)


def _describe_json_type(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "a list"}
    return names.get(type(value), "a number")


Reasons = list[dict[str, Any]]


class _GraphValidator:
    """Follows the links from each output upstream, and checks every node once."""

    def __init__(self, graph: dict[str, Any], check: InputValidator) -> None:
        self.graph = graph
        self.check = check
        self.validated: dict[str, tuple[bool, Reasons]] = {}
        self.node_errors: dict[str, Any] = {}
        self._path: list[str] = []  # from the output to the node that is checked now

    def run(self, outputs: list[str]) -> ValidationResult:
        valid_outputs: list[str] = []
        lines: list[str] = []
        for output in outputs:
            try:
                valid, reasons = self._visit(output)
            except Exception as problem:  # noqa: BLE001 - as in ComfyUI, any of them is an error of the graph
                self._path.clear()
                valid, reasons = False, [_make_exception_error("exception_during_validation", problem)]
                self.validated[output] = (valid, reasons)
            if valid:
                valid_outputs.append(output)
                continue
            lines += [f"{reason['message']}: {reason['details']}" for reason in reasons]
            self._record_errors(output)
        if valid_outputs:
            return ValidationResult(None, tuple(valid_outputs), self.node_errors)
        error = make_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(lines))
        return ValidationResult(error, (), self.node_errors)

    def _record_errors(self, output: str) -> None:
        """Add all invalid nodes to the report, also those on which `output` does not depend, as ComfyUI does."""
        for node_id, (valid, reasons) in self.validated.items():
            if valid or not reasons:
                continue
            entry = self.node_errors.setdefault(
                node_id, {"errors": reasons, "dependent_outputs": [], "class_type": self.graph[node_id]["class_type"]}
            )
            entry["dependent_outputs"].append(output)

    def _record_cycle(self, start: str) -> None:
        """Make every node of a cycle invalid: the nodes of the path from `start` on, whose last one is linked to it."""
        cycle = self._path[self._path.index(start) :]
        shown = " -> ".join(f"{node_id} ({self.graph[node_id]['class_type']})" for node_id in (*cycle, start))
        for node_id in cycle:
            info = {"node_id": node_id, "cycle_nodes": cycle}
            error = make_error("dependency_cycle", "Dependency cycle detected", shown, **info)
            self.validated[node_id] = (False, [error])

    def _visit(self, node_id: str) -> tuple[bool, Reasons]:
        """Check one node and all upstream. Returns whether it can run, and its own errors."""
        if node_id in self._path:
            self._record_cycle(node_id)
        if node_id in self.validated:
            return self.validated[node_id]
        if len(self._path) >= MAX_CHAIN:
            raise RecursionError("maximum recursion depth exceeded")
        self._path.append(node_id)
        depth = len(self._path)
        node = self.graph[node_id]
        errors: Reasons = []
        valid = True
        for name, spec, error, upstream in self.check.check_inputs(self.graph, node):
            if error is not None:
                errors.append(error)
            if upstream is None:
                continue
            try:
                upstream_valid, _ = self._visit(upstream)
            except Exception as problem:  # noqa: BLE001 - as in ComfyUI, it becomes an error of the linked node
                del self._path[depth:]
                record = _make_exception_error(
                    "exception_during_inner_validation",
                    problem,
                    input_name=name,
                    input_config=spec,
                    linked_node=node["inputs"][name],
                )
                self.validated[upstream] = (False, [record])
                upstream_valid = False
            valid = valid and upstream_valid
        errors += self.check.check_files(node)
        is_free, cycle_errors = self.validated.get(node_id, (True, []))
        self._path.pop()
        self.validated[node_id] = is_free and valid and not errors, cycle_errors + errors
        return self.validated[node_id]


def _make_exception_error(kind: str, problem: Exception, **extra_info: Any) -> dict[str, Any]:
    inner = kind == "exception_during_inner_validation"
    message = "Exception when validating inner node" if inner else "Exception when validating node"
    if inner:
        extra_info["exception_message"] = str(problem)
    extra_info["exception_type"] = type(problem).__qualname__
    extra_info["traceback"] = traceback.format_tb(problem.__traceback__)
    return make_error(kind, message, str(problem), **extra_info)


def _find_fatal_error(
    graph: dict[str, Any], nodes: Mapping[str, NodeClass], outputs: tuple[str, ...]
) -> dict[str, Any] | None:
    """Find an error that ComfyUI accepts with 200, but that then kills its worker thread until it is restarted.

    Two are known: a node that has no `inputs` although no output depends on it, and an unknown input whose link leads
    to a missing node or output slot.
    """
    for node_id, node in graph.items():
        if not isinstance(node.get("inputs"), dict):
            message = "Cannot execute because a node is missing the inputs property."
            return make_error("invalid_prompt", message, f"Node ID '#{node_id}'")
    for node_id in iter_upstream(graph, outputs):
        node = graph[node_id]
        node_class = nodes[node["class_type"]]
        for name, value in node["inputs"].items():
            if not is_link(value):
                continue
            if value[0] not in graph:
                message = f"Cannot execute because input {name} is linked to node {value[0]}, which does not exist."
                return make_error("invalid_prompt", message, f"Node ID '#{node_id}'", input_name=name)
            unknown = all(name not in group for group in node_class.find_inputs(node["inputs"]))
            slots = len(nodes[graph[value[0]]["class_type"]].outputs)
            if unknown and not (isinstance(value[1], int) and -slots <= value[1] < slots):
                message = f"Cannot execute because input {name} is linked to slot {value[1]}, which does not exist."
                return make_error("invalid_prompt", message, f"Node ID '#{node_id}'", input_name=name)
    return None


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
