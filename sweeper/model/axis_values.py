"""The forms that the values of an axis may take, each turned into its list of options.

Lists, ranges (in exact arithmetic: binary floats lose or overshoot the last value), seeds, lines and columns of
files, file patterns, choices, labelled values and bundles. Shapes were checked by the schema; what is refused here is
what a schema cannot say. Files are read through `Files`, given by the caller.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, Final, Protocol

from sweeper.did_you_mean import suggest
from sweeper.model.template import MISSING
from sweeper.schemas import format_value

MAX_VALUES: Final = 1_000_000  # of one axis
MAX_NESTING: Final = 32  # of groups of choices; nobody can read more, and the parser recurses
_ROUND_DIGITS: Final = 12  # significant digits of a counted range (CONTRACT.md 7)
_GUARD_DIGITS: Final = (
    40  # further digits that a log range is computed with, so that whole points are told from near misses
)
_EMPTY_SETS: Final[Mapping[str, Any]] = {}  # one for all: an axis may have a million options


class FileAccess(Protocol):
    """The folder of the experiment, as far as values come out of it."""

    def read_text(self, name: str) -> str:
        """The text of a file (UTF-8, BOM dropped, CRLF as LF). Raises AxisError."""

    def find_files(self, pattern: str) -> list[str]:
        """The files that match a pattern, sorted, with `/`. Raises AxisError."""


class AxisError(Exception):
    """The values of an axis cannot be made; the message is for the user."""


@dataclass(frozen=True, slots=True)
class Option:
    """One value of an axis. `sets` are the slots of a bundle, `groups` the choices of the axis' own columns."""

    value: Any = MISSING
    label: str | None = None
    sets: Mapping[str, Any] = field(default_factory=lambda: _EMPTY_SETS)
    groups: tuple[str, ...] = ()

    @property
    def cell(self) -> Any:
        """What stands for it in `trial.axes`: the label where it has one, the value otherwise."""
        return self.value if self.label is None else self.label


ParseText = Callable[[str], Any]


def expand_axis(
    form: Any, *, axis: str, experiment: str, integer: bool, parse_text: ParseText, files: FileAccess
) -> list[Option]:
    """The options of one axis in order.

    `integer` says that the axis is a slot of integers, `from_text` turns a cell of text into the slot's type. Raises
    AxisError.
    """
    if isinstance(form, list):
        found = [_parse_option(item, place) for place, item in enumerate(form)]
    elif "choices" in form:
        found = [Option(text, groups=groups) for text, groups in expand_choices(form["choices"])]
    elif "from" in form:
        found = [Option(number) for number in expand_range(form, integer=integer)]
    elif "seeds" in form:
        found = [Option(seed) for seed in make_seeds(int(form["seeds"]), form.get("key", experiment), axis)]
    else:
        found = [Option(value) for value in _read_values(form, parse_text, files)]
    if not found:
        raise AxisError("has no value")
    _check_count(len(found))
    labels: set[str] = set()
    for option in found:
        if option.label in labels:
            raise AxisError(f"the label '{option.label}' stands twice")
        if option.label is not None:
            labels.add(option.label)
    return found


def _read_values(form: Mapping[str, Any], parse_text: ParseText, files: FileAccess) -> list[Any]:
    """The values of the forms that read files."""
    if "lines" in form:
        return [parse_text(line) for line in _split_lines(files.read_text(form["lines"]))]
    if "csv" in form:
        return [parse_text(cell) for cell in _read_column(files.read_text(form["csv"]), form["csv"], form["column"])]
    if "files" in form:
        return list(files.find_files(form["files"]))
    known = ["from", "seeds", "lines", "csv", "files", "choices"]
    raise AxisError(
        f"{format_value(form)} is no form of values{suggest(next(iter(form), ''), known, 'a form begins with')}"
    )


def _parse_option(item: Any, index: int) -> Option:
    if isinstance(item, dict) and item and item.keys() <= {"value", "set"}:
        raise AxisError(f"item {index + 1}: a {'bundle' if 'set' in item else 'labelled value'} needs a `label`")
    if not isinstance(item, dict) or "label" not in item:
        return Option(item)
    if ("value" in item) == ("set" in item):
        raise AxisError(f"item {index + 1}: a label needs either `value` or `set` beside it")
    text = format_label(item["label"])
    return Option(item["value"], text) if "value" in item else Option(MISSING, text, item["set"])


def format_label(label: Any) -> str:
    """A label as text: YAML makes `label: 4` a number and `label: true` a truth value."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def make_seeds(count: int, key: str, axis: str) -> Iterator[int]:
    """`count` distinct seeds in 0 .. 2^32-1 by SHA-256 of key, axis and place; a longer list begins with a shorter."""
    _check_count(count)
    seen: set[int] = set()
    for place in itertools.count():
        if len(seen) == count:
            return
        text = f"{key}\n{axis}\n{place}"
        seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big")
        if seed not in seen:
            seen.add(seed)
            yield seed


def _check_count(count: int) -> None:
    if count > MAX_VALUES:
        raise AxisError(f"has more than {MAX_VALUES:,} values")


def _split_lines(text: str) -> list[str]:
    """The lines that hold more than space. `splitlines` would cut a prompt at U+2028, U+0085 or a form feed."""
    return [line for line in text.split("\n") if line.strip()]


def expand_range(form: Mapping[str, Any], *, integer: bool) -> list[int | float]:
    """`{from, to, step}` or `{from, to, count, scale}` as numbers (CONTRACT.md 7). Raises AxisError."""
    if ("step" in form) == ("count" in form):
        raise AxisError("a range needs either `step` or `count`")
    if "scale" in form and "count" not in form:
        raise AxisError("`scale` goes with `count`")
    first, last = _to_fraction(form["from"], "from"), _to_fraction(form["to"], "to")
    if "step" in form:
        return _expand_steps(form, first, last)
    count = 1 if first == last else int(form["count"])
    _check_count(count)
    points = _geomspace(first, last, count) if form.get("scale") == "log" else _linspace(first, last, count)
    return [_round_point(point, place, integer=integer) for place, point in enumerate(points)]


def _to_fraction(value: float, key: str) -> Fraction:
    """The number that was written: 0.1 is a tenth, and not the double beside it."""
    if isinstance(value, int):
        return Fraction(value)
    if not math.isfinite(value):
        raise AxisError(f"`{key}` is {value}, but a finite number is needed")
    return Fraction(repr(value))


def _expand_steps(form: Mapping[str, Any], first: Fraction, last: Fraction) -> list[int | float]:
    step = _to_fraction(form["step"], "step")
    if step == 0:
        raise AxisError("the step is 0")
    if first != last and (step > 0) != (last > first):
        raise AxisError(f"a step of {form['step']} never gets from {form['from']} to {form['to']}; change its sign")
    count = (last - first) // step + 1
    _check_count(count)
    # Integers over one denominator: exact, and a quotient of integers is the double nearest to it.
    scale = math.lcm(first.denominator, step.denominator)
    start, gap = int(first * scale), int(step * scale)
    whole = all(isinstance(form[key], int) for key in ("from", "to", "step"))
    points = range(start, start + gap * count, gap)
    return list(points) if whole else [_divide(point, scale) for point in points]


def _linspace(first: Fraction, last: Fraction, count: int) -> Iterator[Fraction]:
    gap = (last - first) / (count - 1) if count > 1 else Fraction(0)
    return (first + gap * place for place in range(count))


def _geomspace(first: Fraction, last: Fraction, count: int) -> Iterator[Fraction]:
    """Points of equal ratio: the ends exact, between them whole numbers exact and others to many digits."""
    if first <= 0 or last <= 0:
        raise AxisError("a log scale needs `from` and `to` above 0")
    digits = max(len(str(int(end))) for end in (first, last)) + _GUARD_DIGITS
    with localcontext(prec=digits):
        point = Decimal(first.numerator) / first.denominator
        ratio = Decimal(last.numerator) / last.denominator / point
        factor = ratio ** (Decimal(1) / (count - 1)) if count > 1 else Decimal(1)
    for place in range(count):
        if place in (0, count - 1):
            yield last if place else first
            continue
        with localcontext(prec=digits):
            point *= factor  # a million of these lose 7 of the spare digits
            whole = point.to_integral_value()
            near = whole > 0 and abs(point - whole) < Decimal(10) ** -(_GUARD_DIGITS // 2)
        yield Fraction(int(whole)) if near else Fraction(point)


def _round_point(point: Fraction, index: int, *, integer: bool) -> int | float:
    """One point of a counted range, rounded; for an integer slot a whole one, exact."""
    if integer and point.denominator == 1:
        return int(point)
    with localcontext(prec=_ROUND_DIGITS):
        rounded = Decimal(point.numerator) / Decimal(point.denominator)
    if not integer:
        return _divide(*rounded.as_integer_ratio())
    if rounded != rounded.to_integral_value():
        raise AxisError(
            f"point {index + 1} is {_divide(*point.as_integer_ratio())}, but the slot takes integers; use `step`"
        )
    return int(rounded)


def _divide(numerator: int, denominator: int) -> float:
    try:
        return numerator / denominator
    except OverflowError as error:
        raise AxisError("goes beyond the largest number, about 1.8e308") from error


def _read_column(text: str, file: str, column: str) -> list[str]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(rows, [])
        if column not in header:
            raise AxisError(f"{file} has no column '{column}'{suggest(column, header, 'columns')}")
        place = header.index(column)
        # A shorter row has an empty cell there, as a spreadsheet writes it; a wholly empty line is no row.
        return [row[place] if place < len(row) else "" for row in rows if row]
    except csv.Error as error:
        raise AxisError(f"{file}:{rows.line_num}: is not CSV: {error}") from error


def expand_choices(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """`a {red|blue} fox`: every combination, first group outermost, with the choice made in each outer group."""
    pieces, end = _parse_pieces(text, 0, 0)
    if end != len(text):
        raise AxisError(f"column {end + 1}: this `}}` closes nothing; a brace of the text is written \\}}")
    return _combine(pieces)


def _parse_pieces(text: str, position: int, depth: int) -> tuple[list[Any], int]:
    """Parse up to the end, or `depth` groups deep to the next `|` or `}`."""
    pieces: list[Any] = []
    plain = ""
    while position < len(text):
        letter = text[position]
        if letter == "\\" and text[position + 1 : position + 2] in ("{", "}", "|", "\\"):
            plain += text[position + 1]
            position += 2
        elif letter == "{":
            group, position = _parse_group(text, position, depth + 1)
            pieces += [plain, group]
            plain = ""
        elif letter == "}" or (letter == "|" and depth):
            break
        else:
            plain += letter
            position += 1
    return [*pieces, plain], position


def _parse_group(text: str, start: int, depth: int) -> tuple[list[list[Any]], int]:
    if depth > MAX_NESTING:
        raise AxisError(f"column {start + 1}: groups stand more than {MAX_NESTING} deep in each other here")
    alternatives: list[list[Any]] = []
    place = start
    while place < len(text) and (not alternatives or text[place] == "|"):
        pieces, place = _parse_pieces(text, place + 1, depth)
        alternatives.append(_trim(pieces))
    if text[place : place + 1] != "}":
        raise AxisError(f"column {start + 1}: this `{{` is never closed; a brace of the text is written \\{{")
    return alternatives, place + 1


def _trim(pieces: list[Any]) -> list[Any]:
    """Without the space beside `|` and the braces."""
    pieces[0] = pieces[0].lstrip()
    pieces[-1] = pieces[-1].rstrip()
    return pieces


def _combine(pieces: list[Any]) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = [("", ())]
    for piece in pieces:
        if isinstance(piece, str):
            found = [(text + piece, groups) for text, groups in found]
        else:
            chosen: list[str] = []
            for alternative in piece:
                chosen += [text for text, _ in _combine(alternative)]
                _check_count(len(found) * len(chosen))
            found = [(text + choice, (*groups, choice)) for text, groups in found for choice in chosen]
    return found
