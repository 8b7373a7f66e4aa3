"""`sweeper init`: make a folder with a template and an experiment that runs as it is, for the user to edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from sweeper.cli import console
from sweeper.cli import options as shared_options
from sweeper.cli.options import format_examples
from sweeper.editing.read_workflow import NodeClassSource
from sweeper.editing.starter_folder import (
    EXPERIMENT,
    make_each,
    make_starter_files,
    write_starter_folder,
)
from sweeper.errors import UsageError
from sweeper.wording import join_command


@click.command(
    epilog=format_examples(
        "sweeper init my-sweep",
        "sweeper init my-sweep --from workflow.json",
        "sweeper init my-sweep --from ComfyUI_00001_.png --target http://127.0.0.1:8188",
        "sweeper init tests --each example_workflows --target http://127.0.0.1:8188",
    )
)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--from", "source", type=click.Path(path_type=Path), metavar="FILE", help="Your workflow: JSON in API or "
              "UI format, or a picture, film or sound that ComfyUI saved. [default: text to image]")  # fmt: skip
@click.option("--each", "workflows", type=click.Path(path_type=Path), metavar="FOLDER", help="An experiment for each "
              "workflow (*.json) below FOLDER, each in a folder of DIR, with the values that it has.")  # fmt: skip
@shared_options.node_classes
@shared_options.as_json
def command(
    folder: Path, *, source: Path | None, workflows: Path | None, target: str | None, object_info: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Make a folder with a template and an experiment that runs at once. Overwrites no files.

    The experiment is named after DIR. It sweeps a seed and one setting of the workflow; more axes to try are in
    comments. With --target it runs there, and the choices in it are those of that server; then --each leaves out
    workflows whose model files the server does not have.
    """
    classes = NodeClassSource(target, object_info)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give the name of a folder")
    if workflows is not None:
        if source is not None:
            raise UsageError("--from and --each both say which workflows; give one")
        _write_each(*make_each(folder, workflows, classes), as_json=as_json)
        return
    contents, notes = make_starter_files(folder, source, classes)
    written = _write_folder(folder, contents, as_json=as_json)
    for note in notes:
        console.warn(note)
    experiment = folder / EXPERIMENT
    if as_json:
        console.print_json({"written": [str(path) for path in written], "experiment": str(experiment)})
        return
    console.print_status(f"next: {join_command(['sweeper', 'run', str(experiment), '--open'])}")


def _write_folder(folder: Path, contents: Mapping[str, bytes], *, as_json: bool) -> list[Path]:
    written = write_starter_folder(folder, contents)
    for path in () if as_json else written:
        console.print_status(f"wrote {path}")
    return written


def _write_each(
    folders: Mapping[Path, Mapping[str, bytes]], left_out: Mapping[Path, str], notes: Sequence[str], *, as_json: bool
) -> None:
    experiments = [str(folder / EXPERIMENT) for folder in folders]
    written = [_write_folder(folder, contents, as_json=as_json) for folder, contents in folders.items()]
    for note in (*notes, *(f"{path}: left out: {reason}" for path, reason in left_out.items())):
        console.warn(note)
    if as_json:
        reasons = [{"workflow": str(path), "reason": reason} for path, reason in left_out.items()]
        files = [str(path) for paths in written for path in paths]
        console.print_json({"written": files, "experiments": experiments, "left_out": reasons})
    elif experiments:
        console.print_status(f"next: {join_command(['sweeper', 'run', experiments[0], '--open'])}")
