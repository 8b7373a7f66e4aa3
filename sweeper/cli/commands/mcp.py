"""`sweeper mcp`: let an assistant build and run sweeps, over the Model Context Protocol on stdin and stdout."""

from __future__ import annotations

import asyncio
import os
from decimal import Decimal
from pathlib import Path

import click

from sweeper.cli.assistant.workspace import Workspace, confine_process, get_root
from sweeper.cli.exit_codes import INTERRUPTED
from sweeper.cli.options import format_examples, parse_budget
from sweeper.errors import UsageError
from sweeper.model.money import floor_micros
from sweeper.running.stop_control import call_on_stop_signals
from sweeper.wording import format_install


@click.command(
    epilog=format_examples(
        "sweeper mcp --root my-sweeps", 'sweeper mcp --root my-sweeps --target gpu-1 --budget "5 USD"'
    )
)
@click.option(
    "--root", type=click.Path(file_okay=False, path_type=Path), default=Path(), metavar="DIR",
    help="The folder that the assistant may read and write. [default: the current folder]",
)  # fmt: skip
@click.option(
    "-t", "--target", "targets", multiple=True, metavar="TARGET",
    help="A URL that the assistant may use, besides embedded, cloud and the names in your targets file. Repeatable.",
)  # fmt: skip
@click.option(
    "--budget", callback=parse_budget, metavar="USD",
    help="The most that all runs of this server may cost together, such as '5 USD'. [default: none may cost anything]",
)  # fmt: skip
def command(root: Path, *, targets: tuple[str, ...], budget: Decimal | None) -> None:
    """Serve sweeper's commands as tools for an assistant, over the Model Context Protocol on stdin and stdout.

    Your assistant starts this command; sweeper/cli/assistant/README.md has the entry for its settings. It works in the
    root folder only, never passes keys on, trusts no experiment by itself, and stops with the assistant.
    """
    workspace = Workspace(get_root(root), targets)
    try:
        from sweeper.cli.assistant.mcp_tools import make_server
    except ModuleNotFoundError as error:
        if error.name not in ("mcp", "mcp_types"):
            raise
        raise UsageError(f"sweeper mcp needs the package `mcp`: {format_install('mcp>=2.3')}") from None

    confine_process(workspace)

    async def serve() -> None:
        server, runs = make_server(workspace, None if budget is None else floor_micros(budget))
        stop = asyncio.Event()
        call_on_stop_signals(stop.set)
        serving = asyncio.create_task(server.run_stdio_async())
        await asyncio.wait([serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        await runs.close()
        if not serving.done():
            os._exit(INTERRUPTED)  # a thread of the SDK waits for a line of stdin, for ever
        serving.result()

    asyncio.run(serve())
