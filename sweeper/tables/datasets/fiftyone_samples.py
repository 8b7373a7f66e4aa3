"""FiftyOne: a folder that `fiftyone.Dataset.from_dir` reads with the type `FiftyOneDataset`.

https://docs.voxel51.com/user_guide/import_datasets.html names the type. If `metadata.json` has no version of FiftyOne's
database, its importer reads this plain form: the types of the fields in `metadata.json`, and in `samples.json` a
mapping for each sample, with the path of its picture relative to the folder.
"""

from __future__ import annotations

import json
from typing import Any, Final

from sweeper.images.file_types import PICTURE_SUFFIXES
from sweeper.tables.datasets.picture_rows import BOOLEAN, INTEGER, NUMBER, TEXT, Media, PictureRows

MEDIA: Final = (Media("pictures", PICTURE_SUFFIXES),)
FOLDER: Final = "data"
MAX_INTEGER: Final = 2**63 - 1  # of MongoDB, where FiftyOne keeps the samples

_FIELD_TYPES: Final = {BOOLEAN: "BooleanField", INTEGER: "IntField", NUMBER: "FloatField", TEXT: "StringField"}


def build_files(rows: PictureRows, _name: str) -> dict[str, str]:
    """The text files of the dataset, by their name in its folder."""
    fields = {column.name: f"fiftyone.core.fields.{_FIELD_TYPES[column.kind]}" for column in rows.columns}
    metadata = {"name": rows.experiment, "media_type": "image", "sample_fields": fields}
    samples: list[dict[str, Any]] = []
    for index, picture in enumerate(rows.pictures):
        cells = {column.name: column.values[index] for column in rows.columns}
        # The type of media is given because FiftyOne does not know the suffix of every picture.
        samples.append({"filepath": f"{FOLDER}/{picture.name}", "_media_type": "image", "tags": [], **cells})
    return {"metadata.json": _to_text(metadata), "samples.json": _to_text({"samples": samples})}


def _to_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
