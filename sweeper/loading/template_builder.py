"""From the text of a workflow, and of the slots file beside it, to a Template; every mistake is found, not the first.

A slot gets its addresses from the sidecar's `at` (by node id, title or class) or from the Jinja2 in the workflow's own
strings. Nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sweeper.did_you_mean import hint, listed
from sweeper.errors import Problem, TemplateError
from sweeper.model.expressions import Expression, ExpressionError, compile_text, has_jinja
from sweeper.model.result import RESERVED_COLUMNS
from sweeper.model.slot_values import Normaliser, ValueRefusedError
from sweeper.model.source import Path, Source
from sweeper.model.template import MISSING, Address, Leaf, Slot, Template
from sweeper.model.workflow import Graph, graph_problems, is_link
from sweeper.schemas import shape_problems


def bind(workflow: Source, sidecar: Source | None = None) -> Template:
    """Make the Template. Raises TemplateError with every problem of both files."""
    problems = [workflow.problem(path, message) for path, message in graph_problems(workflow.value)]
    shape = shape_problems("slots", sidecar.value) if sidecar is not None else []
    if sidecar is not None:
        problems += [sidecar.problem(path, message) for path, message in shape]
    if problems:
        raise TemplateError(problems)
    binder = _Binder(workflow, sidecar)
    template = binder.template()
    if binder.problems:
        raise TemplateError(binder.problems)
    return template


class _Binder:
    """One workflow on its way to a Template, and the problems met on the way."""

    def __init__(self, workflow: Source, sidecar: Source | None) -> None:
        self.workflow = workflow
        self.sidecar = sidecar
        self.graph: Graph = workflow.value
        self.problems: list[Problem] = []
        self.written: dict[str, tuple[Address, ...]] = {}  # of each slot the addresses of its `at`

    def template(self) -> Template:
        inline = list(self.inline_leaves())
        declared: Mapping[str, Any] = self.sidecar.value["slots"] if self.sidecar is not None else {}
        slots = {name: self.declared(name, rules or {}, inline) for name, rules in declared.items()}
        for leaf in inline:
            for name in leaf.names:
                if name not in slots:
                    slots[name] = self.inline_slot(name, inline)
        self.check_names(slots)
        written = self.written_leaves(slots, inline)
        self.check_files(slots, inline)
        slots, masks = self.with_masks(slots)
        return Template(
            file=self.workflow.name,
            graph=self.graph,
            slots=slots,
            leaves=tuple(
                replace(leaf, mask=next((masks[name] for name in leaf.names if name in masks), None))
                for leaf in sorted([*inline, *written], key=lambda leaf: [str(part) for part in leaf.path])
            ),
            description=str(self.sidecar.value.get("description", "")) if self.sidecar is not None else "",
            source=self.workflow,
            sidecar=self.sidecar,
        )

    def inline_leaves(self) -> Iterator[Leaf]:
        for node_id, node in self.graph.items():
            if has_jinja(node["class_type"]):
                self.wrong((node_id, "class_type"), "a class cannot be a slot; only inputs can")
            for path, text in _strings(node["inputs"], (node_id, "inputs")):
                if has_jinja(text):
                    try:
                        expression = compile_text(text)
                    except ExpressionError as error:
                        self.wrong(
                            path, f"{error} (a text that is no Jinja2 goes between {{% raw %}} and {{% endraw %}})"
                        )
                    else:
                        yield Leaf(path, expression)

    def wrong(self, path: Path, message: str) -> None:
        self.problems.append(self.workflow.problem(path, message))

    def wrong_slot(self, path: Path, message: str) -> None:
        if self.sidecar is not None:
            self.problems.append(self.sidecar.problem(path, message))

    def inline_slot(self, name: str, inline: list[Leaf]) -> Slot:
        default = _inline_default(name, inline)
        return Slot(name, _inline_addresses(name, inline), Normaliser(None), default)

    def declared(self, name: str, rules: Mapping[str, Any], inline: list[Leaf]) -> Slot:
        path: Path = ("slots", name)
        at = rules.get("at", [])
        addresses = [
            address
            for number, form in enumerate(at if isinstance(at, list) else [at])
            if (address := self.address(form, (*path, "at", number) if isinstance(at, list) else (*path, "at")))
            is not None
        ]
        written = tuple(dict.fromkeys(addresses))
        self.written[name] = written
        inside = _inline_addresses(name, inline)
        kind = rules.get("kind", "value")
        if kind == "mask":
            self.check_mask(name, rules, inside)
        elif not at and not inside:
            self.wrong_slot(
                path, "has no `at`, and the workflow has no {{ " + name + " }}; say where its value is written"
            )
        normalise = self.normaliser(rules.get("schema"), (*path, "schema"))
        default = self.default(rules, normalise, written, path)
        if default is MISSING:
            default = _inline_default(name, inline)
        of = rules.get("of", "")
        return Slot(name, written + inside, normalise, default, kind, rules.get("description", ""), path, of)

    def check_mask(self, name: str, rules: Mapping[str, Any], inside: tuple[Address, ...]) -> None:
        path: Path = ("slots", name)
        if "at" in rules:
            self.wrong_slot((*path, "at"), "a mask reaches where the picture of its `of` does; take `at` out")
        if inside:
            self.wrong_slot(path, f"a mask has no place of its own in the workflow; take {{{{ {name} }}}} out of it")
        if "of" not in rules:
            self.wrong_slot(path, "a mask needs `of`: the slot of `kind: file` whose picture it masks")

    def with_masks(self, slots: Mapping[str, Slot]) -> tuple[dict[str, Slot], dict[str, str]]:
        """The slots, each mask with the addresses of its picture; and file slot -> its mask."""
        files = [name for name, slot in slots.items() if slot.kind == "file"]
        masks: dict[str, str] = {}
        found = dict(slots)
        for name, slot in slots.items():
            path: Path = (*slot.path, "of")
            if slot.of and slot.kind != "mask":
                self.wrong_slot(path, "only a slot of `kind: mask` has `of`")
            elif slot.of and slot.of not in files:
                self.wrong_slot(
                    path, f"there is no slot '{slot.of}' of `kind: file`{hint(slot.of, files, 'file slots')}"
                )
            elif slot.of in masks:
                self.wrong_slot(path, f"'{slot.of}' has a mask already: the slot '{masks[slot.of]}'")
            elif slot.of:
                masks[slot.of] = name
                found[name] = replace(slot, addresses=slots[slot.of].addresses)
        return found, masks

    def normaliser(self, schema: Mapping[str, Any] | None, path: Path) -> Normaliser:
        from jsonschema import SchemaError  # noqa: PLC0415 - jsonschema costs half a hundred ms: see `schemas`

        try:
            return Normaliser(schema)
        except SchemaError as error:
            self.wrong_slot((*path, *error.absolute_path), f"is no JSON Schema: {error.message}")
            return Normaliser(None)

    def default(self, rules: Mapping[str, Any], normalise: Normaliser, written: tuple[Address, ...], path: Path) -> Any:
        """The slot's own default, or what the workflow holds at its first address."""
        is_file = rules.get("kind", "value") != "value"
        if "default" in rules:
            value = rules["default"]
        elif written and not is_file:  # the workflow's file name is one of the server's, not a file of ours
            value = self.graph[written[0].node]["inputs"].get(written[0].input, MISSING)
            if is_link(value) or (isinstance(value, str) and has_jinja(value)):
                return MISSING
        else:
            return MISSING
        try:
            return normalise(value)
        except ValueRefusedError as error:
            if "default" in rules:
                self.wrong_slot((*path, "default"), str(error))
            else:
                self.wrong_slot((*path, "schema"), f"refuses the workflow's own value at {written[0]}: {error}")
            return MISSING

    def address(self, form: Any, path: Path) -> Address | None:
        if isinstance(form, str):
            node_id, dot, name = form.partition(".")
            if not dot or not name:
                self.wrong_slot(path, f"'{form}' is no address; an address is written node_id.input, such as 6.text")
                return None
            return self.input_of(node_id, name, path)
        if not {"node", "title", "class"} & set(form):
            self.wrong_slot(path, "names no node; give `title`, `class` or `node` beside `input`")
            return None
        found = [node_id for node_id, node in self.graph.items() if _matches(form, node_id, node)]
        if len(found) == 1:
            return self.input_of(found[0], form["input"], path)
        asked = ", ".join(f"{key} '{form[key]}'" for key in ("node", "title", "class") if key in form)
        candidates = listed(
            _described(node_id, node) for node_id, node in self.graph.items() if not found or node_id in found
        )
        what = f"{len(found)} nodes have" if found else "no node has"
        self.wrong_slot(path, f"{what} {asked}; {'name one of' if found else 'the nodes are'}: {candidates}")
        return None

    def input_of(self, node_id: str, name: str, path: Path) -> Address | None:
        if node_id not in self.graph:
            nodes = [_described(one, node) for one, node in self.graph.items()]
            self.wrong_slot(path, f"there is no node {node_id}; the nodes are: {listed(nodes)}")
            return None
        node = self.graph[node_id]
        if name not in node["inputs"]:
            self.wrong_slot(
                path, f"node {_described(node_id, node)} has no input '{name}'{hint(name, node['inputs'], 'inputs')}"
            )
            return None
        return Address(node_id, name)

    def written_leaves(self, slots: Mapping[str, Slot], inline: list[Leaf]) -> list[Leaf]:
        """One leaf for each address of a sidecar slot; an address belongs to one slot only."""
        owners = {(str(leaf.path[0]), str(leaf.path[2])): "Jinja2 of the workflow's own" for leaf in inline}
        leaves = []
        for slot in slots.values():
            for address in self.written.get(slot.name, ()):
                key = (address.node, address.input)
                if key in owners:
                    self.wrong_slot((*slot.path, "at"), f"{address} is already written by {owners[key]}")
                owners.setdefault(key, f"slot '{slot.name}'")
                leaves.append(Leaf((address.node, "inputs", address.input), None, slot.name))
        return leaves

    def check_names(self, slots: Mapping[str, Slot]) -> None:
        for name, slot in slots.items():
            if name in RESERVED_COLUMNS:
                message = f"a slot cannot be named '{name}': the table has a column of that name"
                if slot.path:
                    self.wrong_slot(slot.path, message)
                else:
                    self.wrong((), message)

    def check_files(self, slots: Mapping[str, Slot], inline: list[Leaf]) -> None:
        """A file's name is replaced by the server's at upload, which only works where nothing else stands beside it."""
        files = {name for name, slot in slots.items() if slot.kind == "file"}
        for leaf in inline:
            expression: Expression | None = leaf.expression
            whole = len(leaf.path) == 3 and expression is not None
            alone = whole and expression is not None and expression.text.strip().strip("{}").strip() in files
            if files & set(leaf.names) and not alone:
                self.wrong(
                    leaf.path, f"the file slot {listed(files & set(leaf.names))} must stand alone in this string"
                )


def _strings(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, (*path, key))
    elif isinstance(value, list) and not is_link(value):
        for number, item in enumerate(value):
            yield from _strings(item, (*path, number))


def _inline_addresses(name: str, inline: list[Leaf]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys(Address(str(leaf.path[0]), str(leaf.path[2])) for leaf in inline if name in leaf.names))


def _inline_default(name: str, inline: list[Leaf]) -> Any:
    for leaf in inline:
        if leaf.expression is not None and name in leaf.expression.defaults:
            return leaf.expression.defaults[name]
    return MISSING


def _matches(form: Mapping[str, str], node_id: str, node: Mapping[str, Any]) -> bool:
    facts = {"node": node_id, "title": node.get("_meta", {}).get("title"), "class": node["class_type"]}
    return all(form[key] == facts[key] for key in facts if key in form)


def _described(node_id: str, node: Mapping[str, Any]) -> str:
    title = node.get("_meta", {}).get("title")
    return f"{node_id} ({node['class_type']}{f', {title!r}' if title and title != node['class_type'] else ''})"
