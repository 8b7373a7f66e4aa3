"""`sweeper effects`: say what each axis changes in a metric, by how much, and how sure that is."""

from __future__ import annotations

from pathlib import Path

import click

from sweeper.answers.render import render_markdown, render_text
from sweeper.cli import console, options
from sweeper.cli.options import format_examples, make_names_option
from sweeper.model.selection import Selection


@click.command(
    epilog=format_examples(
        "sweeper effects experiments/quickstart.yaml --metric sharpness",
        "sweeper effects experiments/quickstart.yaml --metric ran_s --axis steps --over prompt,seed",
        "sweeper effects experiments/quickstart.yaml -o effects.md",
    )
)
@options.results
@make_names_option(
    "--metric", "metrics", "Only these metrics, or ran_s or cost. [default: every metric that holds numbers]"
)
@make_names_option(
    "--axis", "axes", "Compare only the values of these axes. [default: every axis that is not a replicate]"
)
@options.over
@click.option("-o", "--output", type=options.FILE, metavar="FILE",
              help="Write the answer to this file: as Markdown if its name ends in .md.")  # fmt: skip
@options.run_id
@options.selection
@options.as_json
def command(
    results: Path, *, metrics: list[str], axes: list[str], over: list[str], output: Path | None,
    run_id: str | None, selection: Selection, as_json: bool,
) -> None:  # fmt: skip
    """Say what each axis changes: by how much its values differ, for which prompts, and its share of the variance.

    RESULTS is a results folder, or an experiment file. Differences are means over trials that are equal in all other
    axes; the intervals of all axes of a metric hold together with 95 % confidence. See sweeper/statistics/README.md.
    """
    from sweeper.tables.effects import EffectQuery, analyse_effects

    answer = analyse_effects(results, EffectQuery(metrics, axes, over, selection, run_id))
    if output is None:
        console.print_answer(answer, as_json=as_json)
        return
    if as_json:
        text = console.format_json(answer)
    elif output.suffix.lower() == ".md":
        text = render_markdown(answer.parts()).strip()
    else:
        text = "\n".join(render_text(answer.parts()))
    console.write_lines([f"{text}\n"], str(output))
    console.print_status(f"wrote {output}")
