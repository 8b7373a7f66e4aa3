"""`sweeper comfyui-extension`: add *Sweep...* to the menus of a ComfyUI, and remove it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Final

import click

from sweeper.cli import console
from sweeper.cli.options import format_examples
from sweeper.editing import comfyui_extension
from sweeper.editing.comfyui_extension import RECORD_NAME
from sweeper.errors import UsageError

_PACK: Final = Path(comfyui_extension.__file__).parent
_NAME: Final = "comfyui-sweeper"  # with a hyphen, so that no program can import it as `sweeper`

path_argument = click.argument("path", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="PATH")


@click.group()
def command() -> None:
    """Add "Sweep..." to the menus of a ComfyUI on this machine, or remove it."""


@command.command(epilog=format_examples("sweeper comfyui-extension install ~/ComfyUI"))
@path_argument
@click.option("--copy", is_flag=True, help="Copy files that otherwise are links to those of this sweeper. After an "
              "update of sweeper, install again. On Windows, sweeper always copies.")  # fmt: skip
def install(path: Path, *, copy: bool) -> None:
    """Add "Sweep..." to the ComfyUI in PATH: its folder, or its custom_nodes.

    This is a custom node pack without nodes, in custom_nodes/comfyui-sweeper. It starts `sweeper open` with the Python
    that runs this command. It replaces what an earlier `install` made.
    """
    folder = _find_folder(path)
    if folder.exists() or folder.is_symlink():
        _remove_pack(folder)
    folder.mkdir()
    copy = copy or os.name == "nt"  # Windows lets few users make links
    if copy:
        shutil.copy2(_PACK / "__init__.py", folder)
        shutil.copytree(_PACK / "js", folder / "js")
    else:
        for name in ("__init__.py", "js"):
            (folder / name).symlink_to(_PACK / name)
    (folder / RECORD_NAME).write_text(json.dumps({"python": sys.executable}))
    console.print_status(f"{'copied' if copy else 'linked'} into {folder}")
    console.print_status("next: restart ComfyUI and reload its page; then right-click a widget and choose Sweep...")


@command.command(epilog=format_examples("sweeper comfyui-extension uninstall ~/ComfyUI"))
@path_argument
def uninstall(path: Path) -> None:
    """Remove what `install` added to the ComfyUI in PATH. Sweeps and their results stay in its folder user/sweeper."""
    folder = _find_folder(path)
    _remove_pack(folder)
    console.print_status(f"removed {folder}; restart ComfyUI")


def _find_folder(path: Path) -> Path:
    """The folder for our pack in the ComfyUI at `path`. Raises UsageError if there is no ComfyUI."""
    path = path.resolve()
    root = path.parent if path.name == "custom_nodes" else path
    # The desktop program has its code elsewhere; its folder has the models and the user's files.
    if not (root / "custom_nodes").is_dir() or not ((root / "main.py").is_file() or (root / "models").is_dir()):
        hint = f"; did you mean {root / 'ComfyUI'}?" if (root / "ComfyUI" / "custom_nodes").is_dir() else ""
        raise UsageError(f"{path}: is not a ComfyUI, which contains custom_nodes, and main.py or models{hint}")
    return root / "custom_nodes" / _NAME


def _remove_pack(folder: Path) -> None:
    """Remove a folder that `install` made. Raises UsageError if it is another, or has files of somebody else in it."""
    if folder.is_symlink() or not (folder / RECORD_NAME).is_file():
        raise UsageError(f"{folder}: `sweeper comfyui-extension install` has not made this folder")
    others = [file for file in folder.iterdir() if file.name not in ("__init__.py", "js", "__pycache__", RECORD_NAME)]
    if not (folder / "js").is_symlink():
        others += [file for file in folder.glob("js/*") if file.suffix != ".js"]
    if others:
        names = ", ".join(str(file.relative_to(folder)) for file in others)
        raise UsageError(f"{folder}: contains {names}, which sweeper did not put there; move that away first")
    shutil.rmtree(folder)  # of a link, this removes only the link
