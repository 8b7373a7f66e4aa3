"""A parsed file: its value, and the line on which each part of the value stands.

The parsers are in `sweeper.loading.parse`; this is what the model needs to know of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sweeper.errors import Problem

KeyPath = tuple[str | int, ...]


class SourceError(Exception):
    """The text is not what its format asks for; `problem` says where. Callers turn it into their own InputError."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Source:
    """A parsed file: its value, and where in the text each part of the value stands."""

    def __init__(self, name: str, value: Any, lines: Callable[[], Mapping[KeyPath, int]]) -> None:
        self.name = name
        self.value = value
        self._find_lines = lines
        self._lines: Mapping[KeyPath, int] | None = None
        self._origins: Mapping[str, str] = {}

    @property
    def lines(self) -> Mapping[KeyPath, int]:
        """The 1-based line of every path of the text, found out when first asked for."""
        if self._lines is None:
            self._lines = self._find_lines()
        return self._lines

    def with_value(self, value: Any, origins: Mapping[str, str] | None = None) -> Source:
        """Another value that keeps this text's lines. `elsewhere` maps names that were not written here to where."""
        changed = Source(self.name, value, lambda: self.lines)
        changed._origins = self._origins if origins is None else origins
        return changed

    def find_line(self, path: KeyPath) -> int:
        """The 1-based line of `path`, or of its nearest ancestor that the text has; 0 when nothing is known."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def make_problem(self, path: KeyPath, message: str) -> Problem:
        """A Problem at `path`."""
        given = next((str(part) for part in path[1:] if part in self._origins), None)
        if given is not None and path[0] in ("params", "sweep"):
            return Problem(self._origins[given], 0, "", message)
        return Problem(self.name, self.find_line(path), format_key_path(path), message)


def format_key_path(path: KeyPath) -> str:
    """`("sweep", "grid", "steps", 2)` as `sweep.grid.steps[2]`, on one line."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
