"""Columns: values as functions of the coordinates in a grid.

A column knows which dimensions it depends on. So a value is normalised once for each option, and a derived text is
rendered once for each combination of the dimensions that it depends on, not once for each trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

_MAX_CACHED: Final = 65_536  # combinations of one derived value

Coordinates = Sequence[int]  # of a trial: the index of its option in each dimension


class Column(Protocol):
    """A value for each coordinates."""

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The indexes of the dimensions that the value depends on, ascending."""

    def get(self, coordinates: Coordinates) -> Any:
        """Return the value at these coordinates."""


class ConstantColumn:
    """The same value everywhere."""

    dimensions: tuple[int, ...] = ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def get(self, _coordinates: Coordinates) -> Any:
        """Return the value."""
        return self.value


class OptionColumn:
    """One value for each option of one dimension."""

    def __init__(self, dimension: int, values: Sequence[Any]) -> None:
        self.dimensions = (dimension,)
        self.dimension = dimension
        self.values = values

    def get(self, coordinates: Coordinates) -> Any:
        """Return the value of the option at these coordinates."""
        return self.values[coordinates[self.dimension]]


class ComputedColumn:
    """A value computed from other columns, and cached for each combination of their dimensions."""

    def __init__(self, inputs: Mapping[str, Column], compute: Callable[[dict[str, Any]], Any]) -> None:
        self.inputs = dict(inputs)
        self.dimensions = merge_dimensions(self.inputs.values())
        self._compute = compute
        self._cache: dict[tuple[int, ...], Any] = {}

    def get(self, coordinates: Coordinates) -> Any:
        """Return the value at these coordinates. Raises what the computation raises, such as ExperimentError."""
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
    """Return the dimensions of all these columns, ascending."""
    return tuple(sorted({dimension for column in columns for dimension in column.dimensions}))
