"""The parts of which every answer is made. They say what is shown; `render` says how."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

MAX_CELL_LENGTH: Final = 32  # characters of a value in a table of words


@dataclass(frozen=True)
class Sentence:
    """A text; its class says which kind it is."""

    text: str


class Heading(Sentence):
    """A line that begins a section."""


class Line(Sentence):
    """A sentence of its own."""


class Item(Sentence):
    """A sentence of a list, below the last heading or line."""


class Warn(Sentence):
    """A sentence about a likely mistake; a terminal shows it on stderr."""


class Fail(Sentence):
    """A sentence about what does not work; also on stderr."""


class Note(Sentence):
    """A sentence about the answer that does not belong to it, such as why it is empty; also on stderr."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A label with what is known: a number, aligned with the other numbers, or words. `rest` comes after it."""

    label: str
    value: int | str
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts one below the other, in columns."""

    rows: Sequence[Fact]


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture with the words below it. Only HTML calls `read`: a `data:` URL, or an empty text for no picture."""

    caption: str
    read: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures side by side."""

    pictures: Sequence[ShownPicture]


@dataclass(frozen=True, slots=True)
class Table:
    """A table. A cell is text, a number, a JSON value, a ShownPicture, or None, which is shown as nothing.

    `rounded` names the columns whose floats are measured, such as seconds; they are shown with six digits.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    rounded: Collection[str] = ()

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]], *, last: str = "") -> Table:
        """A table of mappings, without the columns that are empty in all of them. The column `last` comes last."""
        names = dict.fromkeys(name for record in records for name in record)
        shown = [name for name in names if any(record.get(name) not in (None, "") for record in records)]
        shown.sort(key=lambda name: name == last)
        return cls(shown, [[record.get(name) for name in shown] for record in records])


Part = Heading | Line | Item | Warn | Fail | Note | Facts | Pictures | Table


class Answer(Protocol):
    """A frozen dataclass that knows its words. Its fields are its JSON; see `render.to_json`."""

    def parts(self) -> Iterable[Part]:
        """What a person reads, in order."""
        ...
