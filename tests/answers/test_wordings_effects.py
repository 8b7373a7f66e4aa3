"""The answer of `sweeper effects` keeps its approved words."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from sweeper.statistics.paired import ValueComparison
from sweeper.statistics.variance_shares import AxisShare
from sweeper.tables.effect_answer import AxisEffect, EffectsAnswer, MetricEffects, Trend
from sweeper.tables.effect_axes import EffectAxes, EffectAxis
from tests.answers.approved import check_approved

NO_CODES = np.array([], dtype=np.int64)
STEPS = EffectAxis(("steps",), ((4,), (8,), (16,)), (), NO_CODES)
SIZE = EffectAxis(("width", "height"), ((64, 96), (128, 192)), (), NO_CODES)
SEED = EffectAxis(("seed",), ((1,), (2,), (3,)), (), NO_CODES, is_replicate=True)
PROMPT = EffectAxis(("prompt",), (("a fox",), ("an owl",)), (), NO_CODES, is_replicate=True)
AXES = EffectAxes((STEPS, SIZE, SEED, PROMPT), ("sampler",),
                  ("prompt has 2 values, so what is said holds for these alone",))  # fmt: skip
SWEEP = EffectsAnswer(Path("foxes"), 54, None, "", AXES, ())


def share(*axes, part=0.42, p=0.001):
    return AxisShare(axes, part, part / 2, part * 1.5, p)


def differ(value, other, mean, margin=None, higher=8, others=None):  # noqa: PLR0917
    ends = [None if margin is None else (mean - margin, mean + margin) for margin in (margin, others)]
    return ValueComparison(value, other, higher, 9 - higher, 9, mean, ends[0], 8.0, ends[1])


def affect(axis, *comparisons, levels=3, **facts):
    found = {
        "note": "",
        "differs": any(pair.differs for pair in comparisons),
        "idle": False,
        "whole_share": None,
        "trend": None,
        "slope": None,
        "reach": 1.234,
        "highest": (),
        "lowest": (),
        "share": share(axis),
    } | facts
    return AxisEffect(axis=axis, comparisons=comparisons, levels=levels, **found)  # fmt: skip


def measure(name, *effects, **facts):
    return MetricEffects(name, 54, effects=effects, rest=0.031, standard_deviation=12.3456, **facts)


STEPS_DIFFER = affect(
    "steps", differ("8", "4", 33.0, 4.4, 9, 12.0), differ("16", "4", 70.123, 4.4, 9, 6.0),
    differ("16", "8", 37.1, 41.0, others=50.0), highest=("16",), lowest=("4",),
)  # fmt: skip


def test_effects_of_a_sweep():
    long = "the longest of all values in words that no column can show"
    sharpness = measure(
        "sharpness", STEPS_DIFFER,
        affect("width + height", differ("64 x 96", "128 x 192", -2.5, 1.5, 0, 20.0), levels=2),
        affect("cfg", differ("3", "9", -4.0, 1.0, 0, 1.0), levels=4, slope=(0.5, 0.9), highest=("9",)),
        affect("a text of many words, which no column can show", differ(long, "b", -5.0, 1.0, 1)),
        shares=(share("steps"), share("seed", part=0.05), share("steps", "width + height", p=0.01),
                share("steps", "seed", p=0.02, part=0.071),
                share("prompt", "seed", p=0.02),
                share("steps", "prompt", p=0.2)),
        overlap=0.012, server_noise=0.8765,
    )  # fmt: skip
    seconds = measure(
        "ran_s",
        affect("steps", differ("16", "4", 3.0, 0.0, 9), levels=2, share=None),
        affect("cfg", differ("3", "9", -2.0, 0.0, 0), levels=4, slope=(-0.5, -0.5), share=None),
    )
    check_approved("effects_sweep", replace(SWEEP, metrics=(sharpness, seconds)))


def test_effects_that_are_not_settled():
    pairs = [differ(str(a), str(b), 0.1, 0.5, higher=5) for a, b in combinations(range(6), 2)]
    hindered = (
        affect("cfg", note="cannot be judged, because no two trials differ in it alone", share=None),
        affect("steps", differ("8", "4", 1.0), levels=2, reach=None),
        affect("sampler", differ("8", "4", 0.0, 0.0, higher=0), levels=2),
        affect("scheduler", *pairs, levels=6),
        affect("style", differ("8", "4", 1.0, 1.2, higher=9), levels=2),
        affect("model", differ("8", "4", -1.0, 1.2, higher=3), levels=2, reach=None),
    )
    few = MetricEffects("brightness", 3, effects=(hindered[1],))
    words = MetricEffects("kind", 0, "holds no numbers, but for example 'a fox'")
    metrics = (measure("sharpness", *hindered), few, words)
    check_approved("effects_unsettled", replace(SWEEP, found=replace(AXES, axes=(STEPS,), notes=()), metrics=metrics))
    only_prompts = replace(SWEEP, found=replace(AXES, axes=(STEPS, PROMPT), notes=()))
    check_approved("effects_of_prompts", replace(only_prompts, metrics=(measure("sharpness", *hindered[4:]),)))
    message = "--where: steps > 100 matches none of the 54 trials"
    check_approved("effects_none", EffectsAnswer(Path("foxes"), 0, None, message, EffectAxes((), (), ()), ()))


def test_effects_of_a_search():
    def differ_by(value, other, mean):
        return replace(differ(value, other, mean, 1.0), higher=0, lower=0)

    whole = replace(share("cfg", part=0.01), high=0.043)
    trends = [Trend(word, value, "1", "12") for word, value in
              (("inside", "6"), ("ends", "5"), ("rising", "12"), ("falling", "1"))]  # fmt: skip
    effects = (
        *(affect("cfg", differ_by("12", "1", 5.0), trend=trend, whole_share=whole) for trend in trends),
        affect("steps", differ_by("40", "4", 0.1), idle=True, whole_share=whole),
        affect("denoise", differ_by("1", "0.1", 0.1), whole_share=replace(whole, high=0.3)),
        affect("sampler", differ_by("heun", "lcm", 5.0), highest=("heun",), lowest=("lcm",)),
    )
    metrics = (measure("quality", *effects, maximize=True), measure("noise", *effects[1:], maximize=False),
               measure("ran_s", effects[0], effects[1]))  # fmt: skip
    search = replace(SWEEP, points=24, found=replace(AXES, notes=("shares are those of the points it tried",)))
    check_approved("effects_search", replace(search, metrics=metrics))
    check_approved(
        "effects_search_without_over",
        replace(search, found=replace(search.found, axes=(STEPS,)), trials=1, points=1, metrics=()),
    )
