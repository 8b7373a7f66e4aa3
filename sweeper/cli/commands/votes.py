"""`sweeper votes`: the ranking that votes give, and files to merge the votes of several folders."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, astuple
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sweeper.answers.cells import sanitize
from sweeper.cli import console, options
from sweeper.cli.commands.vote import between
from sweeper.cli.exit_codes import FAILED, OK
from sweeper.cli.options import format_examples, make_names_option
from sweeper.errors import Problem, UsageError
from sweeper.files import atomic_write
from sweeper.model.judge import CHAT_PATH, Judge
from sweeper.model.target_spec import CLOUD_KEYS, CLOUD_URL
from sweeper.model.urls import normalise_url
from sweeper.store import Store
from sweeper.store.votes import BAD, TIE, Vote
from sweeper.tables.export import encode_line
from sweeper.tables.results_folder import find_results_folder
from sweeper.wording import join_names

if TYPE_CHECKING:
    from sweeper.statistics.ranking import Agreement
    from sweeper.tables.vote_pictures import VotePictures
    from sweeper.tables.vote_tally import ValueRanking


_VARIABLE: Final = re.compile("[A-Z_][A-Z0-9_]*")
_QUESTION: Final = "Which picture is better: follows the prompt more closely, and has fewer flaws?"
_RANKING_HEADERS: Final = ("share", "95 % interval", "won", "equal", "lost", "both bad")
_MAX_NAMED: Final = 3  # undecided pairs of values in a sentence


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
@options.as_json
def list_votes(results: Path, *, axes: list[str], by_picture: bool, as_json: bool) -> None:
    """Rank the values of each axis, the points of a search, or single pictures; and show how far the voters agree.

    The share of a value is the part of its comparisons with the other values that it is expected to win; a tie is half
    a win. The interval holds the true share in 95 of 100 such rankings. A picture is ranked among those of the same
    prompt and seed.
    """
    from sweeper.tables.vote_pictures import VotePictures
    from sweeper.tables.vote_tally import compare_voters, rank_values

    with Store.open(find_results_folder(results), readonly=True) as store:
        pictures, votes = VotePictures(store), [vote for vote in store.votes.load() if vote.counts]
    named = pictures.get_axes(axes, "--axis")
    rankings = [] if by_picture else [rank_values(pictures, axis, votes) for axis in named or pictures.axes]
    rankings = [ranking for ranking in rankings if named or ranking.votes]
    rows = _list_pictures(pictures, votes) if by_picture else []
    agreement = compare_voters(votes)
    voters = dict(Counter(vote.voter for vote in votes).most_common())
    if as_json:
        facts = {"votes": len(votes), "voters": voters, "agreement": asdict(agreement)}
        ranked = {"pictures": rows} if by_picture else {"axes": [_to_json(ranking) for ranking in rankings]}
        console.print_json(facts | ranked)
        return
    if not votes:
        console.print_status(f"no votes yet; start with `sweeper vote {results}`")
        return
    console.print_line(_describe_votes(votes, voters))
    if len(voters) > 1:
        console.print_line(_describe_agreement(agreement))
    used = sum(ranking.votes for ranking in rankings)
    if not axes and not by_picture and used < len(votes):
        console.warn(f"{len(votes) - used} votes are about trials that the table does not have any more; not counted")
    for ranking in rankings:
        _print_ranking(ranking)
    if rows:
        console.print_line()
        console.print_table(list(rows[0]), [list(row.values()) for row in rows])


def _describe_votes(votes: Sequence[Vote], voters: Mapping[str, int]) -> str:
    people = ", ".join(f"{sanitize(name)} {count}" for name, count in voters.items())
    answers = Counter(vote.answer for vote in votes)
    return f"votes    {len(votes)}: {people}; {answers[TIE]} equal, {answers[BAD]} both bad"


def _describe_agreement(agreement: Agreement) -> str:
    if not agreement.pairs:
        return "agree    unknown: no two voters answered the same pair"
    share = agreement.same / agreement.pairs
    alpha = "" if agreement.alpha is None else f"; Krippendorff's alpha {agreement.alpha:.2f} (1: always, 0: by chance)"
    return f"agree    {share:.0%}: {agreement.same} of {agreement.pairs} answers of two voters to the same pair{alpha}"


def _print_ranking(one: ValueRanking) -> None:
    """Say which values are better, then the table of all."""
    from sweeper.statistics.ranking import MIN_GROUPS

    values, ranking = one.axis.values, one.ranking
    order = sorted(range(len(values)), key=lambda value: -ranking.shares[value])
    console.print_line()
    if one.axis.is_point:
        _print_points(one, order)
    else:
        _print_verdicts(one, order)
    if not ranking.by_groups:
        console.print_status(
            f"{one.axis.name}: the intervals take votes as independent, because fewer than {MIN_GROUPS} different "
            "prompts and seeds have votes"
        )


def _print_points(one: ValueRanking, order: Sequence[int]) -> None:
    """Say how sure the best point of a search is, then the table of the points that have votes."""
    voted = [point for point in order if any(astuple(one.counts[point]))]
    if voted:
        best, *others = voted
        better = sum((best, other) in one.ranking.apart for other in others)
        console.print_line(f"the best is {one.axis.values[best]}: surely better than {better} of {len(others)} others")
    if len(voted) < len(order):
        console.print_line(f"{len(order) - len(voted)} points have no votes yet")
    headers = (*one.axis.columns, *_RANKING_HEADERS)
    console.print_table(headers, [(*one.axis.cells[point], *_make_row(one, point)) for point in voted])


def _print_verdicts(one: ValueRanking, order: Sequence[int]) -> None:
    values, ranking = one.axis.values, one.ranking
    worse_of = {value: [values[other] for other in order if (value, other) in ranking.apart] for value in order}
    for value, worse in worse_of.items():
        if worse:
            console.print_line(f"{one.axis.name}: {values[value]} is better than {join_names(worse)}")
    pairs = [*combinations(order, 2)]
    undecided = [f"{values[a]} and {values[b]}" for a, b in pairs if not {(a, b), (b, a)} & ranking.apart]
    if len(undecided) > _MAX_NAMED:
        console.print_line(f"{one.axis.name}: {len(undecided)} of {len(pairs)} pairs of values are undecided")
    elif undecided:
        console.print_line(f"{one.axis.name}: undecided between {'; '.join(undecided)}")
    headers = (one.axis.name, *_RANKING_HEADERS)
    console.print_table(headers, [(values[value], *_make_row(one, value)) for value in order])


def _make_row(one: ValueRanking, value: int) -> tuple[Any, ...]:
    ranking, counts = one.ranking, one.counts[value]
    interval = f"{ranking.low[value]:.0%} to {ranking.high[value]:.0%}"
    return f"{ranking.shares[value]:.0%}", interval, *astuple(counts)


def _to_json(one: ValueRanking) -> dict[str, Any]:
    values, ranking = one.axis.values, one.ranking
    numbers = zip(values, one.axis.cells, ranking.shares, ranking.low, ranking.high, one.counts, strict=True)
    return {
        "axis": one.axis.name,
        "columns": list(one.axis.columns),
        "votes": one.votes,
        "independent": not ranking.by_groups,
        "values": [
            {"value": value, "cells": cells, "share": share, "low": low, "high": high, **asdict(counts)}
            for value, cells, share, low, high, counts in numbers
        ],
        "better": [{"better": values[better], "worse": values[worse]} for better, worse in sorted(ranking.apart)],
    }


def _list_pictures(pictures: VotePictures, votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """A row for each picture that has votes, the best first."""
    from sweeper.tables.vote_tally import count_pictures, score_pictures

    scores, counts = score_pictures(votes), count_pictures(votes)
    rows = [
        {
            "trial": picture.row.trial,
            **picture.row.columns,
            "share": scores[picture.sha256],
            **asdict(counts[picture.sha256]),
            "picture": picture.path,
        }
        for picture in pictures.all
        if picture.sha256 in scores
    ]
    return sorted(rows, key=lambda row: -row["share"])


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
    with ExitStack() as files:
        handle = sys.stdout.buffer if out == "-" else files.enter_context(atomic_write(Path(out)))
        handle.writelines(map(encode_line, lines))
        handle.flush()
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
    from sweeper.tables.vote_pictures import VotePictures
    from sweeper.tables.vote_tally import write_metric
    from sweeper.voting.vote_files import merge_votes, read_votes

    contents: list[tuple[Path, list[Vote]]] = []
    problems: list[Problem] = []
    for file in files:
        try:
            contents.append((file, read_votes(file)))
        except UsageError as error:
            problems += error.problems
    if problems:
        raise UsageError(problems)
    with Store.open(find_results_folder(results)) as store:
        pictures = VotePictures(store)
        with store.transaction():  # all files or none
            merged = {str(file): merge_votes(store, votes, file) for file, votes in contents}
        write_metric(store, pictures, store.votes.load())
    if as_json:
        console.print_json({file: asdict(counts) for file, counts in merged.items()})
        return
    for name, counts in merged.items():
        console.print_line(f"{name}: {counts.new} new votes, {counts.known} known")
        if counts.lacking:
            console.warn(
                f"{name}: {counts.lacking} votes are about pictures that this folder does not have; finish the same "
                "run here, and import the file again"
            )


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
    from sweeper.voting.ballot import Ballot
    from sweeper.voting.judge_votes import cast_votes

    if key_env is not None and not _VARIABLE.fullmatch(key_env):
        raise UsageError("--key-env: give the name of a variable, such as OPENAI_API_KEY, and never the key itself")
    if key_env in CLOUD_KEYS:
        raise UsageError(f"--key-env: the key in {key_env} belongs to {CLOUD_URL}, and goes to no other server")
    judge = Judge("judge", question, normalise_url(url).removesuffix(CHAT_PATH), model, key_env)
    with closing(Ballot(find_results_folder(results), between=between)) as ballot:
        votes = cast_votes(ballot, judge, limit)
    if as_json:
        names = ("voter", "answers", "unclear", "refused", "error")
        console.print_json({name: getattr(votes, name) for name in names})
    else:
        counts = "".join(f", {count} {answer}" for answer, count in sorted(votes.answers.items()))
        console.print_line(f"{votes.answers.total()} votes of {sanitize(votes.voter)}{counts}")
        if votes.unclear:
            console.warn(f"{votes.unclear} answers are neither left, right nor tie, and count as ties")
        if votes.refused:
            console.warn(
                f"{votes.refused} pairs have no vote, because a picture cannot be read or the judge refuses it"
            )
    if votes.error:
        console.warn(f"the judge stopped: {votes.error}")
    return FAILED if votes.error else OK
