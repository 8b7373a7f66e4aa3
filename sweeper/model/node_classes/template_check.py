"""A template against the classes of a server: each value checked once, the rest of the graph once.

Why that says the same as checking every rendered workflow: params decide the values of inputs and nothing else. Node
ids, classes and the names of inputs stand in the template; a value becomes a text, number, truth value or container,
and only as a list `[node id, output]` does it change who links to whom. As long as no value is such a link, the links,
the classes that meet along them and what an output reaches are the template's own, checked once; and what `check` says
of an input depends on that input's value alone, which depends only on the slots that its leaves read: a `Piece`. Where
the value of one input decides which others a node has (dynamic combos), the node is one piece. Values that are links
are told (`Verdict.rewires`) and send `SplitCheck.problems` to the whole graph. A property test holds both ways equal.

A text that composes slots (`"{{ a }}, {{ b }}"`) is a piece of both, so its cost is the product of their values; where
the input takes any text, no value can be wrong and the piece is left out.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from sweeper.did_you_mean import join_names, suggest
from sweeper.model.node_classes.graph_check import GraphCheck, GraphProblem, find_graph_problems
from sweeper.model.node_classes.spec import InputSpec, NodeInfo
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.model.template import MISSING, Address, Leaf, Slot, Template
from sweeper.model.workflow import is_link

_LINK_SCHEMA: Final = {
    "type": "array",
    "prefixItems": [{"type": "string"}, {"type": "integer", "minimum": 0}],
    "minItems": 2,
    "maxItems": 2,
}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a piece says of some params. `rewires`: a value is a link, so only the whole graph can tell."""

    problems: tuple[GraphProblem, ...]
    changes_links: bool


@dataclass(frozen=True, slots=True)
class SlotInputCheck:
    """One input that slots write, or all inputs of a node whose inputs depend on each other.

    `slots` are the names whose values decide it; `verdict` needs params of those only.
    """

    node: str
    inputs: tuple[str, ...]
    slots: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    graph_check: GraphCheck
    covers_node: bool = False

    def check_values(self, params: Mapping[str, Any]) -> CheckResult:
        """Raises ExpressionError where a leaf's expression fails on these values."""
        given = dict(self.graph_check.nodes[self.node]["inputs"])
        for name in {str(leaf.path[2]) for leaf in self.leaves}:
            given[name] = copy.deepcopy(given[name])
        for leaf in self.leaves:
            place: Any = given
            for part in leaf.path[2:-1]:
                place = place[part]
            place[leaf.path[-1]] = copy.deepcopy(leaf.evaluate(params))
        rewires = any(is_link(given[str(leaf.path[2])]) for leaf in self.leaves)
        if self.node not in self.graph_check.reached or self.node not in self.graph_check.specs:
            return CheckResult((), rewires)
        found = [finding for name in self.inputs for finding in self.graph_check.check_input(self.node, name, given)]
        if self.covers_node:
            found = [*self.graph_check.find_missing_inputs(self.node, given), *found]
        return CheckResult(tuple((path, message) for path, message, is_note in found if not is_note), rewires)


@dataclass(frozen=True, slots=True)
class TemplateCheck:
    """A template checked once.

    `static` is wrong whatever the params are, `pieces` are what depends on them. `ignored` are slots that write an
    input which the class does not have: the server takes that silently, and the sweep would show nothing.
    `notes` are what is odd but runs, among them slots that reach no output; `unsaved` are the ends of a workflow that
    saves nothing.
    """

    template: Template
    info: NodeInfo
    fixed_problems: tuple[GraphProblem, ...]
    input_checks: tuple[SlotInputCheck, ...]
    ignored: tuple[GraphProblem, ...]
    notes: tuple[GraphProblem, ...]
    unsaved: tuple[GraphProblem, ...]

    def find_problems(self, params: Mapping[str, Any]) -> list[GraphProblem]:
        """What `graph_problems` says of `template.render(params)`, in another order, at the cost of the pieces.

        Raises ExpressionError where the template cannot be rendered. `ignored` is not in it.
        """
        verdicts = [piece.check_values(params) for piece in self.input_checks]
        if any(verdict.changes_links for verdict in verdicts):
            return self.check_rendered(params)
        return [*self.fixed_problems, *(found for verdict in verdicts for found in verdict.problems)]

    def check_rendered(self, params: Mapping[str, Any]) -> list[GraphProblem]:
        """`graph_problems` of the rendered workflow: the slow way, right also where values are links."""
        return find_graph_problems(
            self.template.render(params), self.info, uploaded=find_upload_addresses(self.template)
        )


def check_template(template: Template, info: NodeInfo) -> TemplateCheck:
    """Check all of the template that no slot decides, and cut the rest into pieces."""
    written = _group_leaves(template)
    check = GraphCheck(_make_skeleton(template), info, find_upload_addresses(template))
    pieces = _make_input_checks(check, written)
    judged = {(piece.node, name) for piece in pieces for name in piece.inputs} | {
        (address.node, address.input) for address in written
    }
    static = list(check.find_structure_problems())
    notes: list[GraphProblem] = []
    for node_id in check.specs:
        reached = node_id in check.reached
        if not reached:
            notes.append(((node_id,), f"{check.describe_node(node_id)}: no output reaches it, so it is not run"))
        given = check.nodes[node_id]["inputs"]
        found = [one for name in given if (node_id, name) not in judged
                 for one in check.check_input(node_id, name, given)]  # fmt: skip
        if not any(piece.node == node_id and piece.covers_node for piece in pieces):
            found = [*check.find_missing_inputs(node_id, given), *found]
        for path, message, is_note in found:
            (notes if is_note or not reached else static).append((path, message))
    return TemplateCheck(
        template,
        info,
        tuple(static),
        pieces,
        ignored=tuple(_find_ignored(template, check)),
        notes=(*notes, *_find_unreached_slots(template, check)),
        unsaved=tuple(check.find_unsaved_outputs()),
    )


def infer_slot_schema(template: Template, slot: str, info: NodeInfo) -> dict[str, Any] | None:
    """The JSON Schema of a slot's values as its addresses take them; None where they take anything, and for files.

    Several addresses must all accept a value. An address where the value is only part of a text or of a computation
    says nothing about it. Where only a link can stand, the schema is that of a link.
    """
    if template.slots[slot].is_file:
        return None
    schemas = []
    for leaf in template.leaves:
        if _is_sole_value(leaf, slot):
            spec = _find_spec(template, info, leaf)
            if spec is not None and spec.schema != {}:
                schemas.append(dict(spec.schema) if spec.schema is not None else _LINK_SCHEMA)
    return _intersect(schemas)


def with_node_schemas(template: Template, info: NodeInfo) -> Template:
    """The template with a schema for every slot that has none of its own; its default normalised by it.

    A default that the schema refuses stays as it is: the check of its piece says so, with its place in the graph.
    """
    slots: dict[str, Slot] = {}
    for name, slot in template.slots.items():
        schema = infer_slot_schema(template, name, info) if not slot.normalise.schema else None
        if schema is not None:
            slot = replace(slot, normalise=SlotSchema(schema))  # noqa: PLW2901 - the slot with its schema
            if slot.default is not MISSING:
                with contextlib.suppress(ValueRefusedError):
                    slot = replace(slot, default=slot.normalise(slot.default))  # noqa: PLW2901 - as above
        slots[name] = slot
    return replace(template, slots=slots)


def find_upload_addresses(template: Template) -> frozenset[Address]:
    """Where files of ours stand: their names are the server's only once they are uploaded."""
    return frozenset(at for slot in template.slots.values() if slot.kind == "file" for at in slot.addresses)


def _group_leaves(template: Template) -> dict[Address, list[Leaf]]:
    """The leaves of each input that slots write."""
    found: dict[Address, list[Leaf]] = {}
    for leaf in template.leaves:
        found.setdefault(Address(str(leaf.path[0]), str(leaf.path[2])), []).append(leaf)
    return found


def _make_skeleton(template: Template) -> dict[str, Any]:
    """The graph without the links that slots overwrite: what else stands at their addresses is never looked at."""
    graph = copy.deepcopy(dict(template.graph))
    for leaf in template.leaves:
        if len(leaf.path) == 3:
            graph[str(leaf.path[0])]["inputs"][leaf.path[2]] = None
    return graph


def _make_input_checks(
    check: GraphCheck, leaves_by_address: Mapping[Address, list[Leaf]]
) -> tuple[SlotInputCheck, ...]:
    found: list[SlotInputCheck] = []
    whole: dict[str, list[Leaf]] = {}
    for address, leaves in leaves_by_address.items():
        spec = check.specs.get(address.node)
        if spec is not None and spec.is_dynamic:
            whole.setdefault(address.node, []).extend(leaves)
        elif not _can_take_any_text(check, address, leaves):
            found.append(SlotInputCheck(address.node, (address.input,), _list_slots(leaves), tuple(leaves), check))
    for node_id, leaves in whole.items():
        inputs = tuple(check.nodes[node_id]["inputs"])
        found.append(SlotInputCheck(node_id, inputs, _list_slots(leaves), tuple(leaves), check, covers_node=True))
    return tuple(found)


def _list_slots(leaves: Iterable[Leaf]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for leaf in leaves for name in leaf.names))


def _can_take_any_text(check: GraphCheck, address: Address, leaves: list[Leaf]) -> bool:
    """Whether the leaf is a text put together (so a text, whatever the params) in an input that takes every text."""
    if len(leaves) != 1 or len(leaves[0].path) != 3:
        return False
    expression = leaves[0].expression
    if expression is None or not _parse_form(expression.text).is_composed:
        return False
    spec = check.specs.get(address.node)
    declared = spec.inputs.get(address.input) if spec is not None else None
    return declared is not None and declared.schema in ({"type": "string"}, {})


@dataclass(frozen=True, slots=True)
class _TextForm:
    """What a text with Jinja2 gives. `composed`: always a text; else the value of one expression, with its own type.
    `alone` is the name whose value that is, as it stands: of `{{ name }}` and `{{ name | default(constant) }}`.
    """

    is_composed: bool
    sole_name: str | None = None


@cache
def _parse_form(text: str) -> _TextForm:
    from jinja2 import Environment, nodes

    # Parsed, never rendered: `expressions` has compiled this text already, and does so by the same rule.
    body = Environment(keep_trailing_newline=True, autoescape=False).parse(text).body  # noqa: S701
    parts = body[0].nodes if len(body) == 1 and isinstance(body[0], nodes.Output) else []
    if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        return _TextForm(is_composed=True)
    inner: Any = parts[0]
    if isinstance(inner, nodes.Filter) and inner.name in ("d", "default") and len(inner.args) == 1 and not inner.kwargs:
        inner = inner.node
    return _TextForm(is_composed=False, sole_name=inner.name if isinstance(inner, nodes.Name) else None)


def _is_sole_value(leaf: Leaf, slot: str) -> bool:
    """Whether the slot's value stands there as it is."""
    if len(leaf.path) != 3:
        return False
    if leaf.expression is None:
        return leaf.slot == slot
    return _parse_form(leaf.expression.text).sole_name == slot


def _find_spec(template: Template, info: NodeInfo, leaf: Leaf) -> InputSpec | None:
    node = template.graph[str(leaf.path[0])]
    spec = info.classes.get(node["class_type"])
    return spec.resolve_inputs(node["inputs"]).get(str(leaf.path[2])) if spec is not None else None


def _intersect(schemas: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What all of them accept. Numbers and choices are merged into one schema, so that values are normalised by its
    `type` and refused with one sentence; anything else is left to `allOf`.
    """
    unique = list({json.dumps(schema, sort_keys=True): schema for schema in schemas}.values())
    if len(unique) < 2:
        return unique[0] if unique else None
    if all(schema.get("type") in ("integer", "number") for schema in unique):
        merged: dict[str, Any] = {
            "type": "integer" if any(schema["type"] == "integer" for schema in unique) else "number"
        }
        for word, innermost in (("minimum", max), ("maximum", min)):
            limits = [schema[word] for schema in unique if word in schema]
            if limits:
                merged[word] = innermost(limits)
        return merged
    if all(set(schema) == {"enum"} for schema in unique):
        common = [[json.dumps(one, sort_keys=True) for one in schema["enum"]] for schema in unique]
        return {"enum": [json.loads(one) for one in common[0] if all(one in other for other in common)]}
    return {"allOf": unique}


def _find_ignored(template: Template, check: GraphCheck) -> Iterable[GraphProblem]:
    for address, leaves in _group_leaves(template).items():
        spec = check.specs.get(address.node)
        if spec is None or spec.can_take_undeclared(address.input):
            continue
        given = check.nodes[address.node]["inputs"]
        if not spec.is_dynamic and address.input not in spec.resolve_inputs(given):
            slots = join_names(_list_slots(leaves))
            message = f"{check.describe_node(address.node)} {address.input}: {slots} would change nothing: "
            message += f"{spec.class_type} has no such input{suggest(address.input, spec.inputs, 'its inputs')}"
            yield (address.node, "inputs", address.input), message


def _find_unreached_slots(template: Template, check: GraphCheck) -> Iterable[GraphProblem]:
    for slot in template.slots.values():
        nodes = {address.node for address in slot.addresses}
        if nodes and not nodes & check.reached:
            yield (), f"slot '{slot.name}' reaches no output: it changes node {', '.join(sorted(nodes))} only"
