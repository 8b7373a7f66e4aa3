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
from sweeper.model.workflow import encode
from sweeper.regression.cases import Condition
from sweeper.regression.match_files import HIGHER_IS_CLOSER
from sweeper.regression.thresholds import OVERRIDES, Bound

if TYPE_CHECKING:
    from sweeper.regression.noise import Calibrated

Bounds = Mapping[str, Bound]
_MUCH: Final = 3.0  # times: bounds that are farther apart are not thrown together
_MOST_VALUES: Final = 20  # overrides that somebody would still read


def proposed(items: Sequence[Calibrated]) -> dict[str, Any]:
    """`checks` for an experiment whose cases have this noise, in the words of its file; empty where every picture was
    the same every time. Cases that cannot be gated at all are left out of account.
    """
    usable = [one for one in items if one.gated]
    if all(one.steady for one in usable):
        return {}
    single = _loosest(usable)
    if single and not any(one.steady for one in usable) and _alike(usable, single) and not _blind(usable, single):
        return _written(single)
    splits = [split for axis in _axes(usable) if (split := _split(axis, usable)) is not None]
    if not splits:
        return _written(single)
    best = min(splits, key=lambda split: (split.blind, len(split.overrides)))
    overrides = [{"where": where, **_written(bounds)} for where, bounds in best.overrides]
    return {**_written(best.base), OVERRIDES: overrides}


@dataclass(frozen=True, slots=True)
class _Split:
    """Bounds of most cases, those of some values of an axis by condition, and how many cases neither can tell."""

    base: Bounds
    overrides: tuple[tuple[str, Bounds], ...]
    blind: int


def _axes(items: Sequence[Calibrated]) -> list[str]:
    return list(dict.fromkeys(axis for one in items for axis in one.case.cells if axis.isidentifier()))


def _split(axis: str, items: Sequence[Calibrated]) -> _Split | None:
    """The axis' values in two heaps, the quiet ones with one set of bounds; None where that would not help."""
    groups: dict[bytes, list[Calibrated]] = {}
    for one in items:
        groups.setdefault(encode(one.case.cells.get(axis)), []).append(one)
    loose = {key: _looseness(group) for key, group in groups.items()}
    least = min(loose.values())
    quiet = {key for key, much in loose.items() if much <= _MUCH * least}
    if len(quiet) == len(groups) or len(groups) - len(quiet) > _MOST_VALUES:
        return None
    rest = [one for key in quiet for one in groups[key]]
    loud = {key: _loosest(group) for key, group in groups.items() if key not in quiet}
    # An override replaces bounds and takes none away: the base has only measures for which each override has its own.
    shared = [name for name in _loosest(rest) if all(name in bounds for bounds in loud.values())]
    base = {name: _loosest(rest)[name] for name in shared} if least > 0 else {}
    overrides = tuple((_where(axis, groups[key]), bounds) for key, bounds in loud.items())
    if (least > 0 and not base) or not all(where and bounds for where, bounds in overrides):
        return None
    blind = len(_blind(rest, base)) + sum(len(_blind(groups[key], {**base, **bounds})) for key, bounds in loud.items())
    return _Split(base, overrides, blind)


def _where(axis: str, group: Sequence[Calibrated]) -> str:
    """An expression that is true for the group's value of the axis; empty where there is none."""
    where = f"{axis} == {json.dumps(group[0].case.cells.get(axis), ensure_ascii=False)}"
    try:
        test = Condition(where, group[0].case.cells, "where")
        return where if all(test({}, one.case.cells) for one in group) else ""
    except UsageError:
        return ""


def _loosest(items: Sequence[Calibrated]) -> dict[str, Bound]:
    """By measure the bound that allows the noise of each; only measures that serve all of them."""
    noisy = [{noise.measure: noise.bound for noise in one.noise if noise.bound} for one in items if not one.steady]
    found: dict[str, Bound] = {}
    for measure in noisy[0] if noisy else ():
        bounds = [bound for one in noisy if (bound := one.get(measure)) is not None]
        if len(bounds) == len(noisy):
            pick = min if measure in HIGHER_IS_CLOSER else max
            found[measure] = pick(bounds, key=lambda bound: bound.number)
    return found


def _looseness(items: Sequence[Calibrated]) -> float:
    """How far the noisiest of them goes, on the scale of its first measure with a bound; 0 for steady ones."""
    return max((_much(noise.measure, noise.worst) for one in items for noise in one.noise[:1]), default=0.0)


def _much(measure: str, value: float) -> float:
    if measure in ("psnr", "sound_snr"):
        return math.pow(10.0, -value / 20.0)
    return 1.0 - value if measure in HIGHER_IS_CLOSER else value


def _alike(items: Sequence[Calibrated], bounds: Bounds) -> bool:
    """Whether the loosest bound is not much looser than anybody's own."""
    return all(
        _much(noise.measure, bounds[noise.measure].number) <= _MUCH * _much(noise.measure, noise.bound.number)
        for one in items
        for noise in one.noise
        if noise.bound and noise.measure in bounds
    )


def _blind(items: Sequence[Calibrated], bounds: Bounds) -> list[Calibrated]:
    """The cases whose neighbours' pictures would pass all of these bounds; none without bounds: pixels tell."""
    return [
        one
        for one in items
        if bounds
        and not one.steady
        and all(
            noise.effect is not None and bounds[noise.measure].holds(noise.effect)
            for noise in one.noise
            if noise.measure in bounds
        )
    ]


def _written(bounds: Bounds) -> dict[str, str]:
    return {measure: str(bound) for measure, bound in bounds.items()}
