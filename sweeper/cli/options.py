"""Options that several commands share, and the types of their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sweeper.did_you_mean import suggest
from sweeper.errors import UsageError


def format_examples(*lines: str) -> str:
    """The end of a command's help; the backspace keeps click from filling the lines into a paragraph."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


class SuggestingGroup(click.Group):
    """A group that knows which command a misspelt one was meant to be."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest name in the error."""
        names = self.list_commands(ctx)
        if not args[0].startswith("-") and args[0] not in names:
            raise click.UsageError(f"no such command '{args[0]}'{suggest(args[0], names)}", ctx)
        return super().resolve_command(ctx, args)


class DirOrUrl(click.Path):
    """A folder, or a URL as it is written."""

    name = "place"

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's, but a URL is no path."""
        return value if isinstance(value, str) and "://" in value else super().convert(value, param, ctx)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines, and nothing else, on stdout.")
targets = click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="embedded, cloud, a URL, or a name of the experiment's or of the targets file; may be repeated. "
    "[default: the experiment's]",
)
out = click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Results folder. [default: results/NAME here]",
)
settings = click.option(
    "--set", "settings", multiple=True, metavar="SLOT=VALUE", help="Fix a slot or variable for this time; YAML value."
)
run_id = click.option(
    "--run", "run_id", metavar="ID", help="An earlier run (see `sweeper runs`). [default: the latest]"
)
results = click.argument("results", type=click.Path(path_type=Path), metavar="RESULTS")
experiment = click.argument("experiment", type=click.Path(path_type=Path), metavar="EXPERIMENT")


def get_workflow_path(file: Path) -> Path:
    """A template's workflow, also where its slots file is given in its stead."""
    stem = file.name.removesuffix(".slots.yaml")
    return file if stem == file.name else file.with_name(f"{stem}.json")


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`("steps=8", "prompt=a fox")` as `{"steps": 8, "prompt": "a fox"}`; values are YAML as in an experiment.

    Raises UsageError for what is no NAME=VALUE, what does not parse, and a name given twice.
    """
    from sweeper.loading.parse import parse_yaml  # noqa: PLC0415 - YAML is read only when there is some
    from sweeper.model.source import SourceError  # noqa: PLC0415 - YAML is read only when there is some

    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"--set {setting}: write SLOT=VALUE, such as steps=8")
        if name in found:
            raise UsageError(f"--set {name}: given twice")
        try:
            found[name] = parse_yaml(text, f"--set {name}").value if text.strip() else text
        except SourceError as error:
            raise UsageError(f"--set {setting}: {error.problem.message}") from error
    return found


def to_target_list(targets: tuple[str, ...]) -> list[str] | None:
    """What the library takes: None means the experiment's own target."""
    return list(targets) or None
