"""The axes of a results table as the factors of an experiment: which vary together, are replicates, change no picture.

Pictures are compared by the hash of their pixels (`PIXEL_HASH`), because ComfyUI writes the workflow into each file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, islice
from typing import Any, Final

import numpy as np

from sweeper.answers.cells import format_number, join_values, label_values
from sweeper.answers.render import NOT_IN_JSON, json_keys, json_name
from sweeper.model.axis_values import format_label
from sweeper.model.result import MAX_COMPARED, REPEAT_COLUMN, SUCCEEDED, Result
from sweeper.model.workflow import encode_canonical
from sweeper.schemas.values import is_number
from sweeper.statistics.codes import FEWEST_PROMPTS, Codes, Replicates, renumber
from sweeper.store.records import TableLayout
from sweeper.wording import join_names

_MAX_NAMED: Final = 4  # values in a sentence
_TEXT_NAMES: Final = ("neg", "text", "style", "subject")  # in the names of texts that may go with prompts
SETTINGS, PROMPTS, SEEDS = AXIS_KINDS = ("settings", "prompts", "seeds")  # see `statistics.paired`


@dataclass(frozen=True, slots=True)
class EffectAxis:
    """An axis, or several that vary together: its columns, their cells for each value, and the value of each trial.

    `numbers` are the values of one column, or the first numbers in the names of its files, which are in the column
    `number_column`. `is_nested`: a compared column groups its values, such as the skills of prompts.
    """

    columns: tuple[str, ...] = field(metadata=json_keys(axis=" + ".join, columns=tuple))
    values: tuple[tuple[Any, ...], ...]
    labels: tuple[str, ...] = field(metadata=NOT_IN_JSON)
    codes: Codes = field(metadata=NOT_IN_JSON)
    is_replicate: bool = field(default=False, metadata=json_name("replicate"))
    numbers: tuple[float, ...] | None = field(default=None, metadata=NOT_IN_JSON)
    number_column: str | None = field(default=None, metadata=NOT_IN_JSON)
    is_nested: bool = field(default=False, metadata=NOT_IN_JSON)

    @property
    def name(self) -> str:
        return " + ".join(self.columns)

    @property
    def kind(self) -> str:
        """What the axis is for a comparison of another one: a replicate without prompts counts as seeds."""
        if not self.is_replicate:
            return SETTINGS
        return PROMPTS if self.has_prompts and not self.is_nested else SEEDS

    @property
    def has_prompts(self) -> bool:
        cells = zip(*self.values, strict=True)
        return any(find_kind(name, own) == "prompt" for name, own in zip(self.columns, cells, strict=True))


@dataclass(frozen=True, slots=True)
class EffectAxes:
    """The axes with more than one value, and the columns with one. `notes` say what a reader must know about them."""

    axes: tuple[EffectAxis, ...]
    constant: tuple[str, ...]
    notes: tuple[str, ...]


def make_replicates(axes: Sequence[EffectAxis], rows: int) -> Replicates:
    """The axes beside a compared one for each of these rows of matched trials."""
    of_kind = {kind: [axis.codes for axis in axes if axis.kind == kind] for kind in AXIS_KINDS}
    settings, prompts, seeds = (renumber(*codes) if codes else None for codes in of_kind.values())
    return Replicates(np.zeros(rows, dtype=np.int64) if settings is None else settings, prompts, seeds)


def list_axis_columns(layout: TableLayout, extras: Collection[str] = ()) -> list[str]:
    """The axis columns, without those that only label another or tell more of it, but for these `extras`."""
    columns = [name for name in layout.axis_columns if name not in layout.extras or name in extras]
    return [name for name in columns if not (name.endswith(".label") and name.removesuffix(".label") in columns)]


def get_cell(row: Result, name: str) -> Any:
    """The value of an axis, also where a block does not sweep it: then it is that of the slot."""
    cell = row.columns.get(name)
    return row.params.get(name) if cell is None else cell


def find_effect_axes(
    rows: Sequence[Result], layout: TableLayout, axes: Sequence[str], over: Sequence[str],
    slots: Collection[str] | None = None,
) -> EffectAxes:  # fmt: skip
    """The axes of these rows. `axes` are never replicates; `over` are, or by default seeds and prompts.

    `slots`: the names of the slots, if the rows do not have them. The other columns are labels of bundles.
    """
    grouped = {layout.extras[name] for name in axes if name in layout.extras}
    found = [read_axis(name, rows, layout) for name in list_axis_columns(layout, axes)]
    constant = tuple(axis.name for axis in found if len(axis.values) < 2)
    unswept = [f"{name} has one value, so there is nothing to compare" for name in axes if name in constant]
    together = [pair for pair in layout.together if layout.extras.keys().isdisjoint(pair)]
    found, notes = _join_linked([axis for axis in found if len(axis.values) > 1], together)
    slots = rows[0].params if slots is None and rows else slots or ()
    found = [
        replace(axis, is_replicate=True, is_nested=True) if set(axis.columns) <= grouped else axis
        for axis in _mark_replicates(found, axes, over, slots)
    ]
    alone = [axis for axis in found if axis.is_replicate and len(axis.values) == len(rows) > 1]
    notes += [f"{axis.name} has another value in each trial, so what it changes counts as noise" for axis in alone]
    found = [axis for axis in found if axis not in alone]
    notes += [  # a few prompts tell nothing about others; see `statistics.paired`
        f"{axis.name} has {len(axis.values)} values, so what is said holds for these alone; from {FEWEST_PROMPTS} on, "
        "other prompts are judged too"
        for axis in found
        if axis.kind == PROMPTS and len(axis.values) < FEWEST_PROMPTS
    ]
    return EffectAxes(tuple(found), constant, (*unswept, *notes, *_describe_confounding(found)))


def read_axis(name: str, rows: Sequence[Result], layout: TableLayout) -> EffectAxis:
    """Read an axis column; its values are in the order of the experiment, if that is known."""
    cells = [get_cell(row, name) for row in rows]
    ordered = layout.values_in_order(name, [row.columns.get(name) for row in rows])
    indexes: dict[Hashable, int] = {}
    firsts: list[Any] = []
    for cell in (*(cell for cell in ordered if cell is not None), *cells):
        if (key := _to_key(cell)) not in indexes:
            indexes[key] = len(firsts)
            firsts.append(cell)
    codes = np.array([indexes[_to_key(cell)] for cell in cells], dtype=np.int64)
    label_column = f"{name}.label"
    labels = {
        int(code): row.columns[label_column]
        for code, row in zip(codes, rows, strict=True)
        if row.columns.get(label_column) is not None
    }
    texts = tuple(format_value(labels.get(index, cell)) for index, cell in enumerate(firsts))
    own = dict(zip(codes.tolist(), rows, strict=True))
    more = [column for column, axis in layout.extras.items() if axis == name and len(own) == len(firsts)]
    choices: dict[str | None, list[Any]] = {None: firsts}
    choices |= {column: [own[code].columns.get(column) for code in range(len(firsts))] for column in more}
    numbers = ((column, tuple(cells)) for column, cells in choices.items() if all(map(is_number, cells)))
    column, found = next(numbers, (None, None))
    values = tuple((cell,) for cell in firsts)
    return EffectAxis((name,), values, texts, codes, numbers=found, number_column=column)


def _to_key(cell: Any) -> Hashable:
    return (type(cell), cell) if isinstance(cell, (int, float, str)) else encode_canonical(cell)


def format_value(value: Any) -> str:
    """A value of an axis as `sweeper effects` and a verdict show it, and as `--axis` takes it."""
    return "none" if value is None else format_number(value) if isinstance(value, float) else format_label(value)


def _join_linked(
    axes: Sequence[EffectAxis], together: Collection[tuple[str, str]]
) -> tuple[list[EffectAxis], list[str]]:
    """Join axes that vary together: the experiment links them, or each value of one has one value of the other.

    Returns the axes, and a note about each joined one.
    """
    groups = [[axis] for axis in axes]
    linked = {frozenset(pair) for pair in together}
    for axis, other in combinations(axes, 2):
        sizes = {len(axis.values), len(other.values), int(renumber(axis.codes, other.codes).max()) + 1}
        if len(sizes) == 1 or frozenset((*axis.columns, *other.columns)) in linked:
            first = next(group for group in groups if axis in group)
            second = next(group for group in groups if other in group)
            if first is not second:
                first += second
                groups.remove(second)
    joined = [_join(group) for group in groups]
    notes = [
        f"{join_names(axis.columns)} vary together, so they are one axis" for axis in joined if len(axis.columns) > 1
    ]
    return joined, notes


def _join(group: Sequence[EffectAxis]) -> EffectAxis:
    if len(group) == 1:
        return group[0]
    codes = renumber(*(axis.codes for axis in group))
    firsts = np.unique(codes, return_index=True)[1]
    values = tuple(tuple(cell for axis in group for cell in axis.values[axis.codes[index]]) for index in firsts)
    labels = (join_values([(axis.name, axis.labels[axis.codes[index]]) for axis in group], ", ") for index in firsts)
    return EffectAxis(tuple(name for axis in group for name in axis.columns), values, tuple(labels), codes)


def _mark_replicates(
    axes: Sequence[EffectAxis], named: Sequence[str], over: Sequence[str], slots: Collection[str]
) -> list[EffectAxis]:
    def mark(is_replicate: Callable[[EffectAxis], bool]) -> list[EffectAxis]:
        return [replace(axis, is_replicate=not set(axis.columns) & set(named) and is_replicate(axis)) for axis in axes]

    if over:
        return mark(lambda axis: bool(set(axis.columns) & set(over)))
    marked = mark(lambda axis: _is_sample(axis, slots, prompts=True))
    # Of a sweep over prompts and seeds alone, the prompts are what a user can choose.
    return marked if any(not axis.is_replicate for axis in marked) else mark(lambda axis: _is_sample(axis, slots))


def _is_sample(axis: EffectAxis, slots: Collection[str], *, prompts: bool = False) -> bool:
    """Whether an axis has seeds or prompts, and beside them nothing but labels and texts, such as negative prompts.

    Prompts that go with a sampler or a checkpoint are none: these are to be compared.
    """
    cells = list(zip(*axis.values, strict=True))
    kinds = [
        "" if kind == "text" and name in slots and not any(part in name.casefold() for part in _TEXT_NAMES) else kind
        for name, values in zip(axis.columns, cells, strict=True)
        for kind in (find_kind(name, values),)
    ]
    wanted = {"seed", "prompt"} if prompts else {"seed"}
    return bool(wanted & set(kinds)) and "" not in kinds


def find_kind(name: str, cells: Iterable[Any]) -> str:
    """What a column holds: `seed`, `prompt`, `text`, or nothing of these (an empty text)."""
    types, lowered = {type(cell) for cell in cells if cell is not None}, name.casefold()
    if name == REPEAT_COLUMN or ("seed" in lowered and types <= {int}):
        return "seed"
    if types <= {str}:
        return "prompt" if "prompt" in lowered and "neg" not in lowered else "text"
    return ""


def _describe_confounding(axes: Sequence[EffectAxis]) -> list[str]:
    """Say which values ran only with some values of another axis, because raw means would mislead there."""
    notes = []
    for first, second in combinations([axis for axis in axes if not axis.is_replicate], 2):
        table = np.zeros((len(first.values), len(second.values)), dtype=bool)
        table[first.codes, second.codes] = True
        sides = (first, second, table), (second, first, table.T)
        single = next(((axis, against) for axis, against, ran in sides if (ran.sum(axis=1) == 1).all()), None)
        if single and not table.all():
            axis, against = single
            notes.append(f"each value of {axis.name} ran with one value of {against.name}, so what {against.name} "
                         f"changes cannot be separated from {axis.name}")  # fmt: skip
        else:  # from the side with fewer values to name; of a complete table, there are none
            notes += _name_partial(*min(sides, key=lambda side: int((~side[2].all(axis=1)).sum())))
    return notes


def _name_partial(axis: EffectAxis, against: EffectAxis, ran: Any) -> list[str]:
    partial = [index for index in range(len(axis.values)) if not ran[index].all()]
    if len(partial) > _MAX_NAMED:
        return [
            f"{len(partial)} of {len(axis.values)} values of {axis.name} ran only with some values of {against.name}"
        ]
    notes = []
    for index in partial:
        values = [against.labels[other] for other in np.flatnonzero(ran[index])]
        shown = join_names(values) if len(values) <= _MAX_NAMED else f"{len(values)} of {len(against.values)} values"
        notes.append(f"{axis.name} {axis.labels[index]} ran only with {against.name} {shown}")
    return notes


# --- axes that change no picture

_MAX_FOUND: Final = 6  # sentences


@dataclass(frozen=True, slots=True)
class EqualPictures:
    """In all `sets` of trials that differ in `axis` alone, `values` of its `of` values gave equal pictures.

    `other` and `where`: this holds only for these values of another axis; None and empty if it holds for all trials.
    """

    axis: str
    values: int
    of: int
    sets: int
    other: str | None = None
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.other is not None:
            several = len(self.where) > _MAX_NAMED
            shown = f"{len(self.where)} values" if several else join_names(label_values(self.where))
            count = f"the {self.values}" if self.values == self.of else f"{self.values} of {self.of}"
            return f"{self.other} {shown}: {count} values of {self.axis} gave equal pictures"
        count = f"{self.values} of {self.of}" if self.values < self.of else f"all {self.of}" if self.of > 2 else "both"
        sets = f"all {self.sets} matched sets" if self.sets > 1 else "the only matched set"
        return f"{self.axis}: {count} values gave equal pictures in {sets} of trials; it changes nothing here"


def find_equal_pictures(
    rows: Sequence[Result], layout: TableLayout, hashes: Mapping[str, str]
) -> tuple[EqualPictures, ...]:
    """The axes of a sweep that change no picture, or none for some values of another axis.

    All files of a trial are compared, in their order: pictures by `hashes` (see `Store.load_pixel_hashes`), and files
    without a hash by their SHA-256. Trials without a picture that has a hash are left out, and so are searches, because
    few of their trials differ in one axis alone.
    """
    numbers: dict[tuple[str, ...], int] = {}
    known = [row.status == SUCCEEDED and any(sha256 in hashes for sha256 in row.sha256) for row in rows]
    if layout.search is not None or sum(known) < 2 or len(rows) > MAX_COMPARED:
        return ()
    axes = find_effect_axes(rows, layout, list_axis_columns(layout), ()).axes
    is_known = np.array(known)
    pictures = np.array([
        numbers.setdefault(tuple([hashes.get(sha256, sha256) for sha256 in row.sha256]), len(numbers))
        for row, is_picture in zip(rows, known, strict=True) if is_picture
    ])  # fmt: skip
    codes = [axis.codes[is_known] for axis in axes]
    compared = [index for index, axis in enumerate(axes) if REPEAT_COLUMN not in axis.columns]
    found = (equal for index in compared for equal in _find_of_axis(index, axes, codes, pictures))
    return tuple(islice(found, _MAX_FOUND))


def _find_of_axis(
    index: int, axes: Sequence[EffectAxis], codes: Sequence[Codes], pictures: Codes
) -> Iterator[EqualPictures]:
    axis, own, others = axes[index], codes[index], [*codes[:index], *codes[index + 1 :]]
    set_of = renumber(*others) if others else np.zeros(len(own), dtype=np.int64)
    first = np.unique(set_of, return_index=True)[1]
    values = np.unique(set_of * len(axis.values) + own)  # each value of each set
    sizes = np.bincount(values // len(axis.values))
    differs = np.bincount(set_of, pictures != pictures[first][set_of]) > 0

    def describe(sets: Codes, other: str | None = None, where: tuple[str, ...] = ()) -> Iterator[EqualPictures]:
        compared = np.unique(values[np.isin(values // len(axis.values), sets)] % len(axis.values))
        # Otherwise two values may never have been compared with each other.
        if len(compared) == sizes[sets].max():
            yield EqualPictures(axis.name, len(compared), len(axis.values), len(sets), other, where)

    matched = np.flatnonzero(sizes > 1)
    if not len(matched):
        return
    if not differs[matched].any():
        yield from describe(matched)
        return
    parts = []
    for other, code in zip(axes, codes, strict=True):
        of_sets = code[first]
        bad = np.unique(of_sets[matched[differs[matched]]])
        equal = matched[~np.isin(of_sets[matched], bad)]
        if other is not axis and len(equal):
            labels = tuple(other.labels[value] for value in np.unique(of_sets[equal]).tolist())
            parts.append((equal, other.name, labels))
    told: list[set[int]] = []
    for sets, name, labels in sorted(parts, key=lambda part: -len(part[0])):
        if not any({*sets.tolist()} <= larger for larger in told):  # otherwise another axis explains these too
            told.append({*sets.tolist()})
            yield from describe(sets, name, labels)
