"""The names of artifacts, by which a person finds them: `0003_seed-247078804_steps-8_a-red-fox.png`.

A name begins with the trial's number. Then come the axes that vary: short values with the name of their axis, texts
without it, a long one by the words that tell it from the others, the longest cut. Letters of every script stay. A name
has at most 120 bytes in UTF-8, and no character that a file system, a shell or a URL interprets.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sweeper.answers.cells import map_labels
from sweeper.model.trial import Trial

# Bytes of the parts of a name, 120 in all: 71 + "_node-" and 12 + "_" and 4 digits + "_" and 8 of the job's id +
# "-9999" of `candidate_names` + ".safetensors".
_MAX_STEM: Final = 71
_MAX_NODE: Final = 12
_MAX_SHORT: Final = 28  # of a value with its axis; a longer one is a long text
_MAX_AXIS: Final = 20
_MIN_TEXT: Final = 4  # a text that would be cut to less is left out

# What may follow a stem: node, file number, job id, number of a second file of that name, extension.
_TAIL: Final = re.compile(r"(?:_node-[^_/\\]+)?(?:_\d+)?(?:_[0-9a-f]{8})?(?:-\d+)?\.[a-z0-9]+")
# A name with the job's id: `0003_seed-1_1f3a9c02.png`. Cameras write dates, such as 20240101_123456.jpg, so a trial's
# number has at most seven digits.
_WITH_JOB: Final = re.compile(r"\d{4,7}_(?:.*_)?([0-9a-f]{8})(?:-\d+)?\.[a-z0-9]+")
_OURS: Final = re.compile(r"\d{4,7}(?:_[^/\\]*)?(?:-\d+)?\.[a-z0-9]+")
_FILE_SUFFIX: Final = re.compile(r"\.(?:safetensors|ckpt|pth?|gguf|sft|png|jpe?g|webp)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileNaming:
    """How the files of one run are named: by the `axes` that vary, with at least `digits` digits for the trial.

    `labels`: by axis, the short label of each of its texts.
    """

    axes: tuple[str, ...] = ()
    digits: int = 4
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def for_plan(
        cls, axis_sizes: Mapping[str, int], trials: int, get_cells: Callable[[str], Iterable[Any]] = lambda _: ()
    ) -> FileNaming:
        """The naming for a plan of so many trials, by the number of values of each axis and these values."""
        axes = tuple(axis for axis, size in axis_sizes.items() if size > 1)
        labels = {axis: map_labels(cell for cell in get_cells(axis) if isinstance(cell, str)) for axis in axes}
        return cls(axes, max(4, len(str(trials - 1))), labels)

    def build_stem(self, trial: Trial) -> str:
        """The part of the name that all files of a trial share. Empty cells are left out."""
        cells = [(axis, value) for axis in self.axes if (value := trial.axes.get(axis)) is not None]
        cells.sort(key=lambda cell: not isinstance(cell[1], int | float))  # numbers first
        words = [_to_word(axis, value, self.labels.get(axis, {})) for axis, value in cells]
        stem = f"{trial.index:0{self.digits}}"
        for word in (word for word, is_short in words if is_short):
            if _count_bytes(f"{stem}_{word}") <= _MAX_STEM:
                stem = f"{stem}_{word}"
        texts = sorted((word for word, is_short in words if not is_short and word), key=_count_bytes)
        for index, text in enumerate(texts):
            room = (_MAX_STEM - _count_bytes(stem)) // (len(texts) - index) - 1
            part = _cut(text, room)
            if part and (part == text or _count_bytes(part) >= _MIN_TEXT):
                stem = f"{stem}_{part}"
        return stem


def build_file_name(stem: str, extension: str, *, node: str = "", number: int | None = None, job: str = "") -> str:
    """The name of one file of a trial.

    With several files, `node` and the file's `number` from 0 distinguish them. `job`: the id of the job, for a folder
    in which other machines or folders may have files of the same name.
    """
    label = _cut(_to_slug(node), _MAX_NODE)
    parts = [stem, f"node-{label}" if label else "", "" if number is None else str(number), job[:8]]
    return f"{'_'.join(filter(None, parts))}.{extension}"


def candidate_names(name: str) -> Iterator[str]:
    """The names to try for a file: `name`, then `name` with a number from 2 to 9,999."""
    base, dot, suffix = name.rpartition(".")
    yield name
    yield from (f"{base}-{number}{dot}{suffix}" for number in range(2, 10_000))


def find_job_prefix(name: str) -> str | None:
    """The first 8 characters of the job id in a file name; None if it has none, or is not ours."""
    match = _WITH_JOB.fullmatch(name)
    return match and match[1]


def is_artifact_name(name: str) -> bool:
    """Whether a file may be an artifact, by its name alone; a user's own `0003_holiday.png` may be one too."""
    return _OURS.fullmatch(name) is not None


def is_file_of(stem: str, name: str) -> bool:
    return name.startswith(stem) and _TAIL.fullmatch(name, len(stem)) is not None


def _to_word(axis: str, value: Any, labels: Mapping[str, str]) -> tuple[str, bool]:
    """A value as a part of a name, and whether it is short: then it has the name of its axis."""
    name = _cut(_to_slug(axis), _MAX_AXIS)
    if isinstance(value, int | float):  # with its sign and its dot
        return f"{name}-{str(value).lower().replace('+', '')}", True
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if is_file := _FILE_SUFFIX.search(text) is not None:  # a model or a picture: without its folders
        text = _FILE_SUFFIX.sub("", re.split(r"[/\\]", text)[-1])
    slug = _to_slug(text)
    word = f"{name}-{slug}"
    if slug and (is_file or not re.search(r"\s", text.strip())) and _count_bytes(word) <= _MAX_SHORT:
        return word, True
    return _to_slug(labels.get(text, text)) or slug, False


def _to_slug(text: str) -> str:
    """Letters, their marks, digits and single dots; `-` for everything between them."""
    text = unicodedata.normalize("NFC", text)
    if sys.getfilesystemencoding() != "utf-8":  # an old locale, whose file names cannot hold every letter
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    kept = "".join(letter if letter == "." or unicodedata.category(letter)[0] in "LMN" else " " for letter in text)
    return re.sub(r"\.{2,}|\s+", "-", kept.strip(" .")).strip("-.")


def _cut(text: str, room: int) -> str:
    """The beginning of `text` in at most `room` bytes, at the end of a word if one ends in the second half."""
    if _count_bytes(text) <= room:
        return text
    start = text.encode()[: max(room, 0)].decode(errors="ignore")
    word_end = start.rfind("-") if not text[len(start) :].startswith("-") else len(start)
    return (start[:word_end] if word_end > len(start) / 2 else start).rstrip("-.")


def _count_bytes(text: str) -> int:
    return len(text.encode())
