"""Propose `checks` from measured noise: one set of thresholds for all cases, or `overrides` by an axis.

A threshold that allows the noisiest case may miss changes of the others. If the noisy cases have other values of one
axis than the stable cases, each such value gets an override with looser thresholds. The other values keep tight ones,
or identical pixels if they showed no noise at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from sweeper.answers.render import NOT_IN_JSON, json_keys, json_name
from sweeper.errors import UsageError
from sweeper.model.workflow import encode_canonical
from sweeper.regression.cases import Case, Condition
from sweeper.regression.match_files import HIGHER_IS_CLOSER
from sweeper.regression.thresholds import OVERRIDES, Threshold, Thresholds

_MAX_RATIO: Final = 3.0  # noise that differs by a greater factor needs separate thresholds
_MAX_OVERRIDES: Final = 20  # people would not read more


@dataclass(frozen=True, slots=True)
class MeasureNoise:
    """The noise of one case by one measure.

    `mean` and `worst` are over all pairs of its repeats. `effect` is the smallest difference to a neighbouring case in
    the sweep (None without neighbours). `threshold`, in JSON `bound`, allows the noise with a margin. It is None, with
    a `reason`, if it would also accept a neighbour's picture.
    """

    measure: str = field(metadata=NOT_IN_JSON)
    mean: float
    worst: float
    effect: float | None
    threshold: Threshold | None = field(metadata=json_keys(bound=lambda threshold: threshold and str(threshold)))
    reason: str = field(default="", metadata=NOT_IN_JSON)


@dataclass(frozen=True, slots=True)
class CaseNoise:
    """The noise of one case. In JSON, `case` is its name.

    `steady`: all `repeats` have identical pixels. `gated`: a check can distinguish a change of this case from its
    noise; if not, `reason` says why. `noise` is by measure.
    """

    case: Case = field(metadata=json_keys(case=attrgetter("name")))
    repeats: int
    stable: bool = field(metadata=json_name("steady"))
    is_checkable: bool = field(init=False, metadata=json_name("gated"))
    noise: tuple[MeasureNoise, ...] = field(
        metadata=json_keys(noise=lambda noise: {measured.measure: measured for measured in noise})
    )
    reason: str = ""

    def __post_init__(self) -> None:
        is_checkable = self.stable or any(measured.threshold is not None for measured in self.noise)
        object.__setattr__(self, "is_checkable", is_checkable)


def propose_checks(items: Sequence[CaseNoise]) -> dict[str, Any]:
    """The `checks` for an experiment whose cases have this noise, in the form of the experiment file.

    Empty if all cases are stable. Cases that no threshold can check are ignored.
    """
    usable = [case for case in items if case.is_checkable]
    if all(case.stable for case in usable):
        return {}
    single = _loosest_thresholds(usable)
    fits_all = bool(single) and not any(case.stable for case in usable) and _is_similar_noise(usable, single)
    if fits_all and not _find_undetectable(usable, single):
        return _to_text(single)
    splits = [split for axis in _list_axes(usable) if (split := _split_by_axis(axis, usable)) is not None]
    if not splits:
        return _to_text(single)
    best = min(splits, key=lambda split: (split.undetectable, len(split.overrides)))
    overrides = [{"where": where, **_to_text(thresholds)} for where, thresholds in best.overrides]
    return {**_to_text(best.base), OVERRIDES: overrides}


@dataclass(frozen=True, slots=True)
class _Split:
    """The thresholds of most cases, overrides for some values of an axis, and how many cases' changes they miss."""

    base: Thresholds
    overrides: tuple[tuple[str, Thresholds], ...]
    undetectable: int


def _list_axes(items: Sequence[CaseNoise]) -> list[str]:
    return list(dict.fromkeys(axis for item in items for axis in item.case.cells if axis.isidentifier()))


def _split_by_axis(axis: str, items: Sequence[CaseNoise]) -> _Split | None:
    """Divide the values of an axis into quiet ones with common thresholds and loud ones with overrides.

    None if that does not help.
    """
    groups: dict[bytes, list[CaseNoise]] = {}
    for item in items:
        groups.setdefault(encode_canonical(item.case.cells.get(axis)), []).append(item)
    noise_levels = {key: _noise_level(group) for key, group in groups.items()}
    lowest = min(noise_levels.values())
    quiet = {key for key, level in noise_levels.items() if level <= _MAX_RATIO * lowest}
    if len(quiet) == len(groups) or len(groups) - len(quiet) > _MAX_OVERRIDES:
        return None
    quiet_cases = [case for key in quiet for case in groups[key]]
    loud = {key: _loosest_thresholds(group) for key, group in groups.items() if key not in quiet}
    # An override can replace thresholds but not remove them. So the base has only measures that every override has.
    base = {
        name: threshold
        for name, threshold in _loosest_thresholds(quiet_cases).items()
        if lowest > 0 and all(name in thresholds for thresholds in loud.values())
    }
    overrides = tuple((_condition_text(axis, groups[key]), thresholds) for key, thresholds in loud.items())
    if (lowest > 0 and not base) or not all(where and thresholds for where, thresholds in overrides):
        return None
    undetectable = len(_find_undetectable(quiet_cases, base)) + sum(
        len(_find_undetectable(groups[key], {**base, **thresholds})) for key, thresholds in loud.items()
    )
    return _Split(base, overrides, undetectable)


def _condition_text(axis: str, group: Sequence[CaseNoise]) -> str:
    """An expression that is true for the group's value of the axis; empty if there is none."""
    where = f"{axis} == {json.dumps(group[0].case.cells.get(axis), ensure_ascii=False)}"
    try:
        condition = Condition(where, group[0].case.cells, "where")
        return where if all(condition({}, item.case.cells) for item in group) else ""
    except UsageError:
        return ""


def _loosest_thresholds(items: Sequence[CaseNoise]) -> dict[str, Threshold]:
    """The loosest threshold for each measure that all unstable cases have."""
    thresholds_by_case = [
        {noise.measure: noise.threshold for noise in item.noise if noise.threshold} for item in items if not item.stable
    ]
    loosest: dict[str, Threshold] = {}
    for measure in thresholds_by_case[0] if thresholds_by_case else ():
        candidates = [thresholds[measure] for thresholds in thresholds_by_case if measure in thresholds]
        if len(candidates) == len(thresholds_by_case):
            pick = min if measure in HIGHER_IS_CLOSER else max
            loosest[measure] = pick(candidates, key=lambda threshold: threshold.number)
    return loosest


def _noise_level(items: Sequence[CaseNoise]) -> float:
    """The worst noise of these cases, by the first measure of each; 0 if all are stable."""
    return max((_error_size(noise.measure, noise.worst) for item in items for noise in item.noise[:1]), default=0.0)


def _error_size(measure: str, value: float) -> float:
    """A measure's value on a scale where 0 is equal and more is worse."""
    if measure in ("psnr", "sound_snr"):
        return math.pow(10.0, -value / 20.0)
    return 1.0 - value if measure in HIGHER_IS_CLOSER else value


def _is_similar_noise(items: Sequence[CaseNoise], thresholds: Thresholds) -> bool:
    """Whether these thresholds are not much looser than any case needs."""
    return all(
        _error_size(noise.measure, thresholds[noise.measure].number)
        <= _MAX_RATIO * _error_size(noise.measure, noise.threshold.number)
        for item in items
        for noise in item.noise
        if noise.threshold and noise.measure in thresholds
    )


def _find_undetectable(items: Sequence[CaseNoise], thresholds: Thresholds) -> list[CaseNoise]:
    """The unstable cases for which a neighbour's picture would pass all thresholds; none without thresholds."""
    return [
        item
        for item in items
        if thresholds
        and not item.stable
        and all(
            noise.effect is not None and thresholds[noise.measure].is_met_by(noise.effect)
            for noise in item.noise
            if noise.measure in thresholds
        )
    ]


def _to_text(thresholds: Thresholds) -> dict[str, str]:
    return {measure: str(threshold) for measure, threshold in thresholds.items()}
