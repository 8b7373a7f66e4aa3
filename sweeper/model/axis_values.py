"""Expand the values of an axis, in any of the forms that an experiment may use, into a list of options.

The forms are lists, ranges, seeds, lines, columns and objects of files, patterns of files here and of model files on a
server, choices, replacements in a text, labelled values and bundles. An option may have cells for more columns.
Ranges use exact arithmetic, because binary floats can miss or overshoot the last value. The schema has checked the
shape of each form; this module refuses what a schema cannot express. The caller provides file access.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any, Final, Protocol

from sweeper.errors import Problem
from sweeper.model.bounded_json import parse_json
from sweeper.model.json_mistakes import InvalidJsonError
from sweeper.model.template import MISSING
from sweeper.schemas.values import format_value, to_fraction
from sweeper.wording import suggest

# Of the forms that are mappings.
AXIS_FORMS: Final = ("from", "seeds", "lines", "csv", "jsonl", "files", "models", "choices", "replace")
NONE: Final = "(none)"  # the value of an axis of model files for which the workflow runs without any
MAX_VALUES: Final = 1_000_000  # of one axis
MAX_NESTING: Final = 32  # of groups of choices, because `_combine` recurses
MAX_WORK: Final = 50_000_000  # of all axes of an experiment: seconds of time, and some hundred megabytes
_VALUE_COST: Final = 25  # units of one value, which is an object; a character and a digit in a computation cost 1
_ROUNDING: Final = Context(prec=12)  # significant digits of the values of a range with `count`
_GUARD_DIGITS: Final = 40  # extra digits for a log range, to tell whole numbers from near misses
_NEAR_MISS: Final = Decimal(10) ** -(_GUARD_DIGITS // 2)
_MAX_COLUMNS: Final = 200  # besides the values
_MAX_MISTAKES: Final = 10_000  # of one file that are counted
_MAX_DIGITS: Final = 15  # of a number in a name
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?")  # without leading zeros, which ids have
_DIGITS: Final = re.compile(r"([0-9]{1,100})")
_NUMBER_IN_NAME: Final = re.compile(r"(?P<word>[^\W\d_]*)[-_. =]?(?P<number>[0-9]+(?:\.[0-9]+)?)")
_WORDS: Final = {"e": "epoch", "ep": "epoch", "epochs": "epoch", "s": "step", "steps": "step", "label": "number"}
_CHOICE_TOKEN: Final = re.compile(r"(?P<escaped>\\[{}|\\])|[{}|]|[^\\{}|]+|\\")
_EMPTY_SETS: Final[Mapping[str, Any]] = {}  # shared, because an axis may have a million options
ParseText = Callable[[str], Any]


class FileAccess(Protocol):
    """Read access to the files of the experiment's folder."""

    def read_text(self, name: str) -> str:
        """Read a UTF-8 file without its BOM and with LF line ends. Raises AxisError."""

    def find_files(self, pattern: str) -> list[str]:
        """List the files that match a pattern, sorted, with `/` as separator. Raises AxisError."""

    def list_models(self, pattern: str) -> list[str]:
        """List the model files that match `FOLDER/PATTERN`, as a server told. Raises AxisError, PendingModelsError."""


class AxisError(Exception):
    """The values of an axis are invalid. Its argument is a message for the user; or it has Problems in a file."""


class PendingModelsError(AxisError):
    """The values of an axis are files of a server, which nobody has asked yet. The argument is the pattern."""


class WorkBudget:
    """What the axes of one experiment may cost together. Work pays before it starts, so no file can fill the memory."""

    def __init__(self) -> None:
        self.remaining = MAX_WORK

    def charge(self, units: int) -> None:
        """Pay `units`. Raises AxisError if the budget is exceeded."""
        self.remaining -= units
        if self.remaining < 0:
            raise AxisError(
                f"takes too much work: the axes of an experiment may need {MAX_WORK:,} characters and steps together; "
                "write fewer or shorter values"
            )


@dataclass(frozen=True, slots=True)
class Option:
    """One value of an axis.

    `sets` maps the slots that a bundle sets to their values. `extra` has the cells of more columns by their names: the
    alternatives that a choice text took (`style.1`), the numbers in a file's name (`lora.step`), the other fields of a
    row.
    """

    value: Any = MISSING
    label: str | None = None
    sets: Mapping[str, Any] = field(default_factory=lambda: _EMPTY_SETS)
    extra: Mapping[str, Any] = field(default_factory=lambda: _EMPTY_SETS)

    @property
    def cell(self) -> Any:
        """The entry in `trial.axes`: the label if there is one, else the value."""
        return self.value if self.label is None else self.label


def expand_axis(
    form: Any,
    *,
    axis: str,
    experiment: str,
    integer: bool,
    parse_text: ParseText,
    base: Any,
    files: FileAccess,
    budget: WorkBudget,
) -> list[Option]:
    """Return the options of one axis in order.

    `integer`: the axis is a slot of integers. `parse_text` converts a text from a file to the type of the slot.
    `base`: the value of the slot without the axis, in which `replace` searches; MISSING if there is none. `budget` is
    that of the experiment. Raises AxisError.
    """
    if isinstance(form, list):
        options = [_parse_option(item, index) for index, item in enumerate(form)]
    elif "choices" in form:
        options = [
            Option(text, extra={f"{axis}.{number}": choice for number, choice in enumerate(groups, 1)})
            for text, groups in expand_choices(form["choices"], budget)
        ]
    elif "replace" in form:
        options = _replace_in_text(form["replace"], form["with"], base, budget)
    elif "from" in form:
        options = [Option(number) for number in expand_range(form, integer=integer, budget=budget)]
    elif "seeds" in form:
        budget.charge(int(form["seeds"]) * _VALUE_COST)
        options = [Option(seed) for seed in make_seeds(int(form["seeds"]), form.get("key", experiment), axis)]
    elif "models" in form:
        options = _list_model_files(form, axis, files)
    else:
        options = list(_read_options(form, parse_text, files, budget))
        budget.charge(sum(1 + len(option.extra) for option in options) * _VALUE_COST)
    if not options:
        raise AxisError("has no value")
    _check_count(len(options))
    labels = Counter(option.label for option in options if option.label is not None)
    if (twice := next((label for label, count in labels.items() if count > 1), None)) is not None:
        raise AxisError(f"the label {format_value(twice)} appears twice")
    return options


def _replace_in_text(searched: str, replacements: list[Any], base: Any, budget: WorkBudget) -> list[Option]:
    """Return the text `base` with each of the replacements in every place of the searched text."""
    if not isinstance(base, str):
        found = "has no value" if base is MISSING else f"has the value {format_value(base)}"
        raise AxisError(f"`replace` searches in the text of a slot, but this {found} without the axis")
    if (count := base.count(searched)) == 0:
        advice = suggest(searched, dict.fromkeys(re.findall(r"\w+", base)), "its words")
        raise AxisError(f"{format_value(searched)} does not stand in the text {format_value(base)}{advice}")
    words = [format_label(word) for word in replacements]
    budget.charge(sum(len(base) + count * len(word) + _VALUE_COST for word in words))
    return [Option(base.replace(searched, word), word) for word in words]


def _read_options(
    form: Mapping[str, Any], parse_text: ParseText, files: FileAccess, budget: WorkBudget
) -> Iterable[Option]:
    if "lines" in form:
        # `splitlines` would also split at U+2028, U+0085 and form feeds.
        return (Option(parse_text(line)) for line in files.read_text(form["lines"]).split("\n") if line.strip())
    if "csv" in form:
        return _read_rows(files.read_text(form["csv"]), form, parse_text)
    if "jsonl" in form:
        text = files.read_text(form["jsonl"])
        budget.charge(len(text))
        return _read_objects(text, form)
    if "files" in form:
        return map(Option, files.find_files(form["files"]))
    raise AxisError(
        f"{format_value(form)} is not a form of values, such as {{from: 4, to: 20, step: 4}} or {{seeds: 3}}"
        f"{suggest(next(iter(form), ''), AXIS_FORMS, 'a form begins with')}"
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
    """Return a label as text, because YAML reads `label: 4` as a number and `label: true` as a boolean."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def make_seeds(count: int, key: str, axis: str) -> Iterator[int]:
    """Yield `count` distinct seeds in 0 .. 2^32-1, from the SHA-256 of key, axis and a running number.

    The seeds are the same on every machine, and a longer list begins with the shorter one.
    """
    _check_count(count)
    seen: set[int] = set()
    for index in itertools.count():
        if len(seen) == count:
            return
        text = f"{key}\n{axis}\n{index}"
        seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big")
        if seed not in seen:
            seen.add(seed)
            yield seed


def _check_count(count: int) -> None:
    if count > MAX_VALUES:
        raise AxisError(f"has more than {MAX_VALUES:,} values")


def expand_range(form: Mapping[str, Any], *, integer: bool, budget: WorkBudget) -> list[int | float]:
    """Return the numbers of `{from, to, step}` or `{from, to, count, scale}`.

    A range with `step` gives integers if `from`, `to` and `step` are integers, else exact decimal steps as floats. A
    range with `count` gives floats rounded to 12 significant digits, or integers for an integer slot. Raises AxisError.
    """
    if ("step" in form) == ("count" in form):
        raise AxisError("a range needs either `step` or `count`, as in {from: 4, to: 20, step: 4}")
    if "scale" in form and "count" not in form:
        raise AxisError("`scale` goes with `count`")
    first, last = _to_fraction(form["from"], "from"), _to_fraction(form["to"], "to")
    if "step" in form:
        return _expand_steps(form, first, last, budget)
    count = 1 if first == last else int(form["count"])
    _check_count(count)
    is_log = form.get("scale") == "log"
    budget.charge(count * (_VALUE_COST + _count_digits(first, last) + (_GUARD_DIGITS if is_log else 0)))
    points = _geomspace(first, last, count) if is_log else _linspace(first, last, count)
    return [_round_point(point, index, integer=integer) for index, point in enumerate(points)]


def _count_digits(*numbers: Fraction) -> int:
    """Return about how many digits the longest numerator or denominator has."""
    return max(max(number.numerator.bit_length(), number.denominator.bit_length()) for number in numbers) // 3


def _to_fraction(value: float, key: str) -> Fraction:
    if isinstance(value, float) and not math.isfinite(value):
        raise AxisError(f"`{key}` is {value}, but a finite number is needed")
    return to_fraction(value)


def _expand_steps(form: Mapping[str, Any], first: Fraction, last: Fraction, budget: WorkBudget) -> list[int | float]:
    step = _to_fraction(form["step"], "step")
    if step == 0:
        raise AxisError("the step is 0")
    if first != last and (step > 0) != (last > first):
        raise AxisError(f"a step of {form['step']} never gets from {form['from']} to {form['to']}; change its sign")
    count = (last - first) // step + 1
    _check_count(count)
    budget.charge(count * (_VALUE_COST + _count_digits(first, last, step)))
    # All points are integers over one denominator: exact, and Python divides integers to the nearest double.
    scale = math.lcm(first.denominator, step.denominator)
    start, gap = int(first * scale), int(step * scale)
    all_integers = all(isinstance(form[key], int) for key in ("from", "to", "step"))
    points = range(start, start + gap * count, gap)
    return list(points) if all_integers else [_divide(point, scale) for point in points]


def _linspace(first: Fraction, last: Fraction, count: int) -> Iterator[Fraction]:
    gap = (last - first) / (count - 1) if count > 1 else Fraction(0)
    return (first + gap * index for index in range(count))


def _geomspace(first: Fraction, last: Fraction, count: int) -> Iterator[Fraction]:
    """Yield points of equal ratio. The ends and whole numbers are exact, other points have many digits."""
    if first <= 0 or last <= 0:
        raise AxisError("a log scale needs `from` and `to` above 0")
    yield first
    with localcontext(prec=max(len(str(int(end))) for end in (first, last)) + _GUARD_DIGITS):
        point = Decimal(first.numerator) / first.denominator
        ratio = Decimal(last.numerator) / last.denominator / point
        factor = ratio ** (Decimal(1) / (count - 1)) if count > 1 else Decimal(1)
        points = [point := point * factor for _ in range(count - 2)]  # a million lose 7 of the guard digits
    for point in points:
        nearest = round(point)
        yield Fraction(nearest if nearest > 0 and abs(point - nearest) < _NEAR_MISS else point)
    yield from [last] * (count > 1)


def _round_point(point: Fraction, index: int, *, integer: bool) -> int | float:
    """Round one point of a range with `count`; for an integer slot, return the exact integer or raise AxisError."""
    if integer and point.denominator == 1:
        return int(point)
    rounded = _ROUNDING.divide(Decimal(point.numerator), Decimal(point.denominator))
    if not integer:
        return _divide(*rounded.as_integer_ratio())
    if rounded != rounded.to_integral_value():
        message = f"point {index + 1} is {_divide(*point.as_integer_ratio())}, but the slot takes integers; use `step`"
        raise AxisError(message)
    return int(rounded)


def _divide(numerator: int, denominator: int) -> float:
    try:
        return numerator / denominator
    except OverflowError as error:
        raise AxisError("goes beyond the largest number, about 1.8e308") from error


def _read_rows(text: str, form: Mapping[str, Any], parse_text: ParseText) -> Iterator[Option]:
    """Yield the options of a CSV file. Cells of other columns are numbers where all of the column are."""
    # Tools that write tabs between cells do not quote them, so a quote in a prompt is a quote.
    is_tabbed = form["csv"].casefold().endswith(".tsv")
    how: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if is_tabbed else {"strict": True}
    reader = csv.reader(io.StringIO(text, newline=""), **how)
    try:
        header = next(reader, [])
        # Spreadsheets write short rows where the last cells are empty. An empty line is not a row.
        rows = [row + [""] * (len(header) - len(row)) for row in reader if row]
    except csv.Error as error:
        raise AxisError(f"{form['csv']}:{reader.line_num}: is not CSV: {error}") from error
    others = _choose_columns(form["csv"], form, list(filter(None, header)), form.get("columns", []))
    cells: dict[str, list[Any]] = {}
    cells |= {name: [row[header.index(name)] for row in rows] for name in (form["column"], *others)}
    values = map(parse_text, cells.pop(form["column"]))
    for name, column in cells.items():
        are_numbers = all(not cell or _NUMBER.fullmatch(cell) for cell in column)
        cells[name] = [(float(cell) if "." in cell else int(cell)) if cell and are_numbers else cell or None
                       for cell in column]  # fmt: skip
    for value, *own in zip(values, *cells.values(), strict=True):
        yield Option(value, extra=dict(zip(others, own, strict=True)))


def _choose_columns(file: str, form: Mapping[str, Any], names: Collection[str], columns: Any) -> list[str]:
    """Return the names of the more columns that a form asks for: a list, or `all` others than that of the values."""
    for name in (form["column"], *(() if columns == "all" else columns)):
        if name not in names:
            raise AxisError(f"{file} has no column {format_value(name)}{suggest(name, names, 'columns')}")
    found = [name for name in dict.fromkeys(names if columns == "all" else columns) if name != form["column"]]
    if len(found) > _MAX_COLUMNS:
        raise AxisError(f"{file} has {len(found):,} more columns; name those to keep, as in `columns: [skill, id]`")
    return found


def _read_objects(text: str, form: Mapping[str, Any]) -> list[Option]:
    """Return the options of a file with a JSON object in each line. Raises AxisError with all mistakes."""
    column, objects = form["column"], []
    mistakes: list[Problem] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or len(mistakes) == _MAX_MISTAKES:
            continue
        try:
            value, mistake = parse_json(line), ""
        except ValueError as error:
            cause = f"{error.message}, column {error.column}" if isinstance(error, InvalidJsonError) else error
            value, mistake = {column: None}, f"is not JSON: {cause}"
        if not isinstance(value, dict):
            mistake = f"is not an object such as {{{json.dumps(column)}: ...}}"
        elif column not in value:
            mistake = f"has no {format_value(column)}{suggest(column, value, 'fields')}"
        objects.append(value)
        mistakes += [Problem(form["jsonl"], number, "", mistake)] if mistake else []
    if mistakes:
        raise AxisError(*mistakes)
    names = {name: None for value in objects for name in value}
    others = _choose_columns(form["jsonl"], form, names, form.get("columns", "all")) if objects else []
    return [Option(value[column], extra={name: value.get(name) for name in others}) for value in objects]


def _list_model_files(form: Mapping[str, Any], axis: str, files: FileAccess) -> list[Option]:
    """Return the files of a server that match a pattern, in natural order, with the numbers in their names."""
    pattern = form["models"]
    parts = pattern.split("/")
    if len(parts) < 2 or {"", ".", ".."} & {*parts} or not pattern.isprintable() or set("*?[") & set(parts[0]):
        raise AxisError(f"{format_value(pattern)} is not FOLDER/PATTERN, such as loras/mychar-*")
    fixed = re.split(r"[*?[]", pattern.partition("/")[2])[0]
    start = max(fixed.rfind(sign) for sign in "-_./ ") + 1
    options = [
        Option(name, extra={f"{axis}.{word}": number for word, number in read_numbers(name[start:]).items()})
        for name in files.list_models(pattern)
    ]
    zeros = {column: 0 for option in options for column in option.extra}  # no model is a model after no training
    return [Option(NONE, extra=zeros), *options] if form.get("none") else options


def match_models(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names that match `FOLDER/PATTERN` in natural order; `*` stays within a folder. The names may lie."""
    parts = pattern.split("/")[1:]

    def matches(name: str) -> bool:
        own = name.replace("\\", "/").split("/")  # a server on Windows
        is_plain = len(own) == len(parts) and not {"", ".", ".."} & {*own} and name.isprintable() and name != NONE
        return is_plain and all(map(fnmatchcase, own, parts))

    def get_key(name: str) -> tuple[list[Any], str]:
        pieces = enumerate(_DIGITS.split(name))  # texts and digits by turns
        return [int(piece) if index % 2 else piece.casefold() for index, piece in pieces], name

    return sorted(filter(matches, names), key=get_key)


def read_numbers(text: str) -> dict[str, int | float]:
    """Return the numbers in a part of the name of a file, by the word before each, else by `number`.

    `step00001500.safetensors` has the step 1500, `e3` the epoch 3.
    """
    found: dict[str, int | float] = {}
    for match in _NUMBER_IN_NAME.finditer(re.sub(r"\.[A-Za-z]\w*$", "", text)):
        word, digits = match["word"].lower() or "number", match["number"]
        if len(digits) <= _MAX_DIGITS:
            found.setdefault(_WORDS.get(word, word), float(digits) if "." in digits else int(digits))
    return found


def expand_choices(text: str, budget: WorkBudget) -> list[tuple[str, tuple[str, ...]]]:
    """Return every text of `a {red|blue} fox`, with the alternatives that it took in the outer groups.

    The first group is outermost: the last one varies fastest.
    """
    # The text and the open groups in it. A group is a list of alternatives, an alternative a list of texts and groups.
    nested: list[list[list[Any]]] = [[[]]]
    starts: list[int] = []
    for match in _CHOICE_TOKEN.finditer(text):
        word, column = match[0], match.start() + 1
        if word == "{":
            if len(starts) == MAX_NESTING:
                raise AxisError(f"column {column}: groups are nested more than {MAX_NESTING} levels deep here")
            starts.append(column)
            nested.append([[]])
        elif word == "}" and not starts:
            raise AxisError(f"column {column}: this `}}` closes nothing; write \\}} for a brace in the text")
        elif word == "}":
            starts.pop()
            group = [_trim(alternative) for alternative in nested.pop()]
            nested[-1][-1].append(group)
        elif word == "|" and starts:
            nested[-1].append([])
        else:
            nested[-1][-1].append(word.removeprefix("\\") if match.lastgroup else word)
    if starts:
        raise AxisError(f"column {starts[-1]}: this `{{` is never closed; write \\{{ for a brace in the text")
    return _combine(nested[0][0], budget)


def _trim(pieces: list[Any]) -> list[Any]:
    """Remove the space beside `|` and the braces."""
    if pieces and isinstance(pieces[0], str):
        pieces[0] = pieces[0].lstrip()
    if pieces and isinstance(pieces[-1], str):
        pieces[-1] = pieces[-1].rstrip()
    return pieces


def _combine(pieces: list[Any], budget: WorkBudget) -> list[tuple[str, tuple[str, ...]]]:
    combinations: list[tuple[str, tuple[str, ...]]] = [("", ())]
    for piece in pieces:
        if isinstance(piece, str) and not piece:
            continue
        chosen: list[str] = []
        for alternative in piece if isinstance(piece, list) else ():
            chosen += [text for text, _ in _combine(alternative, budget)]
            _check_count(len(combinations) * len(chosen))
        if isinstance(piece, str):
            chosen = [piece]
        written = sum(len(text) + len(groups) for text, groups in combinations)
        budget.charge(written * len(chosen) + len(combinations) * sum(len(text) + _VALUE_COST for text in chosen))
        if isinstance(piece, str):
            combinations = [(text + piece, groups) for text, groups in combinations]
        else:
            combinations = [(text + choice, (*groups, choice)) for text, groups in combinations for choice in chosen]
    return combinations
