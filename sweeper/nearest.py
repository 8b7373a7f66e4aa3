"""The tail of a good message: the nearest allowed name, or what is allowed. Pure text, no decisions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 12  # a list longer than this is no help to a reader


def listed(allowed: Iterable[object]) -> str:
    """`a, b, c`, cut after a dozen with the number of what is left."""
    names = [str(name) for name in allowed]
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return ", ".join(names[:_SHOWN]) + f", ... ({len(names) - _SHOWN} more)"


def nearest(word: object, allowed: Iterable[object]) -> str | None:
    """The allowed name that `word` most likely meant, or None."""
    names = {str(name).casefold(): str(name) for name in allowed}
    close = difflib.get_close_matches(str(word).casefold(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None


def hint(word: object, allowed: Iterable[object], what: str = "allowed") -> str:
    """`; did you mean 'steps'?` where one name is near, `; allowed: a, b, c` otherwise, and nothing for no names."""
    names = list(allowed)
    near = nearest(word, names)
    if near is not None:
        return f"; did you mean '{near}'?"
    return f"; {what}: {listed(names)}" if names else ""
