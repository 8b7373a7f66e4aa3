"""`sweeper template`: what could be swept in a workflow, a slots file for it, and what a template declares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sweeper.cli import console, options
from sweeper.cli.options import examples
from sweeper.errors import UsageError

_file = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
_COLUMNS = ("name", "address", "class_type", "title", "type", "value")


@click.group(cls=options.HintingGroup, invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """See what could be swept in a workflow, and make a template of it.

    FILE is a workflow as ComfyUI exports it (Workflow > Export (API)), or a PNG that ComfyUI saved.
    """
    if context.invoked_subcommand is None:
        console.out(context.get_help())


@command.command(
    epilog=examples("sweeper template slots workflow.json", "sweeper template slots ComfyUI_00001_.png --json")
)
@_file
@options.as_json
def slots(file: Path, *, as_json: bool) -> None:
    """List every input of a workflow that could become a slot."""
    from sweeper.cli.workflow_file import read_graph  # noqa: PLC0415 - each command imports what it uses
    from sweeper.slots import suggest  # noqa: PLC0415

    graph, _ = read_graph(file)
    found = [{name: getattr(one, name) for name in _COLUMNS} for one in suggest(graph, _known_classes())]
    if as_json:
        console.out_json(found)
    else:
        console.table(_COLUMNS, [list(one.values()) for one in found])


@command.command(epilog=examples("sweeper template new ComfyUI_00001_.png -o templates/fox.json"))
@_file
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.json")
@click.option("--force", is_flag=True, help="Replace files that are there already.")
def new(file: Path, output: Path, *, force: bool) -> None:
    """Make a template: the untouched workflow, and a slots file beside it to edit."""
    from sweeper.cli.workflow_file import read_graph  # noqa: PLC0415
    from sweeper.formats import replacing  # noqa: PLC0415
    from sweeper.slots import slots_file, suggest  # noqa: PLC0415

    if output.suffix != ".json":
        raise UsageError(f"{output}: a template is a .json file; its slots go into the .slots.yaml beside it")
    graph, workflow = read_graph(file)
    suggestions = suggest(graph, _known_classes())
    if not suggestions:
        raise UsageError(f"{file}: no node of this workflow has an input that could be a slot")
    contents = {
        output: workflow,
        output.with_suffix(".slots.yaml"): slots_file(output.name, suggestions).encode(),
    }
    present = [path for path in contents if path.exists() and not (path == output and output.samefile(file))]
    if present and not force:
        raise UsageError(f"{' and '.join(map(str, present))}: there already; --force replaces what is there")
    output.parent.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        with replacing(path) as handle:
            handle.write(content)
        console.say(f"wrote {path}")
    console.say(f"{len(suggestions)} slots; edit {output.with_suffix('.slots.yaml')} and keep what you want to sweep")


@command.command(epilog=examples("sweeper template show templates/txt2img.json"))
@_file
@options.as_json
def show(file: Path, *, as_json: bool) -> None:
    """Show the slots that a template declares."""
    from sweeper.loading import load_template  # noqa: PLC0415
    from sweeper.template import MISSING  # noqa: PLC0415

    template = load_template(file)
    rows: list[dict[str, Any]] = [
        {
            "name": slot.name,
            "addresses": [str(address) for address in slot.addresses],
            "kind": slot.kind,
            "required": slot.default is MISSING,
            "default": None if slot.default is MISSING else slot.default,
            "schema": slot.normalise.schema,
            "description": slot.description,
        }
        for slot in template.slots.values()
    ]
    if as_json:
        console.out_json(rows)
        return
    headers = ("name", "addresses", "kind", "default", "schema", "description")
    console.table(headers, [_shown(row) for row in rows])


def _shown(row: Mapping[str, Any]) -> list[object]:
    default = "(must be given)" if row["required"] else row["default"]
    return [row["name"], " ".join(row["addresses"]), row["kind"], default, row["schema"] or "", row["description"]]


def _known_classes() -> Mapping[str, Any]:
    """What the embedded server knows of node classes: types and limits of the core nodes, without asking anybody."""
    from sweeper.embedded.nodes import NODE_CLASSES  # noqa: PLC0415

    return {
        name: {"input": {"required": dict(node.required), "optional": dict(node.optional)}}
        for name, node in NODE_CLASSES.items()
    }
