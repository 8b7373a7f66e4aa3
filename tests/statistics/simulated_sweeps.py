"""Simulated sweeps with known effects: how often the intervals contain the truth, and how often an alarm is false."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, product

import numpy as np

from sweeper.statistics.corrections import adjust_in_steps
from sweeper.statistics.factorial import Factor, Factorial
from sweeper.statistics.variance_shares import VarianceModel

_EFFECTS = ((0.0, 1.0), (0.0, 0.5, 2.0))  # of the values of sampler and cfg, if effects are planted
_SHARED = 40  # simulations that have the same trials missing


@dataclass(frozen=True)
class Scenario:
    """A sweep over sampler (2 values), cfg (3), prompts and seeds, of which a share is missing.

    `varies` is the standard deviation with which the effect of each value differs from prompt to prompt, from seed to
    seed and from picture to picture; that of the noise is 1.
    """

    name: str
    prompts: int
    seeds: int
    missing: float = 0.0
    varies: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Outcome:
    """`coverage`: the share of the 95 % intervals with the truth. `alarms`: of the families with a false alarm."""

    coverage: float
    alarms: float


def simulate(scenario: Scenario, count: int, rng: np.random.Generator, *, planted: bool) -> Outcome:
    """Simulate `count` sweeps, with effects or without any. `alarms` counts differences that are 0 in truth."""
    sizes = (2, 3, scenario.prompts, scenario.seeds)
    grid = np.array(list(product(*map(range, sizes))))
    effects = _EFFECTS if planted else ((0.0,) * 2, (0.0,) * 3)
    covered = compared = alarmed = 0
    for number in range(count):
        if number % _SHARED == 0:
            cells = grid[rng.random(len(grid)) >= scenario.missing]
            names = ("sampler", "cfg", "prompt", "seed")
            factors = [Factor(name, cells[:, i], sizes[i], is_replicate=i > 1) for i, name in enumerate(names)]
            factorial, model = Factorial(factors), VarianceModel(factors)
        numbers = _draw(scenario, cells, effects, rng)
        alarms, comparisons = [], []
        shares = model.share_out(numbers)
        tests = [next((t.p for t in (shares.terms if shares else ()) if t.term == (index,)), None) for index in (0, 1)]
        for index in (0, 1):
            comparisons.append([])
            for found in factorial.compare(index, numbers):
                of = effects[index]
                truth = of[found.value] - (
                    np.mean(np.delete(of, found.value)) if found.other is None else of[found.other]
                )
                if found.difference.low is None:
                    continue
                compared += 1
                covered += found.difference.low <= truth <= found.difference.high
                comparisons[-1].append(found.difference.p)
                alarms.append(truth == 0)
        axes, adjusted = adjust_in_steps(tests, comparisons)
        nulls = [p for p, is_null in zip(chain(*adjusted), alarms, strict=True) if is_null]
        alarmed += any(p is not None and p <= 0.05 for p in (nulls if planted else axes))
    return Outcome(covered / compared, alarmed / count)


def _draw(scenario, cells, effects, rng):
    sampler, cfg, prompt, seed = cells.T
    numbers = np.array(effects[0])[sampler] + np.array(effects[1])[cfg] + rng.normal(0, 1, len(cells))
    numbers += rng.normal(0, 3, scenario.prompts)[prompt] + rng.normal(0, 2, scenario.seeds)[seed]
    by_prompt, by_seed, by_picture = scenario.varies
    for codes, levels in ((sampler, 2), (cfg, 3)):
        numbers += rng.normal(0, by_prompt, (levels, scenario.prompts))[codes, prompt]
        numbers += rng.normal(0, by_seed, (levels, scenario.seeds))[codes, seed]
        numbers += rng.normal(0, by_picture, (levels, scenario.prompts, scenario.seeds))[codes, prompt, seed]
    return numbers


SCENARIOS = (
    Scenario("2 seeds", 1, 2),
    Scenario("3 seeds", 1, 3),
    Scenario("3 seeds, effects vary", 1, 3, 0.0, (0.0, 0.7, 0.0)),
    Scenario("3 seeds, effects vary, 20 % missing", 1, 3, 0.2, (0.0, 0.7, 0.0)),
    Scenario("8 seeds, effects vary, 20 % missing", 1, 8, 0.2, (0.0, 0.7, 0.0)),
    Scenario("2 prompts x 2 seeds", 2, 2),
    Scenario("2 prompts x 2 seeds, effects vary", 2, 2, 0.0, (0.5, 0.5, 0.5)),
    Scenario("6 prompts x 2 seeds, effects vary by prompt", 6, 2, 0.0, (0.7, 0.0, 0.5)),
    Scenario("4 prompts x 4 seeds", 4, 4),
    Scenario("4 prompts x 4 seeds, 20 % missing", 4, 4, 0.2),
    Scenario("4 prompts x 4 seeds, effects vary", 4, 4, 0.0, (0.5, 0.5, 0.5)),
    Scenario("4 prompts x 4 seeds, effects vary by prompt", 4, 4, 0.0, (0.5, 0.0, 0.0)),
    Scenario("4 prompts x 4 seeds, effects vary, 20 % missing", 4, 4, 0.2, (0.5, 0.5, 0.5)),
    Scenario("10 prompts x 4 seeds, effects vary, 20 % missing", 10, 4, 0.2, (0.5, 0.3, 0.3)),
)
