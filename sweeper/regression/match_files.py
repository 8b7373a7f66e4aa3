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
from sweeper.images.compare import ALL_METRICS, compare_files, has_same_bytes
from sweeper.images.measures import EQUAL_VALUES
from sweeper.images.measures import HIGHER_IS_CLOSER as PICTURES_CLOSER
from sweeper.images.media import FILM_TYPES, SOUND_TYPES, read_sound
from sweeper.images.sound_and_text import SOUND_METRICS, TEXT_METRICS, find_sound_mismatch, measure_sound, text_ratio
from sweeper.regression.thresholds import Threshold, find_violations

Tier = Literal["bytes", "pixels", "within", "beyond", "size", "channels", "frames", "rate", "length", "unlike"]

# Told of every picture that differs, whatever the checks ask for: how much, and whether here or everywhere.
ALWAYS_REPORTED: Final = ("mae", "differing", "windowed")

HIGHER_IS_CLOSER: Final = (*PICTURES_CLOSER, "sound_snr", "text_ratio")

PICTURE_TYPES: Final = frozenset(("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "apng"))
TEXT_TYPES: Final = frozenset(("txt", "json", "csv", "md", "yaml", "srt", "vtt"))
_BATCH: Final = 16
_MAX_DISTANCE: Final = 256.0  # of a distance that no two pictures reach


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
class CompareTask:
    """A file to be held against those accepted for its case. `url`: where it lies, if not at `now`; `sha256` is its
    bytes'. `pixels` are the decoded pixels of each accepted one, None for what is no picture.
    """

    now: Path
    sha256: str
    url: str | None
    accepted: tuple[Path, ...]
    pixel_hashes: tuple[str | None, ...]
    thresholds: Mapping[str, Threshold]


# Which accepted file is met or the nearest, and how the file relates to it; or why that cannot be said.
CompareResult = tuple[int, Match] | ImageError
CompareFunction = Callable[[Sequence[CompareTask]], Sequence[CompareResult]]


def match_files(
    accepted: Path, now: Path, thresholds: Mapping[str, Threshold], *, reported: Iterable[str] = ALWAYS_REPORTED
) -> Match:
    """Hold one file against one accepted. `told`: what is measured of pictures beside the measures of the bounds.

    Raises ImageError where one of them cannot be read.
    """
    kind = now.suffix[1:].lower()
    if kind in PICTURE_TYPES or kind in FILM_TYPES:
        found = _match_pictures(accepted, now, _select_thresholds(ALL_METRICS, thresholds), reported)
        if kind not in FILM_TYPES or found.tier == "bytes" or not found.passes:
            return found
        heard = _match_sounds(accepted, now, _select_thresholds(SOUND_METRICS, thresholds))
        both = {**found.metrics, **heard.metrics}
        return Match(found.tier if heard.tier == "pixels" else heard.tier, both, heard.reason)
    if has_same_bytes(accepted, now):
        return Match("bytes")
    if kind in TEXT_TYPES:
        return _match_texts(accepted, now, _select_thresholds(TEXT_METRICS, thresholds))
    if kind in SOUND_TYPES:
        return _match_sounds(accepted, now, _select_thresholds(SOUND_METRICS, thresholds))
    return Match("unlike", {}, f"bytes differ, and a .{kind} file has no measure")


def equal_metrics(thresholds: Mapping[str, Threshold]) -> dict[str, float]:
    """What `match` says of a picture that has the accepted one's bytes."""
    return {name: EQUAL_VALUES[name] for name in dict.fromkeys((*thresholds, *ALWAYS_REPORTED)) if name in EQUAL_VALUES}


def _select_thresholds(measures: Iterable[str], thresholds: Mapping[str, Threshold]) -> dict[str, Threshold]:
    return {name: thresholds[name] for name in measures if name in thresholds}


def _match_pictures(accepted: Path, now: Path, thresholds: Mapping[str, Threshold], reported: Iterable[str]) -> Match:
    names = tuple(dict.fromkeys((*thresholds, *reported)))
    found = compare_files(accepted, now, metrics=names)
    if found.state == "same_bytes":
        return Match("bytes", found.metrics)
    if found.state == "same_pixels":
        return Match("pixels", found.metrics)
    if found.state != "measured":
        return Match(found.state, {}, f"{found.state}: {_shorten_paths(found.reason, accepted, now)}")
    share = found.metrics["differing"]
    return _judge(
        found.metrics, thresholds,
        f"pixels differ: {share:.2%} of them, by {found.metrics['mae']:.3g} of 255 on average over all",
    )  # fmt: skip


def _judge(metrics: Mapping[str, float], thresholds: Mapping[str, Threshold], reason: str) -> Match:
    """Whether measures keep the bounds; without any, that they are not those of equal files is enough (`unbound`)."""
    if not thresholds:
        return Match("beyond", metrics, reason)
    missed = find_violations(thresholds, metrics)
    said = ", ".join(f"{name} {metrics[name]:.4g}, not {bound}" for name, bound in missed.items())
    return Match("beyond" if missed else "within", metrics, said)


def _match_texts(accepted: Path, now: Path, thresholds: Mapping[str, Threshold]) -> Match:
    one, other = (path.read_text("utf-8", "replace") for path in (accepted, now))
    if one.splitlines() == other.splitlines():
        return Match("pixels", {"text_ratio": 1.0})
    ratio = text_ratio(one, other)
    return _judge({"text_ratio": ratio}, thresholds, f"text differs; {ratio:.1%} of it is the same")


def _match_sounds(accepted: Path, now: Path, thresholds: Mapping[str, Threshold]) -> Match:
    one, other = read_sound(accepted), read_sound(now)
    if one is None or other is None:
        silent = ["the accepted film has no sound"] if one is None else []
        silent += ["today's film has no sound"] if other is None else []
        return Match("pixels") if len(silent) == 2 else Match("unlike", {}, silent[0])
    mismatch = find_sound_mismatch(one, other)
    if mismatch is not None:
        state, reason = mismatch
        return Match(state, {}, f"{state}: {reason}")
    metrics = measure_sound(one, other)
    if metrics["sound_max"] == 0:
        return Match("pixels", metrics)
    return _judge(
        metrics, thresholds,
        f"sound differs: by {metrics['sound_max']:.3g} of full scale at most, {metrics['sound_snr']:.1f} dB below it",
    )  # fmt: skip


def find_best_match(accepted: Iterable[Path], now: Path, thresholds: Mapping[str, Threshold]) -> tuple[int, Match]:
    """The accepted file that is met, or else the nearest: its place and how `now` relates to it."""
    best: tuple[int, Match] | None = None
    for place, path in enumerate(accepted):
        found = match_files(path, now, thresholds)
        if found.passes:
            return place, found
        if best is None or distance(found.metrics) < distance(best[1].metrics):
            best = place, found
    assert best is not None, "a case has an accepted picture"
    return best


def compare_task(task: CompareTask) -> CompareResult:
    """The answer by looking at the files, which are here."""
    try:
        return find_best_match(task.accepted, task.now, task.thresholds)
    except ImageError as error:
        return error


def distance(metrics: Mapping[str, float]) -> float:
    """How far apart two files are, 0-255, whatever their kind; more where nothing of them could be measured."""
    if "mae" in metrics or "sound_mae" in metrics:
        return max(metrics.get("mae", 0.0), 127.5 * metrics.get("sound_mae", 0.0))
    return 255.0 * (1.0 - metrics["text_ratio"]) if "text_ratio" in metrics else _MAX_DISTANCE


def _shorten_paths(reason: str, *paths: Path) -> str:
    for path, name in zip(paths, ("the accepted picture", "today's"), strict=True):
        reason = reason.replace(str(path), name)
    return reason


def map_parallel(work: Any, items: Iterable[Any]) -> list[Any]:
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
