"""Which model files sweeper used last on each server, over all results folders of this user.

A server may have read a file before it was replaced, in a run of another folder, or before its history was cleared.
This file is only a hint. If it is gone, `target_models` looks at the history of the server and the jobs of the folder.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

from sweeper.files import atomic_write
from sweeper.model.bounded_json import parse_json
from sweeper.model.model_facts import MODELS_SHAPE, ModelFacts, ModelKey, Models, decode_models, encode_models
from sweeper.schemas.values import fits_shape

_MAX_FILES: Final = 20_000  # of a server


def load_seen(url: str) -> dict[ModelKey, ModelFacts]:
    """The facts with which each file was used last on the server at a URL."""
    with suppress(OSError, ValueError):
        value = parse_json(_get_path(url).read_text("utf-8"))
        if fits_shape(value, MODELS_SHAPE):
            return decode_models(value)
    return {}


def save_seen(url: str, models: Models) -> None:
    """Record that the server at a URL uses these files, or was asked to read them again."""
    known = load_seen(url)
    kept = {key: facts for key, facts in known.items() if key not in models}
    found = dict([*kept.items(), *models.items()][-_MAX_FILES:])
    if found != known or any(known[key].placed != facts.placed for key, facts in found.items()):
        with suppress(OSError), atomic_write(_get_path(url)) as file:
            file.write(json.dumps(encode_models(found)).encode())


def _get_path(url: str) -> Path:
    digest = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:24]
    return user_cache_path("sweeper", appauthor=False) / "models" / f"{digest}.json"
