"""How often a verdict is false, over many made-up comparisons whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweeper.regression.verdict import EQUIVALENT, HIGHER, LOWER, MetricVerdict, decide
from sweeper.statistics.codes import Replicates


@dataclass(frozen=True)
class Truth:
    """A comparison of two checkpoints over prompts and seeds, in several independent metrics.

    `difference` is that of every metric, in margins of 0.2 standard deviations of a metric among the old trials.
    `by_prompt`, `by_seed`: the standard deviations of the difference between prompts and between seeds, and `noise`
    that of a trial, all as parts of the metric's. `given`: the margin is known; otherwise it is estimated from the
    trials, as `sweeper compare` does. `missing`: the share of pairs that are missing.
    """

    name: str
    difference: float
    prompts: int = 12
    seeds: int = 4
    metrics: int = 3
    by_prompt: float = 0.0
    by_seed: float = 0.0
    noise: float = 0.3
    given: bool = False
    missing: float = 0.0


TRUTHS = (
    Truth("no difference", 0.0),
    Truth("no difference, which varies with prompts", 0.0, by_prompt=0.4),
    Truth("no difference, which varies with both", 0.0, by_prompt=0.3, by_seed=0.2),
    Truth("no difference, few seeds", 0.0, prompts=1, seeds=5),
    Truth("no difference, missing pairs", 0.0, by_prompt=0.3, missing=0.3),
    Truth("a difference of the margin", 1.0, prompts=25, given=True),
    Truth("a difference of the margin, which is estimated", 1.0, prompts=25),
    Truth("a difference of the margin, which varies", -1.0, prompts=25, by_prompt=0.2, given=True),
    Truth("a difference of the margin, missing pairs", 1.0, prompts=25, by_prompt=0.2, missing=0.3, given=True),
)


def count_false(truth: Truth, times: int, seed: int = 0) -> tuple[float, float]:
    """The shares of comparisons with any false verdict, and with all metrics decided rightly."""
    words = [set(found) for found in _decide(truth, times, seed)]
    wrong = {HIGHER, LOWER} if truth.difference == 0 else {EQUIVALENT, LOWER if truth.difference > 0 else HIGHER}
    right = {EQUIVALENT} if truth.difference == 0 else {HIGHER if truth.difference > 0 else LOWER}
    return sum(bool(found & wrong) for found in words) / times, sum(found == right for found in words) / times


def _decide(truth: Truth, times: int, seed: int) -> Iterator[list[str]]:
    rng = np.random.default_rng(seed)
    prompts, seeds = (grid.ravel() for grid in np.meshgrid(range(truth.prompts), range(truth.seeds), indexing="ij"))
    kept = rng.random(len(prompts)) >= truth.missing
    prompts, seeds = prompts[kept], seeds[kept]
    rows = Replicates(np.zeros(len(prompts), dtype=int), prompts if truth.prompts > 1 else None, seeds)
    for _ in range(times):
        words = []
        for _ in range(truth.metrics):
            old, difference = _draw_metric(truth, prompts, seeds, rng)
            margin = 0.2 if truth.given else 0.2 * float(old.std(ddof=1))
            table = np.column_stack([old + difference, old])
            words.append(decide(MetricVerdict("m", "", margin=margin), table, rows, 0.05 / truth.metrics).word)
        yield words


def _draw_metric(truth: Truth, prompts: Any, seeds: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """The metric of the old trials, whose standard deviation is 1, and the differences."""
    between = np.sqrt((1 - truth.noise**2) / 2)
    old = rng.normal(0, between, truth.prompts)[prompts] + rng.normal(0, between, truth.seeds)[seeds]
    old_noise, new_noise = rng.normal(0, truth.noise, (2, len(prompts)))
    varying = rng.normal(0, 1, truth.prompts)[prompts] * truth.by_prompt + (
        rng.normal(0, 1, truth.seeds)[seeds] * truth.by_seed
    )
    return old + old_noise, 0.2 * truth.difference + varying + new_noise - old_noise
