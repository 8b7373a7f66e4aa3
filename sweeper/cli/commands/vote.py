"""`sweeper vote`: serve a page on which people say which of two pictures is better, without knowing what made them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from sweeper.cli import console, options
from sweeper.cli.commands.view import host, port, show_address
from sweeper.cli.options import format_examples, make_names_option
from sweeper.cli.wait_for_signal import catch_stop_signals
from sweeper.errors import SweeperError
from sweeper.model.selection import Selection
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.select_rows import select_trials
from sweeper.wording import count_things, join_names

_ENVIRONMENT_VARIABLE: Final = "SWEEPER_VOTE_TOKEN"

between = make_names_option(
    "--between",
    "between",
    "The two pictures differ in this axis only. Several axes: in one of them. [default: every axis except seeds and "
    "prompts; of a search, `point`: all axes of its space]",
    "AXIS,...",
)


@click.command(
    epilog=format_examples(
        "sweeper vote experiments/quickstart.yaml --open",
        "sweeper vote experiments/results/quickstart --between steps --host 0.0.0.0",
    )
)
@options.results
@between
@options.where
@click.option("--as", "voter", metavar="NAME", help="The voter's name. [default: the page asks for it]")
@click.option("--hide-ranking", is_flag=True, help="Do not show voters the ranking when they have finished.")
@host
@port
@options.open_browser
@options.as_json
def command(
    results: Path, *, between: list[str], where: str | None, voter: str | None, hide_ranking: bool, host: str,
    port: int, open_browser: bool, as_json: bool,
) -> None:  # fmt: skip
    """Ask which of two pictures is better. They are equal in everything but one axis, and nothing shows which is which.

    In the results of a search, they show two of its points on the same prompt and seed. A search by votes goes on when
    it has enough of them.

    The first line on stdout is the address of the page. Each answer is stored in the results folder before the next
    pair appears; a run may go on meanwhile. Several people can vote at the same time. On any address but loopback the
    page requires a token, as `sweeper view` does; the environment variable SWEEPER_VOTE_TOKEN sets it. The page ends
    with the ranking and a link to the report, which has a port of its own and stores no marks. Ctrl-C ends the command.
    """
    from sweeper.reporting.live.server import LiveView
    from sweeper.voting.ballot import check_voter
    from sweeper.voting.vote_server import VoteServer

    folder = find_results_folder(results)
    server = VoteServer(
        folder, between=between, select=lambda: select_trials(folder, None, Selection(where))[0],
        voter=None if voter is None else check_voter(voter), host=host, port=port,
        token=os.environ.get(_ENVIRONMENT_VARIABLE) or None, hides_ranking=hide_ranking,
    )  # fmt: skip
    with catch_stop_signals() as wait, ExitStack() as stack:
        stack.enter_context(server)
        show_address(
            server, "vote", _ENVIRONMENT_VARIABLE, open_browser=open_browser, as_json=as_json,
            note=_describe(server.summary), **server.summary,
        )  # fmt: skip
        if not hide_ranking:
            try:  # a token of its own, which voters get with the ranking
                server.report_url = stack.enter_context(LiveView(folder, host=host, stores_marks=False)).url
            except SweeperError as error:
                console.warn(f"the page will not link to the report: {error}")
        wait()


def _describe(summary: dict[str, Any]) -> str:
    from sweeper.tables.vote_pictures import POINT

    names = ["their point of the search" if name == POINT else name for name in summary["axes"]]
    axes = join_names(names) if len(names) == 1 else f"one of {join_names(names)}"
    text = f"{count_things(summary['pairs'], 'pair')} of pictures that differ only in {axes}"
    if (votes := summary["needed"]) is not None:
        text += f"; the search {f'needs about {votes} more votes' if votes else 'has enough votes'} to go on"
    if summary["equal"]:
        text += f"; {summary['equal']} more pairs are left out, because their two pictures are equal"
    if summary["missing"]:
        text += f"; {summary['missing']} pictures are left out, because their files are missing"
    if summary["unhashed"]:
        text += f"; {summary['unhashed']} are compared by their files only, until `sweeper run` hashes their pixels"
    return text
