"""Parse YAML 1.2 (core schema) and JSON into plain values, with the line of every key.

PyYAML reads YAML 1.1, where `16:9` is the number 969, `no` is false and `1e-3` is a string. Users lost sweeps to each
of these. So this module uses the events of PyYAML's parser and resolves scalars by the core schema of YAML 1.2
(yaml.org/spec/1.2.2, section 10.3).

Where PyYAML says what its parser expected, `_explain_yaml_error` says what the person did wrong. Its rules match texts
of libyaml and of PyYAML's own parser, which differ. An error that no rule knows keeps its text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml

from sweeper.errors import Problem
from sweeper.model.bounded_json import TOO_LARGE, TOO_MANY_DIGITS, is_deeper, parse_number, shorten_number
from sweeper.model.json_mistakes import TOKEN, InvalidJsonError, TooDeepError, decode_json
from sweeper.model.source import Source, SourceError, format_key_path
from sweeper.schemas.values import KeyPath

MAX_DEPTH: Final = 64  # of nested lists and mappings, because copying and encoding recurse
MAX_VALUES: Final = 1_000_000  # with aliases expanded: a "billion laughs" file reaches this in nine lines
MAX_CHARACTERS: Final = 16_000_000  # with aliases expanded, because a long text costs its length wherever it appears
MAX_KEY: Final = 1_000  # characters of a key: every message about its value repeats it

_NULL = re.compile(r"(~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)\Z")
_SPECIAL = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")
_CORE = "tag:yaml.org,2002:"
_COLON: Final = re.compile(r":(?=\s|$)")
_LINE_BREAK: Final = re.compile("[\n\x85\u2028\u2029]")  # those that libyaml counts
_OPENING: Final = {"sequence": ("[", "]"), "mapping": ("{", "}")}


def parse_yaml(text: str, name: str) -> Source:
    """Parse YAML 1.2.

    Raises SourceError if the text is not YAML, has a duplicate key or an unknown tag, or is too deep or too large.
    """
    builder = _YamlBuilder(name)
    try:
        value = builder.build_document(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.MarkedYAMLError as error:
        line, message = _explain_yaml_error(error, text)
        raise SourceError(Problem(name, line, "", f"is not YAML: {message}")) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise SourceError(Problem(name, 0, "", f"is not YAML: {str(error).splitlines()[0]}")) from error
    return Source(name, value, lambda: builder.lines, builder.plain_lists)


def parse_json(text: str, name: str) -> Source:
    """Parse strict JSON, without NaN.

    Raises SourceError if the text is not JSON, has a duplicate key, is too deep, or has a number that is too large.
    """
    infinite: list[str] = []

    def parse_float(written: str) -> float:
        number = float(written)
        if math.isinf(number):
            infinite.append(written)
        return number

    value = _decode_json(text, name, parse_float)
    if is_deeper(value, MAX_DEPTH + 1):
        raise _make_depth_error(text, name)
    if infinite:  # the hook of the parser does not know the position
        line = next(line for line, lexeme in _iter_json_tokens(text) if lexeme == infinite[0])
        path = format_key_path(next(_find_infinite(value, ())))
        raise SourceError(Problem(name, line, path, f"{shorten_number(infinite[0])} {TOO_LARGE}"))
    return Source(name, value, lambda: dict(_iter_json_lines(text)))


def _decode_json(text: str, name: str, parse_float: Callable[[str], float]) -> Any:
    def refuse(constant: str) -> Any:
        raise SourceError(Problem(name, 0, "", f"contains {constant}, which JSON does not allow"))

    def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        items: dict[str, Any] = {}
        for key, value in pairs:
            if key in items:
                raise SourceError(Problem(name, _find_second_key(text, key), "", f"the key '{key}' appears twice"))
            items[key] = value
        return items

    decoder = json.JSONDecoder(parse_constant=refuse, parse_float=parse_float, object_pairs_hook=build_object)
    try:
        return decode_json(text, decoder.decode, MAX_DEPTH + 1)
    except InvalidJsonError as error:
        message = f"is not JSON: {error.message}, column {error.column}"
        raise SourceError(Problem(name, error.line, "", message)) from error
    except TooDeepError as error:
        raise _make_depth_error(text, name) from error
    except ValueError as error:  # an integer of more digits than CPython converts
        raise SourceError(Problem(name, 0, "", f"is not JSON: {TOO_MANY_DIGITS}")) from error


def _make_depth_error(text: str, name: str) -> SourceError:
    """Make the error for a JSON text of too many levels, with the line where the first level too many begins."""
    last_line = depth = 0
    for line, lexeme in _iter_json_tokens(text):
        last_line = line
        depth += 1 if lexeme in ("{", "[") else -1 if lexeme in ("}", "]") else 0
        if depth > MAX_DEPTH + 1:
            break
    return SourceError(Problem(name, last_line, "", f"is nested more than {MAX_DEPTH} levels deep"))


def _find_infinite(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(value, float) and math.isinf(value):
        yield path
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _find_infinite(item, (*path, key))


class _YamlBuilder:
    """Builds plain values from PyYAML's events, and maps paths to lines.

    `anchors` has the value of each anchor, with its number of values and characters. `size` and `characters` count
    those so far, with aliases expanded.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[KeyPath, int] = {}
        self.plain_lists: set[KeyPath] = set()
        self.anchors: dict[str, tuple[Any, int, int]] = {}
        self.size = 0
        self.characters = 0

    def make_error(self, event: Any, message: str, path: KeyPath = ()) -> SourceError:
        return SourceError(Problem(self.name, _get_line(event), format_key_path(path), message))

    def build_document(self, events: Iterator[Any]) -> Any:
        value = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.make_error(event, "a second document starts here; one file is one document")
            elif isinstance(event, yaml.NodeEvent):
                value = self.build_node(event, events, (), 0)
        return value

    def add_size(self, event: Any, path: KeyPath, values: int, characters: int) -> None:
        self.size += values
        self.characters += characters
        if self.size > MAX_VALUES or self.characters > MAX_CHARACTERS:
            limit = f"{MAX_VALUES:,} values" if self.size > MAX_VALUES else f"{MAX_CHARACTERS:,} characters"
            raise self.make_error(event, f"contains more than {limit} with its aliases expanded", path)

    def build_node(self, event: Any, events: Iterator[Any], path: KeyPath, depth: int) -> Any:
        self.lines.setdefault(path, _get_line(event))
        if isinstance(event, yaml.AliasEvent):
            return self.resolve_alias(event, path)
        if depth > MAX_DEPTH:
            raise self.make_error(event, f"is nested more than {MAX_DEPTH} levels deep")
        before, characters_before = self.size, self.characters
        self.add_size(event, path, 1, len(event.value) if isinstance(event, yaml.ScalarEvent) else 0)
        if isinstance(event, yaml.ScalarEvent):
            self.check_tag(event, "str")
            value = event.value if event.style or event.tag else self.resolve_scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.build_sequence(event, events, path, depth)
        else:
            value = self.build_mapping(event, events, path, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.size - before, self.characters - characters_before)
        return value

    def resolve_alias(self, event: Any, path: KeyPath) -> Any:
        if event.anchor not in self.anchors:
            message = f"the alias *{event.anchor} points to nothing above it; a text that begins with * needs quotes"
            raise self.make_error(event, message)
        value, size, characters = self.anchors[event.anchor]
        self.add_size(event, path, size, characters)
        return value

    def check_tag(self, event: Any, own: str) -> None:
        """Refuse a tag other than that which a node of its kind has anyway."""
        if event.tag not in (None, "!", _CORE + own):
            message = f"the tag {event.tag} is not understood here; a text that begins with ! needs quotes"
            raise self.make_error(event, message)

    def build_sequence(self, event: Any, events: Iterator[Any], path: KeyPath, depth: int) -> list[Any]:
        self.check_tag(event, "seq")
        items: list[Any] = []
        is_plain = event.flow_style
        for child in events:
            if isinstance(child, yaml.SequenceEndEvent):
                break
            is_plain = is_plain and isinstance(child, yaml.ScalarEvent) and not child.style
            items.append(self.build_node(child, events, (*path, len(items)), depth + 1))
        if is_plain and all(isinstance(item, str) for item in items):
            self.plain_lists.add(path)
        return items

    def build_mapping(self, event: Any, events: Iterator[Any], path: KeyPath, depth: int) -> dict[str, Any]:
        self.check_tag(event, "map")
        items: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_event in events:
            if isinstance(key_event, yaml.MappingEndEvent):
                break
            if not isinstance(key_event, yaml.ScalarEvent):
                message = "a key must be plain text; a text that begins with {{ or [ needs quotes"
                raise self.make_error(key_event, message)
            key = key_event.value  # a key is a text, even if it looks like a number or like `on`
            if len(key) > MAX_KEY:
                raise self.make_error(key_event, f"a key has more than {MAX_KEY:,} characters: {key[:40]}...", path)
            self.characters += len(key)
            first_line = self.lines.get((*path, key))
            self.lines[(*path, key)] = _get_line(key_event)
            value = self.build_node(next(events), events, (*path, key), depth + 1)
            if key == "<<" and not key_event.style:
                self.merge(key_event, merged, value)
            elif key in items:
                found = f"the key '{key}' appears twice in one mapping, first in line {first_line}"
                raise self.make_error(key_event, f"{found}; keep one of them, with the values of both")
            else:
                items[key] = value
        return {**merged, **items} if merged else items

    def merge(self, event: Any, merged: dict[str, Any], value: Any) -> None:
        for mapping in value if isinstance(value, list) else [value]:
            if not isinstance(mapping, dict):
                raise self.make_error(event, "`<<` takes a mapping or a list of mappings")
            for key, item in mapping.items():
                merged.setdefault(key, item)

    def resolve_scalar(self, event: Any, path: KeyPath) -> Any:
        """Resolve a plain scalar by the core schema of YAML 1.2."""
        text: str = event.value
        try:
            number = parse_number(text)
        except ValueError as error:
            raise self.make_error(event, str(error), path) from error
        if number is not None:
            return number
        if _BOOL.match(text):
            return text[0] in "tT"
        if _NULL.match(text):
            return None
        return float(text.replace(".", "")) if _SPECIAL.match(text) else text


def _get_line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _iter_json_tokens(text: str) -> Iterator[tuple[int, str]]:
    """Yield the brackets, commas, colons, strings and words of a JSON text, each with its line."""
    line = 1
    for lexeme in TOKEN.findall(text):
        if lexeme == "\n":
            line += 1
        else:
            yield line, lexeme


def _iter_json_lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    stack: list[list[Any]] = []  # for every open container: its bracket, the key or index, and whether a colon came
    key: str | None = None
    yield (), 1
    for line, lexeme in _iter_json_tokens(text):
        if lexeme in "}]":
            stack.pop()
            key = None
        elif lexeme == ":":
            stack[-1][1:] = key, True
        elif lexeme == ",":
            stack[-1][2] = False
            if stack[-1][0] == "[":
                stack[-1][1] += 1
        else:
            if stack and stack[-1][0] == "[":
                yield tuple(frame[1] for frame in stack), line
            elif stack and not stack[-1][2]:  # a value in an object has the line of its key
                key = json.loads(lexeme)
                yield (*(frame[1] for frame in stack[:-1]), key), line
            if lexeme in "{[":
                stack.append([lexeme, 0 if lexeme == "[" else None, False])


def _find_second_key(text: str, key: str) -> int:
    positions = [match.start() for match in re.finditer(re.escape(json.dumps(key)) + r"\s*:", text)]
    return text.count("\n", 0, positions[1]) + 1 if len(positions) > 1 else 0


def _explain_yaml_error(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """Return the 1-based line of a mistake (0: unknown), and a sentence that ends with what to do."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    start = error.context_mark.line + 1 if error.context_mark else line
    context, problem = str(error.context or ""), str(error.problem or "")
    if "end of stream" in problem and "quoted" in context:
        return start, "the quote that opens in this line is not closed"
    for kind, (opening, closing) in _OPENING.items():
        if f"flow {kind}" in context:
            where = f" before line {line}" if line > start else ""
            found = f"the {opening} that opens in this line has no {closing}, or a comma is missing{where}"
            return start, f"{found}; a text with brackets, braces or commas in it needs quotes"
    lines = _LINE_BREAK.split(text)
    column = mark.column if mark else 0
    marked = lines[mark.line] if mark and mark.line < len(lines) else ""  # a mark may lie behind the end of the text
    before, after = marked[:column], marked[column:]
    is_letter, is_colon = "cannot start any token" in problem, "mapping values are not allowed" in problem
    explanations: tuple[tuple[object, str], ...] = (
        (is_letter and after[:1] == "\t",
         "there is a tab here, but YAML is indented with spaces; replace each tab by spaces"),
        (is_letter, f"a text that begins with {after[:1]} needs quotes"),
        ("alphabetic or numeric" in problem, "a text that begins with * or & needs quotes"),
        (is_colon and _COLON.search(before),
         "a text with a colon and a space in it needs quotes, such as prompt: 'a fox: red'"),
        (is_colon, ("this key is indented further than the line above allows; give keys of one mapping the same "
                    "indentation, and put a space after each colon")),
        ("escape" in problem or "hexdecimal" in problem or "hexadecimal" in problem,
         ("in double quotes a backslash begins an escape such as \\n; write a path with / in place of \\, or put the "
          "text in single quotes")),
        ("block mapping" in context, (f"this does not continue the mapping that begins in line {start}; give its keys "
                                      "the same indentation, and quote a whole text, not a part of it")),
        ("block collection" in context, (f"this does not continue the list that begins in line {start}; begin each "
                                         "item with - in the same column")),
        (True, f"{context} {problem}".strip()),
    )  # fmt: skip
    return line, next(sentence for is_true, sentence in explanations if is_true)
