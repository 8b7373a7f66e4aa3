"""Compare two files of any type in steps: by bytes, by content, then by measures.

Pictures and films are compared frame by frame, sounds (also those of films) sample by sample, and texts line by line.
Of any other file only the bytes are compared. Each type has its own measures, and only their thresholds apply to it: a
text without a threshold for texts must be equal.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar

from sweeper.errors import ExperimentError, Problem, UsageError
from sweeper.images.compare import ALL_METRICS, compare_bytes, compare_files
from sweeper.images.measures import EQUAL_VALUES
from sweeper.images.measures import HIGHER_IS_CLOSER as PICTURES_CLOSER
from sweeper.images.media import SOUND_METRICS, TEXT_METRICS, find_sound_mismatch, measure_sound, read_sound, text_ratio
from sweeper.images.neural import MODELS, find_model
from sweeper.model.experiment import Experiment
from sweeper.model.picture_size import FILM_TYPES, PICTURE_TYPES, SOUND_TYPES, TEXT_TYPES
from sweeper.planning.grid import map_axis_columns
from sweeper.regression.cases import Condition

Item = TypeVar("Item")
Mapped = TypeVar("Mapped")
Tier: TypeAlias = Literal[
    "bytes", "pixels", "within", "beyond", "size", "channels", "frames", "rate", "length", "unlike"
]

OVERRIDES: Final = "overrides"
MEASURE_NAMES: Final = (*ALL_METRICS, *SOUND_METRICS, *TEXT_METRICS)
_THRESHOLD: Final = re.compile(r"(>=|<=|>|<|==) *(-?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)")
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Threshold:
    """A condition on the value of a measure, such as `>= 0.95`."""

    sign: str
    number: float

    def is_met_by(self, value: float) -> bool:
        return _OPERATORS[self.sign](value, self.number)

    def __str__(self) -> str:
        return f"{self.sign} {self.number:.6g}"


Thresholds: TypeAlias = Mapping[str, Threshold]  # by measure


def parse_threshold(text: str) -> Threshold:
    """Parse a threshold as an experiment has it. Raises UsageError for anything else."""
    match = _THRESHOLD.fullmatch(text.strip())
    if match is None:
        raise UsageError(f'{text!r} is not a threshold; write one of >= <= > < == and a number, such as ">= 0.95"')
    return Threshold(match[1], float(match[2]))


@dataclass(frozen=True, slots=True)
class Checks:
    """The thresholds of every case, and overrides for the trials for which a condition is true.

    If several conditions are true, the last one wins. Without any threshold the pixels must be identical.
    """

    thresholds: Thresholds
    overrides: tuple[tuple[Condition, Thresholds], ...] = ()

    def thresholds_for(self, params: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, Threshold]:
        """The thresholds for a trial. Raises UsageError if a condition cannot be computed for it."""
        merged = dict(self.thresholds)
        for condition, thresholds in self.overrides:
            if condition(params, cells):
                merged |= thresholds
        return merged


NO_CHECKS: Final = Checks({})


def parse_checks(experiment: Experiment) -> Checks:
    """Parse the experiment's `checks`. Raises what `check_models` raises."""
    check_models(experiment)
    names = (*experiment.template.slots, *map_axis_columns(experiment))
    overrides = [
        (Condition(entry["where"], names), _parse_thresholds(entry)) for entry in experiment.checks.get(OVERRIDES, ())
    ]
    return Checks(_parse_thresholds(experiment.checks), tuple(overrides))


def check_models(experiment: Experiment) -> None:
    """Raise ExperimentError for each measure in `checks` whose model cannot be used on this machine."""
    problems: list[Problem] = []
    entries: dict[tuple[str | int, ...], Mapping[str, Any]] = {("checks",): experiment.checks}
    for index, entry in enumerate(experiment.checks.get(OVERRIDES, ())):
        entries["checks", OVERRIDES, index] = entry
    for path, entry in entries.items():
        for name in MODELS.keys() & entry.keys():
            try:
                find_model(name)
            except UsageError as error:
                problems += experiment.make_error((*path, name), str(error)).problems
    if problems:
        raise ExperimentError(problems)


def _parse_thresholds(entry: Mapping[str, Any]) -> dict[str, Threshold]:
    return {name: parse_threshold(text) for name, text in entry.items() if name not in (OVERRIDES, "where")}


def find_violations(thresholds: Thresholds, metrics: Mapping[str, float]) -> dict[str, Threshold]:
    """The thresholds that these metrics do not meet."""
    return {name: threshold for name, threshold in thresholds.items() if not threshold.is_met_by(metrics[name])}


# Measured for every picture that differs: how much, how many pixels, and whether they are in one spot.
ALWAYS_REPORTED: Final = ("mae", "differing", "windowed")

HIGHER_IS_CLOSER: Final = (*PICTURES_CLOSER, "sound_snr", "text_ratio")
DECIBELS: Final = ("psnr", "sound_snr")
_MAX_DRIFT: Final = 1.0  # the mean difference, 0-255, above which no tolerance is proposed: it is another picture

_BATCH: Final = 16
_MAX_DISTANCE: Final = 256.0  # more than the distance of any two pictures


@dataclass(frozen=True, slots=True)
class Match:
    """How a file relates to an accepted one: the step that decided it, the measures, and an explanation for people.

    `tier` is `bytes` or `pixels` (equal), `within` or `beyond` (the thresholds), or why nothing can be measured:
    `size`, `channels`, `frames` (their number), `rate` or `length` differ, or the files are `unlike`, which means that
    the type has no measure or that only one of them has sound.
    """

    tier: Tier
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def passes(self) -> bool:
        return self.tier in ("bytes", "pixels", "within")

    @property
    def comparable(self) -> bool:
        """Whether the two files could be measured, however much they differ."""
        return self.passes or self.tier == "beyond"


def match_files(
    accepted: Path, now: Path, thresholds: Thresholds, *, reported: Iterable[str] = ALWAYS_REPORTED
) -> Match:
    """Compare a file with one accepted file.

    `reported` names measures of pictures to compute besides those that have a threshold. Raises ImageError if a file
    cannot be read.
    """
    file_type = now.suffix[1:].lower()
    if file_type in PICTURE_TYPES:
        return _match_pictures(accepted, now, _select_thresholds(ALL_METRICS, thresholds), reported)
    if file_type in FILM_TYPES:
        frames = _match_pictures(accepted, now, _select_thresholds(ALL_METRICS, thresholds), reported)
        if frames.tier == "bytes" or not frames.passes:
            return frames
        sound = _match_sounds(accepted, now, _select_thresholds(SOUND_METRICS, thresholds))
        metrics = {**frames.metrics, **sound.metrics}
        return Match(frames.tier if sound.tier == "pixels" else sound.tier, metrics, sound.reason)
    if compare_bytes(accepted, now).equal:
        return Match("bytes")
    if file_type in TEXT_TYPES:
        return _match_texts(accepted, now, _select_thresholds(TEXT_METRICS, thresholds))
    if file_type in SOUND_TYPES:
        return _match_sounds(accepted, now, _select_thresholds(SOUND_METRICS, thresholds))
    return Match("unlike", {}, f"bytes differ, and .{file_type} files have no measure")


@lru_cache  # many cases share the measures
def equal_metrics(measures: tuple[str, ...]) -> Mapping[str, float]:
    """The metrics of two pictures with equal bytes, for these measures and those that are always reported."""
    return {name: EQUAL_VALUES[name] for name in dict.fromkeys((*measures, *ALWAYS_REPORTED)) if name in EQUAL_VALUES}


def _select_thresholds(measures: Iterable[str], thresholds: Thresholds) -> dict[str, Threshold]:
    return {name: thresholds[name] for name in measures if name in thresholds}


def _match_pictures(accepted: Path, now: Path, thresholds: Thresholds, reported: Iterable[str]) -> Match:
    comparison = compare_files(accepted, now, metrics=tuple(dict.fromkeys((*thresholds, *reported))))
    metrics = comparison.metrics
    if comparison.state == "same_bytes":
        return Match("bytes", metrics)
    if comparison.state == "same_pixels":
        return Match("pixels", metrics)
    if comparison.state != "measured":
        reason = comparison.reason.replace(str(accepted), "the accepted picture").replace(str(now), "today's")
        return Match(comparison.state, {}, f"{comparison.state}: {reason}")
    amount = f"{metrics['differing']:.2%} of them, by {metrics['mae']:.3g} of 255 on average over all"
    return _judge(metrics, thresholds, f"pixels differ: {amount}")


def _judge(metrics: Mapping[str, float], thresholds: Thresholds, difference: str) -> Match:
    """Test metrics of files that are not equal. Without thresholds they fail, with `difference` as the reason."""
    if not thresholds:
        return Match("beyond", metrics, difference)
    violations = find_violations(thresholds, metrics)
    reason = ", ".join(f"{name} {metrics[name]:.4g}, not {threshold}" for name, threshold in violations.items())
    return Match("beyond" if violations else "within", metrics, reason)


def _match_texts(accepted: Path, now: Path, thresholds: Thresholds) -> Match:
    old, new = (path.read_text("utf-8", "replace") for path in (accepted, now))
    if old.splitlines() == new.splitlines():
        return Match("pixels", {"text_ratio": 1.0})
    ratio = text_ratio(old, new)
    return _judge({"text_ratio": ratio}, thresholds, f"text differs; {ratio:.1%} of it is the same")


def _match_sounds(accepted: Path, now: Path, thresholds: Thresholds) -> Match:
    old, new = read_sound(accepted), read_sound(now)
    if old is None and new is None:
        return Match("pixels")
    if old is None:
        return Match("unlike", {}, "the accepted film has no sound")
    if new is None:
        return Match("unlike", {}, "today's film has no sound")
    mismatch = find_sound_mismatch(old, new)
    if mismatch is not None:
        state, reason = mismatch
        return Match(state, {}, f"{state}: {reason}")
    metrics = measure_sound(old, new)
    if metrics["sound_max"] == 0:
        return Match("pixels", metrics)
    amount = f"by {metrics['sound_max']:.3g} of full scale at most, {metrics['sound_snr']:.1f} dB below it"
    return _judge(metrics, thresholds, f"sound differs: {amount}")


def find_best_match(accepted: Iterable[Path], now: Path, thresholds: Thresholds) -> tuple[int, Match]:
    """The first accepted file that matches, or else the nearest: its index, and how `now` relates to it."""
    best: tuple[int, Match] | None = None
    for index, path in enumerate(accepted):
        match = match_files(path, now, thresholds)
        if match.passes:
            return index, match
        if best is None or distance(match.metrics) < distance(best[1].metrics):
            best = index, match
    assert best is not None, "a case has an accepted file"
    return best


def distance(metrics: Mapping[str, float]) -> float:
    """How different two files of any type are, 0-255, or more if nothing could be measured."""
    if "mae" in metrics or "sound_mae" in metrics:
        return max(metrics.get("mae", 0.0), 127.5 * metrics.get("sound_mae", 0.0))
    return 255.0 * (1.0 - metrics["text_ratio"]) if "text_ratio" in metrics else _MAX_DISTANCE


def propose_tolerance(match: Match, thresholds: Thresholds) -> dict[str, Threshold]:
    """The thresholds that would allow a small drift, in place of those that it violates; empty if it is not small."""
    metrics = match.metrics
    if match.tier != "beyond" or distance(metrics) > _MAX_DRIFT:
        return {}
    applied = {name: threshold for name, threshold in thresholds.items() if name in metrics}
    names = find_violations(applied, metrics) or {"mae", "windowed", "sound_mae", "text_ratio"} & metrics.keys()
    return {name: propose_threshold(name, metrics[name]) for name in sorted(names)}


def propose_threshold(measure: str, worst: float, margin: float = 1.0) -> Threshold:
    """A threshold that allows `margin` times the worst noise, rounded to three digits in the looser direction."""
    if measure in DECIBELS:
        return Threshold(">=", math.floor((worst - 20 * math.log10(margin)) * 10) / 10)
    if measure in HIGHER_IS_CLOSER:
        return Threshold(">=", math.floor((1 - _round_up(margin * (1 - worst))) * 1e6) / 1e6)
    return Threshold("<=", float(f"{_round_up(margin * worst):.6g}"))


def pick_loosest(measure: str, thresholds: Iterable[Threshold]) -> Threshold:
    """The one of some thresholds of a measure that allows most."""
    pick = min if measure in HIGHER_IS_CLOSER else max
    return pick(thresholds, key=lambda threshold: threshold.number)


def _round_up(value: float) -> float:
    """Round up to three significant digits."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step) * step


def map_parallel(function: Callable[[Item], Mapped], items: Iterable[Item]) -> list[Mapped]:
    """Call `function` for every item, on all cores, and return the results in order.

    Threads suffice, because decoding and NumPy release the interpreter lock. Memory holds one pair of pictures for each
    core, not all of them.
    """
    all_items, cores = list(items), os.cpu_count() or 1
    # Batches, because passing an item to a thread takes as long as comparing two small files. But small ones, so that
    # no core is left alone with the last expensive items.
    size = max(1, min(_BATCH, len(all_items) // (8 * cores)))
    batches = [all_items[start : start + size] for start in range(0, len(all_items), size)]
    with ThreadPoolExecutor(cores, thread_name_prefix="sweeper-compare") as pool:
        results = pool.map(lambda batch: [function(item) for item in batch], batches)
        return [result for batch in results for result in batch]
