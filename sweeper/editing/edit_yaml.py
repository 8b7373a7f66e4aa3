"""Edit one place in the text of a YAML file, by position: all other characters, comments and line ends stay.

Pure functions from text to text. After each edit the house's parser reads the new text: it must have the expected value
at this place and the old one everywhere else. If not, the edit is refused.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sweeper.editing.yaml_text import BREAK, YamlText
from sweeper.errors import Problem, UsageError
from sweeper.loading.parse import parse_yaml
from sweeper.loading.starter_experiment import quote_yaml
from sweeper.model.source import Source, SourceError, format_key_path
from sweeper.model.template import MISSING
from sweeper.schemas.values import KeyPath

DELETE: Final = MISSING  # no value; null is a value
_REFUSED: Final = "this place can only be edited as YAML; change it in the text of the file"
_WIDTH: Final = 120  # columns; a longer list has one item on each line
_MAX_WORK: Final = 5_000_000  # characters that one change may read again, for a list whose items change one by one
_MAX_COMPARED: Final = 300  # items of a list that are compared with each other
_PLAIN: Final = re.compile(r"(?:\.\.?/)*[A-Za-z][\w./-]*")
_NO_TEXTS: Final = frozenset(("true", "false", "null", "yes", "no", "on", "off"))  # of YAML 1.2, or of 1.1


@dataclass(frozen=True, slots=True)
class _Items:
    """New items of a list, in front of the item at their place."""

    values: list[Any]


def edit_yaml(text: str, path: KeyPath, value: Any, *, order: Sequence[str] = ()) -> str:
    """Return the text with a value set at a path, or deleted if the value is `DELETE`.

    Missing mappings and lists on the way are made; an index of the length of a list adds an item. `order`: a new key at
    the top stands behind those before it in this list. Of lists and mappings, only what differs is written. Raises
    UsageError if the text is not YAML, or if this place can only be edited by hand.
    """
    old = parse_text(text).value
    expected = _replace_at(old, path, value)
    nodes = YamlText(text).walk(path)
    if (depth := next((number for number, node in enumerate(nodes) if node.is_alias), None)) is not None:
        path, value = path[:depth], get_at(expected, path[:depth])  # written out here, and left alone elsewhere
    before = get_at(old, path)
    is_whole = depth is not None or DELETE in (before, value)
    edits = [(path, value)] if is_whole else [*_list_edits(before, value, path)]
    if edits != [(path, value)] and len(edits) * len(text) <= _MAX_WORK:
        with suppress(UsageError):
            changed = text
            for place, part in edits:
                changed = _edit(changed, place, part, order)
            longest = max(map(len, BREAK.split(changed)))
            if longest <= _WIDTH or longest == max(map(len, BREAK.split(text))):
                return _check(changed, expected, text, path)
    return _check(_edit(text, path, value, order), expected, text, path)


def move_entry(text: str, path: KeyPath, parent: KeyPath, before: str | None = None) -> str:
    """Return the text with the entry at `path` moved into the mapping at `parent`, with its lines and comments.

    It stands at the end there, or in front of the key `before`. The mapping that it leaves may be empty then. Raises as
    `edit_yaml` does.
    """
    old = parse_text(text).value
    value, new_path = get_at(old, path), (*parent, path[-1])
    yaml_text = YamlText(text)
    nodes = yaml_text.walk(path)
    lines = yaml_text.read_lines(nodes) if len(nodes) > len(path) else None
    changed = _set_value(_edit(text, path, DELETE), new_path, value, lines=lines, before=before)
    return _check(changed, _replace_at(_replace_at(old, path, DELETE), new_path, value), text, path)


def add_line(text: str, path: KeyPath, line: str) -> str:
    """Return the text with a new entry at a path, which `line` writes with its key. Raises as `edit_yaml` does."""
    value = parse_text(line).value[path[-1]]
    return _check(
        _set_value(text, path, value, lines=[line]), _replace_at(parse_text(text).value, path, value), text, path
    )


@lru_cache(maxsize=8)  # one change reads the same texts several times
def parse_text(text: str) -> Source:
    """Parse a text as `load` does. Do not change the value. Raises UsageError."""
    try:
        return parse_yaml(text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), "")
    except SourceError as error:
        raise UsageError(error.problem) from error


def get_at(value: Any, path: KeyPath) -> Any:
    """Return the part of a value at a path; `DELETE` if there is none."""
    for key in path:
        is_there = key in value if isinstance(value, dict) else isinstance(value, list) and key in range(len(value))
        if not is_there:
            return DELETE
        value = value[key]
    return value


def _replace_at(value: Any, path: KeyPath, new: Any) -> Any:
    """Return a copy of a value with another part at a path. Aliases share parts, so only the way there is copied."""
    if not path:
        return new
    key = path[0]
    kind: type = list if isinstance(key, int) else dict
    part = get_at(value, (key,))
    is_end = kind is list and key == len(value or ())
    if (value is not None and not isinstance(value, kind)) or (part is DELETE and kind is list and not is_end):
        raise UsageError(Problem("", 0, format_key_path(path), "there is no such place in the file"))
    items: Any = kind(value or ())
    part = _replace_at(None if part is DELETE else part, path[1:], new)
    if is_end:
        items.append(part)
    elif part is not DELETE:
        items[key] = part
    elif key in (items if kind is dict else range(len(items))):
        del items[key]
    return items


def _check(changed: str, expected: Any, text: str, path: KeyPath) -> str:
    for end in ("", YamlText(text).newline):  # a text in block style at the end of a file may need a line break
        with suppress(UsageError):
            if _encode(parse_text(changed + end).value or {}) == _encode(expected or {}):
                return changed + end
    raise UsageError(Problem("", parse_text(text).find_line(path), format_key_path(path), _REFUSED))


def _read_positions(text: str) -> YamlText:
    try:
        parse_text(text)
    except UsageError:  # an edit before this one has failed
        raise UsageError(_REFUSED) from None
    return YamlText(text)


def _encode(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # 1, 1.0 and true differ


def _list_edits(old: Any, new: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Yield edits that make one value of another, each in the text that the ones before it leave."""
    if _encode(old) == _encode(new):
        return
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() & new.keys():
        yield from (((*path, key), DELETE) for key in old if key not in new)
        for key, item in new.items():
            yield from _list_edits(old[key], item, (*path, key)) if key in old else [((*path, key), item)]
    elif isinstance(old, list) and isinstance(new, list) and old and new:
        first, second = [*map(_encode, old)], [*map(_encode, new)]
        shorter = min(len(first), len(second))
        head = next((index for index in range(shorter) if first[index] != second[index]), shorter)
        tail = next(
            (index for index in range(shorter - head) if first[-1 - index] != second[-1 - index]), shorter - head
        )
        first, second = first[head : len(first) - tail], second[head : len(second) - tail]
        if first and second and max(len(first), len(second)) > _MAX_COMPARED:
            yield path, new
            return
        for _, *bounds in reversed(difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes()):
            start, end, new_start, new_end = (bound + head for bound in bounds)
            paired = min(end - start, new_end - new_start)
            yield from (((*path, index), DELETE) for index in reversed(range(start + paired, end)))
            if new_start + paired < new_end:
                yield (*path, start + paired), _Items(new[new_start + paired : new_end])
            for index in range(paired):
                yield from _list_edits(old[start + index], new[new_start + index], (*path, start + index))
    else:
        yield path, new


def _edit(text: str, path: KeyPath, value: Any, order: Sequence[str] = ()) -> str:
    if value is not DELETE:
        return _set_value(text, path, value, order=order)
    yaml_text = _read_positions(text)
    nodes = yaml_text.walk(path)
    if len(nodes) > len(path):
        return yaml_text.delete(nodes)
    message = (
        "comes from another place of the file, by an alias or `<<`, or is not there; change it in the text of the file"
    )
    raise UsageError(Problem("", parse_text(text).find_line(path), format_key_path(path), message))


def _set_value(
    text: str,
    path: KeyPath,
    value: Any,
    *,
    order: Sequence[str] = (),
    lines: Sequence[str] | None = None,
    before: str | int | None = None,
) -> str:
    """Replace or add a value. `lines`: its entry as it was written elsewhere. `before`: the key in front of which."""
    yaml_text = _read_positions(text)
    nodes = yaml_text.walk(path)
    if isinstance(value, _Items) and len(nodes) > len(path):
        nodes.pop()
        before = path[-1]
    is_in_flow = any(node.is_flow for node in nodes[:-1])
    depth = max(len(nodes) - 1, 0)
    node = nodes[-1] if nodes else None
    if node is not None and depth == len(path):
        head, body = (
            (write_flow(value), []) if is_in_flow else _write_value(value, yaml_text.get_column(node.after) + 1)
        )
        return yaml_text.replace(nodes, head, body)
    values = value.values if isinstance(value, _Items) else [value]
    if node is not None and (is_in_flow or (node.is_flow and node.children)):
        written = ", ".join(write_flow(_nest(path[depth:], item))[1:-1] for item in values)
        if node.is_flow:
            return yaml_text.insert_in_flow(node, written, before)
        return yaml_text.replace(nodes, write_flow(_nest(path[depth:], value)), [])
    indent = yaml_text.get_indent(nodes)
    column = indent + 2 * (len(path) - depth - 1)
    entry = list(lines or (line for item in values for line in _write_entry(path[-1], item, column)))
    for parent in reversed(path[depth:-1]):
        entry = _wrap(parent, "", entry)
    if node is None:
        return yaml_text.append(entry)
    key = path[depth]
    if not node.children:
        return yaml_text.replace(nodes, "", entry, str(key))
    if depth == 0 and key in order:
        later = order[order.index(str(key)) :]
        before = next((name for name in node.children if name in later), None)
    return yaml_text.insert(nodes, entry, before, str(key))


def write_flow(value: Any) -> str:
    """Write a value on one line."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _NO_TEXTS else quote_yaml(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{write_flow(str(key))}: {write_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(write_flow, value))}]"
    return json.dumps(value)


def _write_value(value: Any, column: int) -> tuple[str, list[str]]:
    """Return what stands behind a key or dash, at a column, and the lines below without their indentation."""
    flow = write_flow(value)
    if isinstance(value, str):
        lines = value.removesuffix("\n").split("\n")
        is_readable = len(lines) > 1 and value.strip() == "\n".join(lines)
        if is_readable and all(line.isprintable() and line == line.rstrip() for line in lines):
            return "|" if value.endswith("\n") else "|-", lines
    if not value or not isinstance(value, (dict, list)) or (column + len(flow) <= _WIDTH and r"\n" not in flow):
        return flow, []
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    return "", [line for key, item in entries for line in _write_entry(key, item, column)]


def _write_entry(key: str | int, value: Any, indent: int) -> list[str]:
    """Write an entry of a mapping, or an item if the key is an index. `indent` is its column."""
    return _wrap(key, *_write_value(value, indent + len(_wrap(key, "x", [])[0]) - 1))


def _wrap(key: str | int, head: str, body: Sequence[str]) -> list[str]:
    """Put a key or a dash in front of what `_write_value` returns."""
    if isinstance(key, int) and not head:
        head, *body = body
    label = "-" if isinstance(key, int) else f"{write_flow(key)}:"
    return [f"{label} {head}".rstrip(" "), *(f"  {line}" if line else "" for line in body)]


def _nest(path: KeyPath, value: Any) -> Any:
    for key in reversed(path):
        value = [value] if isinstance(key, int) else {key: value}
    return value
