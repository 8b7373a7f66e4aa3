"""Why a combination of values is no trial: the rule of the sweep that dropped it, for the page's empty cells.

Told only where the experiment, as it stands now, still has the very combinations of the rows; which cell asks is the
page's business, which points a rule drops the plan's (`planning.selection`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

from sweeper.model.experiment import Block, Experiment
from sweeper.model.result import Result
from sweeper.planning.grid import Grid
from sweeper.planning.plan import Plan
from sweeper.planning.trial_filters import get_written_block, iter_drop_reasons
from sweeper.reporting.dataset import encode_axis, select_axes
from sweeper.store.records import TableLayout
from sweeper.tables.export import replace_surrogates

_MAX_POINTS: Final = 200_000  # points of all products together: beyond, a browser would take too long to look one up
_NO_VALUE: Final = -1  # in place of a value's place: there is no value
_UNKNOWN_VALUE: Final = -2  # the same: no trial has it, so the page knows none


def encode_exclusions(plan: Plan, rows: Sequence[Result], layout: TableLayout) -> dict[str, Any] | None:
    """`{rules, blocks: [{sizes, axes: [{name, over, of}], by}]}`; None where it cannot be told.

    `of` gives, for each combination of the dimensions in `over`, the place of the axis' value among those of the page;
    `by` is run-length coded in written order: [how many points, the number of their rule or -1 for a trial].
    """
    experiment = plan.experiment
    if sum(prod(block.sizes) for block in experiment.blocks) > _MAX_POINTS or len(plan) != len(rows):
        return None
    ordered = sorted(rows, key=lambda row: row.trial)
    if any(trial.columns != row.columns for trial, row in zip(plan.written(), ordered, strict=True)):
        return None
    rules: dict[str, int] = {}
    values = {name: _index_values(rows, name, layout) for name in select_axes(layout.axis_columns)}
    blocks = [_encode_block(experiment, block, values, rules) for block in experiment.blocks]
    return {"rules": list(rules), "blocks": blocks}


def _index_values(rows: Sequence[Result], name: str, layout: TableLayout) -> dict[str, int]:
    """The places that `dataset` gives the values of an axis."""
    _, of, _ = encode_axis(name, rows, layout)
    return {_to_json(row.columns.get(name)): place for row, place in zip(rows, of, strict=True)}


def _encode_block(
    experiment: Experiment, block: Block, values: Mapping[str, Mapping[str, int]], rules: dict[str, int]
) -> dict[str, Any]:
    grid = Grid(experiment, block.dimensions, {})
    axes = []
    for name, places in values.items():
        column = grid.columns[name]
        at, of = [0] * len(grid.sizes), []
        for point in itertools.product(*(range(grid.sizes[place]) for place in column.dimensions)):
            for place, option in zip(column.dimensions, point, strict=True):
                at[place] = option
            value = column.get(at)
            of.append(_NO_VALUE if value is None else places.get(_to_json(value), _UNKNOWN_VALUE))
        axes.append({"name": name, "over": list(column.dimensions), "of": of})
    words = _describe_rules(experiment, block)
    by = [
        [len(list(run)), -1 if reason is None else rules.setdefault(words[reason], len(rules))]
        for reason, run in itertools.groupby(iter_drop_reasons(grid, block))
    ]
    return {"sizes": list(grid.sizes), "axes": axes, "by": by}


def _describe_rules(experiment: Experiment, block: Block) -> dict[str, str]:
    """What is said of each rule of a block, in the words of its file."""
    written = get_written_block(experiment, block)
    rows = written.get("exclude", [{}] * len(block.exclude))
    said = {f"exclude[{place}]": f"`exclude` row {place + 1}: {_format_row(row)}" for place, row in enumerate(rows)}
    if block.where is not None:
        said["where"] = f'`where: "{block.where.text}"`'
    if block.sample is not None:
        said["sample"] = f"`sample`: {block.sample.n} trials were drawn, and not this one"
    several = len(experiment.blocks) > 1
    where = f" (of sweep[{block.path[-1]}])" if several else ""
    return {reason: replace_surrogates(text + where) for reason, text in said.items()}


def _format_row(row: Mapping[str, Any]) -> str:
    cells = (f"{key}: {value if isinstance(value, str) else _to_json(value)}" for key, value in row.items())
    return "{" + ", ".join(cells) + "}"


def _to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
