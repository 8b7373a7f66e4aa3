"""Two files held against each other in tiers: same bytes, same pixels, then measures; files of any kind.

Pictures are `sweeper.images`' business. A text is compared by its lines, a WAV by its samples; of any other file only
its bytes are known. What is close enough is decided elsewhere.
"""

from __future__ import annotations

import difflib
import os
import wave
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from sweeper.errors import ImageError
from sweeper.images import compare_files, same_bytes
from sweeper.regression.checks import Bound, broken

Tier = Literal["bytes", "pixels", "within", "beyond", "unlike"]

# Told of every picture that differs, whatever the checks ask for: how much, and whether here or everywhere.
TOLD: Final = ("mae", "differing", "windowed")

_PICTURES: Final = frozenset(("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "apng"))
_TEXTS: Final = frozenset(("txt", "json", "csv", "md", "yaml", "srt", "vtt"))
_MOST_TEXT: Final = 200_000  # characters; difflib's time grows with their square


@dataclass(frozen=True, slots=True)
class Match:
    """How a file relates to an accepted one: `tier`, the measures, and for people why they are not the same.

    `within` and `beyond` say whether the measures keep the bounds; `unlike` that there is nothing to measure: another
    size, other channels or number of frames, or a file that is no picture.
    """

    tier: Tier
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def passes(self) -> bool:
        return self.tier in ("bytes", "pixels", "within")


def match(accepted: Path, now: Path, bounds: Mapping[str, Bound]) -> Match:
    """Hold one file against one accepted. Raises ImageError where one of them cannot be read."""
    if now.suffix[1:].lower() not in _PICTURES:
        return _match_other(accepted, now)
    names = tuple(dict.fromkeys((*bounds, *TOLD)))
    found = compare_files(accepted, now, metrics=names)
    if found.state == "same_bytes":
        return Match("bytes", found.metrics)
    if found.state == "same_pixels":
        return Match("pixels", found.metrics)
    if found.reason:
        return Match("unlike", {}, f"{found.state}: {_short(found.reason, accepted, now)}")
    if not bounds:
        share = found.metrics["differing"]
        return Match("beyond", found.metrics, f"pixels differ: {share:.2%} of them, by {found.metrics['mae']:.3g} of "
                     "255 on average over all")  # fmt: skip
    missed = broken(bounds, found.metrics)
    said = ", ".join(f"{name} {found.metrics[name]:.4g}, not {bound}" for name, bound in missed.items())
    return Match("beyond" if missed else "within", found.metrics, said)


def best_match(accepted: Iterable[Path], now: Path, bounds: Mapping[str, Bound]) -> tuple[int, Match]:
    """The accepted file that is met, or else the nearest: its place and how `now` relates to it."""
    best: tuple[int, Match] | None = None
    for place, path in enumerate(accepted):
        found = match(path, now, bounds)
        if found.passes:
            return place, found
        if best is None or _distance(found) < _distance(best[1]):
            best = place, found
    assert best is not None, "a case has an accepted picture"
    return best


def _distance(found: Match) -> float:
    return found.metrics.get("mae", 256.0)


def _short(reason: str, *paths: Path) -> str:
    for path, name in zip(paths, ("the accepted picture", "today's"), strict=True):
        reason = reason.replace(str(path), name)
    return reason


def _match_other(accepted: Path, now: Path) -> Match:
    if same_bytes(accepted, now):
        return Match("bytes")
    kind = now.suffix[1:].lower()
    if kind in _TEXTS:
        one, other = (path.read_text("utf-8", "replace") for path in (accepted, now))
        if one.splitlines() == other.splitlines():
            return Match("pixels")
        ratio = difflib.SequenceMatcher(None, one[:_MOST_TEXT], other[:_MOST_TEXT], autojunk=True).ratio()
        return Match("unlike", {}, f"text differs; {ratio:.1%} of it is the same")
    if kind == "wav":
        return _match_sound(accepted, now)
    return Match("unlike", {}, f"bytes differ, and a .{kind} file has no measure")


def _match_sound(accepted: Path, now: Path) -> Match:
    try:
        (one, samples), (other, other_samples) = _sound(accepted), _sound(now)
    except (wave.Error, EOFError, OSError) as error:
        raise ImageError(f"{now}: cannot be read as WAV: {error}") from error
    if one != other:
        return Match("unlike", {}, f"sound of another form: channels, bytes, rate, frames are {one} and {other}")
    if samples == other_samples:
        return Match("pixels")
    width = one[1]
    same = sum(samples[at : at + width] == other_samples[at : at + width] for at in range(0, len(samples), width))
    return Match("unlike", {}, f"sound differs: {1 - same * width / max(len(samples), 1):.2%} of its samples")


def _sound(path: Path) -> tuple[tuple[int, int, int, int], bytes]:
    with path.open("rb") as file, wave.open(file) as sound:
        form = (sound.getnchannels(), sound.getsampwidth(), sound.getframerate(), sound.getnframes())
        return form, sound.readframes(sound.getnframes())


def side_by_side(work: Any, items: Iterable[Any]) -> list[Any]:
    """`work` of every item, in order, on all cores: decoding and NumPy let go of the interpreter. Memory holds one
    pair of pictures for each core, not the suite.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sweeper-compare") as pool:
        return list(pool.map(work, items))
