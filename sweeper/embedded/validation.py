"""Validates a graph before it runs, as ComfyUI 0.33.0 does (measured): same order, messages and conversions.

Like ComfyUI, it does not enforce `step`, converts numeric strings to numbers, and ignores unknown inputs. It is safer
in what kills a worker thread of ComfyUI (an unknown input with a link to a missing node, or a node without inputs that
no output depends on), in FLOATs that are not finite, and in model file names that lead out of their folder.
"""

from __future__ import annotations

import math
import traceback
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.embedded.folders import ServerFolders, is_unsafe_name
from sweeper.embedded.nodes import InputSpec, NodeClass, add_choices, list_choices

MAX_CHAIN = 800  # nodes in a row; ComfyUI fails a little below 1,000


def make_error(kind: str, message: str, details: str = "", **extra_info: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


class SubmissionError(Exception):
    """A submission is refused; `kind` is ComfyUI's `error.type` if it has one for this case. `body` is the answer."""

    def __init__(
        self, message: str, kind: str = "invalid_request", details: str = "", *, node_errors: Any = None, **info: Any
    ) -> None:
        super().__init__(message)
        self.body = {"error": make_error(kind, message, details, **info), "node_errors": node_errors or {}}


@dataclass(eq=False)
class GraphValidator:
    """Follows the links from each output upstream, and checks every node once.

    `graph` may be any JSON value. `strict_models`: a model name must be in the list of its loader. `any_option`: other
    lists take any text, because a newer server may have it.
    """

    graph: Any
    nodes: Mapping[str, NodeClass]
    folders: ServerFolders
    strict_models: bool
    any_option: bool

    def __post_init__(self) -> None:
        self.errors: dict[str, list[dict[str, Any]]] = {}  # of each node that was reached
        self._good: dict[str, dict[str, Any]] = {}  # the graph of these nodes, with nothing but their good links
        self._specs: dict[str, tuple[dict[str, InputSpec], dict[str, InputSpec]]] = {}

    def run(self, targets: Collection[str] | None) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Check the graph, and convert its widget values in place as ComfyUI does ("7" -> 7 for an INT).

        `targets`: run only these output nodes; None: all. Returns the ids of the outputs that can run, and the errors
        of the nodes for which others cannot, as in ComfyUI. Raises SubmissionError if none can run.
        """
        valid, lines = [], []
        node_errors: dict[str, Any] = {}
        for output in self._list_outputs(targets):
            self._walk(output)
            # A node with a link to one that was not checked has an error.
            if not any(self.errors[node_id] for node_id in iter_upstream(self._good, [output])):
                valid.append(output)
                continue
            lines += [f"{error['message']}: {error['details']}" for error in self.errors[output]]
            for node_id, errors in self.errors.items():
                if errors:  # as in ComfyUI, also for nodes on which this output does not depend
                    class_type = self.graph[node_id]["class_type"]
                    entry = {"errors": errors, "dependent_outputs": [], "class_type": class_type}
                    node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
        if not valid:
            message, kind = "Prompt outputs failed validation", "prompt_outputs_failed_validation"
            raise SubmissionError(message, kind, "\n".join(lines), node_errors=node_errors)
        self._refuse_fatal_errors(valid)
        return tuple(valid), node_errors

    def _list_outputs(self, targets: Collection[str] | None) -> list[str]:
        """The output nodes to run. Raises SubmissionError without any, and for a node without a known class."""
        if not isinstance(self.graph, dict) and self.graph != []:  # ComfyUI treats it like `{}`
            names = {type(None): "null", bool: "a boolean", str: "a string", list: "a list"}
            kind = names.get(type(self.graph), "a number")
            raise SubmissionError(f"The prompt must be an object of nodes, not {kind}.", "invalid_prompt")
        outputs = []
        for node_id, node in dict(self.graph).items():
            _check_class(node_id, node, self.nodes)
            if self.nodes[node["class_type"]].output_node and (targets is None or node_id in targets):
                outputs.append(node_id)
        if not outputs:
            raise SubmissionError("Prompt has no outputs", "prompt_no_outputs")
        return outputs

    def _walk(self, output: str) -> None:
        """Check an output and all nodes upstream of it that no other output has reached."""
        path = {output: iter(self._check_node(output))} if output not in self.errors else {}
        while path:
            node_id, links = next(reversed(path.items()))
            link = next(links, None)
            if link is None:
                del path[node_id]
            elif (source := link[3][0]) in path:
                ids = list(path)
                self._record_cycle(ids[ids.index(source) :])
            elif source not in self.errors and len(path) < MAX_CHAIN:
                path[source] = iter(self._check_node(source, link))
            elif source not in self.errors:
                self.errors[node_id].append(make_error("graph_too_deep", f"More than {MAX_CHAIN} nodes in a row"))

    def _check_node(self, node_id: str, link: CheckedInput | None = None) -> list[CheckedInput]:
        """Check the inputs of a node, to which this link led. Returns its own good links."""
        node = self.graph[node_id]
        errors: list[dict[str, Any]] = []
        links: list[CheckedInput] = []
        try:
            for checked in self._check_inputs(node):
                errors += [checked[2]] if checked[2] is not None else []
                links += [checked] if checked[3] is not None else []
            errors += self._check_files(node)
        except Exception as problem:  # noqa: BLE001 - as in ComfyUI, any of them is an error of the graph
            errors = [_make_exception_error(problem, link)]
        self.errors[node_id] = errors
        self._good[node_id] = {"inputs": {name: value for name, _, _, value in links}}
        return links

    def _record_cycle(self, cycle: list[str]) -> None:
        """Make every node of a cycle invalid."""
        shown = " -> ".join(f"{node_id} ({self.graph[node_id]['class_type']})" for node_id in (*cycle, cycle[0]))
        for node_id in cycle:
            info = {"node_id": node_id, "cycle_nodes": cycle}
            self.errors[node_id].insert(0, make_error("dependency_cycle", "Dependency cycle detected", shown, **info))

    def _load_specs(self, node_class: NodeClass, inputs: Any) -> tuple[dict[str, InputSpec], dict[str, InputSpec]]:
        """(required, optional) of a node with these inputs; live lists are read once."""
        if node_class.select_inputs is not None:
            return node_class.load_input_specs(self.folders, inputs if isinstance(inputs, dict) else {})
        if node_class.name not in self._specs:
            self._specs[node_class.name] = node_class.load_input_specs(self.folders)
        return self._specs[node_class.name]

    def _check_inputs(self, node: dict[str, Any]) -> Iterator[CheckedInput]:
        """Check each input of the class, and convert values in place.

        Raises KeyError, IndexError or TypeError for a broken link, where ComfyUI does.
        """
        node_class = self.nodes[node["class_type"]]
        inputs: Any = node["inputs"]
        if not hasattr(inputs, "__contains__"):  # in a list or a string, each input counts as missing
            raise TypeError(f"argument of type '{type(inputs).__name__}' is not iterable")
        required, optional = self._load_specs(node_class, inputs)
        for name, spec in (*required.items(), *optional.items()):
            if name not in inputs:
                if name in required:
                    message = "Required input is missing"
                    yield name, spec, make_error("required_input_missing", message, name, input_name=name), None
                continue
            value = inputs[name]  # TypeError if `inputs` is not an object
            if isinstance(value, list):
                error = self._check_link(name, spec, value)
                yield name, spec, error, None if error else value
            else:
                yield name, spec, self._check_value(node_class, inputs, name, spec), None

    def _check_value(
        self, node_class: NodeClass, inputs: dict[str, Any], name: str, spec: InputSpec
    ) -> dict[str, Any] | None:
        """Convert `inputs[name]` in place, then check its bounds or its list; those of files are checked elsewhere."""
        value = inputs[name]
        any_file = name in node_class.models and not self.strict_models
        if self.any_option and isinstance(value, str) and not any_file:
            spec = add_choices(spec, (value,))
        kind, options = spec
        try:
            if isinstance(value, dict) and "__value__" in value:
                value = inputs[name] = value["__value__"]
            if isinstance(kind, str) and kind in _CONVERSIONS:
                value = inputs[name] = _CONVERSIONS[kind](value)
        except (TypeError, ValueError, OverflowError, AttributeError) as problem:
            return make_error(
                "invalid_input_type",
                f"Failed to convert an input value to a {kind} value",
                f"{name}, {value}, {problem}",
                input_name=name,
                input_config=spec,
                received_value=value,
                exception_message=str(problem),
            )
        if name in node_class.input_files:
            return None
        is_number = isinstance(value, int | float)
        received = str(value) if is_number and not math.isfinite(value) else value  # JSON has no infinity
        info = {"input_name": name, "input_config": spec, "received_value": received}
        if is_number and "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            return make_error("value_smaller_than_min", message, name, **info)
        if is_number and "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            return make_error("value_bigger_than_max", message, name, **info)
        if received is not value:
            reason = "not a finite number"
            message = f"Failed to convert an input value to a {kind} value"
            details = f"{name}, {value}, {reason}"
            return make_error("invalid_input_type", message, details, **info, exception_message=reason)
        choices = list_choices(spec)
        if choices is not None and (is_unsafe_name(value) if any_file else value not in choices):
            is_long = len(choices) > MAX_LISTED
            info["input_config"] = None if is_long else spec
            listed = f"(list of length {len(choices)})" if is_long else str(choices)
            return make_error("value_not_in_list", "Value not in list", f"{name}: {value!r} not in {listed}", **info)
        return None

    def _check_link(self, name: str, spec: InputSpec, value: list[Any]) -> dict[str, Any] | None:
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            info = {"input_name": name, "input_config": spec, "received_value": value}
            return make_error("bad_linked_input", message, name, **info)
        source = self.nodes[self.graph[value[0]]["class_type"]]
        received = source.outputs[value[1]]
        if _are_types_compatible(received, spec[0]):
            return None
        return make_error(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            f"{name}, received_type({received}) mismatch input_type({spec[0]})",
            input_name=name,
            input_config=spec,
            received_type=received,
            linked_node=value,
        )

    def _check_files(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        """VALIDATE_INPUTS of the loaders: one error for each input that names a file that is not there."""
        inputs = node["inputs"] if isinstance(node["inputs"], dict) else {}
        text = "Custom validation failed for node"
        return [
            make_error(
                "custom_validation_failed", text, f"{name} - Invalid {kind} file: {inputs[name]}", input_name=name
            )
            for name, kind in self.nodes[node["class_type"]].input_files.items()
            if name in inputs and not is_link(inputs[name]) and self.folders.find_input(inputs[name]) is None
        ]

    def _refuse_fatal_errors(self, outputs: list[str]) -> None:
        """Raise SubmissionError for what ComfyUI accepts, but what then kills its worker thread until it is restarted.

        That is a node that has no `inputs` although no output depends on it, and an unknown input whose link leads to
        a missing node or output slot.
        """
        for node_id, node in self.graph.items():
            if not isinstance(node.get("inputs"), dict):
                message = "Cannot execute because a node is missing the inputs property."
                raise SubmissionError(message, "invalid_prompt", f"Node ID '#{node_id}'")
        for node_id in iter_upstream(self.graph, outputs):
            for name, value in self.graph[node_id]["inputs"].items():
                if is_link(value):
                    source = self.graph.get(value[0])
                    slots = 0 if source is None else len(self.nodes[source["class_type"]].outputs)
                    if not (isinstance(value[1], int) and -slots <= value[1] < slots):
                        message = f"Cannot execute because input {name} is linked to {value}, which does not exist."
                        raise SubmissionError(message, "invalid_prompt", f"Node ID '#{node_id}'", input_name=name)


def _check_class(node_id: str, node: Any, nodes: Mapping[str, NodeClass]) -> None:
    class_type = node.get("class_type") if isinstance(node, dict) else None
    if isinstance(class_type, str) and class_type in nodes:
        return
    meta = node.get("_meta") if isinstance(node, dict) else None
    title = meta.get("title") if isinstance(meta, dict) else None
    if not isinstance(node, dict) or "class_type" not in node:
        message = "has no class_type. The workflow may be corrupted or a custom node is missing."
        name = title or f"ID #{node_id}"
    else:
        message = "not found. The custom node may not be installed."
        name = title = class_type if title is None else title
    info = {"node_id": node_id, "class_type": class_type, "node_title": title}
    raise SubmissionError(f"Node '{name}' {message}", "missing_node_type", f"Node ID '#{node_id}'", **info)


def _make_exception_error(problem: Exception, link: CheckedInput | None) -> dict[str, Any]:
    info: dict[str, Any] = {
        "exception_type": type(problem).__qualname__,
        "traceback": traceback.format_tb(problem.__traceback__),
    }
    if link is None:
        return make_error("exception_during_validation", "Exception when validating node", str(problem), **info)
    name, spec, _, value = link
    info |= {"input_name": name, "input_config": spec, "linked_node": value, "exception_message": str(problem)}
    message = "Exception when validating inner node"
    return make_error("exception_during_inner_validation", message, str(problem), **info)


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
    prompt_id = data.get("prompt_id")
    if prompt_id is not None and not is_canonical_id(prompt_id):
        advice = "prompt_id must be a UUID string in canonical lowercase hyphenated form"
        raise SubmissionError(
            "prompt_id must be a valid UUID", "invalid_prompt_id", f"{advice}; omit it to let the server generate one"
        )
    return PromptSubmission(
        graph=data["prompt"],
        prompt_id=prompt_id,
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


def _parse_number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise SubmissionError(f"number must be a number, not {value!r}.")
    return number


# --- the inputs of one node ------------------------------------------------------------------------------------------

# An error message shows longer lists as "(list of length 21)".
MAX_LISTED = 20

# (name, spec, error or None, and of a good link: [id of the node that must be checked too, output slot])
CheckedInput = tuple[str, InputSpec, dict[str, Any] | None, Any]


def is_link(value: Any) -> bool:
    """Whether a value is a link `[node id, output slot]`, as ComfyUI's `graph_utils.is_link` decides."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def list_sources(node: Mapping[str, Any]) -> list[str]:
    """The ids of the nodes to which the inputs of a node are linked."""
    return [value[0] for value in node["inputs"].values() if is_link(value)]


def iter_upstream(graph: Mapping[str, Any], starts: Iterable[str]) -> Iterator[str]:
    """These nodes and all upstream of them, each once."""
    pending, visited = list(starts), set(starts)
    while pending:
        node_id = pending.pop()
        yield node_id
        sources = set(list_sources(graph[node_id])) - visited
        visited |= sources
        pending += sources


_CONVERSIONS: dict[str, Any] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def _are_types_compatible(received: Any, expected: Any) -> bool:
    """ComfyUI's `validate_node_input`: equal types, "*" for any type, or unions "A,B" with a common member."""
    if received == expected or "*" in (received, expected):
        return True
    if not isinstance(received, str) or not isinstance(expected, str):
        return False
    return bool({kind.strip() for kind in received.split(",")} & {kind.strip() for kind in expected.split(",")})
