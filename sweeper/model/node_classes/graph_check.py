"""Check one concrete workflow against the node classes of a server.

`find_graph_problems` finds what the server would refuse, silently change, or fail on. What is odd but runs, is noted.

The check is stricter than a ComfyUI server where the server is lax at the user's cost (measured on ComfyUI 0.33.0):

- The server cuts 4.9 to 4 for an INT, and takes "false" for true in a BOOLEAN.
- It does not check the option of a dynamic combo, the types of a match template, a text in place of a link, or an
  undeclared input that is linked, such as one of a branch that is not chosen. The node fails at run time.
- An undeclared input with a link to a missing node ends the worker thread (ComfyUI 0.3.64), so that no job runs until a
  restart.

The check is as lax as the server where strictness would refuse workflows that run. Nodes that no output reaches, and
undeclared literals, only give notes; "7" fits an INT, 7 a STRING, and 1 a BOOLEAN.

Not checked: what a class checks itself in VALIDATE_INPUTS, and `step`, which no server enforces.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import MAX_OF_A_KIND
from sweeper.model.node_classes.spec import ANY, PAGE_FIELDS, InputSpec, NodeInfo, NodeSpec, OutputType, can_link
from sweeper.model.template import Address
from sweeper.model.workflow import Graph, find_cycle, find_upstream, is_link, iter_links, join_cycle
from sweeper.schemas import make_validator
from sweeper.schemas.values import KeyPath, format_value
from sweeper.wording import count_things, find_nearest, join_names, suggest

if TYPE_CHECKING:
    from sweeper.schemas.validator import SchemaValidator

GraphProblem = tuple[KeyPath, str]  # the path in the graph, and a sentence
Finding = tuple[KeyPath, str, bool]  # the path, a sentence, and whether it is only a note

_VALUE_KEY: Final = "__value__"  # ComfyUI reads a list under this key as a value, and any other list as a link
# Output nodes that only show a result, as text or in temporary files (ComfyUI 0.33.0). Any other output node counts as
# one that saves, because nothing in a class declaration says so.
_TEXT_PREVIEW: Final = "PreviewAny"  # writes no file
PREVIEW_CLASSES: Final = {_TEXT_PREVIEW, "ImageCompare", "LossGraphNode", "MaskPreview", "PreviewAudio", "PreviewImage"}
_UNSAVED_MESSAGE: Final = "it only shows its result, and no node of the workflow saves one; add a node that saves"
_KEEP_PREVIEWS_HINT: Final = ", such as SaveImage, or keep previews with `--keep-temp` or `run: {keep_temp: true}`"
_WHERE_TO_CHECK: Final = "against your server with --target, or --object-info FILE"
STAND_IN_MEANING: Final = "each of their inputs changes the picture, but not as in the real node"
_BRANCHES_HINT: Final = "list under `branches` in the slots file which inputs each choice has"
_LINK_SYNTAX: Final = 'a link is written ["node id", output], a list as a value {"__value__": [...]}'
_MAX_FLOAT: Final = int(1.7976931348623157e308)
_MAX_EXACT: Final = 2**53  # the largest integer below which a float holds each one


def find_graph_problems(graph: Graph, info: NodeInfo, *, uploaded: Collection[Address] = ()) -> list[GraphProblem]:
    """Return the reasons not to send the graph to that server, as (path, sentence) pairs in the order of the graph.

    The graph has the right shape (`find_shape_problems`), and its numbers are finite. `uploaded` are the addresses of
    files that are uploaded before the job, so that the server need not have them yet.
    """
    check = GraphCheck(graph, info, uploaded)
    problems = list(check.find_structure_problems())
    for node_id in check.specs:
        if node_id in check.reached:
            findings = check.check_node(node_id, graph[node_id]["inputs"])
            problems += [(path, message) for path, message, is_note in findings if not is_note]
    return problems


def find_value_problem(spec: InputSpec, value: Any, *, uploaded: bool = False) -> str | None:
    """Return why a literal does not fit its input, or None. `value` may be wrapped as `{"__value__": ...}`."""
    if isinstance(value, Mapping) and _VALUE_KEY in value and not spec.branches:
        value = value[_VALUE_KEY]
    if isinstance(value, str) and value in spec.names:  # a schema would compare each of thousands of names
        return None
    value = _convert_losslessly(spec.type, value)
    if spec.schema is None:
        needed = f"a link to {'an' if spec.type[:1] in 'AEIO' else 'a'} {spec.type} output is needed"
        may_be_null = not spec.required and not spec.is_grown  # then it is as if the input were not given
        return None if value is None and may_be_null else f"found {format_value(value)}, but {needed}"
    if uploaded and isinstance(value, str):
        types = spec.schema.get("type")
        takes_text = spec.schema == {} or "string" in ([types] if isinstance(types, str) else types or ())
        return None if spec.choices is not None or takes_text else f"found a file, but {spec.type} is needed"
    if spec.is_upload and isinstance(value, str) and value:
        return _find_file_problem(spec, value)
    if spec.choices == () and "enum" in spec.schema:
        return f"found {format_value(value)}, but the server offers nothing to choose from here: its list is empty"
    if reasons := _get_validator(json.dumps(spec.schema)).list_reasons(value):
        return "; ".join(reasons)
    if spec.type == "FLOAT" and isinstance(value, int) and abs(value) > _MAX_FLOAT:
        return f"found {format_value(value)}, which is too large for a number"
    return None


def _convert_losslessly(kind: str, value: Any) -> Any:
    """Return what the server makes of a literal of another type if nothing of it is lost, else the literal."""
    try:
        if kind == "INT" and isinstance(value, str):
            return int(value)
        is_long = isinstance(value, int) and abs(value) > _MAX_EXACT
        if kind == "FLOAT" and (isinstance(value, str) or is_long):  # a long integer is rounded, maybe over the limit
            return number if math.isfinite(number := float(value)) else value
    except (ValueError, OverflowError):
        return value
    if kind == "STRING" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return bool(value) if kind == "BOOLEAN" and value in (0, 1) else value


@lru_cache(maxsize=4096)
def _get_validator(schema: str) -> SchemaValidator:
    return make_validator(json.loads(schema))


def _find_file_problem(spec: InputSpec, value: str) -> str | None:
    """Check the name of a file in the server's upload folder.

    The server lists only the top of that folder. `a/b.png` and `b.png [output]` (ComfyUI's annotated paths) are in
    other folders, so only the server knows whether they exist.
    """
    choices = spec.choices or ()
    if spec.options.get("file_upload"):
        return None  # it lists a subfolder, and takes files from the folder above too
    if spec.choices is None or value in choices or "/" in value or "\\" in value or value.endswith("]"):
        return None
    if not choices:
        return f"found {format_value(value)}, but the server has no file for this input yet; give it as a file slot"
    return f"found {format_value(value)}, which is not on the server{suggest(value, choices, 'there are')}"


class GraphCheck:
    """The check of one graph, whose links are followed once. `template_check` uses it for parts of a graph.

    `specs` are the declarations of the nodes whose class the server has, `reached` the ids of the nodes that an output
    depends on.
    """

    def __init__(self, graph: Graph, info: NodeInfo, uploaded: Collection[Address] = ()) -> None:
        self.graph = graph
        self.info = info
        self.uploaded = frozenset(uploaded)
        self._refused = Counter[Address]()  # values of each input, the first of which get advice
        kinds = {node_id: node["class_type"] for node_id, node in graph.items()}
        self.specs = {node_id: info.classes[kind] for node_id, kind in kinds.items() if kind in info.classes}
        self.reached = self._find_reached()

    def find_unsaved_outputs(self) -> list[GraphProblem]:
        """Return the output nodes with advice if none of them saves a file; nothing if one does."""
        output_ids = [node_id for node_id, spec in self.specs.items() if spec.is_output]
        if not all(self.graph[node_id]["class_type"] in PREVIEW_CLASSES for node_id in output_ids):
            return []
        problems: list[GraphProblem] = []
        for node_id in output_ids:
            hint = "" if self.graph[node_id]["class_type"] == _TEXT_PREVIEW else _KEEP_PREVIEWS_HINT
            problems.append(((node_id,), f"{self.describe_node(node_id)}: {_UNSAVED_MESSAGE}{hint}"))
        return problems

    def describe_node(self, node_id: str) -> str:
        return f"node {node_id} ({self.graph[node_id]['class_type']})"

    def find_structure_problems(self) -> Iterator[GraphProblem]:
        """Yield the errors that do not depend on literals: unknown classes, no output, a cycle."""
        if not self.info.is_embedded:
            yield from self.find_unknown_classes()
        if len(self.specs) == len(self.graph) and not any(spec.is_output for spec in self.specs.values()):
            yield (), "no node is an output (SaveImage, PreviewImage, ...), so the server would have nothing to run"
        cycle = find_cycle({node_id: node for node_id, node in self.graph.items() if node_id in self.reached})
        if cycle:
            yield (cycle[0],), f"these nodes link in a cycle: {join_cycle(cycle)}"
        # In nodes of unknown classes also links to missing nodes; `check_input` finds them in other nodes.
        for node_id, node in self.graph.items():
            for name, source, _ in iter_links(node) if node_id not in self.specs else ():
                if source not in self.graph:
                    message = f"{self.describe_node(node_id)} {name}: {self._describe_dangling_link(source)}"
                    yield (node_id, "inputs", name), message

    def find_unknown_classes(self) -> Iterator[GraphProblem]:
        """Yield the nodes whose class the server lacks. The embedded server runs them, so there they are only notes."""
        for node_id, node in self.graph.items():
            if node["class_type"] not in self.info.classes:
                yield (node_id, "class_type"), f"node {node_id}: {self._explain_unknown_class(node['class_type'])}"

    def find_stand_ins(self) -> Iterator[GraphProblem]:
        """Note which classes the server only imitates, and at its node each name that may be a typo."""
        names = {self.graph[node_id]["class_type"] for node_id, spec in self.specs.items() if spec.is_stand_in}
        unknown = set()
        if self.info.is_embedded:
            for path, message in self.find_unknown_classes():
                class_type = self.graph[str(path[0])]["class_type"]
                if self.info.find_misspelt(class_type) is not None:
                    yield path, message
                else:
                    unknown.add(class_type)
        if names or unknown:
            advice = f"; check them {_WHERE_TO_CHECK}" if unknown else ""
            yield (), f"stand-ins run {join_names(sorted(names | unknown))}: {STAND_IN_MEANING}{advice}"

    def _explain_unknown_class(self, class_type: str) -> str:
        nearest = self.info.find_misspelt(class_type)
        found = f"the {'embedded ' if self.info.is_embedded else ''}server has no class '{class_type}'"
        question = f"{found}; did you mean '{nearest}'?"
        if self.info.is_embedded:
            return f"{question} A stand-in draws for it; check it {_WHERE_TO_CHECK}"
        if nearest is not None:
            return f"{question} If it is a custom node, install it on that server"
        return f"{found}; if it is a custom node, install it on that server, else update the server"

    def check_node(
        self, node_id: str, values: Mapping[str, Any], names: Iterable[str] | None = None
    ) -> Iterator[Finding]:
        """Check a node with these values: whether inputs are missing, and those of these `names` (None: all)."""
        yield from self.find_missing_inputs(node_id, values)
        for name in values if names is None else names:
            yield from self.check_input(node_id, name, values)

    def find_missing_inputs(self, node_id: str, values: Mapping[str, Any]) -> Iterator[Finding]:
        node_spec = self.specs[node_id]
        declared = node_spec.resolve_inputs(values)
        undeclared = [name for name in values if name not in declared and not node_spec.find_branches(name)]
        for name, spec in declared.items():
            if spec.required and name not in values:
                parent = name.rpartition(".")[0]
                if spec.branches and parent in values:
                    continue  # a server asks for no combo of a branch: old files have none (measured on 0.33.0)
                advice = f"(to sweep {parent!r}, {_BRANCHES_HINT})"
                reason = f"; {parent} '{values[parent]}' needs it {advice}" if parent in values else ""
                nearest = find_nearest(name, undeclared)
                found = f"; found '{nearest}', which the class does not have" if nearest else ""
                is_filled = self.info.is_embedded and not nearest and "default" in spec.options
                if is_filled:
                    found = f"; the embedded server takes {format_value(spec.options['default'])}, a ComfyUI refuses it"
                message = f"{self.describe_node(node_id)}: the required input '{name}' is missing{reason}{found}"
                yield (node_id, "inputs"), message, is_filled

    def check_input(self, node_id: str, name: str, values: Mapping[str, Any]) -> Iterator[Finding]:
        path: KeyPath = (node_id, "inputs", name)
        prefix = f"{self.describe_node(node_id)} {name}: "
        value = values[name]
        node_spec = self.specs[node_id]
        spec = node_spec.resolve_inputs(values).get(name)
        is_note = False
        message: str | None
        if spec is None:
            message, is_note = self._check_undeclared(node_spec, name, value, values)
        elif isinstance(value, list):  # ComfyUI reads every list as a link (execution.py, validate_inputs)
            message = self._explain_link_problem(spec, value)
        else:
            address = Address(node_id, name)
            is_choice = bool(spec.names) and "enum" in (spec.schema or {}) and address not in self.uploaded
            is_unlisted = is_choice and isinstance(value, str) and value not in spec.names
            if is_unlisted and self._refused[address] > MAX_OF_A_KIND:
                message = f"found {format_value(value)}"  # to find the nearest of thousands of names takes 0.2 s
            else:
                message = find_value_problem(spec, value, uploaded=address in self.uploaded)
            self._refused[address] += message is not None
        if message:
            yield path, prefix + message, is_note

    def _explain_link_problem(self, spec: InputSpec, value: list[Any]) -> str:
        if len(value) != 2:
            return f"found a list of {len(value)}, which the server reads as a broken link; {_LINK_SYNTAX}"
        if not is_link(value):
            return f"{json.dumps(value, ensure_ascii=False, default=str)[:80]} is not a link; {_LINK_SYNTAX}"
        source, output = value
        if source not in self.graph:
            return self._describe_dangling_link(source)
        if spec.branches:
            return f"found a link, but the server needs the value here; write one of: {join_names(spec.branches)}"
        if source not in self.specs:
            return ""  # its class is unknown, which another problem reports
        outputs = self.specs[source].outputs
        if not 0 <= output < len(outputs):
            output_count = f"has {count_things(len(outputs), 'output')}, counted from 0"
            return f"links to output {output} of {self.describe_node(source)}, which {output_count}"
        received = self._find_output_type(source, output)
        if not can_link(received, spec):
            received = received if isinstance(received, str) else "a choice of options"
            wanted = spec.type if not spec.is_legacy_combo else "one of its options"
            return f"links to output {output} of {self.describe_node(source)}, which is {received}; {wanted} is needed"
        return ""

    def _find_output_type(
        self, node_id: str, output: int, visited: frozenset[tuple[str, int]] = frozenset()
    ) -> OutputType:
        """Return the type of an output. An output of a match template has the types that the template's inputs get."""
        spec = self.specs[node_id]
        template = spec.output_templates[output] if output < len(spec.output_templates) else ""
        if not template:
            return spec.outputs[output]
        types: list[str] = []
        values = self.graph[node_id]["inputs"]
        for name, input_spec in spec.resolve_inputs(values).items():
            value = values.get(name)
            if input_spec.match_template == template and name in values:
                known = is_link(value) and value[0] in self.specs and tuple(value) not in visited
                if not known or not 0 <= value[1] < len(self.specs[value[0]].outputs):
                    return ANY
                received = self._find_output_type(value[0], value[1], visited | {(node_id, output)})
                types += [received if isinstance(received, str) else ANY]
        return ",".join(types) or ANY

    def _describe_dangling_link(self, source: str) -> str:
        return f"links to node {source}, which is not in the workflow; its nodes: {join_names(self.graph)}"

    def _check_undeclared(
        self, node_spec: NodeSpec, name: str, value: Any, values: Mapping[str, Any]
    ) -> tuple[str, bool]:
        """Check an input that the class does not declare. Return a sentence (or "") and whether it is only a note."""
        is_linked = is_link(value)
        if is_linked and value[0] not in self.graph:
            return f"{self._describe_dangling_link(value[0])}; for an undeclared input that stops the server", False
        if node_spec.can_take_undeclared(name) or (name in PAGE_FIELDS and not is_linked):
            return "", True
        declared = node_spec.resolve_inputs(values)
        branches = [f"{combo} '{option}'" for combo, option in node_spec.find_branches(name)]
        if branches:
            message = f"belongs to {join_names(branches)}, which {'is' if len(branches) == 1 else 'are'} not chosen"
            if is_linked:
                return f"{message}, so its link makes the node fail; leave it out, or {_BRANCHES_HINT}", False
        else:
            message = f"{node_spec.class_type} has no such input"
        if is_linked:
            return f"{message}, so its link makes the node fail{suggest(name, declared, 'its inputs')}", False
        nearest = find_nearest(name, [other for other in declared if other not in values]) if not branches else None
        hint = f"; {_BRANCHES_HINT}" if branches else f"; did you mean {nearest!r}?" if nearest else ""
        return f"{message}, so the server ignores it{hint}", True

    def _find_reached(self) -> frozenset[str]:
        """Return the ids of the nodes that an output depends on. A node of an unknown class may be an output."""
        outputs = [node_id for node_id in self.graph if node_id not in self.specs or self.specs[node_id].is_output]
        seen = find_upstream(self.graph, outputs)
        # If a link leads to a missing node, the graph is incomplete: check every node now and not after the repair.
        sources = (source for node_id in seen for _, source, _ in iter_links(self.graph[node_id]))
        return seen if all(source in self.graph for source in sources) else frozenset(self.graph)
