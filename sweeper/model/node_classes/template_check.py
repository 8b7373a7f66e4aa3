"""Check a template against the node classes of a server: each value once, and the rest of the graph once.

The result is the same as if every rendered workflow were checked, because params only change the values of inputs. Node
ids, classes and the names of inputs are fixed by the template. A value changes the links only if it is itself a link, a
list `[node id, output]`. If no value is a link, the links, their types and the nodes that outputs depend on are fixed
too, so they are checked once. The check of an input then depends only on its own value, and the value depends only on
the slots that its leaves read. A `SlotInputCheck` is this check of one input. If the value of one input decides which
other inputs a node has (a dynamic combo), all inputs of the node are checked together. A node that only some branches
link to is checked as if it always ran; `sweeper.planning.compatibility` leaves out branches that no trial chooses.

If a value is a link, `SlotInputCheck.check_values` says so, and `TemplateCheck.find_problems` checks the whole rendered
graph. A property test compares both ways.

A text that combines slots (`"{{ a }}, {{ b }}"`) depends on both, so the number of its values is a product. If the
input accepts any text, no value can be wrong, and the check is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sweeper.model.node_classes.graph_check import Finding, GraphCheck, GraphProblem, find_graph_problems
from sweeper.model.node_classes.spec import NodeInfo
from sweeper.model.template import Address, Leaf, Template, drop_unchosen_inputs, set_at_path
from sweeper.model.workflow import is_link
from sweeper.wording import join_names, suggest

UNCHECKED: Final = "read by the file's own names; not checked"  # of classes that nobody knew


@dataclass(frozen=True, slots=True)
class SlotInputCheck:
    """The check of one input with slots; or if `input` is None, of all inputs of a node, which depend on each other.

    `slots` are the slots whose values decide the result: `check_values` needs params only for them.
    """

    node: str
    input: str | None
    slots: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    graph_check: GraphCheck
    template: Template

    def check_values(self, params: Mapping[str, Any]) -> tuple[tuple[GraphProblem, ...], bool]:
        """Return the problems with these params, and whether a value is a link, so the whole graph must be checked.

        Raises ExpressionError if an expression fails on them.
        """
        values = dict(self.graph_check.graph[self.node]["inputs"])
        for name in {str(leaf.path[2]) for leaf in self.leaves if len(leaf.path) > 3}:
            values[name] = copy.deepcopy(values[name])
        for leaf in self.leaves:
            set_at_path(values, leaf.path[2:], copy.deepcopy(leaf.evaluate(params)))
        changes_links = any(is_link(values[str(leaf.path[2])]) for leaf in self.leaves)
        drop_unchosen_inputs(values, self.template.branches.get(self.node, {}))
        if self.node not in self.graph_check.reached or self.node not in self.graph_check.specs:
            return (), changes_links
        if self.input is None:
            findings = self.graph_check.check_node(self.node, values)
        else:
            findings = self.graph_check.check_input(self.node, self.input, values)
        return tuple((path, message) for path, message, is_note in findings if not is_note), changes_links


@dataclass(frozen=True, slots=True)
class TemplateCheck:
    """The check of a template.

    `fixed_problems` do not depend on params; `input_checks` find those that do. `ignored` are slots of an input that
    the class does not have: the server accepts it silently, and a sweep would show no difference. `notes` say what is
    odd but runs, such as slots that no output depends on. `unsaved` are the output nodes of a workflow that saves no
    file.
    """

    template: Template
    info: NodeInfo
    fixed_problems: tuple[GraphProblem, ...]
    input_checks: tuple[SlotInputCheck, ...]
    ignored: tuple[GraphProblem, ...]
    notes: tuple[GraphProblem, ...]
    unsaved: tuple[GraphProblem, ...]

    def check_rendered(self, params: Mapping[str, Any]) -> list[GraphProblem]:
        """Render the workflow and check all of it. This is slow, but also correct if values are links."""
        graph, uploaded = self.template.render(params), find_upload_addresses(self.template)
        return find_graph_problems(graph, self.info, uploaded=uploaded)


def check_template(template: Template, info: NodeInfo) -> TemplateCheck:
    """Check everything that does not depend on slots, and prepare a check for each input that does."""
    leaves_by_address: dict[Address, list[Leaf]] = {}
    for leaf in template.leaves:
        leaves_by_address.setdefault(Address(str(leaf.path[0]), str(leaf.path[2])), []).append(leaf)
    graph_check = GraphCheck(_make_skeleton(template), info, find_upload_addresses(template))
    input_checks = _make_input_checks(graph_check, template, leaves_by_address)
    checked_nodes = {input_check.node for input_check in input_checks if input_check.input is None}
    fixed_problems = list(graph_check.find_structure_problems())
    notes = list(graph_check.find_stand_ins())
    # The links of the file count too: if a node is bypassed in some trials, its output is a link in all others.
    reached = graph_check.reached | GraphCheck(_make_skeleton(template, keep_links=True), info).reached
    unchecked = [name for name in template.unchecked if name not in info.classes]
    if unchecked:
        notes.append(((), f"{UNCHECKED}: {join_names(unchecked)}; a target that has them checks them"))
    for node_id in graph_check.specs:
        is_reached = node_id in graph_check.reached
        if node_id not in reached:
            description = graph_check.describe_node(node_id)
            notes.append(((node_id,), f"{description}: not connected to an output node, so it will not run"))
        values = graph_check.graph[node_id]["inputs"]
        fixed = [name for name in values if Address(node_id, name) not in leaves_by_address]
        findings: Iterable[Finding] = () if node_id in checked_nodes else graph_check.check_node(node_id, values, fixed)
        for path, message, is_note in findings:
            (notes if is_note or not is_reached else fixed_problems).append((path, message))
    notes += _find_unreached_slots(template, reached)
    ignored = _find_ignored(leaves_by_address, graph_check)
    unsaved = tuple(graph_check.find_unsaved_outputs())
    return TemplateCheck(template, info, tuple(fixed_problems), input_checks, tuple(ignored), tuple(notes), unsaved)


def infer_slot_schema(template: Template, slot: str, info: NodeInfo) -> Mapping[str, Any] | None:
    """Return the JSON Schema of the first input that receives the value of a slot unchanged.

    None if there is none, or for a link; also for a file.
    """
    for leaf in () if template.slots[slot].is_file else template.leaves:
        if len(leaf.path) == 3 and slot == (leaf.slot if leaf.expression is None else leaf.expression.sole_name):
            spec = info.find_input(template.graph, str(leaf.path[0]), str(leaf.path[2]))
            return None if spec is None else spec.schema
    return None


def find_upload_addresses(template: Template) -> frozenset[Address]:
    """Return the addresses of local files, whose names exist on the server only after the upload."""
    return frozenset(address for slot in template.slots.values() if slot.kind == "file" for address in slot.addresses)


def _make_skeleton(template: Template, *, keep_links: bool = False) -> dict[str, Any]:
    """Return the graph with null where a slot replaces a whole input, so that no link is left there.

    It lacks the inputs of branches that no slot can choose. `keep_links`: it has the links that a slot replaces.
    """
    graph = copy.deepcopy(dict(template.graph))
    for leaf in template.leaves:
        inputs = graph[str(leaf.path[0])]["inputs"] if len(leaf.path) == 3 else {}
        if inputs and not (keep_links and is_link(inputs.get(leaf.path[2]))):
            inputs[leaf.path[2]] = None
    for node_id, branches in template.branches.items():
        drop_unchosen_inputs(graph[node_id]["inputs"], branches)
    return graph


def _make_input_checks(
    graph_check: GraphCheck, template: Template, leaves_by_address: Mapping[Address, list[Leaf]]
) -> tuple[SlotInputCheck, ...]:
    groups: dict[tuple[str, str | None], list[Leaf]] = {}
    for address, leaves in leaves_by_address.items():
        spec = graph_check.specs.get(address.node)
        if spec is not None and spec.is_dynamic:
            groups.setdefault((address.node, None), []).extend(leaves)
        elif not _can_take_any_text(graph_check, address, leaves):
            groups[address.node, address.input] = leaves
    return tuple(
        SlotInputCheck(node, name, _list_slots(leaves), tuple(leaves), graph_check, template)
        for (node, name), leaves in groups.items()
    )


def _list_slots(leaves: Iterable[Leaf]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for leaf in leaves for name in leaf.names))


def _can_take_any_text(graph_check: GraphCheck, address: Address, leaves: list[Leaf]) -> bool:
    """Whether the input accepts every text and its value is always a text."""
    expression = leaves[0].expression
    if len(leaves) != 1 or len(leaves[0].path) != 3 or expression is None or not expression.is_text:
        return False
    spec = graph_check.specs.get(address.node)
    input_spec = spec.inputs.get(address.input) if spec is not None else None
    return input_spec is not None and input_spec.schema in ({"type": "string"}, {})


def _find_ignored(leaves_by_address: Mapping[Address, list[Leaf]], graph_check: GraphCheck) -> Iterable[GraphProblem]:
    for address, leaves in leaves_by_address.items():
        spec = graph_check.specs.get(address.node)
        if spec is None or spec.can_take_undeclared(address.input):
            continue
        values = graph_check.graph[address.node]["inputs"]
        if address.input not in spec.resolve_inputs(values) and not spec.find_branches(address.input):
            slots = join_names(_list_slots(leaves))
            message = f"{graph_check.describe_node(address.node)} {address.input}: {slots} would change nothing: "
            message += f"{spec.class_type} has no such input{suggest(address.input, spec.inputs, 'its inputs')}"
            yield (address.node, "inputs", address.input), message


def _find_unreached_slots(template: Template, reached: Collection[str]) -> Iterable[GraphProblem]:
    for slot in template.slots.values():
        nodes = {address.node for address in slot.addresses}
        if nodes.isdisjoint(reached) and nodes:
            message = f"slot '{slot.name}' has no effect: no output depends on node {', '.join(sorted(nodes))}"
            yield (), message
