"""`sweeper view`: show the page of a run in a browser while the run continues."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sweeper.cli import console, options
from sweeper.cli.open_page import open_in_browser
from sweeper.cli.options import format_examples
from sweeper.cli.wait_for_signal import catch_stop_signals
from sweeper.loading.load import load_recorded
from sweeper.model.experiment import Experiment
from sweeper.running.prepare import complete_experiment
from sweeper.tables.results_folder import default_results_folder, find_results_folder

if TYPE_CHECKING:
    from sweeper.reporting.live import LiveView
    from sweeper.serving.access import PageServer

_ENVIRONMENT_VARIABLE: Final = "SWEEPER_VIEW_TOKEN"
_SAFE_TOKEN: Final = 22  # random letters and digits have 128 bits

host = click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST",
                    help="Address to listen on; any address but loopback requires a token from visitors.")  # fmt: skip
port = click.option("--port", default=0, type=click.IntRange(0, 65535), metavar="PORT",
                    help="Port to listen on. [default: fixed per folder, so the browser keeps its marks]")  # fmt: skip


@click.command(
    epilog=format_examples(
        "sweeper view experiments/quickstart.yaml", "sweeper view experiments/results/quickstart --host 0.0.0.0"
    )
)
@options.results
@options.run_id
@host
@port
@options.open_browser
@options.as_json
def command(results: Path, *, run_id: str | None, host: str, port: int, open_browser: bool, as_json: bool) -> None:
    """Show the page of a run in a browser while the run continues: cells change as trials start and end.

    RESULTS is a results folder, or an experiment file (for its default folder; before the first run, the page shows the
    plan). The run may be another process, started earlier or later. The first line on stdout is the address. On any
    address but loopback it contains a token, which is new each time unless the environment variable SWEEPER_VIEW_TOKEN
    sets it. Ctrl-C stops the command.
    """
    experiment = None  # of a file that was given, which may not have run yet
    if results.is_file() and results.suffix.lower() in (".yaml", ".yml"):
        experiment = complete_experiment(load_recorded(results, {}), may_send_keys=False)
        folder = default_results_folder(experiment.file, experiment.name)
    else:
        folder = find_results_folder(results)
    with catch_stop_signals() as wait, _show_view(folder, experiment, run=run_id, host=host, port=port) as view:
        note = f"with the buttons of cells: {view.session_url}" if view.token is None else ""
        show_address(view, "see it", _ENVIRONMENT_VARIABLE, open_browser=open_browser, as_json=as_json, note=note)
        wait()


@contextmanager
def _show_view(folder: Path, experiment: Experiment | None, **view_options: Any) -> Iterator[LiveView]:
    from sweeper.editing.cell_actions import CellActions
    from sweeper.editing.open_server import OpenServer
    from sweeper.regression.check import make_live_check
    from sweeper.reporting.live import LiveView

    check = make_live_check(folder, view_options.get("run"), experiment)
    token = os.environ.get(_ENVIRONMENT_VARIABLE) or None
    cells = CellActions(OpenServer)
    try:
        with LiveView(folder, experiment=experiment, check=check, token=token, on_cell=cells, **view_options) as view:
            yield view
    finally:
        cells.close()


def show_address(
    server: PageServer, action: str, variable: str = "", *, open_browser: bool, as_json: bool,
    note: str = "", **facts: Any,
) -> None:  # fmt: skip
    """Print the address of a page (`facts`: more of the JSON), a `note`, and who can `action` there; open the page.

    Warns if the token, which the environment variable `variable` set, is short.
    """
    # JSON is on one line too, because a program that reads the address waits for a line.
    console.print_line(json.dumps({"url": server.url, **facts}) if as_json else server.url)
    if note:
        console.print_status(note)
    token = server.token
    console.print_status("Ctrl-C stops it" + ("" if token is None else f"; anyone with this address can {action}"))
    if token is not None and len(token) < _SAFE_TOKEN:
        console.warn(
            f"{variable}: a token of {len(token)} characters can be guessed; use {_SAFE_TOKEN} or more random ones, or "
            "unset it and sweeper makes one"
        )
    if open_browser:
        open_in_browser(server.session_url)


@contextmanager
def start_view(folder: Path, experiment: Experiment, *, open_browser: bool) -> Iterator[Callable[[], None]]:
    """For `sweeper run --view`: serve the page of a run. Yields a function that waits for Ctrl-C after the run."""

    def wait_until_stopped() -> None:
        console.print_status(f"still showing {view.url}; Ctrl-C stops it")
        with catch_stop_signals() as wait:  # works even if SIGINT is ignored, as after a shell's `&`
            wait()

    with _show_view(folder, experiment) as view:
        console.print_status(f"view      {view.session_url}")
        if open_browser:
            open_in_browser(view.session_url)
        yield wait_until_stopped
