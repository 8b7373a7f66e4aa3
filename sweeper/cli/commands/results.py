"""`sweeper results`: print the table of a run, whole, in groups or as a pivot table, or as JSON."""

from __future__ import annotations

from pathlib import Path

import click

from sweeper.cli import console, options
from sweeper.cli.options import complete_from, format_examples, split_names
from sweeper.model.selection import Selection
from sweeper.tables.query_results import ResultsQuery, query_results


@click.command(
    epilog=format_examples(
        "sweeper results experiments/quickstart.yaml --where \"status == 'failed'\"",
        "sweeper results experiments/quickstart.yaml --sort -sharpness --limit 5",
        "sweeper results experiments/quickstart.yaml --by steps",
        "sweeper results experiments/quickstart.yaml --pivot steps,prompt,sharpness",
        "sweeper results experiments/search.yaml --best 5",
    )
)
@options.results
@options.run_id
@options.selection
@click.option(
    "--sort",
    "sorts",
    multiple=True,
    metavar="COLUMN",
    shell_complete=complete_from("columns"),
    help="Sort by this column; -COLUMN sorts in descending order.",
)
@click.option("--columns", multiple=True, metavar="A,B,...", shell_complete=complete_from("columns"),
              help="Show only these columns.")  # fmt: skip
@click.option("--by", multiple=True, metavar="AXIS,...", shell_complete=complete_from("columns"),
              help="Show one row per value (or combination): cost, mean and deviation of every metric.")  # fmt: skip
@click.option(
    "--pivot",
    metavar="X,Y,METRIC",
    shell_complete=complete_from("columns"),
    help="Show the means of METRIC, with the values of X across and of Y down.",
)
@click.option("--best", type=click.IntRange(min=1), metavar="[N]", is_flag=False, flag_value=5, help="Show the N (by "
              "default 5) best points of a search, one row for each; with several objectives, the points of the Pareto "
              "front.")  # fmt: skip
@options.as_json
def command(
    results: Path, *, run_id: str | None, selection: Selection, sorts: tuple[str, ...], columns: tuple[str, ...],
    by: tuple[str, ...], pivot: str | None, best: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Show the table of a run. RESULTS is a results folder, or an experiment file (for its default folder).

    --by and --pivot work with every column that holds numbers: metrics, ran_s, cost, attempts, slots.
    """
    query = ResultsQuery(
        selection, sorts, _split(columns), _split(by), None if pivot is None else split_names([pivot]), best, run_id
    )
    answer = query_results(results, query)
    if as_json and answer.message:
        console.print_status(answer.message)
    console.print_answer(answer, as_json=as_json)


def _split(texts: tuple[str, ...]) -> list[str] | None:
    return split_names(texts) if texts else None
