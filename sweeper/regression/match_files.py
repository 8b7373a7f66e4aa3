"""Two files held against each other in tiers: same bytes, same content, then measures; files of any kind.

Pictures and films are compared frame by frame, the sound of a film as well, sounds sample by sample, texts by their
lines; of any other file only its bytes are known. Each kind has its own measures, and of the bounds only those count
that are about them: a text without a bound of its own must be equal. What is close enough is decided elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from sweeper.errors import ImageError
from sweeper.images.compare import ALL_METRICS, compare_files, same_bytes
from sweeper.images.measures import EQUAL
from sweeper.images.measures import HIGHER_IS_CLOSER as PICTURES_CLOSER
from sweeper.images.media import FILMS, SOUNDS, read_sound
from sweeper.images.sound_and_text import SOUND_METRICS, TEXT_METRICS, sound_measures, sound_mismatch, text_ratio
from sweeper.regression.thresholds import Bound, broken

Tier = Literal["bytes", "pixels", "within", "beyond", "size", "channels", "frames", "rate", "length", "unlike"]

# Told of every picture that differs, whatever the checks ask for: how much, and whether here or everywhere.
TOLD: Final = ("mae", "differing", "windowed")

HIGHER_IS_CLOSER: Final = (*PICTURES_CLOSER, "sound_snr", "text_ratio")

PICTURES: Final = frozenset(("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "apng"))
TEXTS: Final = frozenset(("txt", "json", "csv", "md", "yaml", "srt", "vtt"))
_BATCH: Final = 16
_FARTHEST: Final = 256.0  # of a distance that no two pictures reach


@dataclass(frozen=True, slots=True)
class Match:
    """How a file relates to an accepted one: `tier`, the measures, and for people why they are not the same.

    `within` and `beyond` say whether the measures keep the bounds. `size`, `channels`, `frames` (their number), `rate`
    and `length` say in what two files differ that nothing can be measured; `unlike` is a file of a kind that has no
    measure, or one without the sound that the other has.
    """

    tier: Tier
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def passes(self) -> bool:
        return self.tier in ("bytes", "pixels", "within")

    @property
    def comparable(self) -> bool:
        """Whether the two can be laid over each other, however much they differ."""
        return self.passes or self.tier == "beyond"


@dataclass(frozen=True, slots=True)
class Question:
    """A file to be held against those accepted for its case. `url`: where it lies, if not at `now`; `sha256` is its
    bytes'. `pixels` are the decoded pixels of each accepted one, None for what is no picture.
    """

    now: Path
    sha256: str
    url: str | None
    accepted: tuple[Path, ...]
    pixels: tuple[str | None, ...]
    bounds: Mapping[str, Bound]


# Which accepted file is met or the nearest, and how the file relates to it; or why that cannot be said.
Answer = tuple[int, Match] | ImageError
Answering = Callable[[Sequence[Question]], Sequence[Answer]]


def match(accepted: Path, now: Path, bounds: Mapping[str, Bound], *, told: Iterable[str] = TOLD) -> Match:
    """Hold one file against one accepted. `told`: what is measured of pictures beside the measures of the bounds.

    Raises ImageError where one of them cannot be read.
    """
    kind = now.suffix[1:].lower()
    if kind in PICTURES or kind in FILMS:
        found = _match_pictures(accepted, now, _about(ALL_METRICS, bounds), told)
        if kind not in FILMS or found.tier == "bytes" or not found.passes:
            return found
        heard = _match_sounds(accepted, now, _about(SOUND_METRICS, bounds))
        both = {**found.metrics, **heard.metrics}
        return Match(found.tier if heard.tier == "pixels" else heard.tier, both, heard.reason)
    if same_bytes(accepted, now):
        return Match("bytes")
    if kind in TEXTS:
        return _match_texts(accepted, now, _about(TEXT_METRICS, bounds))
    if kind in SOUNDS:
        return _match_sounds(accepted, now, _about(SOUND_METRICS, bounds))
    return Match("unlike", {}, f"bytes differ, and a .{kind} file has no measure")


def equal_metrics(bounds: Mapping[str, Bound]) -> dict[str, float]:
    """What `match` says of a picture that has the accepted one's bytes."""
    return {name: EQUAL[name] for name in dict.fromkeys((*bounds, *TOLD)) if name in EQUAL}


def _about(measures: Iterable[str], bounds: Mapping[str, Bound]) -> dict[str, Bound]:
    return {name: bounds[name] for name in measures if name in bounds}


def _match_pictures(accepted: Path, now: Path, bounds: Mapping[str, Bound], told: Iterable[str]) -> Match:
    names = tuple(dict.fromkeys((*bounds, *told)))
    found = compare_files(accepted, now, metrics=names)
    if found.state == "same_bytes":
        return Match("bytes", found.metrics)
    if found.state == "same_pixels":
        return Match("pixels", found.metrics)
    if found.state != "measured":
        return Match(found.state, {}, f"{found.state}: {_short(found.reason, accepted, now)}")
    share = found.metrics["differing"]
    return _held(
        found.metrics, bounds,
        f"pixels differ: {share:.2%} of them, by {found.metrics['mae']:.3g} of 255 on average over all",
    )  # fmt: skip


def _held(metrics: Mapping[str, float], bounds: Mapping[str, Bound], unbound: str) -> Match:
    """Whether measures keep the bounds; without any, that they are not those of equal files is enough (`unbound`)."""
    if not bounds:
        return Match("beyond", metrics, unbound)
    missed = broken(bounds, metrics)
    said = ", ".join(f"{name} {metrics[name]:.4g}, not {bound}" for name, bound in missed.items())
    return Match("beyond" if missed else "within", metrics, said)


def _match_texts(accepted: Path, now: Path, bounds: Mapping[str, Bound]) -> Match:
    one, other = (path.read_text("utf-8", "replace") for path in (accepted, now))
    if one.splitlines() == other.splitlines():
        return Match("pixels", {"text_ratio": 1.0})
    ratio = text_ratio(one, other)
    return _held({"text_ratio": ratio}, bounds, f"text differs; {ratio:.1%} of it is the same")


def _match_sounds(accepted: Path, now: Path, bounds: Mapping[str, Bound]) -> Match:
    one, other = read_sound(accepted), read_sound(now)
    if one is None or other is None:
        silent = ["the accepted film has no sound"] if one is None else []
        silent += ["today's film has no sound"] if other is None else []
        return Match("pixels") if len(silent) == 2 else Match("unlike", {}, silent[0])
    mismatch = sound_mismatch(one, other)
    if mismatch is not None:
        state, reason = mismatch
        return Match(state, {}, f"{state}: {reason}")
    metrics = sound_measures(one, other)
    if metrics["sound_max"] == 0:
        return Match("pixels", metrics)
    return _held(
        metrics, bounds,
        f"sound differs: by {metrics['sound_max']:.3g} of full scale at most, {metrics['sound_snr']:.1f} dB below it",
    )  # fmt: skip


def best_match(accepted: Iterable[Path], now: Path, bounds: Mapping[str, Bound]) -> tuple[int, Match]:
    """The accepted file that is met, or else the nearest: its place and how `now` relates to it."""
    best: tuple[int, Match] | None = None
    for place, path in enumerate(accepted):
        found = match(path, now, bounds)
        if found.passes:
            return place, found
        if best is None or distance(found.metrics) < distance(best[1].metrics):
            best = place, found
    assert best is not None, "a case has an accepted picture"
    return best


def answered(question: Question) -> Answer:
    """The answer by looking at the files, which are here."""
    try:
        return best_match(question.accepted, question.now, question.bounds)
    except ImageError as error:
        return error


def distance(metrics: Mapping[str, float]) -> float:
    """How far apart two files are, 0-255, whatever their kind; more where nothing of them could be measured."""
    if "mae" in metrics or "sound_mae" in metrics:
        return max(metrics.get("mae", 0.0), 127.5 * metrics.get("sound_mae", 0.0))
    return 255.0 * (1.0 - metrics["text_ratio"]) if "text_ratio" in metrics else _FARTHEST


def _short(reason: str, *paths: Path) -> str:
    for path, name in zip(paths, ("the accepted picture", "today's"), strict=True):
        reason = reason.replace(str(path), name)
    return reason


def side_by_side(work: Any, items: Iterable[Any]) -> list[Any]:
    """`work` of every item, in order, on all cores: decoding and NumPy let go of the interpreter. Memory holds one
    pair of pictures for each core, not the suite.
    """
    waiting, cores = list(items), os.cpu_count() or 1
    # Several at a time: handing one over takes as long as comparing two small files. Few, that no core is left with
    # the last of the costly ones.
    size = max(1, min(_BATCH, len(waiting) // (8 * cores)))
    batches = [waiting[at : at + size] for at in range(0, len(waiting), size)]
    with ThreadPoolExecutor(cores, thread_name_prefix="sweeper-compare") as pool:
        return [one for found in pool.map(lambda batch: [work(item) for item in batch], batches) for one in found]
