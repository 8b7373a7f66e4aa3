"""Words of messages: a count, a command, a long text cut, one line of it, the nearest allowed name. And their bytes."""

from __future__ import annotations

import difflib
import heapq
import itertools
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Final

_MAX_LISTED: Final = 12  # a longer list does not help the reader
_MAX_COMPARED: Final = 10_000  # names that are compared with a word
_MAX_LENGTH: Final = 200  # characters of a word or name that is compared; difflib needs the product of both lengths
_MIN_SIMILARITY: Final = 0.6  # difflib's default cutoff: about 60% of the letters in common, in order
_MAX_RANKED: Final = 1_000  # names whose similarity decides which of them are listed
_SUFFIX: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]*\Z")  # of a file name; `1.5` has none
_NUMERIC: Final = re.compile(r"[-+]?\.?[0-9]")
_PLAIN: Final = re.compile(r"[\w./:\\=+-]+")  # what neither cmd nor PowerShell interprets


def count_things(count: int, noun: str) -> str:
    """Write `1 trial` or `3 trials`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_install(*packages: str) -> str:
    """The command that installs these packages for the Python that runs, also where its environment is not active."""
    words = (sys.executable, "-m", "pip", "install", *packages)
    return " ".join(f'"{word}"' if re.search(r"[^\w./\\:-]", word) else word for word in words)


def join_command(words: Sequence[str], platform: str = sys.platform) -> str:
    """Return the command of these words, each quoted if a shell of the platform (as `sys.platform`) needs that.

    On Windows only double quotes serve both shells. Within them, programs read a backslash before a quote as its
    escape (https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments).
    """
    if platform != "win32":
        return shlex.join(words)
    return " ".join(word if _PLAIN.fullmatch(word) else _quote_for_windows(word) for word in words)


def _quote_for_windows(word: str) -> str:
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', word)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def shorten(text: str, limit: int = 60) -> str:
    """Cut a text to `limit` characters. With 200 or more, it ends with the number of characters left out."""
    if len(text) <= limit:
        return text
    kept = limit - (40 if limit >= 200 else 3)
    return f"{text[:kept]}... ({len(text) - kept} more characters)" if limit >= 200 else f"{text[:kept]}..."


def to_one_line(text: str) -> str:
    """Replace unprintable characters and runs of space by one space."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def escape_unprintable(text: str) -> str:
    """Replace unprintable characters by their escapes in Python."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def join_names(allowed: Iterable[object], near: object = None) -> str:
    """Write the names as `a, b, c`, each cut at 60 characters.

    Of more than 12, write those most like the text `near`, and the number of the rest. Without `near`, these are the
    first 12.
    """
    every = allowed if isinstance(allowed, Collection) else list(allowed)
    names = [shorten(_to_text(name)) for name in itertools.islice(every, _MAX_RANKED)]
    if len(every) <= _MAX_LISTED:
        return ", ".join(names)
    shown: Iterable[int] = range(_MAX_LISTED)
    if isinstance(near, str) and len(near) <= _MAX_LENGTH:
        matcher = difflib.SequenceMatcher(b=near.casefold())

        def rank(index: int) -> float:
            matcher.set_seq1(names[index].casefold())
            return matcher.quick_ratio()

        shown = sorted(heapq.nlargest(_MAX_LISTED, range(len(names)), rank))
    return ", ".join(names[index] for index in shown) + f", ... ({len(every) - _MAX_LISTED} more)"


def find_nearest(word: object, allowed: Iterable[object], min_similarity: float = _MIN_SIMILARITY) -> str | None:
    """Return the allowed name that is most like `word`, or None if none is similar enough.

    `min_similarity` is from 0 to 1, as difflib computes it. A common folder or file suffix does not count as similar:
    `gone.png` is not a typo of `photo.png`. Of many names, only the first 10,000 are compared, and no very long one.
    """
    wanted = _to_text(word).casefold()
    if len(wanted) > _MAX_LENGTH:
        return None
    best: str | None = None
    least = min_similarity  # of a name that is compared letter by letter, which is slow
    compared = wanted
    matcher = difflib.SequenceMatcher(b=compared)
    for name in map(_to_text, itertools.islice(allowed, _MAX_COMPARED)):
        if len(name) > _MAX_LENGTH:
            continue
        wanted_core, name_core = _strip_common(wanted, name.casefold())
        matcher.set_seq1(name_core)
        if wanted_core != compared:  # slow, because difflib counts the letters again
            compared = wanted_core
            matcher.set_seq2(compared)
        if matcher.real_quick_ratio() >= least and matcher.quick_ratio() >= least:
            similarity = matcher.ratio()
            if similarity > least or (best is None and similarity == least):
                best, least = name, similarity
    return best


def suggest(word: object, allowed: Iterable[object], label: str = "allowed") -> str:
    """Return `; did you mean 'steps'?` if a name is similar, else `; allowed: a, b, c`; `""` without names.

    If only the type differs, as in `"4"` and `4`, the hint says whether quotes are needed. Numbers are never suggested
    because they look similar.
    """
    every = allowed if isinstance(allowed, Collection) else list(allowed)
    names = list(itertools.islice(every, _MAX_COMPARED))
    text = _to_text(word)
    lookalike = next((name for name in names if _to_text(name) == text and type(name) is not type(word)), None)
    if lookalike is not None and isinstance(lookalike, str):
        return f"; did you mean the text '{shorten(lookalike)}', in quotes?"
    if lookalike is not None and isinstance(word, str):
        return f"; did you mean {shorten(_to_text(lookalike))}, without quotes?"
    nearest = find_nearest(word, (name for name in names if isinstance(name, str))) if isinstance(word, str) else None
    if nearest is not None:
        return f"; did you mean '{nearest}'?"
    shown = every if isinstance(word, str) else [_quote_numeric(name) for name in every]
    return f"; {label}: {join_names(shown, word)}" if names else ""


def _quote_numeric(name: object) -> object:
    """Quote a text that looks like a number, for a list that is shown because of a number."""
    return f"'{name}'" if isinstance(name, str) and _NUMERIC.match(name) else name


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


def encode_text(text: str) -> bytes:
    """Encode as UTF-8, with U+FFFD for half a surrogate pair, which UTF-8 cannot hold."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return replace_surrogates(text).encode("utf-8")


def replace_surrogates(text: str) -> str:
    """Replace every half surrogate pair, where a server cut a message, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
