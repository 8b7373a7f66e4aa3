"""Write the slots file that declares suggested slots, `name.slots.yaml` beside the workflow `name.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sweeper.loading.suggest_slots import Suggestion, list_inputs
from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.template_check import UNCHECKED
from sweeper.model.template import ModelFile
from sweeper.model.workflow import Graph
from sweeper.schemas import make_editor_line
from sweeper.wording import shorten, to_one_line


def render_slots_file(
    workflow_name: str,
    graph: Graph,
    info: NodeInfo,
    suggestions: Iterable[Suggestion],
    *,
    models: Iterable[ModelFile] = (),
    unchecked: Sequence[str] = (),
) -> str:
    """Return the text of `name.slots.yaml` that declares these suggestions, with a comment on each, and the models.

    `unchecked` are the classes that were read by the file's own names.
    """
    lines = [
        make_editor_line("slots"),
        f"# The slots of {shorten(to_one_line(workflow_name))}: the names that experiments may set and sweep.",
        "# Rename them, delete what you never change; the workflow beside this file stays as it was exported.",
        "# A slot that an experiment does not give keeps the workflow's own value (shown behind each line).",
        "slots:",
    ]
    for suggestion in suggestions:
        fields = [f"at: {_to_yaml(suggestion.addresses) if suggestion.others else quote_yaml(suggestion.address)}"]
        if suggestion.schema is not None:
            fields.append(f"schema: {_to_yaml(suggestion.schema)}")
        if suggestion.is_default:
            fields.append(f"default: {json.dumps(suggestion.value, ensure_ascii=True)}")
        if suggestion.type == "file":
            fields.append("kind: file")
        node = suggestion.class_type
        if suggestion.title and suggestion.title != node:
            node = f"{node} '{suggestion.title}'"
        current = json.dumps(suggestion.value, ensure_ascii=False)
        if suggestion.type == "file":
            current = "a local file, given by the experiment"
        elif suggestion.is_default:
            current = "the class's default, for other branches"
        comment = ": ".join(shorten(to_one_line(text)) for text in (node, current))
        lines.append(f"  {suggestion.name}: {{{', '.join(fields)}}}  # {comment}")
    if unchecked:
        lines += [f"# {UNCHECKED}. A server that has these classes checks them.", f"unchecked: {_to_yaml(unchecked)}"]
    return "\n".join([*lines, *_render_branches(graph, info), *_render_models(models)]) + "\n"


def _render_models(models: Iterable[ModelFile]) -> Iterator[str]:
    items = [{name: text for name, text in asdict(model).items() if text} for model in models]
    if items:
        yield "# The model files that the workflow names. `sweeper doctor` shows those that a server lacks."
        yield "models:"
    for item in items:
        yield f"  - {{{', '.join(f'{name}: {quote_yaml(text)}' for name, text in item.items())}}}"


def _render_branches(graph: Graph, info: NodeInfo) -> Iterator[str]:
    """Yield the lines that declare the dynamic combos whose options have different inputs."""
    by_address: dict[str, dict[str, dict[str, None]]] = {}
    for node_id, node in graph.items():
        spec = info.classes.get(node["class_type"])
        for combo in list_inputs(spec, node["inputs"]) if spec is not None else ():
            for option, branch in combo.branches.items():
                children = by_address.setdefault(f"{node_id}.{combo.name}", {}).setdefault(option, {})
                children.update((child.removeprefix(f"{combo.name}."), None) for child in branch)
    differing = {
        address: options
        for address, options in by_address.items()
        if any(set(children) != set(next(iter(options.values()))) for children in options.values())
    }
    if differing:
        yield "# Inputs that only some choices have; those of the other choices are left out of the workflow."
        yield "branches:"
    for address, options in differing.items():
        yield f"  {quote_yaml(address)}:"
        yield from (f"    {quote_yaml(option)}: {_to_yaml(list(children))}" for option, children in options.items())


def quote_yaml(text: str) -> str:
    """Write a double-quoted YAML scalar, with all unprintable characters escaped: YAML forbids more than JSON does."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)


def _to_yaml(value: Any) -> str:
    """Write a value of a schema in flow style. Its keys and the words after them need no quotes."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_to_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(quote_yaml(item) if isinstance(item, str) else _to_yaml(item) for item in value)}]"
    return value if isinstance(value, str) else json.dumps(value)
