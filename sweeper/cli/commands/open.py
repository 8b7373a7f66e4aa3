"""`sweeper open`: build an experiment on a page in the browser."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from sweeper.cli import console, options, trust_check
from sweeper.cli.commands.view import host, port, show_address
from sweeper.cli.options import format_examples
from sweeper.cli.wait_for_signal import catch_stop_signals
from sweeper.editing.read_workflow import NodeClassSource
from sweeper.editing.starter_folder import make_experiment
from sweeper.errors import ExperimentError, UsageError
from sweeper.loading.targets_file import load_named_targets
from sweeper.tables.results_folder import find_results_folder

_EXPERIMENTS = (".yaml", ".yml")


@click.command(
    epilog=format_examples(
        "sweeper open experiments/quickstart.yaml", "sweeper open ComfyUI_00001_.png --target http://127.0.0.1:8188"
    )
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("-t", "--target", metavar="TARGET", shell_complete=options.complete_from("targets"),
              help="embedded, cloud, a URL, or a name from the targets file. [default: the experiment's]")  # fmt: skip
@click.option("--into", type=options.FOLDER, metavar="DIR",
              help="The folder to make for a workflow. [default: named after FILE]")  # fmt: skip
@click.option("--axis", metavar="NODE.INPUT", help="Make this input the first axis; of a new folder the only one.")
@click.option(
    "--like", type=int, metavar="TRIAL", help="FILE is a results folder: make an experiment around this trial."
)
@host
@port
@click.option("--open/--no-open", "open_browser", default=True, help="Open the page in the browser. [default: on]")
@click.option("--embed-in", metavar="ORIGIN",
              help="Let pages of this origin, such as http://127.0.0.1:8188, show the page in a frame.")  # fmt: skip
@options.as_json
@trust_check.option
def command(
    file: Path | None, *, target: str | None, into: Path | None, axis: str | None, like: int | None, host: str,
    port: int, open_browser: bool, embed_in: str | None, as_json: bool, trust: bool,
) -> None:  # fmt: skip
    """Build an experiment on a page in the browser, see what it would do, and run it.

    FILE is an experiment, or a workflow as `sweeper init --from` reads it, of which this makes the same folder. Without
    FILE, the page offers the experiments here, and the saved workflows and last jobs of a ComfyUI.

    The page saves each change into the file. The first line on stdout is its address, which contains a token; whoever
    has it can edit and run. Ctrl-C stops the command and a run that it started.
    """
    from sweeper.editing.open_server import OpenServer

    if axis is not None and file is None:
        raise UsageError("--axis needs FILE")
    notes: list[str] = []
    if like is not None:
        from sweeper.editing.cell_actions import find_trial, write_similar

        file = write_similar(*find_trial(find_results_folder(file or Path()), like))
        console.print_status(f"wrote {file}")
    workflow = file and options.get_workflow_path(file)
    if file is not None and workflow == file and file.suffix.lower() in _EXPERIMENTS:
        with suppress(ExperimentError):  # the page shows it
            named = load_named_targets()
            trust_check.load_trusted(file, named, trust=trust, targets=None if target is None else [target])
    elif file is not None:
        file, notes = make_experiment(workflow, into, NodeClassSource(target), axis=axis)
        for note in notes:
            console.warn(note)
    server = OpenServer(file, target=target, trust=trust, into=into, host=host, port=port, embedder=embed_in)
    server.editor.notes = tuple(notes)
    with catch_stop_signals() as wait, server:
        if axis is not None:
            server.editor.make_axis(axis)
        show_address(server, "edit and run", open_browser=open_browser, as_json=as_json)
        wait()
        if server.runner.stop():
            console.print_status("waiting for the jobs that run; Ctrl-C again cancels them")
        while server.runner.is_running:
            with catch_stop_signals() as wait_again:
                wait_again(lambda: not server.runner.is_running)
            server.runner.stop()
