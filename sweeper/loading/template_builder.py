"""Build a Template from a workflow and the slots file beside it (the sidecar), and find every mistake in them.

The addresses of a slot come from `at` in the slots file (by node id, title or class) or from Jinja2 in the strings of
the workflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from sweeper.errors import MAX_PROBLEMS, Problem, TemplateError
from sweeper.model.expressions import ExpressionError, compile_text, has_jinja
from sweeper.model.result import RESERVED_COLUMNS
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.model.source import Source
from sweeper.model.template import MISSING, Address, Leaf, ModelFile, Slot, Template
from sweeper.model.workflow import Graph, find_shape_problems, is_link
from sweeper.schemas import find_schema_problems
from sweeper.schemas.values import InvalidSchemaError, KeyPath, format_value
from sweeper.wording import join_names, shorten, suggest


def build_template(workflow: Source, sidecar: Source | None = None) -> Template:
    """Build the Template. Raises TemplateError with every problem of both files."""
    problems = [workflow.make_problem(path, message) for path, message in find_shape_problems(workflow.value)]
    if sidecar is not None:
        found = find_schema_problems("slots", sidecar.value)
        problems += [sidecar.make_problem(path, message) for path, message in found]
    if problems:
        raise TemplateError(problems)
    builder = _TemplateBuilder(workflow, sidecar)
    template = builder.build()
    if builder.problems:
        raise TemplateError(builder.problems)
    return template


class _TemplateBuilder:
    def __init__(self, workflow: Source, sidecar: Source | None) -> None:
        self.workflow = workflow
        self.sidecar = sidecar
        self.declared: Mapping[str, Any] = sidecar.value if sidecar is not None else {}
        self.graph: Graph = workflow.value
        self.problems: list[Problem] = []
        self.branches: dict[str, dict[str, Mapping[str, tuple[str, ...]]]] = {}
        self.sidecar_addresses: dict[str, tuple[Address, ...]] = {}  # the addresses of `at`, by slot
        self.branch_inputs: dict[str, set[str]] = {}  # by node, all inputs of `branches`
        self.indexes: dict[tuple[str, ...], Mapping[tuple[Any, ...], list[str]]] = {}  # of `index_nodes`
        self.leaves_of: dict[str, list[Leaf]] = {}  # those in the workflow, by the slots that they read

    def build(self) -> Template:
        self.read_branches()
        inline_leaves = list(self.find_inline_leaves())
        for leaf in inline_leaves:
            for name in leaf.names:
                self.leaves_of.setdefault(name, []).append(leaf)
        rules_by_name = self.declared.get("slots", {})
        slots = {name: self.make_declared_slot(name, rules or {}) for name, rules in rules_by_name.items()}
        for name, leaves in self.leaves_of.items():
            if name not in slots:
                default = _find_inline_default(name, leaves)
                slots[name] = Slot(name, _list_addresses(leaves), SlotSchema(None), default)
        for name, slot in slots.items():
            if name in RESERVED_COLUMNS:
                add = self.add_slot_problem if slot.path else self.add_problem
                add(slot.path, f"a slot cannot be named '{name}': the table has a column of that name")
        sidecar_leaves = self.make_sidecar_leaves(slots, inline_leaves)
        self.check_files(slots, inline_leaves)
        slots, mask_of = self.attach_masks(slots)
        leaves = sorted([*inline_leaves, *sidecar_leaves], key=lambda leaf: [str(key) for key in leaf.path])
        masks = [next((mask_of[name] for name in leaf.names if name in mask_of), None) for leaf in leaves]
        return Template(
            file=self.workflow.name,
            graph=self.graph,
            slots=slots,
            leaves=tuple(replace(leaf, mask=mask) for leaf, mask in zip(leaves, masks, strict=True)),
            description=str(self.declared.get("description", "")),
            models=tuple(ModelFile(**item) for item in self.declared.get("models", ())),
            branches=self.branches,
            unchecked=tuple(self.declared.get("unchecked", ())),
            source=self.workflow,
            sidecar=self.sidecar,
        )

    def read_branches(self) -> None:
        """Read the dynamic combos that the slots file declares, each before those in its branches."""
        declared = self.declared.get("branches", {})
        for form in sorted(declared, key=lambda form: form.count(".")):
            address = self.resolve_address(form, ("branches", form))
            if address is not None:
                prefix, forms = f"{address.input}.", declared[form].items()
                options = {option: tuple(prefix + child for child in children) for option, children in forms}
                self.branches.setdefault(address.node, {})[address.input] = options
                self.branch_inputs.setdefault(address.node, set()).update(*options.values())

    def find_inline_leaves(self) -> Iterator[Leaf]:
        for node_id, node in self.graph.items():
            if has_jinja(node["class_type"]):
                self.add_problem((node_id, "class_type"), "a class cannot be a slot; only inputs can")
            for path, text in _iter_strings(node["inputs"], (node_id, "inputs")):
                if has_jinja(text):
                    try:
                        expression = compile_text(text)
                    except ExpressionError as error:
                        hint = "(put a text that is not Jinja2 between {% raw %} and {% endraw %})"
                        self.add_problem(path, f"{error} {hint}")
                    else:
                        yield Leaf(path, expression)

    def add_problem(self, path: KeyPath, message: str) -> None:
        self.collect(self.workflow.make_problem(path, message))

    def add_slot_problem(self, path: KeyPath, message: str) -> None:
        if self.sidecar is not None:
            self.collect(self.sidecar.make_problem(path, message))

    def collect(self, problem: Problem) -> None:
        """Add a problem. Raises TemplateError if there are so many that looking for more helps nobody."""
        self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            raise TemplateError(self.problems)

    def make_declared_slot(self, name: str, rules: Mapping[str, Any]) -> Slot:
        path: KeyPath = ("slots", name)
        at, at_path = rules.get("at", []), (*path, "at")
        forms = (
            [((*at_path, index), form) for index, form in enumerate(at)] if isinstance(at, list) else [(at_path, at)]
        )
        addresses = [self.resolve_address(form, form_path) for form_path, form in forms]
        sidecar_addresses = tuple(dict.fromkeys(address for address in addresses if address is not None))
        self.sidecar_addresses[name] = sidecar_addresses
        inline_leaves = self.leaves_of.get(name, [])
        inline_addresses = _list_addresses(inline_leaves)
        kind = rules.get("kind", "value")
        if kind == "mask":
            self.check_mask(name, rules, inline_addresses)
        elif not at and not inline_addresses:
            found = "has no `at`, and the workflow has no {{ " + name + " }}"
            self.add_slot_problem(path, f"{found}; give the input that takes its value as `at`")
        try:
            schema = SlotSchema(rules.get("schema"))
        except InvalidSchemaError as error:
            self.add_slot_problem((*path, "schema", *error.path), str(error))
            schema = SlotSchema(None)
        default = self.find_default(rules, schema, sidecar_addresses, path)
        if default is MISSING:
            default = _find_inline_default(name, inline_leaves)
        addresses_of_slot, description = sidecar_addresses + inline_addresses, rules.get("description", "")
        return Slot(name, addresses_of_slot, schema, default, kind, description, path, rules.get("of", ""))

    def check_mask(self, name: str, rules: Mapping[str, Any], inline_addresses: tuple[Address, ...]) -> None:
        path: KeyPath = ("slots", name)
        if "at" in rules:
            self.add_slot_problem((*path, "at"), "a mask has the inputs of the picture that `of` names; remove `at`")
        if inline_addresses:
            message = f"a mask has no input of its own in the workflow; remove {{{{ {name} }}}} from it"
            self.add_slot_problem(path, message)
        if "of" not in rules:
            self.add_slot_problem(path, "a mask needs `of`: the slot of `kind: file` whose picture it masks")

    def attach_masks(self, slots: Mapping[str, Slot]) -> tuple[dict[str, Slot], dict[str, str]]:
        """Return the slots, each mask with the addresses of its picture, and the mask of each file slot by name."""
        files = [name for name, slot in slots.items() if slot.kind == "file"]
        mask_of: dict[str, str] = {}
        new_slots = dict(slots)
        for name, slot in slots.items():
            path: KeyPath = (*slot.path, "of")
            if slot.masked_slot and slot.kind != "mask":
                self.add_slot_problem(path, "only a slot of `kind: mask` has `of`")
            elif slot.masked_slot and slot.masked_slot not in files:
                advice = suggest(slot.masked_slot, files, "file slots")
                self.add_slot_problem(path, f"there is no slot '{slot.masked_slot}' of `kind: file`{advice}")
            elif slot.masked_slot in mask_of:
                self.add_slot_problem(path, f"'{slot.masked_slot}' already has the mask '{mask_of[slot.masked_slot]}'")
            elif slot.masked_slot:
                mask_of[slot.masked_slot] = name
                new_slots[name] = replace(slot, addresses=slots[slot.masked_slot].addresses)
        return new_slots, mask_of

    def find_default(
        self, rules: Mapping[str, Any], schema: SlotSchema, sidecar_addresses: tuple[Address, ...], path: KeyPath
    ) -> Any:
        """Return the default of a slot: its own, or the workflow's value at its first address."""
        is_file = rules.get("kind", "value") != "value"
        if "default" in rules:
            value = rules["default"]
        elif sidecar_addresses and not is_file:  # a file name in the workflow is of the server, not a local file
            value = self.graph[sidecar_addresses[0].node]["inputs"].get(sidecar_addresses[0].input, MISSING)
            if is_link(value) or (isinstance(value, str) and has_jinja(value)):
                return MISSING
        else:
            return MISSING
        try:
            return schema.normalise(value)
        except ValueRefusedError as error:
            if "default" in rules:
                self.add_slot_problem((*path, "default"), str(error))
            else:
                message = f"refuses the workflow's own value at {sidecar_addresses[0]}: {error}"
                self.add_slot_problem((*path, "schema"), message)
            return MISSING

    def resolve_address(self, form: Any, path: KeyPath) -> Address | None:
        if isinstance(form, str):
            node_id, dot, name = form.partition(".")
            if not dot or not name:
                message = "is not an address; an address is written node_id.input, such as 6.text"
                self.add_slot_problem(path, f"{format_value(form)} {message}")
                return None
            return self.resolve_input(node_id, name, path)
        if not {"node", "title", "class"} & set(form):
            self.add_slot_problem(path, "names no node; give `title`, `class` or `node` beside `input`")
            return None
        named = tuple(key for key in ("node", "title", "class") if key in form)
        matching = self.index_nodes(named).get(tuple(form[key] for key in named), [])
        if len(matching) == 1:
            return self.resolve_input(matching[0], form["input"], path)
        wanted = ", ".join(f"{key} {format_value(form[key])}" for key in named)
        candidates = join_names([self.describe_node(node_id) for node_id in matching]) if matching else self.all_nodes
        count = f"{len(matching)} nodes have" if matching else "no node has"
        self.add_slot_problem(path, f"{count} {wanted}; {'name one of' if matching else 'the nodes are'}: {candidates}")
        return None

    def index_nodes(self, keys: tuple[str, ...]) -> Mapping[tuple[Any, ...], list[str]]:
        """Return the ids of the nodes by these facts of them, `keys` of `node`, `title` and `class`."""
        if keys not in self.indexes:
            index: dict[tuple[Any, ...], list[str]] = {}
            for node_id, node in self.graph.items():
                facts = {"node": node_id, "title": node.get("_meta", {}).get("title"), "class": node["class_type"]}
                index.setdefault(tuple(facts[key] for key in keys), []).append(node_id)
            self.indexes[keys] = index
        return self.indexes[keys]

    def describe_node(self, node_id: str) -> str:
        node = self.graph[node_id]
        title = node.get("_meta", {}).get("title")
        described = f"{node['class_type']}{f', {title!r}' if title and title != node['class_type'] else ''}"
        return f"{shorten(node_id)} ({shorten(described)})"

    @cached_property
    def all_nodes(self) -> str:
        return join_names([self.describe_node(node_id) for node_id in self.graph])

    def resolve_input(self, node_id: str, name: str, path: KeyPath) -> Address | None:
        if node_id not in self.graph:
            self.add_slot_problem(path, f"there is no node {shorten(node_id)}; the nodes are: {self.all_nodes}")
            return None
        node = self.graph[node_id]
        if name not in node["inputs"] and name not in self.branch_inputs.get(node_id, ()):
            message = f"node {self.describe_node(node_id)} has no input '{shorten(name)}'"
            parent = name.rpartition(".")[0]
            hint = suggest(name, node["inputs"], "inputs")
            if parent in node["inputs"]:
                hint = f"; if only some choices of '{parent}' have it"
                hint += ", list under `branches` which inputs each choice has"
            self.add_slot_problem(path, message + hint)
            return None
        return Address(node_id, name)

    def make_sidecar_leaves(self, slots: Mapping[str, Slot], inline_leaves: list[Leaf]) -> list[Leaf]:
        """Make one leaf for each address in the slots file. An address can belong to one slot only."""
        owners = {(str(leaf.path[0]), str(leaf.path[2])): "Jinja2 in the workflow" for leaf in inline_leaves}
        leaves = []
        for slot in slots.values():
            for address in self.sidecar_addresses.get(slot.name, ()):
                key = (address.node, address.input)
                if key in owners:
                    self.add_slot_problem((*slot.path, "at"), f"{address} is already written by {owners[key]}")
                owners.setdefault(key, f"slot '{slot.name}'")
                leaves.append(Leaf((address.node, "inputs", address.input), None, slot.name))
        return leaves

    def check_files(self, slots: Mapping[str, Slot], inline_leaves: list[Leaf]) -> None:
        """Check that a file slot is the whole content of its string, because the upload replaces the file name."""
        files = {name for name, slot in slots.items() if slot.kind == "file"}
        for leaf in inline_leaves:
            text = leaf.expression.text if leaf.expression is not None else ""
            is_sole_content = len(leaf.path) == 3 and text.strip().strip("{}").strip() in files
            if (found := files & set(leaf.names)) and not is_sole_content:
                self.add_problem(
                    leaf.path, f"the file slot {join_names(found)} must be the whole content of this string"
                )


def _iter_strings(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _iter_strings(item, (*path, key))
    elif isinstance(value, list) and not is_link(value):
        for index, item in enumerate(value):
            yield from _iter_strings(item, (*path, index))


def _list_addresses(leaves: list[Leaf]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys(Address(str(leaf.path[0]), str(leaf.path[2])) for leaf in leaves))


def _find_inline_default(name: str, inline_leaves: list[Leaf]) -> Any:
    for leaf in inline_leaves:
        if leaf.expression is not None and name in leaf.expression.defaults:
            return leaf.expression.defaults[name]
    return MISSING
