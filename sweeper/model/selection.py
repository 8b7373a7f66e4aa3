"""What a user selects of a plan or a table with `--where`, `--limit` and `--set`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Selection:
    """The options that select trials.

    - `where`: an expression that is true for the trial.
    - `limit`: at most this many trials.
    - `values`: the values of `--set`. They replace those of an experiment, and select the rows of a table.
    """

    where: str | None = None
    limit: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def selects_all(self) -> bool:
        return self.where is None and self.limit is None and not self.values

    def describe(self) -> str:
        texts = [] if self.where is None else [f"--where: {self.where}"]
        return ", ".join([*texts, *(f"--set {setting}" for setting in self.format_values())])

    def format_values(self) -> list[str]:
        """The arguments of `--set`, such as `steps=[4, 8]`."""
        return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.values.items()]


EVERYTHING: Final = Selection()
