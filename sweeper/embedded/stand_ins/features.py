"""Values to features: what any input of a node adds to the embedding from which scenes are drawn.

Numbers count smoothly, texts and choices by their hash. Everything depends on the values alone, never on the process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.text import digest_normals, encode, pool
from sweeper.embedded.diffusion.vocabulary import FEATURES, HASHED, INDEX
from sweeper.schemas.values import is_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# How much one unit of an input may move each feature of light and style. None of them brings a thing into the picture.
_REACH = {"dark": 0.2, "warm": 0.5, "saturation": 0.3, "contrast": 0.2, "facets": 0.3, "tint_u": 0.15, "tint_v": 0.15}
_TINT = 0.1  # how strongly the tint of such an input shows
_LAYOUT_REACH = 0.25
# The most of each of these features, however many nodes add to it.
_MOST = {"dark": 0.5, "warm": 1.2, "saturation": 0.6, "contrast": 0.4, "facets": 0.8, "tint_u": 0.25, "tint_v": 0.25}
_MOST_TINT, _MOST_LAYOUT = 0.6, 1.5
_MAX_TEXT = 20_000  # characters of a prompt that count
_MAX_BRACKETS = 50  # a text with more of them is code, not a prompt
_MAX_DEPTH, _MAX_ITEMS = 5, 64  # of nested values
_STYLE = [INDEX[name] for name in _MOST]
_STYLE_MOST = np.array([*_MOST.values()], np.float32)


def make_no_features() -> Array:
    return np.zeros(len(FEATURES), np.float32)


@lru_cache(maxsize=4096)
def make_direction(key: str) -> Array:
    """The features towards which an input or a choice pulls, [F]."""
    draw = digest_normals(f"stand-in/{key}", len(_REACH) + HASHED)
    features = make_no_features()
    for (name, reach), value in zip(_REACH.items(), draw.tolist(), strict=False):
        features[INDEX[name]] = reach * value
    features[INDEX["tint"]] = _TINT
    features[-HASHED:] = _LAYOUT_REACH * draw[len(_REACH) :]
    features.flags.writeable = False
    return features


def measure_number(value: float, options: Mapping[str, Any]) -> float:
    """A number in units of its input: 0 at 0, about 0.9 at its default, and slower and slower beyond.

    So strengths 0.4 and 0.5 look alike and 0 and 1 do not, and the same holds for 20 and 25 steps of 20.
    """
    number = min(max(float(min(max(value, -1e15), 1e15)), -1e15), 1e15)
    if math.isnan(number):
        return 0.0
    default, low, high = (_read_limit(options.get(name)) for name in ("default", "min", "max"))
    if default:
        unit = abs(default)
    elif low is not None and high is not None and 0 < high - low <= 1000:
        unit = (high - low) / 2
    else:
        unit = 1.0
    return math.asinh(number / unit)


def _read_limit(value: Any) -> float | None:
    return float(value) if is_number(value) and abs(value) < 1e15 else None


def read_literal(key: str, value: Any, options: Mapping[str, Any], depth: int = 0) -> Array:
    """The features of a JSON value at the input `key`, [F]."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return make_direction(f"{key}={value}")
    if isinstance(value, int | float):
        return make_direction(key) * np.float32(measure_number(value, options))
    features = make_no_features()
    if depth < _MAX_DEPTH and isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for index, (name, item) in enumerate(items):
            if index >= _MAX_ITEMS:
                break
            features += read_literal(f"{key}/{name}", item, {}, depth + 1)
    return features


def read_prompt(text: str) -> Array:
    """The features of a text that describes a picture, [F]."""
    text = text[:_MAX_TEXT]
    if text.count("(") + text.count("[") > _MAX_BRACKETS:
        text = re.sub(r"[()\[\]]", " ", text)
    return pool(encode(text))


def limit_style(features: Array) -> Array:
    """The same features with light, style and layout folded into bounds, because many nodes add to them.

    A sine is smooth and, unlike a limit, leaves the last node as much to say as the first.
    """
    limited = features.astype(np.float32)
    limited[_STYLE] = _STYLE_MOST * np.sin(limited[_STYLE] / _STYLE_MOST)
    limited[-HASHED:] = np.float32(_MOST_LAYOUT) * np.sin(limited[-HASHED:] / np.float32(_MOST_LAYOUT))
    tint = INDEX["tint"]
    limited[tint] = np.float32(_MOST_TINT) * np.tanh(limited[tint] / np.float32(_MOST_TINT))
    return limited
