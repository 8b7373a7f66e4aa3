"""An experiment: a checked value. Everything in it is known to fit its template; `declaration` made sure.

Plain frozen values only. The grid that they span is `planner`'s business, the text they came from `source`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sweeper.model.axis_values import Option
from sweeper.model.expressions import Expression
from sweeper.model.source import KeyPath as Key
from sweeper.model.source import Source
from sweeper.model.template import Template


@dataclass(frozen=True, slots=True)
class Axis:
    """A name (a slot, or a variable used in an expression) with its options; `path` is where the file says so."""

    name: str
    options: tuple[Option, ...]
    path: Key

    def locate_option(self, source: Source | None, index: int) -> Key:
        """Where the file has an option: its own line in a list, the axis' otherwise."""
        item = (*self.path, index)
        return item if source is not None and item in source.lines else self.path


Dimension = tuple[Axis, ...]  # axes that advance together: one grid axis, or a zip group


@dataclass(frozen=True, slots=True)
class Sample:
    """A reproducible subset of `n` trials."""

    n: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class IncludeRow:
    """An `include` row: an option for every axis of its block, and values of slots that are no axis."""

    options: Mapping[str, Option]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the sweep: dimensions, what is dropped from their product, and what is added to it.

    `exclude` rows map the place of a dimension to the places of its options that match.
    """

    dimensions: tuple[Dimension, ...] = ()
    exclude: tuple[Mapping[int, frozenset[int]], ...] = ()
    include: tuple[IncludeRow, ...] = ()
    where: Expression | None = None
    sample: Sample | None = None
    path: Key = ("sweep",)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of options of each dimension."""
        return tuple(len(dimension[0].options) for dimension in self.dimensions)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run goes about it. `timeout` and `patience` are in seconds; `max_failures` an int (a count) or a float (a
    share of 1); `out` a URL where the pictures go, None for the results folder.
    """

    concurrency: int | None = None
    retries: int = 2
    timeout: float = 600.0
    patience: float = 300.0
    max_trials: int = 10_000
    max_failures: int | float | None = None
    keep_temp: bool = False
    out: str | None = None


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A local file that trials read: where it is, and the SHA-256 of its bytes."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """What to ask of a template. `targets` are as written, `named_targets` the file's own names for servers;
    `files` maps a file slot's value to its file; `overrides` are names fixed from outside the file, as `--set` does.
    """

    name: str
    file: Path
    template: Template
    targets: tuple[str | Mapping[str, Any], ...] = ("embedded",)
    named_targets: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    description: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    derive: Mapping[str, Expression] = field(default_factory=dict)
    blocks: tuple[Block, ...] = (Block(),)
    order: Literal["auto", "written"] = "auto"
    metrics: tuple[str, ...] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)
    run: RunSettings = RunSettings()
    files: Mapping[str, HashedFile] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = field(default=None, compare=False, repr=False)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Every axis of every block, in the order in which the blocks name them first."""
        return tuple(dict.fromkeys(axis.name for block in self.blocks for group in block.dimensions for axis in group))
