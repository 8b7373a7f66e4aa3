"""`sweeper template`: list possible slots of a workflow, make a template from it, and show a template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from sweeper.answers.cells import format_cell, join_choices, to_json_text
from sweeper.answers.parts import Line, Part, Table
from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.cli.trust_check import load_named_template
from sweeper.editing.read_workflow import (
    SLOT_COLUMNS,
    LoadedWorkflow,
    NodeClassSource,
    list_slots,
    read_graph,
    suggest_workflow_slots,
)
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.loading.starter_experiment import render_slots_file
from sweeper.loading.suggest_slots import find_output_nodes
from sweeper.loading.template_builder import build_template
from sweeper.model.node_classes import NodeInfo, infer_slot_schema
from sweeper.model.template import MISSING, Template
from sweeper.model.workflow import Graph, find_downstream
from sweeper.wording import count_things

_file_argument = click.argument("file", type=click.Path(path_type=Path), metavar="FILE",
                                callback=lambda _, __, file: options.get_workflow_path(file))  # fmt: skip
_KNOWN_KEYWORDS: Final = frozenset(("type", "enum", "minimum", "maximum", "minLength"))


@click.group(cls=options.SuggestingGroup, invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List what can be swept in a workflow, and make a template from it.

    FILE is a workflow in API format (in ComfyUI: Workflow > Export (API)), a workflow in UI format (Workflow > Save),
    which is converted, or a picture that ComfyUI saved. Types, limits and choices come from the node classes of
    --target or --object-info.
    """
    if context.invoked_subcommand is None:
        console.print_line(context.get_help())


@command.command(
    epilog=format_examples("sweeper template slots workflow.json", "sweeper template slots ComfyUI_00001_.png --json")
)
@_file_argument
@options.node_classes
@options.as_json
def slots(file: Path, *, target: str | None, object_info: Path | None, as_json: bool) -> None:
    """List every input of a workflow that could become a slot; of a template, first the slots that it has."""
    classes = NodeClassSource(target, object_info)
    workflow = _read_graph(file, classes)
    own = load_named_template(file).slots if workflow.is_unchanged else {}
    rows = list_slots(workflow.graph, classes.select(workflow.graph), own)
    if as_json:
        console.print_json(rows)
    else:
        rows = [{**row, "address": " ".join([row["address"], *row["others"]])} for row in rows]
        lines = [[*(row[name] for name in SLOT_COLUMNS), _describe_schema(row["schema"])] for row in rows]
        count, columns = sum(row["is_slot"] for row in rows), (*SLOT_COLUMNS, "takes")
        groups = [("slots of this template:", lines[:count]), ("not slots yet:", lines[count:])] if count else []
        parts = [part for head, group in groups if group for part in (Line(head), Table(columns, group))]
        console.print_parts(parts or [Table(columns, lines)])


@command.command(
    epilog=format_examples(
        "sweeper template new ComfyUI_00001_.png -o templates/fox.json",
        "sweeper template new saved.json -o templates/fox.json --target http://127.0.0.1:8188",
    )
)
@_file_argument
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.json", help="The template to write."
)
@click.option("--force", is_flag=True, help="Replace existing files.")
@options.node_classes
@options.as_json
def new(file: Path, *, output: Path, force: bool, target: str | None, object_info: Path | None, as_json: bool) -> None:
    """Make a template: the workflow, unchanged or converted, and a slots file beside it to edit."""
    if output.suffix != ".json":
        raise UsageError(f"{output}: a template is a .json file; its slots go into the .slots.yaml beside it")
    classes = NodeClassSource(target, object_info)
    workflow = _read_graph(file, classes)
    info = classes.select(workflow.graph)
    suggestions = suggest_workflow_slots(workflow, info)
    if not suggestions:
        raise UsageError(f"{file}: no node of this workflow has an input that can be a slot")
    slots_path = output.with_suffix(".slots.yaml")
    slots_file = render_slots_file(
        output.name, workflow.graph, info, suggestions, models=workflow.models, unchecked=workflow.unchecked
    )
    contents = {output: workflow.content, slots_path: slots_file.encode()}
    # If FILE is already the unchanged workflow of the template, it does not have to be replaced.
    present = [
        path
        for path in contents
        if path.exists() and not (workflow.is_unchanged and path == output and output.samefile(file))
    ]
    if present and not force:
        exist = "exists" if len(present) == 1 else "exist"
        raise UsageError(f"{' and '.join(map(str, present))}: already {exist}; add --force to replace")
    for path, content in contents.items():
        with atomic_write(path) as stream:
            stream.write(content)
        if not as_json:
            console.print_status(f"wrote {path}")
    if as_json:
        console.print_json({"written": [str(path) for path in contents], "slots": len(suggestions)})
        return
    console.print_status(f"{len(suggestions)} slots; edit {slots_path} and keep what you want to sweep")


@command.command(epilog=format_examples("sweeper template show templates/txt2img.json"))
@_file_argument
@options.node_classes
@options.as_json
def show(file: Path, *, target: str | None, object_info: Path | None, as_json: bool) -> None:
    """Show a template: its slots with their types, defaults and the nodes they affect, and the output nodes."""
    classes = NodeClassSource(target, object_info)
    workflow = _read_graph(file, classes)
    template = load_named_template(file) if workflow.is_unchanged else build_template(workflow.source)
    description = _describe_template(template, classes.select(template.graph))
    if as_json:
        console.print_json(description)
    else:
        console.print_parts(_iter_parts(description, template.graph))


def _read_graph(path: Path, classes: NodeClassSource) -> LoadedWorkflow:
    """Read the workflow of a file, and warn about each change that was made to it."""
    workflow = read_graph(path, classes)
    for note in workflow.notes:
        console.warn(note)
    return workflow


def _describe_template(template: Template, info: NodeInfo) -> dict[str, Any]:
    outputs = find_output_nodes(template.graph, info)
    reached = {name: find_downstream(template.graph, template.find_nodes(name)) for name in template.slots}
    rows = [
        {
            "name": slot.name,
            "addresses": [str(address) for address in slot.addresses],
            "kind": slot.kind,
            "required": slot.default is MISSING,
            "default": None if slot.default is MISSING else slot.default,
            "schema": slot.schema.rules or infer_slot_schema(template, slot.name, info) or {},
            "description": slot.description,
            "reaches": [node_id for node_id in template.graph if node_id in reached[slot.name]],
            "outputs": [node_id for node_id in template.graph if node_id in reached[slot.name] & outputs],
        }
        for slot in template.slots.values()
    ]
    return {
        "file": template.file,
        "description": template.description,
        "nodes": len(template.graph),
        "outputs": [node_id for node_id in template.graph if node_id in outputs],
        "slots": rows,
    }


def _iter_parts(description: Mapping[str, Any], graph: Graph) -> Iterator[Part]:
    def format_node(node_id: str) -> str:
        node = graph[node_id]
        title = node.get("_meta", {}).get("title", "")
        return f"{node_id} ({node['class_type']}" + (f", '{title}')" if title and title != node["class_type"] else ")")

    outputs, slots = description["outputs"], description["slots"]
    yield Line(
        f"{description['file']}: {count_things(description['nodes'], 'node')}, {count_things(len(slots), 'slot')}"
    )
    if description["description"]:
        yield Line(description["description"])
    yield Line(f"outputs: {', '.join(map(format_node, outputs)) or 'none; a server would reject this'}")
    if not slots:
        yield Line("no slots yet: `sweeper template new` writes a slots file with every possible slot")
        return
    yield Table.from_records(
        [
            {
                "slot": row["name"],
                "addresses": " ".join(row["addresses"]),
                "default": "(must be given)" if row["required"] else row["default"],
                "takes": _describe_schema(row["schema"]) if row["kind"] == "value" else f"a local {row['kind']}",
                "reruns": count_things(len(row["reaches"]), "node") + ("" if row["outputs"] else ", no output"),
                "outputs": " ".join(row["outputs"]) if len(outputs) > 1 else "",
                "description": row["description"],
            }
            for row in slots
        ]
    )


def _describe_schema(schema: Mapping[str, Any] | None) -> str:
    """`integer 1 .. 100`, `euler | heun | ... (44)`, `text, not empty`; empty if every value is allowed."""
    if not schema:
        return ""
    if not set(schema) <= _KNOWN_KEYWORDS:
        return to_json_text(dict(schema))
    if "enum" in schema:
        return join_choices(
            (value if isinstance(value, str) else to_json_text(value) for value in schema["enum"]), len(schema["enum"])
        )
    kind = schema.get("type", "")
    if kind == "boolean":
        return "true | false"
    if kind == "string":
        shortest = schema.get("minLength")
        if shortest == 1:
            return "text, not empty"
        return f"text, at least {shortest} characters" if shortest else "text"
    kinds = [kind] if isinstance(kind, str) else kind
    word = " or ".join(name for name in kinds if name != "integer" or "number" not in kinds)  # 7 is a number too
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        word += f" {format_cell(low)} .. {format_cell(high)}"
    elif low is not None or high is not None:
        word += f" >= {format_cell(low)}" if high is None else f" <= {format_cell(high)}"
    return word.strip()
