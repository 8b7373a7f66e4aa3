"""Why a combination of values is not a trial: which rule of the sweep excluded it, for the page's empty cells.

Known only if the experiment still plans exactly the trials of the rows. `planning.trial_filters` applies the rules.
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

_MAX_POINTS: Final = 200_000  # of all products together; a lookup among more would be slow in a browser
_NO_VALUE: Final = -1  # in place of the index of a value: there is no value
_UNKNOWN_VALUE: Final = -2  # the same: no trial has the value, so the page does not know it


def encode_exclusions(plan: Plan, rows: Sequence[Result], layout: TableLayout) -> dict[str, Any] | None:
    """Return `{rules, blocks: [{sizes, axes: [{name, over, of}], by}]}`, or None if the reasons are unknown.

    `of` has the index of the axis' value for each combination of the dimensions in `over`. `by` has run-length coded
    pairs in written order: [number of points, index of their rule or -1 for a trial].
    """
    experiment = plan.experiment
    if sum(prod(block.sizes) for block in experiment.blocks) > _MAX_POINTS or len(plan) != len(rows):
        return None
    if tuple(layout.axis_columns) != tuple(plan.axis_columns):  # of a store that somebody else made
        return None
    ordered = sorted(rows, key=lambda row: row.trial)
    if any(trial.columns != row.columns for trial, row in zip(plan.written(), ordered, strict=True)):
        return None
    rules: dict[str, int] = {}
    values = {name: _index_values(rows, name, layout) for name in select_axes(layout.axis_columns)}
    blocks = [_encode_block(experiment, block, values, rules) for block in experiment.blocks]
    return {"rules": list(rules), "blocks": blocks}


def _index_values(rows: Sequence[Result], name: str, layout: TableLayout) -> dict[str, int]:
    """The index of each value of an axis in the page's data, by its JSON text."""
    _, indices, _ = encode_axis(name, rows, layout)
    return {_to_json(row.columns.get(name)): index for row, index in zip(rows, indices, strict=True)}


def _encode_block(
    experiment: Experiment, block: Block, values: Mapping[str, Mapping[str, int]], rules: dict[str, int]
) -> dict[str, Any]:
    grid = Grid(experiment, block.dimensions, {})
    axes = []
    for name, indices in values.items():
        column = grid.columns[name]
        point, of = [0] * len(grid.sizes), []
        for options in itertools.product(*(range(grid.sizes[dimension]) for dimension in column.dimensions)):
            for dimension, option in zip(column.dimensions, options, strict=True):
                point[dimension] = option
            value = column.get(point)
            of.append(_NO_VALUE if value is None else indices.get(_to_json(value), _UNKNOWN_VALUE))
        axes.append({"name": name, "over": list(column.dimensions), "of": of})
    descriptions = _describe_rules(experiment, block)
    by = [
        [len(list(run)), -1 if reason is None else rules.setdefault(descriptions[reason], len(rules))]
        for reason, run in itertools.groupby(iter_drop_reasons(grid, block))
    ]
    return {"sizes": list(grid.sizes), "axes": axes, "by": by}


def _describe_rules(experiment: Experiment, block: Block) -> dict[str, str]:
    """Describe each rule of a block as its file writes it."""
    written = get_written_block(experiment, block)
    rows = written.get("exclude", [{}] * len(block.exclude))
    texts = {f"exclude[{index}]": f"`exclude` row {index + 1}: {_format_row(row)}" for index, row in enumerate(rows)}
    if block.where is not None:
        texts["where"] = f'`where: "{block.where.text}"`'
    if block.sample is not None:
        texts["sample"] = f"`sample`: {block.sample.n} trials were drawn, but not this one"
    suffix = f" (of sweep[{block.path[-1]}])" if len(experiment.blocks) > 1 else ""
    return {reason: replace_surrogates(text + suffix) for reason, text in texts.items()}


def _format_row(row: Mapping[str, Any]) -> str:
    cells = (f"{key}: {value if isinstance(value, str) else _to_json(value)}" for key, value in row.items())
    return "{" + ", ".join(cells) + "}"


def _to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
