"""Weights & Biases: the file of a `wandb.Table` with its pictures beside it, as an artifact holds both.

The layout is what wandb 0.31 writes for a table in an artifact: `NAME.table.json`, and a picture in a cell is a mapping
with its path in the artifact. So an artifact with this folder shows the table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ResultsError
from sweeper.images.file_types import PICTURE_SUFFIXES
from sweeper.model.picture_size import PICTURE_FORMATS
from sweeper.tables.datasets.picture_rows import (
    BOOLEAN,
    INTEGER,
    MAX_EXACT_INT,
    NUMBER,
    TEXT,
    Media,
    Picture,
    PictureRows,
)

MEDIA: Final = (Media("pictures", PICTURE_SUFFIXES),)
FOLDER: Final = "media/images"
MAX_INTEGER: Final = MAX_EXACT_INT  # W&B shows tables in a browser, whose numbers are floats
SUFFIX: Final = ".table.json"

_IMAGE: Final = "image"
_TYPES: Final = {BOOLEAN: "boolean", INTEGER: "number", NUMBER: "number", TEXT: "string"}
# wandb states with a column of pictures that none has boxes, masks or classes.
_NOTHING_DRAWN: Final = {
    **{name: {"params": {"is_set": False, "val": {}}, "wb_type": "const"} for name in (
        "box_class_maps", "box_layers", "class_map", "mask_class_maps", "mask_layers",
    )},
    "box_score_keys": {"params": {"is_set": True, "val": []}, "wb_type": "const"},
}  # fmt: skip


def build_files(rows: PictureRows, name: str) -> dict[str, str]:
    """The table as text, by its file name. Raises ResultsError for a file that is not a picture."""
    images = {picture: _build_image(picture, rows.sources[picture.name]) for picture in set(rows.pictures)}
    types = {_IMAGE: _allow_none({"params": _NOTHING_DRAWN, "wb_type": "image-file"})}
    types |= {column.name: _allow_none({"wb_type": _TYPES[column.kind]}) for column in rows.columns}
    table = {
        "_type": "table",
        "column_types": {"params": {"type_map": types}, "wb_type": "typedDict"},
        "columns": list(types),
        "data": [
            [images[picture], *(column.values[index] for column in rows.columns)]
            for index, picture in enumerate(rows.pictures)
        ],
        "log_mode": "IMMUTABLE",
        "ncols": len(types),
        "nrows": len(rows.pictures),
    }
    return {name: json.dumps(table, ensure_ascii=False, allow_nan=False) + "\n"}


def _allow_none(kind: dict[str, Any]) -> dict[str, Any]:
    both = sorted((kind, {"wb_type": "none"}), key=lambda one: str(one["wb_type"]))
    return {"params": {"allowed_types": both}, "wb_type": "union"}


def _build_image(picture: Picture, file: Path) -> dict[str, Any]:
    from PIL import Image

    try:
        with Image.open(file, formats=PICTURE_FORMATS) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ResultsError(f"{file}: cannot be read as a picture: {error}") from None
    return {
        "_type": "image-file", "path": f"{FOLDER}/{picture.name}", "sha256": picture.sha256,
        "format": file.suffix[1:], "width": width, "height": height,
    }  # fmt: skip
