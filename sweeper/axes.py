"""The forms that the values of an axis may take, each turned into its list of options.

Lists, ranges (in decimal arithmetic: binary floats lose or overshoot the last value), seeds, lines and columns of
files, file patterns, choices, labelled values and bundles. Shapes were checked by the schema; what is refused here is
what a schema cannot say. Files are read through `Files`, given by the caller.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any, Final, Protocol

from sweeper.nearest import hint
from sweeper.schemas import shown
from sweeper.template import MISSING

MAX_VALUES: Final = 1_000_000  # of one axis
_DIGITS: Final = 12  # significant digits of a counted range (CONTRACT.md 7)


class Files(Protocol):
    """The folder of the experiment, as far as values come out of it."""

    def text(self, name: str) -> str:
        """The text of a file (UTF-8, BOM dropped). Raises AxisError."""

    def matching(self, pattern: str) -> list[str]:
        """The files that match a pattern, sorted, with `/`. Raises AxisError."""


class AxisError(Exception):
    """The values of an axis cannot be made; the message is for the user."""


@dataclass(frozen=True, slots=True)
class Option:
    """One value of an axis. `sets` are the slots of a bundle, `groups` the choices of the axis' own columns."""

    value: Any = MISSING
    label: str | None = None
    sets: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[str, ...] = ()

    @property
    def cell(self) -> Any:
        """What stands for it in `trial.axes`: the label where it has one, the value otherwise."""
        return self.value if self.label is None else self.label


FromText = Callable[[str], Any]


def options(form: Any, *, axis: str, experiment: str, integer: bool, from_text: FromText, files: Files) -> list[Option]:
    """The options of one axis in order.

    `integer` says that the axis is a slot of integers, `from_text` turns a cell of text into the slot's type. Raises
    AxisError.
    """
    if isinstance(form, list):
        found = [_option(item, place) for place, item in enumerate(form)]
    elif "seeds" in form:
        found = [Option(seed) for seed in seeds(form["seeds"], form.get("key", experiment), axis)]
    elif "lines" in form:
        found = [Option(from_text(line)) for line in files.text(form["lines"]).splitlines() if line.strip()]
    elif "csv" in form:
        found = [Option(from_text(cell)) for cell in _column(files.text(form["csv"]), form["csv"], form["column"])]
    elif "files" in form:
        found = [Option(name) for name in files.matching(form["files"])]
    elif "choices" in form:
        found = [Option(text, groups=groups) for text, groups in choices(form["choices"])]
    elif "from" in form:
        found = [Option(number) for number in numbers(form, integer=integer)]
    else:
        known = ["from", "seeds", "lines", "csv", "files", "choices"]
        key = next(iter(form), "")
        raise AxisError(f"{shown(form)} is no form of values{hint(key, known, 'a form begins with')}")
    if not found:
        raise AxisError("has no value")
    labels = [option.label for option in found if option.label is not None]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise AxisError(f"the label '{twice}' stands twice")
    return found


def _option(item: Any, place: int) -> Option:
    if isinstance(item, dict) and item and item.keys() <= {"value", "set"}:
        raise AxisError(f"item {place + 1}: a {'bundle' if 'set' in item else 'labelled value'} needs a `label`")
    if not isinstance(item, dict) or "label" not in item:
        return Option(item)
    if ("value" in item) == ("set" in item):
        raise AxisError(f"item {place + 1}: a label needs either `value` or `set` beside it")
    label = item["label"]
    text = label if isinstance(label, str) else str(label).lower() if isinstance(label, bool) else str(label)
    return Option(item["value"], text) if "value" in item else Option(MISSING, text, item["set"])


def seeds(count: int, key: str, axis: str) -> Iterator[int]:
    """`count` distinct seeds in 0 .. 2^32-1 by SHA-256 of key, axis and place; a longer list begins with a shorter."""
    _few(count)
    seen: set[int] = set()
    for place in itertools.count():
        if len(seen) == count:
            return
        text = f"{key}\n{axis}\n{place}"
        seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big")
        if seed not in seen:
            seen.add(seed)
            yield seed


def _few(count: int | Decimal) -> None:
    if count > MAX_VALUES:
        raise AxisError(f"has more than {MAX_VALUES:,} values")


def numbers(form: Mapping[str, Any], *, integer: bool) -> list[int | float]:
    """`{from, to, step}` or `{from, to, count, scale}` as numbers. Raises AxisError."""
    if ("step" in form) == ("count" in form):
        raise AxisError("a range needs either `step` or `count`")
    if "scale" in form and "count" not in form:
        raise AxisError("`scale` goes with `count`")
    return _stepped(form) if "step" in form else _counted(form, integer=integer)


def _stepped(form: Mapping[str, Any]) -> list[int | float]:
    first, last, step = (_decimal(form[key], key) for key in ("from", "to", "step"))
    whole = all(isinstance(form[key], int) for key in ("from", "to", "step"))
    if step == 0:
        raise AxisError("the step is 0")
    if first != last and (step > 0) != (last > first):
        raise AxisError(f"a step of {form['step']} never gets from {form['from']} to {form['to']}; change its sign")
    with localcontext(prec=60):
        count = (last - first) // step + 1
        _few(count)
        return [_number(first + step * place, whole=whole) for place in range(int(count))]


def _counted(form: Mapping[str, Any], *, integer: bool) -> list[int | float]:
    first, last, count = _decimal(form["from"], "from"), _decimal(form["to"], "to"), form["count"]
    _few(count)
    log = form.get("scale") == "log"
    if log and (first <= 0 or last <= 0):
        raise AxisError("a log scale needs `from` and `to` above 0")
    found: list[int | float] = []
    with localcontext(prec=60):
        for place in range(1 if first == last else count):
            share = Decimal(place) / (count - 1) if count > 1 else Decimal(0)
            value = first * (last / first) ** share if log else first + (last - first) * share
            value = last if place == count - 1 and place else value
            rounded = Decimal(f"{value:.{_DIGITS - 1}e}")
            if integer and rounded != rounded.to_integral_value():
                raise AxisError(f"point {place + 1} is {float(rounded)}, but the slot takes integers; use `step`")
            found.append(_number(rounded, whole=integer))
    return found


def _decimal(value: float, key: str) -> Decimal:
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise AxisError(f"`{key}` is {value}, but a finite number is needed")
    return number


def _number(value: Decimal, *, whole: bool) -> int | float:
    return int(value) if whole else float(value) + 0.0


def _column(text: str, file: str, column: str) -> list[str]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(rows, [])
        if column not in header:
            raise AxisError(f"{file} has no column '{column}'{hint(column, header, 'columns')}")
        place = header.index(column)
        # A shorter row has an empty cell there, as a spreadsheet writes it; a wholly empty line is no row.
        return [row[place] if place < len(row) else "" for row in rows if row]
    except csv.Error as error:
        raise AxisError(f"{file}:{rows.line_num}: is not CSV: {error}") from error


def choices(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """`a {red|blue} fox`: every combination, first group outermost, with the choice made in each outer group."""
    pieces, end = _pieces(text, 0, top=True)
    if end != len(text):
        raise AxisError(f"column {end + 1}: this `}}` closes nothing; a brace of the text is written \\}}")
    return _combined(pieces)


def _pieces(text: str, place: int, *, top: bool) -> tuple[list[Any], int]:
    """Parse up to the end, or in a group to its next `|` or `}`."""
    pieces: list[Any] = []
    plain = ""
    while place < len(text):
        letter = text[place]
        if letter == "\\" and text[place + 1 : place + 2] in ("{", "}", "|", "\\"):
            plain += text[place + 1]
            place += 2
        elif letter == "{":
            group, place = _group(text, place)
            pieces += [plain, group]
            plain = ""
        elif letter == "}" or (letter == "|" and not top):
            break
        else:
            plain += letter
            place += 1
    return [*pieces, plain], place


def _group(text: str, start: int) -> tuple[list[list[Any]], int]:
    alternatives: list[list[Any]] = []
    place = start
    while place < len(text) and (not alternatives or text[place] == "|"):
        pieces, place = _pieces(text, place + 1, top=False)
        alternatives.append(_trimmed(pieces))
    if text[place : place + 1] != "}":
        raise AxisError(f"column {start + 1}: this `{{` is never closed; a brace of the text is written \\{{")
    return alternatives, place + 1


def _trimmed(pieces: list[Any]) -> list[Any]:
    """Without the space beside `|` and the braces."""
    pieces[0] = pieces[0].lstrip()
    pieces[-1] = pieces[-1].rstrip()
    return pieces


def _combined(pieces: list[Any]) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = [("", ())]
    for piece in pieces:
        if isinstance(piece, str):
            found = [(text + piece, groups) for text, groups in found]
        else:
            chosen = [text for alternative in piece for text, _ in _combined(alternative)]
            _few(len(found) * len(chosen))
            found = [(text + choice, (*groups, choice)) for text, groups in found for choice in chosen]
    return found
