"""Match the `pattern` of a JSON Schema in bounded time.

Python's `re` tries all ways in which a text may match. For `^(a+)+[A-Z]$` their number doubles with every letter. So
the ways are counted first, from the syntax tree of the pattern. If there are many, RE2 matches it in linear time. RE2
has no look-around and no back-references, and its classes of letters and digits are those of ASCII.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from re import _constants as sre  # type: ignore[attr-defined] # the only parser of the syntax of `re`
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any, Final

import re2

_MAX_WAYS: Final = 1_000_000  # at most some ten milliseconds of Python's `re`
_MAX_PATTERN: Final = 10_000  # characters; RE2 needs about a hundred bytes for each
_MAX_NAME: Final = 1_000  # characters of a key, as `sweeper.loading.parse` limits it
_MAX_NAME_WAYS: Final = 10_000_000
_WAYS_OF_STEP: Final = 100
_END_OF_TEXT: Final = r"$(?!\n)"  # in the dialect that JavaScript shares, for editors; RE2 has a word of its own
_UNLIMITED: Final = 1 << 62


class CostlyPatternError(Exception):
    """A pattern may need more time than is allowed. The message completes a sentence that begins with the pattern."""


def search_pattern(pattern: str, text: str) -> bool:
    """Whether the pattern matches anywhere in the text. Raises CostlyPatternError and re.error."""
    if len(pattern) > _MAX_PATTERN:
        raise CostlyPatternError(f"has more than {_MAX_PATTERN:,} characters")
    if count_pattern_ways(pattern, len(text)) <= _MAX_WAYS:
        return re.search(pattern, text) is not None
    linear = _compile_linear(pattern)
    if linear is None:
        raise CostlyPatternError(
            f"may need too much time for a text of {len(text):,} characters, because it repeats or looks around; write "
            "it without look-around and back-references, or without a repetition inside a repetition"
        )
    return linear.search(text) is not None


def is_cheap_for_names(pattern: str) -> bool:
    """Whether `re` matches the pattern to the name of a key in a fraction of a second."""
    return count_pattern_ways(pattern, _MAX_NAME) <= _MAX_NAME_WAYS


def estimate_steps(pattern: str, length: int) -> int:
    """Return about how long the search for a pattern in a text of this length takes, in steps of some microseconds."""
    ways = min(count_pattern_ways(pattern, length), _MAX_NAME_WAYS) if len(pattern) <= _MAX_PATTERN else 0
    return 1 + (ways + length + len(pattern)) // _WAYS_OF_STEP


@lru_cache(maxsize=4096)
def count_pattern_ways(pattern: str, length: int) -> int:
    """Return at most in how many ways `re` may try to match a pattern to a text of this length. Raises re.error."""
    return count_ways(_parse(pattern), length)


@cache
def _parse(pattern: str) -> Any:
    return sre_parser.parse(pattern)


@cache
def _compile_linear(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern.replace(_END_OF_TEXT, r"\z"), options)
    except re2.error:
        return None


def count_ways(tree: Any, length: int) -> int:
    """Return at most in how many ways `re` may try to match a parsed pattern to a text of this length."""
    is_anchored = len(tree) > 0 and tree[0] in ((sre.AT, sre.AT_BEGINNING), (sre.AT, sre.AT_BEGINNING_STRING))
    return min(_count_ways(tree, length) * (1 if is_anchored else length + 1), _UNLIMITED)


def _count_ways(items: Any, length: int) -> int:
    ways = 1
    for kind, argument in items:
        ways = min(ways * _count_item_ways(kind, argument, length), _UNLIMITED)
    return ways


def _count_item_ways(kind: Any, argument: Any, length: int) -> int:
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        least, most, body = argument
        rounds = min(int(most), length + int(least))
        ways = _count_ways(body, length)
        return (rounds - int(least) + 1) * (1 if ways == 1 else ways ** min(rounds, 64))
    if kind is sre.BRANCH:
        return sum(_count_ways(branch, length) for branch in argument[1])
    if kind is sre.SUBPATTERN:
        return _count_ways(argument[-1], length)
    if kind is sre.ATOMIC_GROUP:
        return _count_ways(argument, length)
    if kind in (sre.ASSERT, sre.ASSERT_NOT):
        return _count_ways(argument[1], length)
    if kind is sre.GROUPREF_EXISTS:
        _, yes, no = argument
        return _count_ways(yes, length) + (_count_ways(no, length) if no else 1)
    return length + 1 if kind is sre.GROUPREF else 1  # else one character, or a position
