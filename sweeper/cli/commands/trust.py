"""`sweeper trust`: remember which folders hold experiments that may use keys, own code and files elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.cli.trusted_folders import add_trusted_folder, load_trusted_folders, remove_trusted_folder
from sweeper.errors import UsageError

_HELP = """Trust the experiments in DIR (by default the current folder) and its subfolders, except other projects in it.

sweeper reads and runs a stranger's experiment without trust, but an experiment needs trust to:

\b
- send the value of an environment variable as a key (api_key_env, partner_key_env), unless your own
  targets file names that variable for that server
- import Python code (a metric `module:function`)
- read files outside of its project or hidden in it (template, lines, csv, files, slots of kind file)
- write pictures anywhere but in the results folder or the project (run.out)

With trust or without, the key of Comfy Cloud goes to Comfy Cloud only, unless your own targets file names its
variable for another server; an experiment starts no program; and paths in a results folder or a baseline stay
inside it. A target that the experiment names receives its workflows and input files.

The project of an experiment is the nearest folder that contains .git or pyproject.toml; if there is none, the
folder above the experiment's. Your home folder and the folders above it are never a project. `--trust` trusts an
experiment for one command, and `sweeper init` trusts the folder that it makes.
"""


@click.command(
    help=_HELP,
    epilog=format_examples("sweeper trust my-sweep", "sweeper trust --list", "sweeper trust --revoke my-sweep"),
)
@click.argument("folder", type=click.Path(path_type=Path), required=False, metavar="[DIR]")
@click.option("--list", "list_folders", is_flag=True, help="Show the trusted folders.")
@click.option("--revoke", is_flag=True, help="Trust DIR no longer.")
@options.as_json
def command(folder: Path | None, *, list_folders: bool, revoke: bool, as_json: bool) -> None:
    if list_folders:
        if revoke or folder is not None:
            raise UsageError("--list takes neither DIR nor --revoke")
        folders = [str(path) for path in load_trusted_folders()]
        if as_json:
            console.print_json({"trusted": folders})
            return
        for path in folders:
            console.print_line(console.sanitize(path))
        if not folders:
            console.print_status("no folder is trusted; `sweeper trust DIR` trusts one")
        return
    folder = (Path() if folder is None else folder).resolve()
    if revoke:
        if not remove_trusted_folder(folder):
            raise UsageError(f"{folder}: is not trusted; `sweeper trust --list` shows the trusted folders")
    elif not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder; give the folder of the experiments")
    else:
        add_trusted_folder(folder)
    if as_json:
        console.print_json({"folder": str(folder), "trusted": not revoke})
    else:
        console.print_status(f"{'no longer trusted' if revoke else 'trusted'}: {folder}")
