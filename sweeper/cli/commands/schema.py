"""`sweeper schema`: print the path of a JSON Schema, for editors that complete and check YAML."""

from __future__ import annotations

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.schemas import find_schema_file, make_editor_line


@click.command(epilog=format_examples("sweeper schema", "sweeper schema slots --line"))
@click.argument("name", type=click.Choice(("experiment", "slots")), default="experiment", metavar="[NAME]")
@click.option("--line", is_flag=True, help="Print the line with which a file names its schema to an editor.")
@options.as_json
def command(*, name: str, line: bool, as_json: bool) -> None:
    """Print the path of the JSON Schema of experiments, or of `slots` files, in this installation."""
    path = find_schema_file(name)
    if as_json:
        console.print_json({"schema": str(path), "line": make_editor_line(name)})
    else:
        console.print_line(make_editor_line(name) if line else str(path))
