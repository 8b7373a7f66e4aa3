"""`sweeper init`: make a folder with a template and an experiment that runs as it is, for the user to edit."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.cli.trusted_folders import add_trusted_folder
from sweeper.errors import UsageError
from sweeper.schemas import make_editor_line

STARTER_FILES = ("experiment.yaml", "txt2img.json", "txt2img.slots.yaml")


@click.command(epilog=format_examples("sweeper init my-sweep", "sweeper run my-sweep/experiment.yaml"))
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@options.as_json
def command(folder: Path, *, as_json: bool) -> None:
    """Make a folder with a template and an experiment to edit, named after DIR, and trust it. Overwrites no files."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give the name of a folder")
    present = [name for name in STARTER_FILES if (folder / name).exists()]
    if present:
        raise UsageError(f"{folder}: already contains {', '.join(present)}; give another folder, or move them away")
    folder.mkdir(parents=True, exist_ok=True)
    for name in STARTER_FILES:
        content = resources.files("sweeper.cli").joinpath("starter", name).read_bytes()
        if name == "experiment.yaml":
            content = content.replace(b"first-sweep", _choose_name(folder).encode())
            content = f"{make_editor_line('experiment')}\n".encode() + content
        with (folder / name).open("xb") as file:  # x: fails if another process just made the file
            file.write(content)
        if not as_json:
            console.print_status(f"wrote {folder / name}")
    try:
        add_trusted_folder(folder)
    except UsageError as error:  # the files are there, and need no trust as they are
        console.warn(f"{folder} is not trusted: {error}")
    if as_json:
        written = [str(folder / name) for name in STARTER_FILES]
        console.print_json({"written": written, "experiment": str(folder / "experiment.yaml")})
        return
    console.print_status(f"next: sweeper run {folder / 'experiment.yaml'}")


def _choose_name(folder: Path) -> str:
    """The name of the folder as the name of an experiment, which may have fewer kinds of characters."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")
    return name[:100] or "first-sweep"
