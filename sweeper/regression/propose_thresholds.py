"""From noise to `checks`: one set of bounds where it serves all cases, `overrides` by an axis where cases differ much.

A bound that allows the noisiest case may be blind for the others. Where the values of one axis tell the noisy cases
from the steady ones, each value that needs a looser bound gets an override, and the rest stays tight: held to identical
pixels, if it showed no noise at all. Nothing is measured here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import UsageError
from sweeper.model.workflow import encode_canonical
from sweeper.regression.cases import Condition
from sweeper.regression.match_files import HIGHER_IS_CLOSER
from sweeper.regression.thresholds import OVERRIDES, Threshold

if TYPE_CHECKING:
    from sweeper.regression.noise import CaseNoise

Thresholds = Mapping[str, Threshold]
_MAX_RATIO: Final = 3.0  # times: bounds that are farther apart are not thrown together
_MAX_OVERRIDES: Final = 20  # overrides that somebody would still read


def propose_checks(items: Sequence[CaseNoise]) -> dict[str, Any]:
    """`checks` for an experiment whose cases have this noise, in the words of its file; empty where every picture was
    the same every time. Cases that cannot be gated at all are left out of account.
    """
    usable = [one for one in items if one.is_checkable]
    if all(one.stable for one in usable):
        return {}
    single = _loosest_thresholds(usable)
    if (
        single
        and not any(one.stable for one in usable)
        and _is_similar_noise(usable, single)
        and not _find_undetectable(usable, single)
    ):
        return _to_text(single)
    splits = [split for axis in _list_axes(usable) if (split := _split_by_axis(axis, usable)) is not None]
    if not splits:
        return _to_text(single)
    best = min(splits, key=lambda split: (split.undetectable, len(split.overrides)))
    overrides = [{"where": where, **_to_text(bounds)} for where, bounds in best.overrides]
    return {**_to_text(best.base), OVERRIDES: overrides}


@dataclass(frozen=True, slots=True)
class _Split:
    """Bounds of most cases, those of some values of an axis by condition, and how many cases neither can tell."""

    base: Thresholds
    overrides: tuple[tuple[str, Thresholds], ...]
    undetectable: int


def _list_axes(items: Sequence[CaseNoise]) -> list[str]:
    return list(dict.fromkeys(axis for one in items for axis in one.case.cells if axis.isidentifier()))


def _split_by_axis(axis: str, items: Sequence[CaseNoise]) -> _Split | None:
    """The axis' values in two heaps, the quiet ones with one set of bounds; None where that would not help."""
    groups: dict[bytes, list[CaseNoise]] = {}
    for one in items:
        groups.setdefault(encode_canonical(one.case.cells.get(axis)), []).append(one)
    loose = {key: _looseness(group) for key, group in groups.items()}
    least = min(loose.values())
    quiet = {key for key, much in loose.items() if much <= _MAX_RATIO * least}
    if len(quiet) == len(groups) or len(groups) - len(quiet) > _MAX_OVERRIDES:
        return None
    rest = [one for key in quiet for one in groups[key]]
    loud = {key: _loosest_thresholds(group) for key, group in groups.items() if key not in quiet}
    # An override replaces bounds and takes none away: the base has only measures for which each override has its own.
    shared = [name for name in _loosest_thresholds(rest) if all(name in bounds for bounds in loud.values())]
    base = {name: _loosest_thresholds(rest)[name] for name in shared} if least > 0 else {}
    overrides = tuple((_condition_text(axis, groups[key]), bounds) for key, bounds in loud.items())
    if (least > 0 and not base) or not all(where and bounds for where, bounds in overrides):
        return None
    blind = len(_find_undetectable(rest, base)) + sum(
        len(_find_undetectable(groups[key], {**base, **bounds})) for key, bounds in loud.items()
    )
    return _Split(base, overrides, blind)


def _condition_text(axis: str, group: Sequence[CaseNoise]) -> str:
    """An expression that is true for the group's value of the axis; empty where there is none."""
    where = f"{axis} == {json.dumps(group[0].case.cells.get(axis), ensure_ascii=False)}"
    try:
        test = Condition(where, group[0].case.cells, "where")
        return where if all(test({}, one.case.cells) for one in group) else ""
    except UsageError:
        return ""


def _loosest_thresholds(items: Sequence[CaseNoise]) -> dict[str, Threshold]:
    """By measure the bound that allows the noise of each; only measures that serve all of them."""
    noisy = [
        {noise.measure: noise.threshold for noise in one.noise if noise.threshold} for one in items if not one.stable
    ]
    found: dict[str, Threshold] = {}
    for measure in noisy[0] if noisy else ():
        bounds = [bound for one in noisy if (bound := one.get(measure)) is not None]
        if len(bounds) == len(noisy):
            pick = min if measure in HIGHER_IS_CLOSER else max
            found[measure] = pick(bounds, key=lambda bound: bound.number)
    return found


def _looseness(items: Sequence[CaseNoise]) -> float:
    """How far the noisiest of them goes, on the scale of its first measure with a bound; 0 for steady ones."""
    return max((_error_size(noise.measure, noise.worst) for one in items for noise in one.noise[:1]), default=0.0)


def _error_size(measure: str, value: float) -> float:
    if measure in ("psnr", "sound_snr"):
        return math.pow(10.0, -value / 20.0)
    return 1.0 - value if measure in HIGHER_IS_CLOSER else value


def _is_similar_noise(items: Sequence[CaseNoise], thresholds: Thresholds) -> bool:
    """Whether the loosest bound is not much looser than anybody's own."""
    return all(
        _error_size(noise.measure, thresholds[noise.measure].number)
        <= _MAX_RATIO * _error_size(noise.measure, noise.threshold.number)
        for one in items
        for noise in one.noise
        if noise.threshold and noise.measure in thresholds
    )


def _find_undetectable(items: Sequence[CaseNoise], thresholds: Thresholds) -> list[CaseNoise]:
    """The cases whose neighbours' pictures would pass all of these bounds; none without bounds: pixels tell."""
    return [
        one
        for one in items
        if thresholds
        and not one.stable
        and all(
            noise.effect is not None and thresholds[noise.measure].is_met_by(noise.effect)
            for noise in one.noise
            if noise.measure in thresholds
        )
    ]


def _to_text(thresholds: Thresholds) -> dict[str, str]:
    return {measure: str(bound) for measure, bound in thresholds.items()}
