"""Match the `pattern` of a JSON Schema in bounded time.

Python's `re` tries all ways in which a text may match. For `^(a+)+[A-Z]$` their number doubles with every letter. So
`re` matches only what is certainly cheap, and RE2 the rest in linear time. RE2 has no look-around and no
back-references, and its classes of letters and digits are those of ASCII.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import re2

_MAX_WAYS: Final = 1_000_000  # at most some ten milliseconds of Python's `re`
_MAX_PATTERN: Final = 10_000  # characters; RE2 needs about a hundred bytes for each
_MAX_NAME: Final = 1_000  # characters of a key, as `sweeper.loading.parse` limits it
_MAX_NAME_WAYS: Final = 10_000_000
_WAYS_OF_STEP: Final = 100
_STATES_OF_STEP: Final = 16  # RE2 takes up to 100 ns for each state of its automaton and character
_END_OF_TEXT: Final = r"$(?!\n)"  # in the dialect that JavaScript shares, for editors; RE2 has a word of its own
_UNLIMITED: Final = 1 << 62
_GROUP: Final = re.compile(r"\(\?(?:[aiLmsu]*[:)]|[=!>]|<[=!]|P<\w+>)")  # its question mark repeats nothing
_REPEATED_GROUP: Final = re.compile(r"\)[*+?{]")
_REPETITION: Final = re.compile(r"[*+?{]|\\[1-9]")  # or a back-reference


class CostlyPatternError(Exception):
    """A pattern may need more time than is allowed. The message completes a sentence that begins with the pattern."""


def search_pattern(pattern: str, text: str) -> bool:
    """Whether the pattern matches anywhere in the text. Raises CostlyPatternError and re.error."""
    if len(pattern) > _MAX_PATTERN:
        raise CostlyPatternError(f"has more than {_MAX_PATTERN:,} characters")
    if count_ways(pattern, len(text)) <= _MAX_WAYS:
        return re.search(pattern, text) is not None
    linear = _compile_linear(pattern)
    if linear is None:
        raise CostlyPatternError(
            f"may need too much time for a text of {len(text):,} characters, because it repeats or looks around; write "
            "it without look-around and back-references, or without a repetition inside a repetition"
        )
    return linear.search(text) is not None


def is_cheap_for_names(pattern: str) -> bool:
    """Whether `re` matches the pattern to the name of a key in a fraction of a second. Raises re.error."""
    return count_ways(pattern, _MAX_NAME) <= _MAX_NAME_WAYS


def estimate_steps(pattern: str, length: int) -> int:
    """Return about how long the search for a pattern in a text of this length takes, in steps of some microseconds."""
    if len(pattern) > _MAX_PATTERN:
        return 1
    ways = count_ways(pattern, length)
    if ways > _MAX_WAYS and (linear := _compile_linear(pattern)) is not None:
        return 1 + length * int(linear.programsize) // _STATES_OF_STEP
    return 1 + min(ways, _MAX_NAME_WAYS) // _WAYS_OF_STEP


def count_ways(pattern: str, length: int) -> int:
    r"""Return a bound of the ways in which `re` may try to match a text of this length. Raises re.error.

    A repetition has at most `length + 1` ways, a choice two. It counts too many: `\+` and `[+]` repeat nothing. In a
    repeated group, the ways could multiply with each round.
    """
    re.compile(pattern)
    plain = _GROUP.sub("(", pattern)
    repetitions, choices = len(_REPETITION.findall(plain)), plain.count("|")
    if "(?" in plain or (_REPEATED_GROUP.search(plain) and repetitions + choices > 1):
        return _UNLIMITED
    exponent = min(repetitions + (plain[:1] != "^" or choices > 0), 62)
    ways: int = (length + 1) ** exponent << min(choices, 62)
    return min(ways, _UNLIMITED)


@lru_cache(maxsize=4096)
def _compile_linear(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors, options.never_capture = False, True
    try:
        return re2.compile(pattern.replace(_END_OF_TEXT, r"\z"), options)
    except re2.error:
        return None
