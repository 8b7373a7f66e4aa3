"""Hugging Face: a folder that `datasets.load_dataset` reads, with one line of `metadata.jsonl` for each file.

https://huggingface.co/docs/datasets/image_dataset describes the layout; folders of films and sounds are alike. The
reader takes the type of a column from the first 10 MB of lines, and the path of a file from `file_name`, relative to
`metadata.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sweeper.tables.datasets.picture_rows import Media, PictureRows

# Of the suffixes that sweeper knows, those that the folder builders of `datasets` 5.2 open.
MEDIA: Final = (
    Media("pictures", frozenset((".png", ".apng", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"))),
    Media("films", frozenset((".mp4", ".mkv", ".mov", ".avi"))),
    Media("sounds", frozenset((".wav", ".flac", ".mp3", ".opus", ".ogg"))),
)
FOLDER: Final = "train"
MAX_INTEGER: Final = 2**63 - 1  # Arrow's JSON reader makes a float of a larger one
CARD: Final = "README.md"
_ALWAYS_READ: Final = 2**20  # characters, in any script less than the 10 MB

# The files of each split are named, because a word such as `test` in a file's name would else choose the split.
_CARD_TEXT: Final = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: train/**
---
# {title}

The pictures of a [ComfyUI](https://github.com/comfyanonymous/ComfyUI) sweep, made with sweeper. Each row has a picture,
the values of its axes and slots, and its metrics.
"""


def build_files(rows: PictureRows, _name: str) -> dict[str, str]:
    """The text files of the dataset, by their name in its folder."""
    lines = []
    for index, picture in enumerate(rows.pictures):
        cells = {column.name: column.values[index] for column in rows.columns}
        lines.append(json.dumps({"file_name": picture.name, **cells}, ensure_ascii=False, allow_nan=False) + "\n")
    if sum(map(len, lines)) > _ALWAYS_READ:
        first = sorted({_find_value(column.values) for column in rows.columns})
        lines = [*(lines[index] for index in first), *(line for index, line in enumerate(lines) if index not in first)]
    title = " ".join(rows.experiment.split())
    return {f"{FOLDER}/metadata.jsonl": "".join(lines), CARD: _CARD_TEXT.format(title=title)}


def _find_value(values: Sequence[Any]) -> int:
    return next(index for index, value in enumerate(values) if value is not None)
