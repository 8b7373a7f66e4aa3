"""Match the trials of two sides, old and new, as one table: two values of an axis, or two results folders.

Trials match if all columns that both sides share have equal values. A column that only one side has, or in which the
sides share no value, is a difference between the sides: it is named, and trials may differ in it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sweeper.errors import ResultsError, UsageError
from sweeper.model.experiment import JUDGE_FACTS
from sweeper.model.model_facts import format_time
from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.workflow import encode_canonical
from sweeper.regression.baseline import describe_server
from sweeper.statistics.codes import Replicates, renumber
from sweeper.store import Store
from sweeper.store.records import TableLayout
from sweeper.tables.effect_answer import ReplicateScope
from sweeper.tables.effect_axes import (
    find_effect_axes,
    find_kind,
    format_value,
    get_cell,
    list_axis_columns,
    make_replicates,
)
from sweeper.tables.vote_tally import JudgeAgreement, find_agreements
from sweeper.wording import join_names, shorten, suggest

_SIDE: Final = "which side"  # the column of the joined table that tells new trials (True) from old ones
_MAX_NAMED: Final = 3  # values in a sentence


@dataclass(frozen=True, slots=True)
class SideTrials:
    """The successful trials of one side; `label` names it, `folder` is its results folder.

    `axis` is the axis if the label is one of its values. `hashes`: see `Store.load_pixel_hashes`. `judges` has the
    facts of each judge, `agreements` how far it agrees with people. `source` says which run it is, and where it
    ran; `models` are the model files of the folder, each with what is known of it.
    """

    label: str
    folder: Path
    layout: TableLayout
    rows: tuple[Result, ...]
    axis: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    agreements: Mapping[str, JudgeAgreement] = field(default_factory=dict)
    source: str = ""
    models: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MatchedTrials:
    """Both sides, with the axes in which trials are matched.

    `old[i]` and `new[i]` are the trials of match i: several if they differ only in what is not matched. `cells` has
    what they have in common, and `axes` the number of values that each axis has among them. `replicates` are the rest
    of each match, and `scope` their numbers. `notes` are facts for the reader.
    """

    old_side: SideTrials
    new_side: SideTrials
    old: tuple[tuple[Result, ...], ...]
    new: tuple[tuple[Result, ...], ...]
    cells: tuple[Mapping[str, Any], ...]
    axes: Mapping[str, int]
    replicates: Replicates
    scope: ReplicateScope
    notes: tuple[str, ...]


def read_side(folder: Path, run: str | None, label: str) -> SideTrials:
    """Read the successful trials of a results folder. Raises ResultsError."""
    with Store.open(folder, readonly=True) as store:
        layout = store.layout(run)
        rows = tuple(row for row in store.results(run) if row.status == SUCCEEDED)
        hashes = store.load_pixel_hashes()
        facts = {name: store.load_cached_metrics(f"{JUDGE_FACTS}{name}").get("") for name in layout.measured_metrics}
        agreements = find_agreements(store, layout.measured_metrics)
        runs = [record for record in store.runs() if run is None or str(record.id) == run]
        servers = {target: describe_server(info) for (_, target), info in store.servers.load_info().items()}
        sets = [models for job in store.models.load().values() for models in job]
    files = sorted({(str(key), found.describe()) for models in sets for key, found in models.items()})
    if not rows:
        raise ResultsError(f"{folder}: no trial has succeeded, so there is nothing to compare")
    where = [f"{target} ({servers[target]})" if servers.get(target) else target for target in runs[-1].targets]
    source = f"run {runs[-1].id} of {folder.name}, {format_time(runs[-1].started)}, on {', '.join(where)}"
    judges = {name: found for name, found in facts.items() if isinstance(found, Mapping)}
    return SideTrials(label, folder, layout, rows, "", hashes, judges, agreements, source, tuple(files))


def split_by_axis(side: SideTrials, axis: str, values: str) -> tuple[SideTrials, SideTrials]:
    """The trials with the old value and with the new value of an axis; `values` is `OLD,NEW`, numbers in any form.

    Raises UsageError for an unknown axis or value.
    """
    names = list_axis_columns(side.layout)
    if axis not in names:
        raise UsageError(f"--axis: there is no axis '{axis}'{suggest(axis, names, 'axes')}")
    groups: dict[str, list[Result]] = {}
    for row in side.rows:
        label = row.columns.get(f"{axis}.label")
        groups.setdefault(format_value(row.columns.get(axis) if label is None else label), []).append(row)
    parts = values.split(",")
    splits = [
        tuple(_find_text(",".join(part), groups) for part in (parts[:at], parts[at:])) for at in range(1, len(parts))
    ]
    known = [pair for pair in splits if groups.keys() >= set(pair)]  # a value may contain a comma
    if not splits or (not known and len(splits) > 1):
        raise UsageError(
            f"--axis {axis}={values}: write two values, --axis {axis}=OLD,NEW; there are {join_names(groups)}"
        )
    old, new = (known or splits)[0]
    unknown = [value for value in (old, new) if value not in groups]
    if unknown:
        hints = (f"no trial has {axis} '{value}'{suggest(value, groups, 'values')}" for value in unknown)
        raise UsageError(f"--axis {axis}={values}: {'; '.join(hints)}")
    if old == new:
        raise UsageError(f"--axis {axis}={values}: give two different values")
    before, after = (replace(side, label=value, rows=tuple(groups[value]), axis=axis) for value in (old, new))
    return before, after


def _find_text(value: str, texts: Collection[str]) -> str:
    """The one of these texts that a user means: the table shows 7.0, and an experiment may have 7."""
    text = value.strip()
    if text in texts:
        return text
    try:
        return format_value(float(text))
    except ValueError:
        return text


def list_axes(sides: Iterable[SideTrials]) -> list[str]:
    return list(dict.fromkeys(name for side in sides for name in list_axis_columns(side.layout)))


def match_trials(old: SideTrials, new: SideTrials, over: Sequence[str] = ()) -> MatchedTrials:
    """Match the trials of two sides. `over`: the axes that are replicates, by default seeds and prompts.

    Raises UsageError if no trial of one side matches one of the other, or the sides have other seeds.
    """
    names = list_axes((old, new))
    values = {name: (_list_values(old.rows, name), _list_values(new.rows, name)) for name in names}
    shared = [name for name, (own, other) in values.items() if own.keys() & other.keys()]
    unmatched = [name for name in names if name not in (*shared, old.axis)]
    _check_seeds(old, new, unmatched)
    _check_points(old, new, unmatched)
    notes = [_describe_difference(old, new, name, *values[name]) for name in unmatched]
    notes += _describe_fixed(old.rows, new.rows, names)
    rows = [_replace_cells(row, shared, is_new=True) for row in new.rows]
    rows += [_replace_cells(row, shared, is_new=False) for row in old.rows]
    together = [pair for pair in old.layout.together if set(pair) <= set(shared)]
    layout = TableLayout("", (_SIDE, *shared), (), together=tuple(together))
    named = [name for name in over if name in shared]
    found = find_effect_axes(rows, layout, [_SIDE], named, slots=old.rows[0].params)
    axes = tuple(axis for axis in found.axes if _SIDE not in axis.columns)
    cells = renumber(*(axis.codes for axis in axes)) if axes else np.zeros(len(rows), dtype=np.int64)
    groups: list[tuple[list[int], list[int]]] = [([], []) for _ in range(int(cells.max()) + 1)]
    for index, cell in enumerate(cells):
        groups[cell][index < len(new.rows)].append(index)
    matches = [(olds, news) for olds, news in groups if olds and news]
    alone = [sum(len(group[side]) for group in groups if not group[1 - side]) for side in (0, 1)]
    for count, side, other in zip(alone, (old, new), (new, old), strict=True):
        if count:
            notes.append(f"{count} of {len(side.rows)} trials of {side.label} match none of {other.label}")
    if not matches:
        raise UsageError("; ".join(["no trial of one side is equal to one of the other in all else", *notes]))
    originals = (*new.rows, *old.rows)
    firsts = [news[0] for _, news in matches]
    counts = {axis.name: len(set(axis.codes[firsts])) for axis in axes}
    varying = [replace(axis, codes=axis.codes[firsts]) for axis in axes if counts[axis.name] > 1]
    return MatchedTrials(
        old, new,
        tuple(tuple(originals[index] for index in olds) for olds, _ in matches),
        tuple(tuple(originals[index] for index in news) for _, news in matches),
        tuple(
            {name: columns.get(f"{name}.label") or columns[name] for axis in axes for name in axis.columns}
            for columns in (rows[first].columns for first in firsts)
        ),
        counts, make_replicates(varying, len(matches)), ReplicateScope.of(varying),
        (*notes, *(note for note in found.notes if _SIDE not in note)),
    )  # fmt: skip


def _check_seeds(old: SideTrials, new: SideTrials, unmatched: Iterable[str]) -> None:
    """Raise UsageError if several trials share a seed that the other side lacks: its influence has no interval.

    A seed for each trial alone is noise, as any other.
    """
    for name in unmatched:
        cells = [[cell for row in side.rows if (cell := get_cell(row, name)) is not None] for side in (old, new)]
        repeated = any(len(set(map(encode_canonical, own))) < len(own) for own in cells)
        if all(cells) and repeated and find_kind(name, [*cells[0], *cells[1]]) == "seed":
            raise UsageError(
                f"{name}: {old.label} and {new.label} have no value in common, so a difference may be due to the "
                "seeds; run both with the same ones"
            )


def _check_points(old: SideTrials, new: SideTrials, unmatched: Iterable[str]) -> None:
    """Raise UsageError if a search tried other values of an axis on each side: a difference may be due to these."""
    for side in (old, new):
        space = () if side.layout.search is None else side.layout.search.space
        for name in unmatched:
            if name in space:
                axis = f" --axis {old.axis}" if old.axis in space else ""
                raise UsageError(
                    f"{name}: the search tried no value of it for both {old.label} and {new.label}, so a difference "
                    f"may be due to {name}; to see what each axis does, run: sweeper effects {side.folder}{axis}"
                )


def _list_values(rows: Iterable[Result], name: str) -> dict[Hashable, str]:
    """The texts of the values of an axis; empty if these trials do not have it."""
    texts: dict[Hashable, str] = {}
    for row in rows:
        cell, label = get_cell(row, name), row.columns.get(f"{name}.label")
        if cell is not None:
            texts[encode_canonical(cell)] = format_value(cell if label is None else label)
    return texts


def _replace_cells(row: Result, names: Collection[str], *, is_new: bool) -> Result:
    labels = {f"{name}.label": row.columns.get(f"{name}.label") for name in names}
    cells = {name: get_cell(row, name) for name in names}
    return replace(row, columns={_SIDE: is_new, **cells, **labels}, params={})


def _describe_difference(
    old: SideTrials, new: SideTrials, name: str, own: Mapping[Hashable, str], other: Mapping[Hashable, str]
) -> str:
    """Say in what the two sides differ."""
    texts = [f"{side.label} has {_format_values(values)}" for side, values in ((old, own), (new, other)) if values]
    mean = "; the mean over them is compared" if max(len(own), len(other)) > 1 else ""
    return f"{name} is not matched: {' and '.join(texts)}{'' if own and other else ' alone'}{mean}"


def _format_values(values: Mapping[Hashable, str]) -> str:
    texts = [shorten(text, 40) for text in values.values()]
    return join_names(texts) if len(texts) <= _MAX_NAMED else f"{len(texts)} values"


def _describe_fixed(old: Iterable[Result], new: Iterable[Result], axes: Collection[str]) -> list[str]:
    """Say which slots that are not swept have another value in the new trials."""
    sides = [[row.params for row in rows] for rows in (old, new)]
    notes = []
    for name in sides[0][0]:
        values = [{encode_canonical(params.get(name)): params.get(name) for params in side} for side in sides]
        if name not in axes and all(name in side[0] for side in sides) and list(map(len, values)) == [1, 1]:
            ((old_text, before),), ((new_text, after),) = values[0].items(), values[1].items()
            if old_text != new_text:
                notes.append(f"{name} differs too: {format_value(before)} and {format_value(after)}")
    return notes
