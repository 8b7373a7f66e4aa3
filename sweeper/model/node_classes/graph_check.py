"""One concrete workflow against the classes of a server: what it would refuse, silently change, or fail on.

`graph_problems` finds what must not be sent, `graph_notes` what is only odd. Stricter than the server where the server
is lax at the user's cost (COMFYUI_BEHAVIOUR, sections 1.1 to 1.3): options of new-style combos, "7" for an INT, "false"
for a BOOLEAN, a text where a link belongs, inputs that end its worker thread. As lax as the server where strictness
would refuse workflows that run: what no output reaches is only noted, and so is an undeclared literal.

Not seen from here: what a class checks itself (VALIDATE_INPUTS), and `step`, which no server enforces.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sweeper.did_you_mean import join_names, suggest
from sweeper.model.node_classes.spec import InputSpec, NodeInfo, NodeSpec, can_link
from sweeper.model.source import KeyPath
from sweeper.model.template import Address
from sweeper.model.workflow import find_cycle, is_link, iter_links
from sweeper.schemas import explain_error, format_value, make_validator

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

GraphProblem = tuple[KeyPath, str]  # where in the graph, and a sentence
Finding = tuple[KeyPath, str, bool]  # the same, and whether it is only a note

_TYPO_CUTOFF: Final = (
    0.8  # difflib's ratio from which an undeclared name is a misspelt one: 'stpes' for 'steps' has 0.8
)
_VALUE_KEY: Final = "__value__"  # the key under which ComfyUI takes a list as a value and not as a link
_PREVIEW_PREFIX: Final = (
    "Preview"  # how the classes begin that only show, in files that the server throws away or in words
)
_TEXT_PREVIEW: Final = "PreviewAny"  # the one that shows words, of which there is no file
_UNSAVED_MESSAGE: Final = "it only shows its result, and no node of the workflow saves one: add a node that saves"
_KEEP_PREVIEWS_HINT: Final = ", such as SaveImage, or keep previews with `--keep-temp` or `run: {keep_temp: true}`"
_LINK_SYNTAX: Final = 'a link is written ["node id", output], a list as a value {"__value__": [...]}'


def find_graph_problems(graph: Any, info: NodeInfo, *, uploaded: Collection[Address] = ()) -> list[GraphProblem]:
    """Everything for which this graph must not be sent to that server: (path, sentence) pairs, in the graph's order.

    `uploaded` are the addresses whose file is uploaded before the job: there the server's list of files is not asked.
    """
    return GraphCheck(graph, info, uploaded).find_problems()


def find_graph_notes(graph: Any, info: NodeInfo, *, uploaded: Collection[Address] = ()) -> list[GraphProblem]:
    """What is odd but runs: nodes that no output reaches, what is wrong in them, inputs that the server ignores."""
    return GraphCheck(graph, info, uploaded).find_notes()


def find_value_problem(spec: InputSpec, value: Any, *, uploaded: bool = False) -> str | None:
    """Why a literal does not fit its input, or None. `value` may be wrapped as `{"__value__": ...}`."""
    if isinstance(value, Mapping) and _VALUE_KEY in value:
        value = value[_VALUE_KEY]
    if spec.schema is None:
        return f"found {format_value(value)}, but a link to {_pick_article(spec.type)} {spec.type} output is needed"
    if uploaded and isinstance(value, str):
        return None if spec.choices is not None or _is_text_input(spec) else f"found a file, but {spec.type} is needed"
    for number in _iter_floats(value):
        if not math.isfinite(number):
            return f"found {number}, but a finite number is needed"
    if spec.is_upload and isinstance(value, str) and value:
        return _find_file_problem(spec, value)
    if spec.choices == () and "enum" in spec.schema:
        return f"found {format_value(value)}, but the server offers nothing to choose from here: its list is empty"
    errors = list(_get_validator(json.dumps(spec.schema)).iter_errors(value))
    if errors:
        return "; ".join(dict.fromkeys(explain_error(error) for error in errors))
    if spec.type == "FLOAT" and isinstance(value, int) and abs(value) > _MAX_FLOAT:
        return f"found {format_value(value)}, which is too large for a number"
    return None


_MAX_FLOAT: Final = int(1.7976931348623157e308)


@lru_cache(maxsize=4096)
def _get_validator(schema: str) -> Validator:
    return make_validator(json.loads(schema))


def _find_file_problem(spec: InputSpec, value: str) -> str | None:
    """A name out of the server's upload folder. Its list is the folder's top; `a/b.png` and `b.png [output]`
    (ComfyUI's annotated paths) lie elsewhere, and only the server can tell.
    """
    choices = spec.choices or ()
    if spec.choices is None or value in choices or "/" in value or "\\" in value or value.endswith("]"):
        return None
    if not choices:
        return f"found {format_value(value)}, but the server has no file for this input yet; give it as a file slot"
    return f"found {format_value(value)}, which is not on the server{suggest(value, choices, 'there are')}"


def _is_text_input(spec: InputSpec) -> bool:
    kinds = (spec.schema or {}).get("type")
    return spec.schema == {} or kinds == "string" or (isinstance(kinds, list) and "string" in kinds)


def _iter_floats(value: Any) -> Iterator[float]:
    """Every float in a JSON value; integers are always finite."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _iter_floats(one)
    elif isinstance(value, list):
        for one in value:
            yield from _iter_floats(one)


def _pick_article(word: str) -> str:
    return "an" if word[:1] in "AEIO" else "a"


class GraphCheck:
    """One graph, its links followed once. `node_findings` and `input_findings` look at parts of it for `split`."""

    def __init__(self, graph: Any, info: NodeInfo, uploaded: Collection[Address] = ()) -> None:
        self.graph: Mapping[str, Any] = graph if isinstance(graph, Mapping) else {}
        self.info = info
        self.uploaded = frozenset(uploaded)
        # The nodes that can be looked into, and those of them whose class the server has.
        self.nodes = {node_id: node for node_id, node in self.graph.items() if _is_node(node)}
        self.specs: dict[str, NodeSpec] = {
            node_id: info.classes[node["class_type"]]
            for node_id, node in self.nodes.items()
            if node["class_type"] in info.classes
        }
        self.reached = self._find_reached()

    def find_problems(self) -> list[GraphProblem]:
        """Everything that must not be sent."""
        found = list(self.find_structure_problems())
        for node_id in self.specs:
            if node_id in self.reached:
                found += [(path, message) for path, message, is_note in self.check_node(node_id) if not is_note]
        return found

    def find_notes(self) -> list[GraphProblem]:
        """What is odd but runs."""
        found: list[GraphProblem] = []
        for node_id in self.specs:
            reached = node_id in self.reached
            if not reached:
                found.append(((node_id,), f"{self.describe_node(node_id)}: no output reaches it, so it is not run"))
            findings = self.check_node(node_id)
            found += [(path, message) for path, message, is_note in findings if is_note or not reached]
        return found

    def find_unsaved_outputs(self) -> list[GraphProblem]:
        """The output nodes of a graph none of which saves a file, each with what to do; none where one does."""
        ends = [node_id for node_id, spec in self.specs.items() if spec.is_output]
        if not all(self.nodes[node_id]["class_type"].startswith(_PREVIEW_PREFIX) for node_id in ends):
            return []
        words = ["" if self.nodes[node_id]["class_type"] == _TEXT_PREVIEW else _KEEP_PREVIEWS_HINT for node_id in ends]
        return [
            ((node_id,), f"{self.describe_node(node_id)}: {_UNSAVED_MESSAGE}{more}")
            for node_id, more in zip(ends, words, strict=True)
        ]

    def describe_node(self, node_id: str) -> str:
        """`node 3 (KSampler)`, as every sentence begins."""
        return f"node {node_id} ({self.nodes[node_id]['class_type']})"

    def find_structure_problems(self) -> Iterator[GraphProblem]:
        """What does not depend on any literal: broken nodes, unknown classes, no output, a circle."""
        for node_id, node in self.graph.items():
            if node_id in self.nodes:
                class_type = node["class_type"]
                if class_type not in self.info.classes:
                    message = f"node {node_id}: the server has no class '{class_type}'"
                    yield (node_id, "class_type"), message + suggest(class_type, self.info.classes, "it has")
            elif not isinstance(node, Mapping):
                yield (node_id,), f"node {node_id}: found {format_value(node)}, but a node is needed"
            elif not isinstance(node.get("class_type"), str):
                yield (node_id,), f"node {node_id}: the key 'class_type' is missing or no text"
            else:
                message = f"node {node_id} ({node['class_type']}): the key 'inputs' is missing or no mapping"
                yield (node_id,), message + "; it may be empty, but without it the server stops working"
        if len(self.specs) == len(self.graph) and not any(spec.is_output for spec in self.specs.values()):
            yield (), "no node is an output (SaveImage, PreviewImage, ...), so the server would have nothing to run"
        circle = find_cycle({node_id: node for node_id, node in self.nodes.items() if node_id in self.reached})
        if circle:
            yield (circle[0],), f"these nodes link in a circle: {' -> '.join(circle)}"
        yield from self._find_crashing_links()

    def _find_crashing_links(self) -> Iterator[GraphProblem]:
        """Links to nowhere in what cannot be looked up; every other link is `input_findings`' business."""
        for node_id, node in self.nodes.items():
            if node_id not in self.specs:
                for name, source, _ in iter_links(node):
                    if source not in self.graph:
                        yield (
                            (node_id, "inputs", name),
                            f"{self.describe_node(node_id)} {name}: {self._describe_dangling_link(source)}",
                        )

    def check_node(self, node_id: str) -> list[Finding]:
        """What is wrong with the inputs of a node."""
        given = self.nodes[node_id]["inputs"]
        found = list(self.find_missing_inputs(node_id, given))
        for name in given:
            found += self.check_input(node_id, name, given)
        return found

    def find_missing_inputs(self, node_id: str, given: Mapping[str, Any]) -> Iterator[Finding]:
        """The required inputs that a node holding `given` lacks."""
        for name, spec in self.specs[node_id].resolve_inputs(given).items():
            if spec.required and name not in given:
                yield (
                    (node_id, "inputs"),
                    f"{self.describe_node(node_id)}: the required input '{name}' is missing",
                    False,
                )

    def check_input(self, node_id: str, name: str, given: Mapping[str, Any]) -> Iterator[Finding]:
        """What is wrong with one input of a node that holds the values `given`."""
        path: KeyPath = (node_id, "inputs", name)
        where = f"{self.describe_node(node_id)} {name}: "
        value = given[name]
        node_spec = self.specs[node_id]
        spec = node_spec.resolve_inputs(given).get(name)
        if spec is None:
            message, is_note = self._check_undeclared(node_spec, name, value, given)
            if message:
                yield path, where + message, is_note
        elif isinstance(value, list):  # ComfyUI takes every list for a link (execution.py, validate_inputs)
            message = self._explain_link_problem(spec, value)
            if message:
                yield path, where + message, False
        else:
            problem = find_value_problem(spec, value, uploaded=Address(node_id, name) in self.uploaded)
            if problem:
                yield path, where + problem, False

    def _explain_link_problem(self, spec: InputSpec, value: list[Any]) -> str:
        if len(value) != 2:
            return f"found a list of {len(value)}, which the server takes for a broken link; {_LINK_SYNTAX}"
        if not is_link(value):
            return f"{json.dumps(value, ensure_ascii=False, default=str)[:80]} is no link; {_LINK_SYNTAX}"
        source, place = value
        if source not in self.graph:
            return self._describe_dangling_link(source)
        if source not in self.specs:
            return ""  # its class is unknown, and said to be so
        outputs = self.specs[source].outputs
        if not 0 <= place < len(outputs):
            has = f"has {len(outputs)} output{'' if len(outputs) == 1 else 's'}, counted from 0"
            return f"links to output {place} of {self.describe_node(source)}, which {has}"
        if not can_link(outputs[place], spec):
            received = outputs[place] if isinstance(outputs[place], str) else "a choice of options"
            wanted = spec.type if not spec.is_legacy_combo else "one of its options"
            return f"links to output {place} of {self.describe_node(source)}, which is {received}; {wanted} is needed"
        return ""

    def _describe_dangling_link(self, source: str) -> str:
        return f"links to node {source}, which is not in the workflow; its nodes: {join_names(self.graph)}"

    def _check_undeclared(
        self, node_spec: NodeSpec, name: str, value: Any, given: Mapping[str, Any]
    ) -> tuple[str, bool]:
        """An input that the class does not declare: (sentence or nothing, whether it is only a note)."""
        linked = is_link(value)
        if linked and value[0] not in self.graph:
            return f"{self._describe_dangling_link(value[0])}; for an undeclared input that stops the server", False
        if any(not math.isfinite(number) for number in _iter_floats(value)):
            return "holds a number that is not finite, which is no JSON", False
        if node_spec.can_take_undeclared(name):
            return "", True
        declared = node_spec.resolve_inputs(given)
        if linked:
            message = f"{node_spec.class_type} has no such input, so its link makes the node fail"
            return message + suggest(name, declared, "its inputs"), False
        absent = [one for one in declared if one not in given]
        near = difflib.get_close_matches(name, absent, n=1, cutoff=_TYPO_CUTOFF)
        if near:
            return f"{node_spec.class_type} has no such input; did you mean '{near[0]}'?", False
        return f"{node_spec.class_type} has no such input, so the server ignores it", True

    def _find_reached(self) -> frozenset[str]:
        """The nodes whose work ends in an output: an output node, or one of an unknown class, that may be one."""
        waiting = [node_id for node_id in self.nodes if node_id not in self.specs or self.specs[node_id].is_output]
        seen: set[str] = set()
        while waiting:
            node_id = waiting.pop()
            if node_id not in seen and node_id in self.nodes:
                seen.add(node_id)
                waiting += [source for _, source, _ in iter_links(self.nodes[node_id])]
        # A link to nowhere should have led somewhere: rather look at every node now than in a second round.
        lost = any(source not in self.graph for node_id in seen for _, source, _ in iter_links(self.nodes[node_id]))
        return frozenset(self.nodes) if lost else frozenset(seen)


def _is_node(node: Any) -> bool:
    return (
        isinstance(node, Mapping) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    )
