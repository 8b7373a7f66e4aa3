"""Edit one place in the text of a YAML file, by position: all other characters, comments and line ends stay.

There are three edits: another text for a value, a new entry, and one entry less. The house's parser reads the result.
It must have the expected value at this place, the old one everywhere else, and all comments outside of what goes. If
not, the edit is refused. So this module needs no code for rare places.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import takewhile
from typing import Any, Final

import yaml

from sweeper.errors import Problem, UsageError
from sweeper.loading.parse import parse_yaml
from sweeper.loading.starter_experiment import write_flow
from sweeper.model.source import Source, SourceError, format_key_path
from sweeper.model.template import MISSING
from sweeper.schemas.values import KeyPath

DELETE: Final = MISSING  # no value; null is a value
_REFUSED: Final = "this place can only be edited as YAML; change it in the text of the file"
_WIDTH: Final = 120  # columns; a longer list has one item on each line
_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # those that libyaml counts
_COMMENT: Final = re.compile("#[^\n\r\x85\u2028\u2029]*")
_COLON: Final = re.compile(r"\s*:")


@dataclass(slots=True)
class WrittenValue:
    """A value at `start:end` of the text, with its anchor and tag, and without the comments behind it.

    Its entry begins at `entry` with a key or a dash, and `after` is the position behind the `:` or `-`. `children` are
    its entries by key or index. `is_flow`: a collection in brackets.
    """

    start: int
    end: int
    entry: int
    after: int
    is_flow: bool
    children: dict[str | int, WrittenValue] = field(default_factory=dict)


class YamlText:
    """The text of a YAML file, where each value stands in it, and the three edits. Raises UsageError if it is not YAML.

    The positions are those of the parser's events, because PyYAML's tree of nodes does not say where an alias stands.
    """

    def __init__(self, text: str) -> None:
        self.source = parse_text(text)
        self.bom = "\ufeff" if text.startswith("\ufeff") else ""  # the parser does not count it
        self.text = text.removeprefix("\ufeff")
        found = _BREAK.search(self.text)
        self.newline = found[0] if found and found[0] in ("\r\n", "\r") else "\n"
        self._texts: list[tuple[int, int]] = []  # of keys and scalars: a `#` in them begins no comment
        events: Iterator[Any] = yaml.parse(self.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        first = next((event for event in events if isinstance(event, yaml.NodeEvent)), None)
        end = len(self.text)
        self.root = WrittenValue(end, end, end, end, False) if first is None else self._read(first, events, 0, 0)

    def _read(self, event: Any, events: Iterator[Any], entry: int, after: int) -> WrittenValue:
        start = position = event.start_mark.index
        end = start + len(self.text[start : event.end_mark.index].rstrip())  # without blank lines behind a block text
        if isinstance(event, yaml.ScalarEvent):
            start, end = (start, end) if start < end else (after, after)  # an empty one may have the next token's mark
            self._texts.append((self._find_line_end(start) if event.style in ("|", ">") else start, end))
        node = WrittenValue(start, end, entry, after, bool(getattr(event, "flow_style", False)))
        for child in events if isinstance(event, yaml.CollectionStartEvent) else ():
            end = child.end_mark.index
            if isinstance(child, yaml.CollectionEndEvent):
                node.end = end if node.is_flow else position  # in block style, the mark is behind comments that follow
                break
            key: str | int = len(node.children)
            entry = after = child.start_mark.index
            value = child
            if isinstance(event, yaml.MappingStartEvent):
                key, after, value = child.value, end, next(events)
                self._texts.append((entry, after))
                colon = _COLON.match(self.text, after)
                after = colon.end() if colon else after
            elif not node.is_flow:
                entry = max(self.text.rfind("-", position, entry), position)
                after = entry + 1
            node.children[key] = self._read(value, events, entry, after)
            position = node.children[key].end
        return node

    def walk(self, path: KeyPath) -> list[WrittenValue]:
        """Return the nodes from the top to the one at a path, as far as they are written there."""
        nodes = [self.root]
        for key in path:
            if key not in nodes[-1].children:
                break
            nodes.append(nodes[-1].children[key])
        return nodes

    def list_comments(self, dropped: Sequence[WrittenValue] = ()) -> Counter[str]:
        """Return all comments, but those in dropped entries and behind them in the same line."""
        edges = [0, *(edge for text in self._texts for edge in text), len(self.text)]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        found = [match for start, end in gaps for match in _COMMENT.finditer(self.text, start, end)]
        areas = [(node.entry, self._find_line_end(node.end)) for node in dropped]
        return Counter(match[0] for match in found if not any(start < match.start() < end for start, end in areas))

    def read_value(self, path: KeyPath) -> str:
        """Return the YAML of a value as it is written, without its indentation; empty if it is not written there."""
        nodes = self.walk(path)
        return "\n".join(self._read_lines(nodes[-1].start, nodes[-1].end)) if len(nodes) > len(path) else ""

    def read_entry(self, node: WrittenValue) -> list[str]:
        """Return the lines of an entry in block style, with its comments and without its indentation."""
        return self._read_lines(node.entry, self._find_line_end(node.end))

    def replace(self, node: WrittenValue, lines: Sequence[str]) -> str:
        """Return the text with another value: its first line stands behind the key or dash, the others below."""
        head, *body = lines
        line_end = self._find_line_end(node.after)
        is_below = node.start > line_end
        if not body and not is_below:
            return self._splice(node.start, node.end, head if node.start < node.end else f" {head}")
        end = node.end if is_below else self._find_line_end(node.end)
        comment = self.text[node.after : line_end] if is_below else self.text[node.end : end]
        indent = 0 if node is self.root else self._get_column(node.entry) + 2
        below = [self.newline + line for line in _indent(body, indent)]
        return self._splice(node.after, end, "".join([f" {head}" if head else "", comment, *below]))

    def insert(self, parent: WrittenValue, before: str | None, lines: Sequence[str]) -> str:
        """Return the text with another entry of a collection in block style, or of one that is empty."""
        if not parent.children:
            return self.replace(parent, ["", *lines])
        children = list(parent.children.values())
        indent = self._get_column(children[0].entry)
        written = self.newline.join(_indent(lines, indent))
        if before in parent.children:  # what is in front of it in its line may be a dash
            place = parent.children[before].entry
            return self._splice(place, place, f"{written.lstrip(' ')}{self.newline}{' ' * indent}")
        place = self._find_line_end(children[-1].end)
        hanging = re.compile(f"(?:[\r\n]+ {{{indent + 1},}}{_COMMENT.pattern})*").match(self.text, place)
        place = hanging.end() if hanging else place  # comments that are indented further belong to the entry above
        return self._splice(place, place, self.newline + written)

    def delete(self, parent: WrittenValue, key: str | int) -> str:
        """Return the text without an entry of a collection in block style, and without the comments in its lines."""
        if len(parent.children) == 1 and parent is not self.root:
            return self.replace(parent, ["[]" if key == 0 else "{}"])
        node = parent.children[key]
        start, end = node.entry, self._find_line_end(node.end)
        column = self._get_column(start)
        if self.text[start - column : start].strip() and node is not list(parent.children.values())[-1]:
            following = min(child.entry for child in parent.children.values() if child.entry > start)
            return self._splice(start, following, "")  # the next one takes its place behind a dash
        found = _BREAK.match(self.text, end)
        return self._splice(start - column, found.end() if found else end, "")

    def write_above(self, path: KeyPath, comments: Iterable[str]) -> str:
        """Return the text with comments above the entry at a path, each in a line of its own."""
        entry = self.walk(path)[-1].entry
        end = self.newline + " " * self._get_column(entry)
        return self._splice(entry, entry, "".join(comment + end for comment in comments))

    def _splice(self, start: int, end: int, new: str) -> str:
        return self.bom + self.text[:start] + new + self.text[end:]

    def _get_column(self, index: int) -> int:
        return index - 1 - max(self.text.rfind(letter, 0, index) for letter in "\n\r\x85\u2028\u2029")

    def _find_line_end(self, index: int) -> int:
        found = _BREAK.search(self.text, index)
        return found.start() if found else len(self.text)

    def _read_lines(self, start: int, end: int) -> list[str]:
        indent = " " * self._get_column(start)
        return [line.removeprefix(indent) for line in _BREAK.split(self.text[start:end])]


def edit_yaml(text: str, path: KeyPath, value: Any, *, before: str | None = None, lines: Sequence[str] = ()) -> str:
    """Return the text with a value set at a path, or deleted if the value is `DELETE`.

    Missing mappings and lists on the way are made; an index of the length of a list adds an item. A new entry stands in
    front of the key `before`, else at the end; `lines` are how it is written. If one item of a list in block style
    differs, or it gets more, only these are written; what is in brackets is written anew. Raises UsageError if the text
    is not YAML, or if this place can only be edited by hand. Comments within a value that goes stand above its entry.
    """
    written = YamlText(text)
    nodes, expected = written.walk(path), _replace_at(written.source.value, path, value)
    is_there, old = len(nodes) > len(path), get_at(written.source.value, path)
    brackets = next((depth for depth, node in enumerate(nodes[: len(path)]) if node.is_flow and node.children), None)
    if brackets and before is None and not any("#" in line for line in lines):
        return edit_yaml(text, path[:brackets], get_at(expected, path[:brackets]))
    is_block = is_there and 0 in nodes[-1].children and not nodes[-1].is_flow
    if is_block and isinstance(value, list) and value and (item := _find_item(old, value)) is not None:
        return edit_yaml(text, (*path, item[0]), item[1])
    if brackets is not None or (value is DELETE and not is_there):
        changed = text  # so it is refused: the whole file is in brackets, or an alias or `<<` gives the value
    elif value is DELETE:
        changed = written.delete(nodes[-2], path[-1])
    elif is_block and isinstance(value, list) and _encode(value[: len(old)]) == _encode(old):  # several more items
        more = [line for item in value[len(old) :] for line in _write_entry(0, item, 2 * len(path) + 2)]
        changed = written.insert(nodes[-1], None, more)
    elif is_there:
        changed = written.replace(nodes[-1], _write_value(value, 2 * len(path) + len(str(path[-1])), is_block=is_block))
    else:
        lines = lines or _write_entry(path[-1], value, 2 * len(path))
        for key in reversed(path[len(nodes) - 1 : -1]):
            lines = _label(key, lines if isinstance(key, int) else ["", *lines])
        changed = written.insert(nodes[-1], before, lines)
    comments = written.list_comments(nodes[-1:] if value is DELETE and is_there else [])
    for end in ("", written.newline):  # a text in block style at the end of a file may need a line break
        result = _read_result(changed + end, expected, comments, path if is_there and value is not DELETE else None)
        if result is not None:
            return result.bom + result.text
    raise UsageError(Problem("", written.source.find_line(path), format_key_path(path), _REFUSED))


def _read_result(text: str, expected: Any, comments: Counter[str], replaced: KeyPath | None) -> YamlText | None:
    """Return a changed text if it has the expected value and the comments, which were within the one `replaced`."""
    with suppress(UsageError):
        result = YamlText(text)
        if replaced is not None and (lost := comments - result.list_comments()):
            result = YamlText(result.write_above(replaced, lost.elements()))
        is_expected = _encode(result.source.value or {}) == _encode(expected or {})
        return result if is_expected and not comments - result.list_comments() else None
    return None


def move_entry(text: str, path: KeyPath, parent: KeyPath, before: str | None = None) -> str:
    """Return the text with the entry at `path` moved into the mapping at `parent`, with its lines and comments.

    The mapping that it leaves may be empty then. Otherwise as `edit_yaml`.
    """
    written = YamlText(text)
    nodes, value = written.walk(path), get_at(written.source.value, path)
    lines = () if any(node.is_flow for node in nodes[:-1]) else written.read_entry(nodes[-1])
    return edit_yaml(edit_yaml(text, path, DELETE), (*parent, path[-1]), value, before=before, lines=lines)


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


def _write_value(value: Any, column: int, *, is_block: bool = False) -> list[str]:
    """Return what stands behind a key or dash, at a column, and the lines below without their indentation."""
    if isinstance(value, str):
        lines = value.removesuffix("\n").split("\n")
        is_readable = len(lines) > 1 and value.strip() == "\n".join(lines)
        if is_readable and all(line.isprintable() and line == line.rstrip() for line in lines):
            return ["|" if value.endswith("\n") else "|-", *lines]
    flow = write_flow(value)
    is_short = column + len(flow) <= _WIDTH and r"\n" not in flow and not is_block
    if not isinstance(value, list) or not value or is_short:
        return [flow]
    return ["", *(line for item in value for line in _write_entry(0, item, column))]


def _write_entry(key: str | int, value: Any, column: int) -> list[str]:
    """Write an entry of a mapping, or an item if the key is an index. `column`: where it begins, more or less."""
    return _label(key, _write_value(value, column + len(str(key)) + 2))


def _label(key: str | int, lines: Sequence[str]) -> list[str]:
    """Put a key or a dash in front of what `_write_value` returns."""
    label = "-" if isinstance(key, int) else f"{write_flow(key)}:"
    return [f"{label} {lines[0]}".rstrip(" "), *_indent(lines[1:], 2)]


def _indent(lines: Sequence[str], indent: int) -> list[str]:
    return [" " * indent + line if line else "" for line in lines]


def _replace_at(value: Any, path: KeyPath, new: Any) -> Any:
    """Return a copy of a value with another part at a path. Aliases share parts, so only the way there is copied."""
    if not path:
        return new
    key = path[0]
    kind: type = list if isinstance(key, int) else dict
    if value is not None and not isinstance(value, kind):
        raise UsageError(Problem("", 0, format_key_path(path), _REFUSED))
    parts: Any = value or kind()
    items = dict(enumerate(parts)) if kind is list else dict(parts)
    items[key] = _replace_at(items.get(key), path[1:], new)
    if items[key] is DELETE:
        del items[key]
    return items if kind is dict else list(items.values())


def _find_item(old: Sequence[Any], new: Sequence[Any]) -> tuple[int, Any] | None:
    """Return the index and new value of the one item that makes a list another one; None if there is none."""
    same = takewhile(lambda pair: _encode(pair[0]) == _encode(pair[1]), zip(old, new, strict=False))
    index = len([*same])
    items = [(index, item) for item in (DELETE, *new[index : index + 1])]
    return next((item for item in items if _encode(_replace_at(old, item[:1], item[1])) == _encode(new)), None)


def _encode(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # 1, 1.0 and true differ
