"""Values as text for people: numbers, cells of tables, and short labels that tell the values of an axis apart.

Such a label is `…drawn in charcoal with soft…` for a long prompt.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress, count, pairwise
from operator import ne
from typing import Any, Final

_JSON: Final = json.JSONEncoder(ensure_ascii=False)  # json.dumps would make one for each call
_MAX_CHOICES_LENGTH: Final = 60  # characters of a list of choices
MAX_LABEL: Final = 40  # characters of a label
_MAX_WHOLE: Final = 24  # characters of a value that is its own label
_CUT: Final = "…"
_MAX_SIGNS: Final = 12  # words and signs on one side of a word
# A word with the space before it; of scripts without spaces one letter, of a long word a part, else one sign.
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN: Final = re.compile(f" ?(?:[{_UNSPACED}]|[^\\W_{_UNSPACED}]{{1,12}}|[^ ])")


def format_number(value: float) -> str:
    """A float for people: as many digits as distinguish it from its neighbours; 7.0 becomes 7."""
    return repr(value).removesuffix(".0")


def format_rounded(value: float) -> str:
    """A measured float, rounded to six significant digits or to an integer, because further digits are noise."""
    return format_number(float(f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"))


def to_json_text(value: Any) -> str:
    """A list or mapping as the text of a cell."""
    return _JSON.encode(value)


def format_cell(value: object, *, rounded: bool = False) -> str:
    """A value as one line without control characters.

    Floats are not rounded, because two values must not look alike, unless `rounded` says that they are measured.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format_rounded(value) if rounded else format_number(value)
    return sanitize(value if isinstance(value, str) else to_json_text(value))


def join_choices(texts: Iterable[str], count: int) -> str:
    """As many of the first of `count` texts as fit into 60 characters; if some do not, also their number."""
    shown: list[str] = []
    for text in texts:
        if shown and len(" | ".join([*shown, text])) > _MAX_CHOICES_LENGTH:
            return f"{' | '.join(shown)} | ... ({count})"
        shown.append(text)
    return " | ".join(shown)


def join_values(values: Sequence[tuple[str, str]], separator: str, *, named: bool = False) -> str:
    """Join values, each with its axis before it if `named`. A width and its height are one size: `512 x 768`."""
    words = [f"{axis} {text}" if named else text for axis, text in values]
    for index, ((axis, width), (following, height)) in enumerate(pairwise(values)):
        if axis.casefold().endswith("width") and following.casefold().endswith("height"):
            words[index : index + 2] = [f"{width} x {height}"]
            break
    return separator.join(words)


def sanitize(text: str) -> str:
    """Replace each control character by a space, so that text from files and servers cannot control the terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def label_values(values: Sequence[Any], given: Mapping[int, str] | None = None) -> list[str]:
    """Return one label for each value of an axis: distinct, at most 40 characters, one line without control characters.

    Numbers, short texts and the labels that a user gave (`given`, by index) stay as they are. Of longer texts, a label
    shows the words in which they differ, with up to two words around each. Labels that are still equal end in `#1`,
    `#2` in the order of the values. This takes n log n time in the length of all texts.
    """
    given = given or {}
    texts = [format_cell(given.get(index, value)) for index, value in enumerate(values)]
    labels = [text[:MAX_LABEL] for text in texts]
    words = {
        index: _TOKEN.findall(" ".join(text.split()))
        for index, text in enumerate(texts)
        if len(text) > (MAX_LABEL if index in given else _MAX_WHOLE) and not text.isspace()
    }
    first, *others = words.values() or ([],)
    tail = min((_count_shared(first[::-1], text[::-1]) for text in others), default=0)
    for index, branches in _find_branches(words).items():
        labels[index] = _join_words(words[index], branches[-MAX_LABEL:], len(words[index]) - tail)
    return _number_equal(labels)


def map_labels(texts: Iterable[str]) -> dict[str, str]:
    """Return the label of each of these texts, which are the values of one axis; see `label_values`."""
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, label_values(distinct), strict=True))


def _find_branches(words: Mapping[int, list[str]]) -> dict[int, list[int]]:
    """Return for each text the positions at which another text that is equal up to there goes on differently.

    Sorted texts are a tree of words. The positions of a text are where its path in the tree branches.
    """
    order = sorted(words, key=words.__getitem__)
    shared = [_count_shared(words[text], words[other]) for text, other in pairwise(order)]
    before = _find_minima(shared)
    after = _find_minima(shared[::-1])[::-1]
    return {index: sorted({*before[rank], *after[rank]}) for rank, index in enumerate(order)}


def _count_shared(words: Sequence[str], others: Sequence[str]) -> int:
    """Return how many words two texts share at their beginning."""
    return next(compress(count(), map(ne, words, others)), min(len(words), len(others)))


def _find_minima(shared: Sequence[int]) -> list[tuple[int, ...]]:
    """Return for each text what it shares with those before it, given what each text shares with the next."""
    stack: list[int] = []
    found: list[tuple[int, ...]] = [()]
    for length in shared:
        while stack and stack[-1] >= length:
            stack.pop()
        stack.append(length)
        found.append(tuple(stack))
    return found


def _join_words(words: Sequence[str], branches: Sequence[int], end: int) -> str:
    """Write the words at these positions with up to two words around each, and what fits of those that follow.

    From `end` on, all texts are equal; two words of that are enough.
    """
    for around in (2, 1, 0):
        shown = {place for branch in branches or (0,) for place in _list_around(words, branch, around)}
        if len(text := _write(words, shown)) <= MAX_LABEL:
            break
    else:
        shown, text = set(), ""
        places = {min(branch, len(words) - 1) for branch in branches}
        for place in sorted(places, reverse=True):  # the last ones tell the most similar texts apart
            if len(longer := _write(words, {place, *shown})) > MAX_LABEL:
                break
            shown.add(place)
            text = longer
    for place in range(max(shown, default=-1) + 1, max(_list_around(words, end - 1, 2)) + 1 if end else 0):
        if len(longer := _write(words, {place, *shown})) > MAX_LABEL:
            break
        shown.add(place)
        text = longer
    return text


def _list_around(words: Sequence[str], branch: int, around: int) -> Iterable[int]:
    """Return the positions of a word and of so many words before and after it, with the signs between them."""
    middle = min(branch, len(words) - 1)
    sides = (
        range(middle - 1, max(middle - _MAX_SIGNS, 0) - 1, -1),
        range(middle + 1, min(middle + _MAX_SIGNS, len(words))),
    )
    yield middle
    for side in sides:
        left = around
        for place in side:
            if left == 0:
                break
            yield place
            left -= words[place][-1].isalnum()


def _write(words: Sequence[str], shown: Iterable[int]) -> str:
    """Write the words at these positions, and `…` for those left out."""
    text, end = "", 0
    for place in sorted(shown):
        word = words[place] if text else words[place].strip()
        text += _skip(words, end, place) + word
        end = place + 1
    return text + _skip(words, end, len(words))


def _skip(words: Sequence[str], start: int, end: int) -> str:
    if end - start == 1 and len(words[start]) == 1:
        return words[start]  # as short as what would stand for it
    return _CUT if end > start else ""


def _number_equal(labels: Sequence[str]) -> list[str]:
    """Append `#1`, `#2` to labels that are equal."""
    counts, numbers = Counter(labels), Counter[str]()
    taken = {label for label, count in counts.items() if count == 1}
    numbered = []
    for label in labels:
        text = label
        while counts[label] > 1 and (text in taken or text == label):
            numbers[label] += 1
            tail = f" #{numbers[label]}"
            text = f"{label[: MAX_LABEL - len(tail)].rstrip()}{tail}".strip()
        taken.add(text)
        numbered.append(text)
    return numbered
