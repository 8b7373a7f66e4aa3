"""`sweeper votes`: the ranking that votes give, and files to merge the votes of several folders."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Final

import click

from sweeper.cli import console, options
from sweeper.cli.commands.vote import between
from sweeper.cli.exit_codes import FAILED, OK
from sweeper.cli.options import format_examples, make_names_option
from sweeper.errors import UsageError
from sweeper.model.experiment import CHAT_PATH, Judge, JudgeQuestion
from sweeper.model.target_spec import CLOUD_KEYS, CLOUD_URL
from sweeper.model.urls import normalise_url
from sweeper.store import Store
from sweeper.tables.results_folder import find_results_folder

_VARIABLE: Final = re.compile("[A-Z_][A-Z0-9_]*")
_QUESTION: Final = "Which picture is better: follows the prompt more closely, and has fewer flaws?"


class _VotesGroup(options.SuggestingGroup):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like the method of the base class, but `sweeper votes RESULTS` is `sweeper votes list RESULTS`."""
        if args[0] not in self.commands and Path(args[0]).exists():
            args = ["list", *args]
        return super().resolve_command(ctx, args)


@click.group(
    cls=_VotesGroup,
    invoke_without_command=True,
    epilog=format_examples(
        "sweeper votes experiments/quickstart.yaml", "sweeper votes export results/mine -o ana.jsonl"
    ),
)
@click.pass_context
def command(context: click.Context) -> None:
    """Show the ranking that the votes of `sweeper vote` give, and merge the votes of several people.

    `sweeper votes RESULTS` is short for `sweeper votes list RESULTS`.
    """
    if context.invoked_subcommand is None:
        console.print_line(context.get_help())


@command.command(
    "list",
    epilog=format_examples(
        "sweeper votes list experiments/results/quickstart", "sweeper votes list experiments/quickstart.yaml --pictures"
    ),
)
@options.results
@make_names_option("--axis", "axes", "Rank the values of this axis. [default: every axis with votes]", "AXIS,...")
@click.option("--pictures", "by_picture", is_flag=True, help="Rank the single pictures instead.")
@click.option("--judge", metavar="METRIC", help="How far does this metric agree with people's votes?")
@options.as_json
def list_votes(results: Path, *, axes: list[str], by_picture: bool, judge: str | None, as_json: bool) -> None:
    """Rank the values of each axis, the points of a search, or single pictures; and show how far the voters agree.

    The share of a value is the part of its comparisons with the other values that it is expected to win; a tie is half
    a win. The interval holds the true share in 95 of 100 such rankings. A picture is ranked among those of the same
    prompt and seed. With --judge, only say how far a metric agrees with people: which picture of a pair is better?
    """
    from sweeper.tables.vote_tally import compare_judge, rank_votes

    if judge is not None:
        if axes or by_picture:
            raise UsageError("--judge compares a metric with the votes; leave out --axis and --pictures")
        console.print_answer(compare_judge(results, judge), as_json=as_json)
        return
    console.print_answer(rank_votes(results, axes, by_picture=by_picture), as_json=as_json)


@command.command("export", epilog=format_examples("sweeper votes export experiments/quickstart.yaml -o votes.jsonl"))
@options.results
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE|-",
              help="The file to write; - for stdout.")  # fmt: skip
def export_votes(results: Path, *, out: str) -> None:
    """Write the votes as JSON Lines, for `sweeper votes import` into another copy of the results.

    The file has the names of the voters, the hashes of the pictures and the answers, also those that were undone.
    """
    from sweeper.voting.vote_files import format_votes

    with Store.open(find_results_folder(results), readonly=True) as store:
        lines = list(format_votes(store.votes.load()))
    console.write_lines(lines, out)
    if out != "-":
        console.print_status(f"wrote {len(lines)} votes to {out}")


@command.command(
    "import", epilog=format_examples("sweeper votes import experiments/quickstart.yaml ana.jsonl bo.jsonl")
)
@options.results
@click.argument("files", nargs=-1, required=True, metavar="FILE...",
                type=click.Path(exists=True, dir_okay=False, path_type=Path))  # fmt: skip
@options.as_json
def import_votes(results: Path, files: tuple[Path, ...], *, as_json: bool) -> None:
    """Add the votes of other copies of the results, from files that `sweeper votes export` wrote.

    A vote that is already here is not counted again, so the same file may be imported any number of times. If any line
    of any file is not a vote, nothing is imported.
    """
    from sweeper.voting import vote_files

    console.print_answer(vote_files.import_votes(results, files), as_json=as_json)


@command.command(
    "judge",
    epilog=format_examples(
        "sweeper votes judge experiments/quickstart.yaml --url http://127.0.0.1:11434/v1 --model qwen2.5vl --limit 100"
    ),
)
@options.results
@between
@click.option("--url", required=True, help="The address of an OpenAI-compatible API.")
@click.option("--model", required=True, help="The name of a vision model there.")
@click.option("--key-env", metavar="NAME", help="The environment variable with the key, if the API needs one.")
@click.option("--question", default=_QUESTION, metavar="TEXT", help=f"What to ask. [default: {_QUESTION}]")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(min=1), metavar="N", help="At most N votes."
)
@options.as_json
def let_judge_vote(
    results: Path, *, between: list[str], url: str, model: str, key_env: str | None, question: str, limit: int,
    as_json: bool,
) -> int:  # fmt: skip
    """Let a vision model vote, as the voter `judge:MODEL`. It gets the pictures and their prompt.

    The model sees each pair in both orders, with two requests. If it does not choose the same picture both times, that
    is a tie. It is never asked about a pair again. Exit code 1 if the judge fails; the votes so far are kept.
    """
    from sweeper.voting.ballot import Ballot, cast_votes

    if key_env is not None and not _VARIABLE.fullmatch(key_env):
        raise UsageError("--key-env: give the name of a variable, such as OPENAI_API_KEY, and never the key itself")
    if key_env in CLOUD_KEYS:
        raise UsageError(f"--key-env: the key in {key_env} belongs to {CLOUD_URL}, and goes to no other server")
    judge = Judge("judge", (JudgeQuestion(question),), normalise_url(url).removesuffix(CHAT_PATH), model, key_env)
    with closing(Ballot(find_results_folder(results), between=between)) as ballot:
        votes = cast_votes(ballot, judge, limit)
    console.print_answer(votes, as_json=as_json)
    if votes.error and as_json:
        console.warn(f"the judge stopped: {votes.error}")
    return FAILED if votes.error else OK
