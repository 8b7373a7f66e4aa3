"""`sweeper view`: the page of a run, live, in a browser."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sweeper.cli import console, options
from sweeper.cli.baseline_check import make_live_check
from sweeper.cli.options import format_examples
from sweeper.cli.wait_for_signal import catch_stop_signals

if TYPE_CHECKING:
    from sweeper.model.experiment import Experiment
    from sweeper.reporting.live import LiveView

TOKEN_VARIABLE: Final = "SWEEPER_VIEW_TOKEN"  # noqa: S105 - the name of a variable

host = click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST",
                    help="Address to listen on; any but loopback asks visitors for a token.")  # fmt: skip
port = click.option("--port", default=0, type=click.IntRange(0, 65535), metavar="PORT",
                    help="[default: the results folder's own, so that marks are there again]")  # fmt: skip


@click.command(
    epilog=format_examples("sweeper view experiments/quickstart.yaml", "sweeper view results/quickstart --host 0.0.0.0")
)
@options.results
@options.run_id
@host
@port
@click.option("--open", "opens", is_flag=True, help="Open it in the browser, too.")
@options.as_json
def command(results: Path, *, run_id: str | None, host: str, port: int, opens: bool, as_json: bool) -> None:
    """Show the page of a run in a browser while the run goes on: cells change as trials start and end.

    RESULTS is a results folder, or an experiment file (its default folder is meant; before the first run its plan is
    shown). The first line on stdout is the address. The run may be another process, started before or after. Anywhere
    but on loopback the address holds a token, new each time unless the environment variable SWEEPER_VIEW_TOKEN gives
    one. Ctrl-C ends it.
    """
    folder, experiment = _resolve_results(results)
    with catch_stop_signals() as wait, _make_view(folder, experiment, run=run_id, host=host, port=port) as view:
        # One line either way: whoever reads it waits for no more.
        console.print_line(json.dumps({"url": view.url}) if as_json else view.url)
        console.print_status("Ctrl-C ends it" + ("" if view.token is None else "; whoever has the address may look"))
        if opens:
            import webbrowser  # noqa: PLC0415

            webbrowser.open(view.url)
        wait()


def _resolve_results(results: Path) -> tuple[Path, Experiment | None]:
    """The results folder, and the experiment if that was named: it may not have been run yet."""
    from sweeper.tables.dataframe import find_results_folder  # noqa: PLC0415

    if not results.is_file() or results.suffix.lower() not in (".yaml", ".yml"):
        return find_results_folder(results), None
    from sweeper.loading.load import load  # noqa: PLC0415

    experiment = load(results)
    return Path("results") / experiment.name, experiment


def _make_view(folder: Path, experiment: Experiment | None, **view_options: Any) -> LiveView:
    """The server of a folder, with the user's own token if there is one."""
    from sweeper.reporting.live import LiveView  # noqa: PLC0415

    check = make_live_check(folder, view_options.get("run"), experiment)
    return LiveView(
        folder, experiment=experiment, check=check, token=os.environ.get(TOKEN_VARIABLE) or None, **view_options
    )


@contextmanager
def start_view(folder: Path, experiment: Experiment) -> Iterator[Callable[[], None]]:
    """For `sweeper run --view`: show a run that is about to start; gives what waits for Ctrl-C after its end."""

    def wait_until_stopped() -> None:
        console.print_status(f"still showing {view.url}; Ctrl-C ends it")
        with catch_stop_signals() as wait:  # also where whoever started us has SIGINT ignored, as a shell's `&` does
            wait()

    with _make_view(folder, experiment) as view:
        console.print_status(f"view      {view.url}")
        yield wait_until_stopped
