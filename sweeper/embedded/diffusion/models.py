"""Procedural checkpoints: what a model file's name stands for, and what a text encoder makes of a prompt.

Nothing is loaded from a disk. Three names are known (`CHECKPOINTS`), any other gets a style of its own from the
words and the hash of its name, so that a workflow written for real models can be rehearsed and its axes still move
the picture.

A prompt is float32 [1, tokens, len(FEATURES)], one row per word that counts. The rows are linear in what they mean
(known words by `vocabulary`, others by BLAKE2b), so that averaging, weighting and concatenating conditionings do what
users of ComfyUI expect. `(word:1.3)`, `(word)` and `[word]` weigh words as there: by the factor, by 1.1, by 1/1.1.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.vocabulary import (
    COLOURS,
    FEATURES,
    HASHED,
    INDEX,
    STOP,
    SUBJECTS,
    WORDS,
    yuv,
)

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
    style: Features = field(repr=False)
    shift: float = 1.0


@dataclass(frozen=True, slots=True)
class Clip:
    """A text encoder. `bias` is added to every prompt; `skip` is how many last layers are left out."""

    name: str
    bias: Features = field(repr=False)
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Vae:
    """A decoder: how strongly it draws strokes, grain, hatching and paper (0-1)."""

    name: str
    textures: tuple[float, float, float, float]


def _find_style_name(name: str) -> str | None:
    stem = re.split(r"[\\/]", name)[-1].removeprefix("procedural-").removesuffix(".safetensors")
    return stem if stem in _STYLES else None


def _read_name(kind: str, name: str, share: float) -> Array:
    """What the words and the hash of a file's name say, [F]: light and style, never things."""
    features = np.zeros(len(FEATURES), np.float32)
    start = INDEX["dark"]
    words = re.sub(r"[^a-z]+", " ", re.split(r"[\\/]", name)[-1].rsplit(".", 1)[0].lower())
    features[start:-HASHED] = share * pool(encode(words))[start:-HASHED]
    draw = digest_normals(f"{kind}/{name}", 8)
    for feature, value in zip(("saturation", "contrast", "warm", "facets", "dark"), draw.tolist(), strict=False):
        features[INDEX[feature]] += 0.22 * value
    return features


def load_model(name: str) -> Model:
    style_name = _find_style_name(name)
    features = np.zeros(len(FEATURES), np.float32) if style_name else _read_name("style", name, 0.5)
    for feature, value in _STYLES.get(style_name or "", {}).items():
        features[INDEX[feature]] = value
    features[-HASHED:] = 0.12 * digest_normals(f"layout/{name}", HASHED)
    shift = next((shift for family, shift in _SHIFTS.items() if family in name.lower()), 1.0)
    return Model(name, tuple(features.tolist()), shift)


def load_clip(name: str, kind: str = "") -> Clip:
    """`kind` is the loader's `type`: another one reads a little otherwise."""
    bias = np.zeros(len(FEATURES), np.float32)
    if kind:
        bias[-HASHED:] = 0.1 * digest_normals(f"clip/{name}/{kind}", HASHED)
    return Clip(name, tuple(bias.tolist()))


def load_vae(vae_name: str) -> Vae:
    """`pixel_space` decodes without any texture."""
    if vae_name == "pixel_space":
        return Vae(vae_name, (0.0, 0.0, 0.0, 0.0))
    style_name = _find_style_name(vae_name)
    if style_name:
        return Vae(vae_name, _TEXTURES[style_name])
    draw = np.clip(np.abs(digest_normals(f"texture/{vae_name}", 4)) * [0.35, 0.2, 0.12, 0.2], 0, 1)
    strokes, grain, hatch, paper = (round(float(value), 4) for value in draw)
    return Vae(vae_name, (strokes, grain, hatch, paper))


def with_lora(model: Model, clip: Clip | None, name: str, strengths: tuple[float, float]) -> tuple[Model, Clip | None]:
    """Add a LoRA's features to the model and, where there is one, to the text encoder, each by its strength."""
    delta = _read_name("lora", name.replace("procedural", " "), 1.0)
    styled = replace(model, style=_add_features(model.style, delta * strengths[0]))
    if clip is None:
        return styled, None
    hashed = np.zeros(len(FEATURES), np.float32)
    hashed[-HASHED:] = 0.15 * digest_normals(f"lora-text/{name}", HASHED)
    return styled, replace(clip, bias=_add_features(clip.bias, hashed * strengths[1]))


def _add_features(features: Features, delta: Array) -> Features:
    return tuple(float(a + b) for a, b in zip(features, delta.tolist(), strict=True))


def embed(clip: Clip, text: str) -> Array:
    """The embedding [1, T, F] of a prompt by this encoder; skipped layers blur what unknown words mean.

    T is a multiple of 77, as CLIP's, so that the embeddings of a short and a long prompt can be averaged row by row.
    """
    rows = encode(text)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % _TOKENS), (0, 0)))
    rows[..., -HASHED:] *= 0.93**clip.skip
    rows[..., : INDEX["ears"]] *= 0.985**clip.skip
    rows[0, 0] += np.array(clip.bias, np.float32)
    return rows


# --- prompts ---------------------------------------------------------------------------------------------------------

# The group `(?>...)` and the possessive `*+` do not backtrack, so the time is linear in the length of the text.
_PIECES = re.compile(
    r"\\[()\[\]]|[()\[\]]|:\s*+-?(?>\d+(?:\.\d+)?|\.\d+)\s*+(?=\))|[^\W_]+(?:[-'][^\W_]+)*", re.UNICODE
)
MAX_LENGTH = 1_000_000  # characters of a prompt: some seconds of work, which cannot be cancelled
MAX_DEPTH = 100  # levels of brackets; each weighs all words in it again. ComfyUI fails at about a thousand


def weigh_words(text: str) -> list[tuple[str, float]]:
    """The words of a prompt in lower case, each with its weight; brackets nest, an unclosed one still counts.

    Raises ValueError if the brackets nest too deep.
    """
    words: list[tuple[str, float]] = []
    opened: list[tuple[int, str]] = []

    def close(bracket: str, factor: float | None) -> None:
        if opened and opened[-1][1] == bracket:
            start = opened.pop()[0]
            by = factor if factor is not None else (1.1 if bracket == "(" else 1 / 1.1)
            words[start:] = [(word, weight * by) for word, weight in words[start:]]

    explicit: float | None = None
    for match in _PIECES.finditer(text):
        piece = match.group()
        if piece[0] == "\\":
            continue
        if piece in "([":
            opened.append((len(words), piece))
            if len(opened) > MAX_DEPTH:
                raise ValueError(f"the brackets of the prompt nest deeper than {MAX_DEPTH} levels")
        elif piece in ")]":
            close("(" if piece == ")" else "[", explicit if piece == ")" else None)
            explicit = None
        elif piece[0] == ":":
            explicit = float(piece[1:])
        else:
            words.append((piece.lower(), 1.0))
    while opened:
        close(opened[-1][1], None)
    return words


def digest_normals(text: str, count: int) -> Array:
    """`count` numbers from the hash of a text, about standard normal, the same everywhere."""
    # 64 bytes of digest are 16 words, and 4 words make one number.
    raw = b"".join(hashlib.blake2b(f"{text}/{i}".encode()).digest() for i in range(-(-count // 4)))
    uniform = np.frombuffer(raw, ">u4")[: 4 * count].reshape(-1, 4)[:count].astype(np.float64) / 2**32
    # The sum of four uniforms, centred and scaled to variance 1: normal enough, and no transcendental function.
    return np.asarray((uniform.sum(axis=1) - 2) * 3**0.5, np.float32)


def encode(text: str) -> Array:
    """[1, T, F] for a prompt; an empty prompt is one row of zeros. Raises ValueError for a hostile prompt."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the prompt has {len(text)} characters; at most {MAX_LENGTH} are allowed")
    words = [(word, weight) for word, weight in weigh_words(text) if word not in STOP and weight]
    rows = [np.zeros(len(FEATURES), np.float32)] if not words else []
    subject_named = False
    for index, (word, weight) in enumerate(words):
        row = np.zeros(len(FEATURES), np.float32)
        singular = word[:-1] if word not in WORDS and word.endswith("s") else word
        if word in COLOURS:
            _set_colour(row, COLOURS[word], "subject" if _is_subject_colour(words, index) else "tint")
        elif singular in WORDS:
            for name, value in WORDS[singular].items():
                if name != "colour":
                    row[INDEX[name]] = value
            if "colour" in WORDS[singular] and not subject_named:
                _set_colour(row, WORDS[singular]["colour"], "subject", share=0.35)
                subject_named = True
            row[INDEX["many"]] += 0.6 if singular != word else 0.0
            row[-HASHED:] += 0.12 * digest_normals(singular, HASHED)
        else:
            row[INDEX["thing"]] = 0.45
            row[-HASHED:] = 0.5 * digest_normals(word, HASHED)
        rows.append(row * np.float32(weight))
    return np.stack(rows)[None]


def _is_subject_colour(words: list[tuple[str, float]], index: int) -> bool:
    """True when the colour at `index` stands before a subject, as in "red fox" or "red and white fox"."""
    for word, _ in words[index + 1 : index + 3]:
        name = word if word in WORDS else word.removesuffix("s")
        if name in WORDS:
            return any(subject in WORDS[name] for subject in SUBJECTS)
        if word not in COLOURS:
            return False
    return False


def _set_colour(row: Array, rgb: tuple[int, int, int], kind: str, share: float = 1.0) -> None:
    weight = f"{kind}_colour" if kind == "subject" else kind
    for name, value in zip(("_y", "_u", "_v"), yuv(rgb), strict=True):
        row[INDEX[kind + name]] = value * share
    row[INDEX[weight]] = share


def pool(embedding: Array) -> Array:
    """What a scene is composed from: the sum of the rows, [F]. Linear, so mixing embeddings mixes scenes."""
    return np.asarray(embedding.sum(axis=(0, 1), dtype=np.float32))
