"""Procedural checkpoints: what a model file's name stands for.

Nothing is loaded from a disk. Three names are known (`names.CHECKPOINTS`), any other gets a style of its own from the
words and the hash of its name, so that a workflow written for real models can be rehearsed and its axes still move
the picture. A model says so in its repr: it is procedural, whatever file its name belongs to elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from sweeper.embedded.diffusion.names import check_name
from sweeper.embedded.diffusion.text import digest_normals, encode, pool
from sweeper.embedded.diffusion.vocabulary import FEATURES, HASHED, INDEX

_TOKENS = 77
Features = tuple[float, ...]  # one number per name in FEATURES

# Features that a checkpoint adds to every prompt.
_STYLES: dict[str, dict[str, float]] = {
    "paint": {"facets": 0.55, "strokes": 0.5, "saturation": 0.15, "contrast": 0.05},
    "photo": {"facets": -0.25, "sharp": 0.2, "saturation": -0.08, "contrast": 0.06},
    "ink": {"saturation": -0.8, "contrast": 0.45, "hatch": 0.7, "paper": 0.5, "facets": 0.1, "dark": 0.15},
}
# strokes, grain, hatch, paper of the decoder, 0-1 each
_TEXTURES = {"paint": (0.8, 0.1, 0.0, 0.25), "photo": (0.0, 0.35, 0.0, 0.0), "ink": (0.15, 0.1, 0.8, 0.7)}
_SHIFTS = {"flux": 3.16, "sd3": 3.0, "qwen": 1.15}  # families that keep noise high for longer, by name


@dataclass(frozen=True, slots=True)
class Model:
    """A model: its name, the features that it adds to every prompt, and the shift of its noise levels."""

    name: str
    style: Features
    shift: float = 1.0

    def __repr__(self) -> str:
        return f"<procedural model {self.name!r}>"


@dataclass(frozen=True, slots=True)
class Clip:
    """A text encoder. `bias` is added to every prompt; `skip` is how many last layers are left out."""

    name: str
    bias: Features
    skip: int = 0

    def __repr__(self) -> str:
        return f"<procedural text encoder {self.name!r}>"


@dataclass(frozen=True, slots=True)
class Vae:
    """A decoder: how strongly it draws strokes, grain, hatching and paper, and how crisp its edges are (0-1)."""

    name: str
    textures: tuple[float, float, float, float]
    crisp: float = 0.85

    def __repr__(self) -> str:
        return f"<procedural decoder {self.name!r}>"


def _find_style_name(name: str) -> str | None:
    stem = re.split(r"[\\/]", name)[-1].removeprefix("procedural-").removesuffix(".safetensors")
    return stem if stem in _STYLES else None


def _split_words(name: str) -> str:
    return re.sub(r"[^a-z]+", " ", re.split(r"[\\/]", name)[-1].rsplit(".", 1)[0].lower())


def make_style(name: str) -> Features:
    """The features that a model of this name adds to every prompt."""
    style_name = _find_style_name(name)
    features = np.zeros(len(FEATURES), np.float32)
    if style_name:
        for feature, value in _STYLES[style_name].items():
            features[INDEX[feature]] = value
    else:
        draw = digest_normals(f"style/{name}", 8)
        style = INDEX["dark"]  # the words of a name give light and style, never things
        features[style:-HASHED] = 0.5 * pool(encode(_split_words(name)))[style:-HASHED]
        for feature, value in zip(("saturation", "contrast", "warm", "facets", "dark"), draw.tolist(), strict=False):
            features[INDEX[feature]] += 0.22 * value
    features[-HASHED:] = 0.12 * digest_normals(f"layout/{name}", HASHED)
    return tuple(features.tolist())


def load_model(name: str) -> Model:
    """Raises ValueError for a name that climbs."""
    check_name(name)
    shift = next((shift for family, shift in _SHIFTS.items() if family in name.lower()), 1.0)
    return Model(name, make_style(name), shift)


def load_clip(name: str, kind: str = "") -> Clip:
    """Raises ValueError for a name that climbs. `kind` is the loader's `type`: another one reads a little otherwise."""
    for part in name.split("|"):
        check_name(part)
    bias = np.zeros(len(FEATURES), np.float32)
    if kind:
        bias[-HASHED:] = 0.1 * digest_normals(f"clip/{name}/{kind}", HASHED)
    return Clip(name, tuple(bias.tolist()))


def load_vae(name: str) -> Vae:
    """Raises ValueError for a name that climbs. `pixel_space` decodes without any texture."""
    if name == "pixel_space":
        return Vae(name, (0.0, 0.0, 0.0, 0.0))
    check_name(name)
    style_name = _find_style_name(name)
    if style_name:
        return Vae(name, _TEXTURES[style_name])
    draw = np.clip(np.abs(digest_normals(f"texture/{name}", 4)) * [0.35, 0.2, 0.12, 0.2], 0, 1)
    strokes, grain, hatch, paper = (round(float(value), 4) for value in draw)
    return Vae(name, (strokes, grain, hatch, paper))


def with_lora(model: Model, clip: Clip | None, name: str, strengths: tuple[float, float]) -> tuple[Model, Clip | None]:
    """Add a LoRA's features to the model and, where there is one, to the text encoder, each by its strength."""
    check_name(name)
    words = _split_words(name).replace("procedural", " ")
    delta = np.zeros(len(FEATURES), np.float32)
    style = INDEX["dark"]
    delta[style:-HASHED] = pool(encode(words))[style:-HASHED]
    draw = digest_normals(f"lora/{name}", 6)
    for feature, value in zip(("warm", "saturation", "contrast", "facets", "dark"), draw.tolist(), strict=False):
        delta[INDEX[feature]] += 0.25 * value
    styled = replace(model, style=_add_features(model.style, delta * strengths[0]))
    if clip is None:
        return styled, None
    hashed = np.zeros(len(FEATURES), np.float32)
    hashed[-HASHED:] = 0.15 * digest_normals(f"lora-text/{name}", HASHED)
    return styled, replace(clip, bias=_add_features(clip.bias, hashed * strengths[1]))


def _add_features(features: Features, delta: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Features:
    return tuple(float(a + b) for a, b in zip(features, delta.tolist(), strict=True))


def quantise(model: Model, mantissa: int) -> Model:
    """The model with its features kept to so many bits of mantissa, as loading weights in 8 bits would."""
    mantissas, exponents = np.frexp(np.array(model.style))
    rounded = np.ldexp(np.round(mantissas * 2 ** (mantissa + 1)) / 2 ** (mantissa + 1), exponents)
    return replace(model, style=tuple(float(value) for value in rounded))


def embed(clip: Clip, text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The embedding [1, T, F] of a prompt by this encoder; skipped layers blur what unknown words mean.

    T is a multiple of 77, as CLIP's, so that the embeddings of a short and a long prompt can be averaged row by row.
    """
    rows = encode(text)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % _TOKENS), (0, 0)))
    rows[..., -HASHED:] *= 0.93**clip.skip
    rows[..., : INDEX["ears"]] *= 0.985**clip.skip
    rows[0, 0] += np.array(clip.bias, np.float32)
    return rows
