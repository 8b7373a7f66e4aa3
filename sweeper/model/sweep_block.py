"""One block of a sweep as checked, frozen values: axes with their options, filters and extra rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.model.axis_values import Option
from sweeper.model.expressions import Expression
from sweeper.model.source import Source
from sweeper.schemas.values import KeyPath


@dataclass(frozen=True, slots=True)
class Axis:
    """A name (a slot, or a variable of an expression) with its options; `path` is its location in the file."""

    name: str
    options: tuple[Option, ...]
    path: KeyPath

    def locate_option(self, source: Source | None, index: int) -> KeyPath:
        """Return the path of an option: its item if the file lists the values, else the path of the axis."""
        item = (*self.path, index)
        return item if source is not None and item in source.lines else self.path


Dimension = tuple[Axis, ...]  # axes that vary together: one grid axis, or a zip group


@dataclass(frozen=True, slots=True)
class Sample:
    """A reproducible random subset of `n` trials."""

    n: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class IncludeRow:
    """An `include` row: one option for every axis of its block, and the values of other slots."""

    options: Mapping[str, Option]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the sweep: the product of its dimensions, filtered, and extra rows.

    An `exclude` row maps the index of a dimension to the indexes of its options that match. `path` is the location of
    the block in the file.
    """

    dimensions: tuple[Dimension, ...] = ()
    exclude: tuple[Mapping[int, frozenset[int]], ...] = ()
    include: tuple[IncludeRow, ...] = ()
    where: Expression | None = None
    sample: Sample | None = None
    path: KeyPath = ("sweep",)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of options of each dimension."""
        return tuple(len(dimension[0].options) for dimension in self.dimensions)
