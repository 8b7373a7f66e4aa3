"""`sweeper template`: what could be swept in a workflow, a slots file for it, and what a template declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sweeper.cli import console, options
from sweeper.cli.node_class_source import NodeClassSource, add_class_options
from sweeper.cli.options import format_examples
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.cli.read_workflow import LoadedWorkflow
    from sweeper.loading.suggest_slots import Suggestion
    from sweeper.model.node_classes import NodeInfo
    from sweeper.model.template import Template
    from sweeper.model.workflow import Graph

_file_argument = click.argument(
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=lambda _, __, file: options.get_workflow_path(file),
)
_COLUMNS: Final = ("name", "address", "class_type", "title", "type", "value")
_MAX_CHOICES: Final = 100  # that a slots file lists; longer lists are the server's to know


@click.group(cls=options.SuggestingGroup, invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """See what could be swept in a workflow, and make a template of it.

    FILE is a workflow as ComfyUI exports it (Workflow > Export (API)) or as it saves it (Workflow > Save, which is
    converted here), or a picture that ComfyUI saved. Types, limits and choices are those of the node classes of
    --target or --object-info.
    """
    if context.invoked_subcommand is None:
        console.print_line(context.get_help())


@command.command(
    epilog=format_examples("sweeper template slots workflow.json", "sweeper template slots ComfyUI_00001_.png --json")
)
@_file_argument
@add_class_options
@options.as_json
def slots(file: Path, *, target: str | None, object_info: Path | None, as_json: bool) -> None:
    """List every input of a workflow that could become a slot."""
    from sweeper.cli.schema_text import describe_schema  # noqa: PLC0415 - each command imports what it uses

    classes = NodeClassSource(target, object_info)
    read = _read_workflow(file, classes)
    found = [
        {**{name: getattr(one, name) for name in _COLUMNS}, "schema": one.schema}
        for one in _suggest_slots(read, classes)
    ]
    if as_json:
        console.print_json(found)
    else:
        console.print_table(
            (*_COLUMNS, "takes"), [[*(one[name] for name in _COLUMNS), describe_schema(one["schema"])] for one in found]
        )


@command.command(
    epilog=format_examples(
        "sweeper template new ComfyUI_00001_.png -o templates/fox.json",
        "sweeper template new saved.json -o templates/fox.json --target http://127.0.0.1:8188",
    )
)
@_file_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.json")
@click.option("--force", is_flag=True, help="Replace files that are there already.")
@add_class_options
@options.as_json
def new(file: Path, *, output: Path, force: bool, target: str | None, object_info: Path | None, as_json: bool) -> None:
    """Make a template: the untouched workflow (or the converted one), and a slots file beside it to edit."""
    from sweeper.loading.suggest_slots import render_slots_file  # noqa: PLC0415
    from sweeper.tables.export import atomic_write  # noqa: PLC0415 - each command imports what it uses

    if output.suffix != ".json":
        raise UsageError(f"{output}: a template is a .json file; its slots go into the .slots.yaml beside it")
    classes = NodeClassSource(target, object_info)
    read = _read_workflow(file, classes)
    suggestions = _suggest_slots(read, classes)
    if not suggestions:
        raise UsageError(f"{file}: no node of this workflow has an input that could be a slot")
    contents = {
        output: read.content,
        output.with_suffix(".slots.yaml"): render_slots_file(output.name, suggestions).encode(),
    }
    # An export may get its slots where it lies; what was converted is another file.
    present = [
        path
        for path in contents
        if path.exists() and not (read.is_unchanged and path == output and output.samefile(file))
    ]
    if present and not force:
        raise UsageError(f"{' and '.join(map(str, present))}: there already; --force replaces what is there")
    for path, content in contents.items():
        with atomic_write(path) as handle:
            handle.write(content)
        if not as_json:
            console.print_status(f"wrote {path}")
    if as_json:
        console.print_json({"written": [str(path) for path in contents], "slots": len(suggestions)})
        return
    console.print_status(
        f"{len(suggestions)} slots; edit {output.with_suffix('.slots.yaml')} and keep what you want to sweep"
    )


@command.command(epilog=format_examples("sweeper template show templates/txt2img.json"))
@_file_argument
@add_class_options
@options.as_json
def show(file: Path, *, target: str | None, object_info: Path | None, as_json: bool) -> None:
    """Show what a template is: its slots, what each takes and by default is, what it reaches, and the outputs."""
    from sweeper.loading.load import load_template  # noqa: PLC0415 - each command imports what it uses
    from sweeper.loading.template_builder import build_template  # noqa: PLC0415
    from sweeper.model.node_classes import with_node_schemas  # noqa: PLC0415

    classes = NodeClassSource(target, object_info)
    read = _read_workflow(file, classes)
    template = load_template(file) if read.is_unchanged else build_template(read.source)
    described = _describe_template(with_node_schemas(template, classes.classes), classes.classes)
    if as_json:
        console.print_json(described)
    else:
        _show(described, template.graph)


def _read_workflow(file: Path, classes: NodeClassSource) -> LoadedWorkflow:
    """The workflow of a file, and a warning for each thing that was done to it."""
    from sweeper.cli.read_workflow import read_graph  # noqa: PLC0415

    read = read_graph(file, classes)
    for note in read.notes:
        console.warn(note)
    return read


def _suggest_slots(workflow: LoadedWorkflow, classes: NodeClassSource) -> list[Suggestion]:
    """What could be swept, with the schemas of the node classes as far as the workflow's own values agree with them."""
    from sweeper.loading.suggest_slots import suggest_slots  # noqa: PLC0415

    found = suggest_slots(workflow.graph, classes.object_info)
    return [one if one.type == "file" else _with_class_schema(one, workflow.graph, classes.classes) for one in found]


def _with_class_schema(suggestion: Suggestion, graph: Graph, info: NodeInfo) -> Suggestion:
    from sweeper.model.slot_values import SlotSchema, ValueRefusedError  # noqa: PLC0415

    node_id, _, name = suggestion.address.partition(".")
    spec = info.classes.get(suggestion.class_type)
    declared = spec.resolve_inputs(graph[node_id]["inputs"]).get(name) if spec is not None else None
    schema = declared.schema if declared is not None else None
    if not schema or not _is_short_schema(schema):
        return suggestion
    try:
        SlotSchema(schema).normalise(suggestion.value)
    except ValueRefusedError:
        return suggestion  # the file must bind: what the class says against its own value is for `validate` to tell
    kind = schema.get("type", suggestion.type)
    return replace(suggestion, schema=schema, type=kind if isinstance(kind, str) else suggestion.type)


def _is_short_schema(schema: Mapping[str, Any]) -> bool:
    """Whether the schema can stand in one line of a slots file: no long list, no schemas in it."""
    listed = schema.get("enum", [])
    plain = all(isinstance(one, (str, int, float)) for one in listed)
    return "anyOf" not in schema and plain and len(listed) <= _MAX_CHOICES


def _describe_template(template: Template, info: NodeInfo) -> dict[str, Any]:
    """JSON-ready: what `template show --json` prints."""
    from sweeper.model.template import MISSING  # noqa: PLC0415
    from sweeper.model.workflow import find_downstream, find_sinks  # noqa: PLC0415

    known = {node_id for node_id, node in template.graph.items() if node["class_type"] in info.classes}
    outputs = {one for one in known if info.classes[template.graph[one]["class_type"]].is_output}
    outputs |= find_sinks(template.graph) - known  # of a class that nobody knows only its place tells
    rows = []
    for slot in template.slots.values():
        reached = find_downstream(template.graph, template.find_nodes(slot.name))
        rows.append(
            {
                "name": slot.name,
                "addresses": [str(address) for address in slot.addresses],
                "kind": slot.kind,
                "required": slot.default is MISSING,
                "default": None if slot.default is MISSING else slot.default,
                "schema": slot.schema.rules,
                "description": slot.description,
                "reaches": [node_id for node_id in template.graph if node_id in reached],
                "outputs": [node_id for node_id in template.graph if node_id in reached & outputs],
            }
        )
    return {
        "file": template.file,
        "description": template.description,
        "nodes": len(template.graph),
        "outputs": [node_id for node_id in template.graph if node_id in outputs],
        "slots": rows,
    }


def _show(described: Mapping[str, Any], graph: Graph) -> None:
    def format_node(node_id: str) -> str:
        node = graph[node_id]
        title = node.get("_meta", {}).get("title", "")
        return f"{node_id} ({node['class_type']}" + (f", '{title}')" if title and title != node["class_type"] else ")")

    count, slots = described["nodes"], described["slots"]
    console.print_line(
        f"{described['file']}: {count} node{'s' * (count != 1)}, {len(slots)} slot{'s' * (len(slots) != 1)}"
    )
    if described["description"]:
        console.print_line(console.sanitize(described["description"]))
    console.print_line(
        f"outputs: {', '.join(map(format_node, described['outputs'])) or 'none; a server would refuse this'}"
    )
    if not slots:
        console.print_line("no slots yet: `sweeper template new` writes a slots file with all that could be one")
        return
    console.print_line()
    several = len(described["outputs"]) > 1
    headers = ["slot", "addresses", "default", "takes", "reruns", *["outputs"] * several, "description"]
    if not any(row["description"] for row in slots):
        headers.remove("description")
    console.print_table(headers, [_make_slot_row(row, several=several)[: len(headers)] for row in slots])


def _make_slot_row(row: Mapping[str, Any], *, several: bool) -> list[object]:
    from sweeper.cli.schema_text import describe_schema  # noqa: PLC0415

    default = "(must be given)" if row["required"] else row["default"]
    taken = describe_schema(row["schema"]) if row["kind"] == "value" else f"a local {row['kind']}"
    reaches = f"{len(row['reaches'])} node{'s' * (len(row['reaches']) != 1)}" + (
        "" if row["outputs"] else ", no output"
    )
    outputs = [" ".join(row["outputs"])] * several
    return [row["name"], " ".join(row["addresses"]), default, taken, reaches, *outputs, row["description"]]
