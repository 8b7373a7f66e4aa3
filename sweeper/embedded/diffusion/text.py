"""Prompts to embeddings: float32 [1, tokens, len(FEATURES)], one row per word that counts.

The rows are linear in what they mean (known words by `vocabulary`, others by BLAKE2b), so that averaging, weighting
and concatenating conditionings do what users of ComfyUI expect. `(word:1.3)`, `(word)` and `[word]` weigh words as
there: by the factor, by 1.1, by 1/1.1.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.vocabulary import COLOURS, FEATURES, HASHED, INDEX, STOP, SUBJECTS, WORDS, yuv

# The group `(?>...)` and the possessive `*+` do not backtrack, so the time is linear in the length of the text.
_PIECES = re.compile(
    r"\\[()\[\]]|[()\[\]]|:\s*+-?(?>\d+(?:\.\d+)?|\.\d+)\s*+(?=\))|[^\W_]+(?:[-'][^\W_]+)*", re.UNICODE
)
MAX_LENGTH = 1_000_000  # characters of a prompt: some seconds of work, which nobody can cancel
MAX_DEPTH = 100  # levels of brackets; each weighs all words in it again. ComfyUI fails at about a thousand


def weigh_words(text: str) -> list[tuple[str, float]]:
    """The words of a prompt in lower case, each with its weight; brackets nest, an unclosed one still counts.

    Raises ValueError if the brackets nest too deep.
    """
    words: list[tuple[str, float]] = []
    opened: list[tuple[int, str]] = []

    def scale(start: int, factor: float) -> None:
        words[start:] = [(word, weight * factor) for word, weight in words[start:]]

    def close(bracket: str, factor: float | None) -> None:
        if opened and opened[-1][1] == bracket:
            scale(opened.pop()[0], factor if factor is not None else (1.1 if bracket == "(" else 1 / 1.1))

    explicit: float | None = None
    for match in _PIECES.finditer(text):
        piece = match.group()
        if piece[0] == "\\":
            continue
        if piece in "([":
            opened.append((len(words), piece))
            _check_depth(len(opened))
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


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"the brackets of the prompt nest deeper than {MAX_DEPTH} levels")


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
            values, colour = WORDS[singular]
            for name, value in values.items():
                row[INDEX[name]] = value
            if colour is not None and not subject_named:
                _set_colour(row, colour, "subject", share=0.35)
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
            return any(subject in WORDS[name][0] for subject in SUBJECTS)
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
