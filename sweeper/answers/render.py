"""Show an answer: as text for a terminal, as JSON, as Markdown, and as HTML.

Answers hold what strangers wrote: names, prompts, messages of servers. So text gets no control characters, Markdown
and HTML are escaped, and HTML has no script and no colours of its own: it fits light and dark pages.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from sweeper.answers.cells import format_cell, sanitize
from sweeper.answers.parts import (
    Fact,
    Facts,
    Fail,
    Heading,
    Item,
    Line,
    Note,
    Part,
    Pictures,
    ShownPicture,
    Table,
    Warn,
)

_MARKS: Final = "\\`*_{}[]<>|~#@"  # what Markdown may interpret
_PICTURE_STYLE: Final = "max-width:min(100%,32rem);display:block"
_MIN_WIDTH: Final = 8  # characters to which a column may be cut


AS_JSON: Final = {"json": "*"}  # metadata of the field that is all of the answer's JSON
NOT_IN_JSON: Final = {"json": ""}  # metadata of a field that is left out
INLINE: Final = {"json": "**"}  # metadata of a field whose own fields stand among those of the answer
IF_GIVEN: Final = {"if_given": True}  # metadata of a field that is left out if it is None


def json_name(name: str) -> dict[str, str]:
    """Metadata of a field that has another name in JSON, such as `class`, which Python keeps for itself."""
    return {"json": name}


def json_keys(**functions: Callable[[Any], Any]) -> dict[str, Mapping[str, Callable[[Any], Any]]]:
    """Metadata of a field that has these keys in JSON. Each function makes the value of one from the field's."""
    return {"json": functions}


def to_json(value: Any) -> Any:
    """An answer, or a value in it, as JSON holds it: the fields of a dataclass by name, a path as text.

    A number that JSON lacks becomes None: the PSNR of equal pictures is infinite. A value with a method `to_dict` is
    what that returns.
    """
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value):
        found: dict[str, Any] = {}
        for field in fields(value):
            name, item = field.metadata.get("json", field.name), getattr(value, field.name)
            if name == "*":
                return to_json(item)
            if isinstance(name, Mapping):
                found |= {key: to_json(make(item)) for key, make in name.items()}
            elif name and (item is not None or "if_given" not in field.metadata):
                found |= to_json(item) if name == "**" else {name: to_json(item)}
        return found
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [to_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def render_text(parts: Iterable[Part], width: int | None = None, *, bold: bool = False) -> Iterator[str]:
    """Yield the lines of a text, without those of `Warn`, `Fail` and `Note`.

    `width`: characters to which tables are cut, if given. `bold`: whether headings are bold, as ANSI codes make them.
    """
    has_lines = is_table = False
    for part in parts:
        if isinstance(part, Warn | Fail | Note | Pictures):
            continue
        if has_lines and (is_table or isinstance(part, Heading | Table | Facts)):
            yield ""
        has_lines, is_table = True, isinstance(part, Table | Facts)
        for number, line in enumerate(_render_part(part, width)):
            yield f"\x1b[1m{line}\x1b[0m" if bold and number == 0 and isinstance(part, Heading | Table) else line


def _render_part(part: Part, width: int | None) -> Iterator[str]:
    match part:
        case Table():
            yield from render_table(part, width)
        case Facts():
            yield from map(sanitize, _align_facts(part.rows))
        case Item():
            yield f"  {sanitize(part.text)}"
        case Heading() | Line():
            yield sanitize(part.text)


def _align_facts(rows: Sequence[Fact]) -> Iterator[str]:
    label_width = max((len(row.label) for row in rows), default=0)
    width = max((len(str(row.value)) for row in rows if isinstance(row.value, int)), default=0)
    for row in rows:
        value = f"{row.value:>{width}}" if isinstance(row.value, int) or not row.value else row.value
        yield f"{row.label:<{label_width}}  {value}{f'  {row.rest}' if row.rest else ''}".rstrip()


def render_table(table: Table, width: int | None = None) -> Iterator[str]:
    """Yield the lines of a table, with numbers aligned right; the first has the names of the columns.

    rich's tables are not used because they take half a millisecond a row, and a sweep has thousands of rows.
    """
    lines = [list(map(sanitize, table.columns)), *_format_rows(table)]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(_compute_width, column)) for column in columns]
    if width is not None:
        widths = _fit_widths(widths, width)
    numeric = [all(_is_number(cell) for cell in column[1:] if cell) and len(column) > 1 for column in columns]
    for line in lines:
        cells = zip(line, widths, numeric, strict=True)
        yield "  ".join(_pad_or_cut(cell, size, align_right=right) for cell, size, right in cells).rstrip()


def _format_rows(table: Table) -> Iterator[list[str]]:
    rounded = [column in table.rounded for column in table.columns]
    for row in table.rows:
        yield [
            "" if isinstance(cell, ShownPicture) else format_cell(cell, rounded=is_rounded)
            for cell, is_rounded in zip(row, rounded, strict=True)
        ]


def _fit_widths(widths: list[int], line_width: int) -> list[int]:
    """The column widths, the widest cut first until a line fits; no column is cut below eight characters."""
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > line_width and max(widths) > _MIN_WIDTH:
        widths[widths.index(max(widths))] -= 1
    return widths


def _compute_width(text: str) -> int:
    """How many terminal columns the text takes: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _pad_or_cut(text: str, width: int, *, align_right: bool) -> str:
    missing = width - _compute_width(text)
    if missing >= 0:
        return " " * missing + text if align_right else text + " " * missing
    start = text[: width - 1]
    while (room := width - 1 - _compute_width(start)) < 0:
        start = start[:-1]
    return start + " " * room + "\N{HORIZONTAL ELLIPSIS}"


def _is_number(text: str) -> bool:
    """Whether a cell is aligned right: a number, or a mean with its standard deviation."""
    try:
        float(text.partition(" \N{PLUS-MINUS SIGN} ")[0])
    except ValueError:
        return False
    return True


def render_markdown(parts: Iterable[Part]) -> str:
    """The answer as GitHub's Markdown."""
    lines: list[str] = []
    before: Part | None = None
    for part in parts:
        if isinstance(part, Pictures):
            continue  # Markdown shows no picture that no server has
        if lines and not (isinstance(part, Item) and isinstance(before, Item)):
            lines.append("")
        before = part
        match part:
            case Table():
                cells = [map(escape_markdown, row) for row in (part.columns, *_format_rows(part))]
                head, *rows = [f"| {' | '.join(row)} |" for row in cells]
                lines += [head, f"|{' --- |' * len(part.columns)}", *rows]
            case Facts():
                lines += [f"- {escape_markdown(line)}" for line in _align_facts(part.rows)]
            case Heading():
                lines.append(f"### {escape_markdown(part.text)}")
            case Item():
                lines.append(f"- {escape_markdown(part.text)}")
            case Line() | Warn() | Fail() | Note():
                lines.append(escape_markdown(part.text))
    return "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """One line of text, with everything escaped that Markdown would interpret."""
    for mark in _MARKS:
        text = text.replace(mark, "\\" + mark)
    return " ".join(sanitize(text).split()).replace("&", "&amp;")


def render_html(parts: Iterable[Part]) -> str:
    """The answer as a fragment of HTML."""
    return "".join(map(_render_html_part, parts))


def _render_html_part(part: Part) -> str:
    match part:
        case Table():
            return _render_html_table(part.columns, part.rows, part.rounded)
        case Facts():
            return _render_html_table((), [(row.label, row.value, row.rest) for row in part.rows])
        case Heading():
            return f"<h3>{html.escape(part.text)}</h3>"
        case Item():
            return f"<div>• {html.escape(part.text)}</div>"
        case Line() | Note():
            return f"<div>{html.escape(part.text)}</div>"
        case Warn() | Fail():
            return f"<div>⚠ {html.escape(part.text)}</div>"
        case Pictures():
            return f"<div>{''.join(map(_render_picture, part.pictures))}</div>"


def _render_html_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], rounded: Iterable[str] = ()) -> str:
    head = "".join(f'<th scope="col" style="text-align:left">{html.escape(name)}</th>' for name in columns)
    is_rounded = [column in set(rounded) for column in columns]
    body = "".join(f"<tr>{''.join(map(_render_html_cell, row, is_rounded or [False] * len(row)))}</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>" if body else ""


def _render_html_cell(cell: Any, rounded: bool) -> str:
    text = _render_picture(cell) if isinstance(cell, ShownPicture) else html.escape(format_cell(cell, rounded=rounded))
    return f'<td style="text-align:left">{text}</td>'


def _render_picture(picture: ShownPicture) -> str:
    url, caption = picture.read(), html.escape(picture.caption)
    if not url:
        return ""
    words = f"<figcaption>{caption}</figcaption>" if caption else ""
    image = f'<img src="{html.escape(url)}" alt="{caption}" style="{_PICTURE_STYLE}">'
    return f'<figure style="display:inline-block;margin:0 4px 4px 0">{image}{words}</figure>'
