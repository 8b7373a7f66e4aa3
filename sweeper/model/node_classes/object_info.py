"""Hold the `object_info` of a large server in little memory: read it as it arrives, and keep equal lists once.

A server with 9,000 model files names each of them in every class that loads a model, so its `object_info` has 100 MiB,
of which one hundredth is not repeated. The result has the same JSON values, but equal lists are one object.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from sweeper.model.bounded_json import MAX_DEPTH, check_value

_MIN_SHARED: Final = 32  # names in a list that is kept once
# About how many bytes the classes of a server may take in memory; those of a ComfyUI with many custom nodes take 20 MB.
_MAX_BYTES: Final = 320 * 2**20
_VALUE_BYTES: Final = 64  # of one value beside its characters
_SHARED: Final = "sweeper_list"  # in a packed text: the place of a list among the shared ones
_SPACE: Final = r"[ \t\n\r]*"
_OPENING: Final = re.compile(rf"{_SPACE}\{{")
_FIRST: Final = re.compile(rf"{_SPACE}([\"}}])")  # the name of a member, or the end of an empty object
_COLON: Final = re.compile(rf"{_SPACE}:{_SPACE}")
_END: Final = re.compile(rf"{_SPACE}([,}}]){_SPACE}")


class ClassReader:
    """Reads a JSON object that arrives in pieces, one member at a time, so that its text is never in memory as a whole.

    `max_member`: characters of the longest member. `redact` changes the text of each member before it is read.
    `feed` and `finish` raise ValueError if the text is not a JSON object, and OverflowError if it is too large.
    """

    def __init__(self, max_member: int, redact: Callable[[str], str] = str) -> None:
        self.classes: dict[str, Any] = {}
        self._max_member, self._redact = max_member, redact
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._pieces: list[str] = []
        self._length = self._next_try = 0  # characters of all pieces, and those with which the next member may be whole
        self._is_open = self._is_closed = False
        self._lists: dict[tuple[str, ...], list[str]] = {}
        self._bytes = 0

    def feed(self, piece: bytes, *, is_last: bool = False) -> None:
        """Read the members that end in this piece."""
        self._pieces.append(self._decode(piece, is_last))
        self._length += len(self._pieces[-1])
        if self._length < self._next_try and not is_last:
            return
        text = "".join(self._pieces)
        try:
            rest = text[self._read_members(text) :]
        except RecursionError:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
        if len(rest) > self._max_member:
            raise OverflowError(f"one class has more than {self._max_member / 2**20:g} MB")
        # A member that is not whole is read again only when twice as much is there, so that each text is read twice.
        self._pieces, self._length, self._next_try = [rest], len(rest), 2 * len(rest)

    def finish(self) -> dict[str, Any]:
        """The object, after the last piece."""
        self.feed(b"", is_last=True)
        if not self._is_closed:
            raise ValueError("it ends too early, or is not JSON")
        return self.classes

    def _read_members(self, text: str) -> int:
        """Read what is whole. Returns where the rest begins."""
        start = 0
        if not self._is_open and text.strip():
            opening = _OPENING.match(text)
            if opening is None:
                raise ValueError("it does not begin with {")
            self._is_open, start = True, opening.end()
        while self._is_open and not self._is_closed and (first := _FIRST.match(text, start)):
            if first[1] == "}":
                if self.classes:
                    raise ValueError("a comma is before its end")
                self._is_closed, start = True, first.end()
                break
            try:
                name, colon = self._scan(text, first.end() - 1)
                value_start = _COLON.match(text, colon)
                value, end = self._scan(text, value_start.end()) if value_start else (None, len(text))
            except ValueError:
                return start
            closing = _END.match(text, end)
            if closing is None:  # a number may go on
                return start
            member = text[first.end() - 1 : end]
            if (clean := self._redact(member)) != member:
                ((name, value),) = json.loads(f"{{{clean}}}").items()
            self._count((name, value))
            self.classes[name] = self._share(check_value(value, member))
            self._is_closed, start = closing[1] == "}", closing.end()
        if text[start:].strip() and self._is_closed:
            raise ValueError("more follows after its end")
        return start

    def _share(self, value: Any) -> Any:
        """The value with the same list object for equal lists of names."""
        if isinstance(value, list) and _is_long_list(value):
            key = tuple(value)
            if key not in self._lists:
                self._count(value)
                self._lists[key] = value
            value = self._lists[key]
        elif isinstance(value, (dict, list)):
            self._count(value)
            if isinstance(value, dict):
                self._count(value.values())
            for place, item in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(item, (dict, list)):
                    value[place] = self._share(item)
        return value

    def _count(self, values: Collection[Any]) -> None:
        self._bytes += _VALUE_BYTES * len(values) + sum([len(value) for value in values if isinstance(value, str)])
        if self._bytes > _MAX_BYTES:
            raise OverflowError(f"its classes take more than {_MAX_BYTES / 2**20:g} MB")


def pack_object_info(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield a text of each class and of each shared list, for `unpack_object_info`."""
    places: dict[int, int] = {}
    for name, declared in answer.items():
        new: list[list[str]] = []
        packed = _pack(declared, places, new)
        yield from (f"{json.dumps(names)}\n" for names in new)
        yield f"{json.dumps({name: packed})}\n"


def unpack_object_info(lines: Iterator[str]) -> dict[str, Any]:
    """The object of `pack_object_info`. Raises ValueError, LookupError or TypeError for another text."""
    lists: list[Any] = []
    answer: dict[str, Any] = {}

    def restore(found: dict[str, Any]) -> Any:
        return lists[found[_SHARED]] if found.keys() == {_SHARED} else found

    for line in lines:
        value = json.loads(line, object_hook=restore)
        if isinstance(value, list):
            lists.append(value)
        else:
            answer |= value
    return answer


def _pack(value: Any, places: dict[int, int], new: list[list[str]]) -> Any:
    if isinstance(value, list) and _is_long_list(value):
        if id(value) not in places:
            places[id(value)] = len(places)
            new.append(value)
        return {_SHARED: places[id(value)]}
    if isinstance(value, list):
        return [_pack(item, places, new) for item in value]
    return {name: _pack(item, places, new) for name, item in value.items()} if isinstance(value, dict) else value


def _is_long_list(value: list[Any]) -> bool:
    return len(value) >= _MIN_SHARED and all(type(item) is str for item in value)
