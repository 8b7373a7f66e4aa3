"""The last part of an error message: the nearest allowed name, or the list of allowed names."""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Iterable, Iterator
from typing import Final

_MAX_LISTED: Final = 12  # a longer list does not help the reader
_MIN_SIMILARITY: Final = 0.6  # difflib's default cutoff: about 60% of the letters in common, in order
_MAX_RANKED: Final = 10_000  # names whose similarity decides which of them are listed
_SUFFIX: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]*\Z")  # of a file name; `1.5` has none
_NUMERIC: Final = re.compile(r"[-+]?\.?[0-9]")


def join_names(allowed: Iterable[object], near: object = None) -> str:
    """Write the names as `a, b, c`. Of more than 12, write those most like the text `near`, and the number of the rest.

    Without `near`, these are the first 12.
    """
    names = [_to_text(name) for name in allowed]
    if len(names) <= _MAX_LISTED:
        return ", ".join(names)
    shown: Iterable[int] = range(_MAX_LISTED)
    if isinstance(near, str):
        matcher = difflib.SequenceMatcher(b=near.casefold())

        def rank(index: int) -> float:
            matcher.set_seq1(names[index].casefold())
            return matcher.quick_ratio()

        shown = sorted(heapq.nlargest(_MAX_LISTED, range(min(len(names), _MAX_RANKED)), rank))
    return ", ".join(names[index] for index in shown) + f", ... ({len(names) - _MAX_LISTED} more)"


def find_nearest(word: object, allowed: Iterable[object], min_similarity: float = _MIN_SIMILARITY) -> str | None:
    """Return the allowed name that is most like `word`, or None if none is similar enough.

    `min_similarity` is from 0 to 1, as difflib computes it. A common folder or file suffix does not count as similar:
    `gone.png` is not a typo of `photo.png`.
    """
    wanted = _to_text(word).casefold()
    best: tuple[float, str] | None = None
    matcher = difflib.SequenceMatcher()
    for name in map(_to_text, allowed):
        wanted_core, name_core = _strip_common(wanted, name.casefold())
        matcher.set_seqs(name_core, wanted_core)
        if matcher.real_quick_ratio() >= min_similarity and matcher.quick_ratio() >= min_similarity:
            similarity = matcher.ratio()
            if similarity >= min_similarity and (best is None or similarity > best[0]):
                best = similarity, name
    return best[1] if best is not None else None


def suggest(word: object, allowed: Iterable[object], label: str = "allowed") -> str:
    """Return `; did you mean 'steps'?` if a name is similar, else `; allowed: a, b, c`; `""` without names.

    If only the type differs, as in `"4"` and `4`, the hint says whether quotes are needed. Numbers are never suggested
    because they look similar.
    """
    names = list(allowed)
    text = _to_text(word)
    lookalike = next((name for name in names if _to_text(name) == text and type(name) is not type(word)), None)
    if lookalike is not None and isinstance(lookalike, str):
        return f"; did you mean the text '{lookalike}', in quotes?"
    if lookalike is not None and isinstance(word, str):
        return f"; did you mean {_to_text(lookalike)}, without quotes?"
    nearest = find_nearest(word, (name for name in names if isinstance(name, str))) if isinstance(word, str) else None
    if nearest is not None:
        return f"; did you mean '{nearest}'?"
    shown = names if isinstance(word, str) else _quote_numeric(names)
    return f"; {label}: {join_names(shown, word)}" if names else ""


def _quote_numeric(names: Iterable[object]) -> Iterator[object]:
    """Quote the texts that look like numbers, for a list that is shown because of a number."""
    return (f"'{name}'" if isinstance(name, str) and _NUMERIC.match(name) else name for name in names)


def _to_text(name: object) -> str:
    """Write a name as YAML does."""
    if isinstance(name, bool) or name is None:
        return "null" if name is None else str(name).lower()
    return str(name)


def _strip_common(first: str, second: str) -> tuple[str, str]:
    """Remove from two names the folder and the suffix that both have."""
    folder, slash, rest = first.rpartition("/")
    if slash and second.startswith(folder + slash):
        first, second = rest, second.removeprefix(folder + slash)
    suffix = _SUFFIX.search(first)
    if suffix is not None and second.endswith(suffix[0]) and suffix.start() and len(second) > len(suffix[0]):
        first, second = first.removesuffix(suffix[0]), second.removesuffix(suffix[0])
    return first, second
