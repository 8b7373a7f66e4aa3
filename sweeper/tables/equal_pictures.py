"""Which axes change no picture: among trials that differ in one axis alone, those whose pictures are equal.

Pictures are compared by the hash of their pixels (`PIXEL_HASH`), because ComfyUI writes the workflow into each file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from sweeper.answers.cells import label_values
from sweeper.model.result import MAX_COMPARED, REPEAT_COLUMN, SUCCEEDED, Result
from sweeper.statistics.codes import Codes, renumber
from sweeper.store.records import TableLayout
from sweeper.tables.effect_axes import EffectAxis, find_effect_axes, list_axis_columns
from sweeper.wording import join_names

_MAX_NAMED: Final = 4  # values in a sentence
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
