"""The tail of a good message: the nearest allowed name, or what is allowed. Pure text, no decisions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Final

_MAX_LISTED: Final = 12  # a list longer than this is no help to a reader
_MIN_SIMILARITY: Final = 0.6  # difflib's own cutoff: two thirds of the letters in common, in order
_SUFFIX: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]*\Z")  # of a file's name; 1.5 has none
_NUMERIC: Final = re.compile(r"[-+]?\.?[0-9]")


def join_names(allowed: Iterable[object]) -> str:
    """`a, b, c`, cut after a dozen with the number of what is left."""
    names = [_to_text(name) for name in allowed]
    if len(names) <= _MAX_LISTED:
        return ", ".join(names)
    return ", ".join(names[:_MAX_LISTED]) + f", ... ({len(names) - _MAX_LISTED} more)"


def find_nearest(word: object, allowed: Iterable[object]) -> str | None:
    """The allowed name that `word` most likely meant, or None.

    A folder or suffix that two files' names have in common makes them no nearer: `gone.png` never meant `photo.png`.
    """
    wanted = _to_text(word).casefold()
    best: tuple[float, str] | None = None
    matcher = difflib.SequenceMatcher()
    for name in map(_to_text, allowed):
        one, other = _strip_common(wanted, name.casefold())
        matcher.set_seqs(other, one)
        if matcher.real_quick_ratio() >= _MIN_SIMILARITY and matcher.quick_ratio() >= _MIN_SIMILARITY:
            likeness = matcher.ratio()
            if likeness >= _MIN_SIMILARITY and (best is None or likeness > best[0]):
                best = likeness, name
    return best[1] if best is not None else None


def suggest(word: object, allowed: Iterable[object], label: str = "allowed") -> str:
    """`; did you mean 'steps'?` where one name is near, `; allowed: a, b, c` otherwise, and nothing for no names.

    A text and a number that look alike are told apart by their quotes; between numbers no likeness is looked for.
    """
    names = list(allowed)
    twin = next((name for name in names if _to_text(name) == _to_text(word) and type(name) is not type(word)), None)
    if twin is not None and isinstance(twin, str):
        return f"; did you mean the text '{twin}', in quotes?"
    if twin is not None and isinstance(word, str):
        return f"; did you mean {_to_text(twin)}, without quotes?"
    near = find_nearest(word, (name for name in names if isinstance(name, str))) if isinstance(word, str) else None
    if near is not None:
        return f"; did you mean '{near}'?"
    shown = names if isinstance(word, str) else _quote_numeric(names)
    return f"; {label}: {join_names(shown)}" if names else ""


def _quote_numeric(names: Iterable[object]) -> Iterator[object]:
    """Beside a number a text that looks like one needs its quotes; any other name is no clearer with them."""
    return (f"'{name}'" if isinstance(name, str) and _NUMERIC.match(name) else name for name in names)


def _to_text(name: object) -> str:
    """As YAML writes it."""
    if isinstance(name, bool) or name is None:
        return "null" if name is None else str(name).lower()
    return str(name)


def _strip_common(one: str, other: str) -> tuple[str, str]:
    """Two names without the folder and the suffix that both have."""
    folder, slash, rest = one.rpartition("/")
    if slash and other.startswith(folder + slash):
        one, other = rest, other.removeprefix(folder + slash)
    suffix = _SUFFIX.search(one)
    if suffix is not None and other.endswith(suffix[0]) and suffix.start() and len(other) > len(suffix[0]):
        one, other = one.removesuffix(suffix[0]), other.removesuffix(suffix[0])
    return one, other
