"""An experiment as a checked, frozen value: everything in it fits its template.

`sweeper.loading.experiment_builder` checks it. `sweeper.planning` expands it into trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from sweeper.errors import ExperimentError
from sweeper.model.expressions import Expression
from sweeper.model.judge import Judge
from sweeper.model.search_spec import Search
from sweeper.model.source import Source
from sweeper.model.sweep_block import Block
from sweeper.model.template import Template
from sweeper.schemas.values import KeyPath


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The `run` settings of an experiment.

    `timeout` and `patience` are in seconds. `max_failures` is a count (int) or a share from 0 to 1 (float). `out` is
    the URL of the storage for the pictures, None for the results folder. The command line asks before a run that may
    cost more than `confirm_above`, in US dollars. `budget` is the most that the results folder may cost, in US dollars.
    """

    concurrency: int | None = None
    retries: int = 2
    timeout: float = 600.0
    patience: float = 300.0
    max_trials: int = 10_000
    max_failures: int | float | None = None
    keep_temp: bool = False
    out: str | None = None
    confirm_above: Decimal = Decimal(5)
    budget: Decimal | None = None


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A local file that trials read: its absolute path and the SHA-256 of its bytes."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """A template, the values to try in it, and how to run and check the trials.

    `blocks` is empty if there is a `search` and no sweep. `targets` are as written in the file, `named_targets` the
    names that the file defines for servers. `metrics` are the columns to measure; `judges` has those of them that a
    judge answers. `files` maps the values of file slots to their files. `overrides` are values given from outside the
    file, as by `--set`.
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
    search: Search | None = None
    order: Literal["auto", "written"] = "auto"
    metrics: tuple[str, ...] = ()
    judges: Mapping[str, Judge] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)
    run: RunSettings = RunSettings()
    files: Mapping[str, HashedFile] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = field(default=None, compare=False, repr=False)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Every axis of every block, in the order of first appearance."""
        return tuple(dict.fromkeys(axis.name for block in self.blocks for group in block.dimensions for axis in group))

    def make_error(self, path: KeyPath, message: str) -> ExperimentError:
        """Make an error located at `path` of the file, if the experiment comes from one."""
        return ExperimentError(self.source.make_problem(path, message) if self.source is not None else message)

    @property
    def written_blocks(self) -> tuple[Block, ...]:
        """The blocks of the sweep, and the block of the search, which only serves to check values."""
        return self.blocks if self.search is None else (*self.blocks, self.search.block)
