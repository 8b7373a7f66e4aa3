"""The answer of `sweeper effects` keeps its approved words."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from sweeper.tables.effect_answer import (
    AxisEffect,
    AxisShare,
    MetricEffects,
    NeededValues,
    Trend,
    ValueDifference,
    WholeShare,
)
from sweeper.tables.effect_axes import EffectAxes, EffectAxis
from sweeper.tables.effect_words import EffectsAnswer
from tests.answers.approved import check_approved

NO_CODES = np.array([], dtype=np.int64)
STEPS = EffectAxis(("steps",), ((4,), (8,), (16,)), (), NO_CODES)
SIZE = EffectAxis(("width", "height"), ((64, 96), (128, 192)), (), NO_CODES)
SEED = EffectAxis(("seed",), ((1,), (2,), (3,)), (), NO_CODES, is_replicate=True)
PROMPT = EffectAxis(("prompt",), (("a fox",), ("an owl",)), (), NO_CODES, is_replicate=True)
AXES = EffectAxes((STEPS, SIZE, SEED, PROMPT), ("sampler",),
                  ("seed has only 3 values to stand for all, so the intervals are wide",))  # fmt: skip
SWEEP = EffectsAnswer(Path("foxes"), 54, None, "", AXES, ())


def share(*axes, part=0.42, p_holm=None, replicates=()):
    return AxisShare(axes, part, part / 2, part * 1.5, 0.00012, 2, 31.5, 12.0, p_holm, replicates)


def differ(value, other, mean, margin=None, p_holm=None):
    low, high = (None, None) if margin is None else (mean - margin, mean + margin)
    return ValueDifference(value, other, mean, low, high, None if p_holm is None else p_holm / 3, p_holm, 9, 8.0)


def affect(axis, *comparisons, levels=3, **facts):
    found = {"note": "", "seen": False, "idle": False, "whole_share": None, "trend": None, "highest": (),
             "lowest": (), "needed": None, "share": share(axis)} | facts  # fmt: skip
    return AxisEffect(axis=axis, comparisons=comparisons, levels=levels, **found)


def measure(name, *effects, **facts):
    return MetricEffects(name, 54, effects=effects, rest=0.031, standard_deviation=12.3456, **facts)


STEPS_DIFFER = affect(
    "steps", differ("4", None, -40.2, 3.21, 0.0001), differ("16", None, 38.9, 3.3, 0.0004),
    differ("8", "4", 33.0, 4.4, 0.034), differ("16", "4", 70.123, 4.4, 0.0001), differ("16", "8", 37.1, 41.0, 0.12),
    highest=("16",), lowest=("4",),
)  # fmt: skip


def test_effects_of_a_sweep():
    sharpness = measure(
        "sharpness", STEPS_DIFFER,
        affect("width + height", differ("64, 96", "128, 192", -2.5, 1.5, 0.03), levels=2),
        affect("a text of many words, which no column can show", differ("the longest of all values in words", None,
               -5.0, 1.0, 0.01), differ("b", None, 1.0, 1.5, 0.3)),
        shares=(share("steps"), share("seed", part=0.05), share("steps", "width + height", p_holm=0.01),
                share("steps", "seed", p_holm=0.02, replicates=("seed",), part=0.071),
                share("prompt", "seed", p_holm=0.02, replicates=("prompt", "seed")),
                share("steps", "prompt", p_holm=0.2, replicates=("prompt",))),
        overlap=0.012, server_noise=0.8765,
    )  # fmt: skip
    seconds = measure("ran_s", affect("steps", differ("16", "4", 3.0, 0.0, 0.001), levels=2, share=None))
    check_approved("effects_sweep", replace(SWEEP, metrics=(sharpness, seconds)))


def test_effects_that_are_not_settled():
    pairs = [differ(str(a), str(b), 0.1, 0.5, 0.9) for a, b in combinations(range(6), 2)]
    needed = NeededValues("seed", 1)
    hindered = (
        affect("cfg", note="cannot be judged, because no two trials differ in it alone", share=None),
        affect("steps", differ("8", "4", 1.0), levels=2),
        affect("sampler", differ("8", "4", 0.0, 0.0, 1.0), levels=2),
        affect("scheduler", *pairs, levels=6),
        affect("style", differ("8", "4", 1.0, 1.2, 0.09), levels=2, needed=replace(needed, more=2)),
        affect("model", differ("8", "4", 1.0, 1.2, 0.09), levels=2, seen=True, needed=needed),
        affect("size", differ("8", "4", 1.0, 1.2, 0.09), levels=2, seen=True),
    )
    few = MetricEffects("brightness", 3, effects=(hindered[1],))
    words = MetricEffects("kind", 0, "holds no numbers, but for example 'a fox'")
    metrics = (measure("sharpness", *hindered), few, words)
    check_approved("effects_unsettled", replace(SWEEP, found=replace(AXES, axes=(STEPS,), notes=()), metrics=metrics))
    message = "--where: steps > 100 matches none of the 54 trials"
    check_approved("effects_none", EffectsAnswer(Path("foxes"), 0, None, message, EffectAxes((), (), ()), ()))


def test_effects_of_a_search():
    whole = WholeShare(0.01, 0.043, 0.4)
    trends = [Trend(word, value, "1", "12") for word, value in
              (("inside", "6"), ("ends", "5"), ("rising", "12"), ("falling", "1"))]  # fmt: skip
    effects = (
        *(affect("cfg", differ("12", "1", 5.0, 1.0, 0.001), trend=trend, whole_share=whole) for trend in trends),
        affect("steps", differ("40", "4", 0.1, 1.0, 0.8), idle=True, whole_share=whole),
        affect("denoise", differ("1", "0.1", 0.1, 1.0, 0.8), whole_share=replace(whole, high=0.3)),
        replace(STEPS_DIFFER, axis="sampler"),
    )
    metrics = (measure("quality", *effects, maximize=True), measure("noise", *effects[1:], maximize=False),
               measure("ran_s", effects[0], effects[1]))  # fmt: skip
    search = replace(SWEEP, points=24, found=replace(AXES, notes=("shares are those of the points it tried",)))
    check_approved("effects_search", replace(search, metrics=metrics))
    check_approved(
        "effects_search_without_over",
        replace(search, found=replace(search.found, axes=(STEPS,)), trials=1, points=1, metrics=()),
    )
