"""A parsed file: its value, and the line of each part of the value.

The model needs this for its messages. The parsers are in `sweeper.loading.parse`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

from sweeper.errors import Problem
from sweeper.schemas.values import KeyPath
from sweeper.wording import escape_unprintable


class SourceError(Exception):
    """The text is not valid in its format. Callers raise their own InputError with `problem`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Source:
    """A parsed file: its value, and the line of each part of the value.

    `lines` computes the lines, by path; it is called at most once. `plain_lists`: where lists such as `[a, b c]` stand
    whose items are texts without quotes.
    """

    def __init__(
        self,
        name: str,
        value: Any,
        lines: Callable[[], Mapping[KeyPath, int]],
        plain_lists: Collection[KeyPath] = (),
    ) -> None:
        self.name = name
        self.value = value
        self.plain_lists = plain_lists
        self._find_lines = lines
        self._origins: Mapping[str, str] = {}

    @cached_property
    def lines(self) -> Mapping[KeyPath, int]:
        """The 1-based line of every path in the text, computed at the first access."""
        return self._find_lines()

    def with_value(self, value: Any, origins: Mapping[str, str] | None = None) -> Source:
        """Return a copy with another value and the same lines.

        `origins` maps the names whose values do not come from this file to where they come from, as in `--set steps`.
        """
        changed = Source(self.name, value, lambda: self.lines, self.plain_lists)
        changed._origins = self._origins if origins is None else origins
        return changed

    def find_line(self, path: KeyPath) -> int:
        """Return the 1-based line of `path` or of its nearest ancestor in the text; 0 if neither is known."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def make_problem(self, path: KeyPath, message: str) -> Problem:
        override = next((str(part) for part in path[1:] if part in self._origins), None)
        if override is not None and path[0] in ("params", "sweep"):
            return Problem(self._origins[override], 0, "", message)
        return Problem(self.name, self.find_line(path), format_key_path(path), message)


def format_key_path(path: KeyPath) -> str:
    """Write `("sweep", "grid", "steps", 2)` as `sweep.grid.steps[2]`, on one line."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return escape_unprintable(text)
