"""Values as functions of the place in a grid: which dimensions decide a name, and what it is at given coordinates.

This is what makes planning fast: a value is normalised once per option, a derived text rendered once per combination
of the dimensions that it depends on, and only joined per trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

_MAX_CACHED: Final = 65_536  # combinations of a derived value kept at once

Coordinates = Sequence[int]  # of a trial: the place of its option in each dimension


class Column(Protocol):
    """A value at coordinates; it depends on `dimensions` only."""

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The places of the dimensions that it depends on, ascending."""

    def get(self, coordinates: Coordinates) -> Any:
        """The value there."""


class ConstantColumn:
    """The same value everywhere."""

    dimensions: tuple[int, ...] = ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def get(self, _coordinates: Coordinates) -> Any:
        """The value."""
        return self.value


class OptionColumn:
    """One value for each option of one dimension."""

    def __init__(self, dimension: int, values: Sequence[Any]) -> None:
        self.dimensions = (dimension,)
        self.dimension = dimension
        self.values = values

    def get(self, coordinates: Coordinates) -> Any:
        """The value of the option there."""
        return self.values[coordinates[self.dimension]]


class ComputedColumn:
    """A value computed from other columns, remembered per combination of their dimensions."""

    def __init__(self, inputs: Mapping[str, Column], compute: Callable[[dict[str, Any]], Any]) -> None:
        self.inputs = dict(inputs)
        self.dimensions = merge_dimensions(self.inputs.values())
        self._compute = compute
        self._cache: dict[tuple[int, ...], Any] = {}

    def get(self, coordinates: Coordinates) -> Any:
        """The value there. Raises ExpressionError."""
        key = tuple([coordinates[dimension] for dimension in self.dimensions])
        try:
            return self._cache[key]
        except KeyError:
            pass
        value = self._compute({name: column.get(coordinates) for name, column in self.inputs.items()})
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[key] = value
        return value


def merge_dimensions(columns: Iterable[Column]) -> tuple[int, ...]:
    """The dimensions of all these columns, ascending."""
    return tuple(sorted({dimension for column in columns for dimension in column.dimensions}))
