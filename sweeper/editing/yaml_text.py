"""Where each value stands in the text of a YAML file, and the text with one entry replaced, added or removed.

The positions are those of the parser's events, because a tree of nodes does not say where an alias stands. `edit_yaml`
decides what to write, and checks the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import yaml

from sweeper.errors import Problem, UsageError
from sweeper.schemas.values import KeyPath

BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # those that libyaml counts
_NO_BREAKS: Final = "[^\n\r\x85\u2028\u2029]*"
_COLON: Final = re.compile(r"\s*:")
# From the end of an item, or the start of its list, to the dash of the next: anchors, tags and comments.
_DASH: Final = re.compile(rf"(?:[&!]\S*|#{_NO_BREAKS}|\s)*?-(?=\s|$)")
_COMMENT: Final = re.compile(f"[ \t]*,?[ \t]*(?:#{_NO_BREAKS})?")  # behind an entry in brackets

_COMMENT_LINE: Final = re.compile(f"[\r\n]+( *)#({_NO_BREAKS})")


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
    anchor: str | None
    is_alias: bool
    is_flow: bool
    children: dict[str | int, WrittenValue] = field(default_factory=dict)

    def iter_all(self) -> Iterator[WrittenValue]:
        yield self
        for child in self.children.values():
            yield from child.iter_all()


class YamlText:
    """A text that the house's parser accepts. Its methods return the changed text, or raise UsageError."""

    def __init__(self, text: str) -> None:
        self.bom = "\ufeff" if text.startswith("\ufeff") else ""  # the parser does not count it
        self.text = text.removeprefix("\ufeff")
        found = BREAK.search(self.text)
        self.newline = found[0] if found and found[0] in ("\r\n", "\r") else "\n"

    @cached_property
    def root(self) -> WrittenValue | None:
        events: Iterator[Any] = yaml.parse(self.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        first = next((event for event in events if isinstance(event, yaml.NodeEvent)), None)
        return None if first is None else self._read(first, events, 0, 0)

    def _read(self, event: Any, events: Iterator[Any], entry: int, after: int) -> WrittenValue:
        start, end = event.start_mark.index, event.end_mark.index
        position = start
        end = start + len(self.text[start:end].rstrip())  # without the blank lines behind a text in block style
        if start == end and isinstance(event, yaml.ScalarEvent):  # some of these marks are those of the next token
            start = end = after
        is_flow = bool(getattr(event, "flow_style", False))
        node = WrittenValue(start, end, entry, after, event.anchor, isinstance(event, yaml.AliasEvent), is_flow)
        for child in events if isinstance(event, yaml.CollectionStartEvent) else ():
            end = child.end_mark.index
            if isinstance(child, yaml.CollectionEndEvent):
                node.end = end if is_flow else position  # in block style, the mark is behind comments that follow
                break
            key: str | int = len(node.children)
            entry = after = child.start_mark.index
            value = child
            if isinstance(event, yaml.MappingStartEvent):
                key, after, value = child.value, end, next(events)
                colon = _COLON.match(self.text, after)
                after = colon.end() if colon else after
            elif not is_flow and (dash := _DASH.match(self.text, position)):
                entry, after = dash.end() - 1, dash.end()
            node.children[key] = self._read(value, events, entry, after)
            position = node.children[key].end
        return node

    def walk(self, path: KeyPath) -> list[WrittenValue]:
        """Return the nodes from the top to the one at a path, as far as they are written there."""
        nodes = [self.root] if self.root is not None else []
        for key in path if nodes else ():
            if key not in nodes[-1].children:
                break
            nodes.append(nodes[-1].children[key])
        return nodes

    def get_line(self, index: int) -> int:
        """Return the 1-based line of a position."""
        return len(BREAK.findall(self.text, 0, index)) + 1

    def get_column(self, index: int) -> int:
        return index - self._find_line_start(index)

    def _find_line_start(self, index: int) -> int:
        return max(self.text.rfind(letter, 0, index) for letter in "\n\r\x85\u2028\u2029") + 1

    def _find_line_end(self, index: int) -> int:
        """Return the position of the line break behind an index, or the end of the text."""
        found = BREAK.search(self.text, index)
        return found.start() if found else len(self.text)

    def _find_break(self, index: int) -> int:
        """Return the position of the line break in front of the line of an index."""
        start = self._find_line_start(index)
        return max(start - (2 if self.text[:start].endswith("\r\n") else 1), 0)

    def begins_line(self, index: int) -> bool:
        return not self.text[self._find_line_start(index) : index].strip()

    def get_indent(self, nodes: Sequence[WrittenValue]) -> int:
        """Return the column of entries in block style: of the first one, or of comments in their place."""
        if nodes and nodes[-1].children:
            return self.get_column(next(iter(nodes[-1].children.values())).entry)
        if len(nodes) < 2:
            return 0
        indent = self.get_column(nodes[-1].entry)
        comment = re.compile("[\r\n]+( +)#").match(self.text, self._find_line_end(nodes[-1].end))
        return len(comment[1]) if comment and len(comment[1]) > indent else indent + 2

    def read_lines(self, nodes: Sequence[WrittenValue]) -> list[str] | None:
        """Return the lines of an entry without their indentation; None if it stands in brackets."""
        entry, indent = nodes[-1].entry, self.get_column(nodes[-1].entry)
        lines = BREAK.split(self.text[entry : self._find_line_end(nodes[-1].end)])
        return None if nodes[-2].is_flow else [dedent(line, indent) for line in lines]

    def read_value(self, path: KeyPath) -> str:
        """Return the YAML of a value as it is written, without its indentation; empty if it is not written there."""
        nodes = self.walk(path)
        if len(nodes) <= len(path):
            return ""
        lines = BREAK.split(self.text[nodes[-1].start : nodes[-1].end])
        return "\n".join(dedent(line, self.get_column(nodes[-1].start)) for line in lines)

    def append(self, lines: Sequence[str]) -> str:
        """Return the text with lines at its end; for a text without values."""
        start = "" if self.begins_line(len(self.text)) else self.newline
        return f"{self.bom}{self.text}{start}{self._join(lines, 0)}{self.newline}"

    def replace(self, nodes: Sequence[WrittenValue], head: str, body: Sequence[str], name: str = "") -> str:
        """Return the text with another value: `head` stands behind its key or dash, `body` are the lines below.

        `name`: the key of the first entry, if there were only comments until now.
        """
        node = nodes[-1]
        self._refuse_used_anchors(node)
        if len(nodes) == 1:
            return self._splice(node.start, node.end, head + self._join(body, 0))
        indent = self.get_indent(nodes) if name else self.get_column(node.entry) + 2
        mark = self.text[node.after - 1]
        if mark == "-" and not head:
            head, *body = body
        line_end = self._find_line_end(node.after)
        is_block = bool(node.children) and not node.is_flow
        if node.start > line_end and (body or is_block):  # it begins in a later line
            between = self.text[node.after : self._find_break(node.start)]
            end = self._find_line_end(node.end)
            space = " "
        else:
            end = self._find_line_end(node.end)
            if name:
                end = self._skip_comments(end, indent, name)
            between = self.text[node.end : end]
            space = self.text[node.after : node.start] if node.start < node.end else " " if mark in ":-" else ": "
        written = (space + head if head else "") + between
        return self._splice(node.after, end, written + (self.newline + self._join(body, indent) if body else ""))

    def insert(self, nodes: Sequence[WrittenValue], lines: Sequence[str], before: str | int | None, name: str) -> str:
        """Return the text with another entry of a collection in block style, at its end or in front of another one."""
        children, indent = list(nodes[-1].children.values()), self.get_indent(nodes)
        index = list(nodes[-1].children).index(before) if before is not None else len(children)
        if index == 0:  # its indentation may be a dash
            start = children[0].entry
            return self._splice(start, start, f"{self._join(lines, indent).lstrip(' ')}{self.newline}{' ' * indent}")
        place = self._find_line_end(children[index - 1].end)
        place = self._skip_comments(place, indent, name if before is None else None)
        return self._splice(place, place, self.newline + self._join(lines, indent))

    def insert_in_flow(self, parent: WrittenValue, written: str, before: str | int | None) -> str:
        """As `insert`, in brackets."""
        children = list(parent.children.values())
        if before is not None:
            return self._splice(parent.children[before].entry, parent.children[before].entry, f"{written}, ")
        if not children:
            return self._splice(parent.end - 1, parent.end - 1, written)
        last = children[-1]
        rest = self.text[last.end : self._find_line_end(last.end)]
        is_line = self.begins_line(last.entry) and not rest.strip(", \t")
        space = self.newline + " " * self.get_column(last.entry) if is_line else " "
        return self._splice(last.end, last.end, f",{space}{written}")

    def delete(self, nodes: Sequence[WrittenValue]) -> str:
        """Return the text without an entry, and without the comment behind it."""
        *_, parent, node = nodes
        self._refuse_used_anchors(node)
        children = list(parent.children.values())
        index = children.index(node)
        following = children[index + 1] if index + 1 < len(children) else None
        if parent.is_flow:
            return self._delete_in_flow(node, children[index - 1] if index else None, following)
        if following is None and index == 0 and len(nodes) > 2:
            return self.replace(nodes[:-1], "[]" if 0 in parent.children else "{}", [])
        if following is not None and not self.begins_line(node.entry):  # behind a dash
            return self._splice(node.entry, following.entry, "")
        start, end = self._find_line_start(node.entry), self._find_line_end(node.end)
        found = BREAK.match(self.text, end)
        return self._splice(start if found else self._find_break(start), found.end() if found else end, "")

    def _delete_in_flow(self, node: WrittenValue, previous: WrittenValue | None, following: WrittenValue | None) -> str:
        behind = _COMMENT.match(self.text, node.end)
        start, end = node.entry, behind.end() if behind else node.end  # with its comma and comment
        if following is not None:
            end = end if "#" in self.text[end : following.entry] else following.entry
        elif previous is not None:
            is_line, has_comma = self.begins_line(node.entry), self.text[node.end : end].lstrip(" \t").startswith(",")
            if is_line and (has_comma or "#" in self.text[previous.end : node.entry]):
                start = self._find_break(node.entry)  # the comma in front of it may stay
            elif "#" not in self.text[previous.end : node.entry]:
                start, end = previous.end, end if is_line else node.end
        return self._splice(start, end, "")

    def _refuse_used_anchors(self, node: WrittenValue) -> None:
        anchors = {part.anchor for part in node.iter_all() if not part.is_alias} - {None}
        for part in self.root.iter_all() if anchors and self.root is not None else ():
            if part.is_alias and part.anchor in anchors and not node.start <= part.start < node.end:
                found = f"line {self.get_line(part.start)} repeats this value by the alias *{part.anchor}"
                message = f"{found}; change it in the text of the file"
                raise UsageError(Problem("", self.get_line(node.start), "", message))

    def _skip_comments(self, line_end: int, indent: int, name: str | None) -> int:
        """Return the end of the line behind which a new entry belongs, at or after `line_end`.

        It is the line in front of a commented entry of this name, as `sweeper init` writes it. Comments that are
        indented further belong to the entry above.
        """
        place = scanned = line_end
        while found := _COMMENT_LINE.match(self.text, scanned):
            if name is not None and found[2].removeprefix(" ").startswith(f"{name}: "):
                return scanned
            if place == scanned and len(found[1]) > indent:
                place = found.end()
            scanned = found.end()
        return place

    def _splice(self, start: int, end: int, new: str) -> str:
        return self.bom + self.text[:start] + new + self.text[end:]

    def _join(self, lines: Sequence[str], indent: int) -> str:
        return self.newline.join(" " * indent + line if line else "" for line in lines)


def dedent(line: str, indent: int) -> str:
    """Remove at most so many spaces from the start of a line."""
    return line[min(indent, len(line) - len(line.lstrip(" "))) :]
