"""Simulated sweeps with known effects: how often the intervals hold, what is found, and how often an alarm is false."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from sweeper.statistics.codes import Replicates, renumber
from sweeper.statistics.paired import compare_values, excludes_zero

_AXES = (3, 2)  # the numbers of values of cfg, which has an effect, and of sampler, which has none


@dataclass(frozen=True)
class Scenario:
    """A sweep over cfg (3 values), sampler (2), prompts and seeds, of which a share is missing.

    The standard deviation of the noise of a picture is 1, and `difference` is that of the ends of cfg. `by_prompt` and
    `by_seed` are the standard deviations with which the effect of each value differs among prompts and seeds.
    `noise` is its distribution: `normal`, `lognormal`, or `by prompt` (0.5 to 2).
    """

    name: str
    prompts: int
    seeds: int
    missing: float = 0.0
    by_prompt: float = 0.0
    by_seed: float = 0.0
    noise: str = "normal"
    difference: float = 2.0


@dataclass(frozen=True)
class Rates:
    """`coverage`: the share of intervals with the truth; `power`: of sweeps in which the ends of cfg differ; `alarms`:
    of sweeps in which values that are equal in truth differ."""

    coverage: float
    power: float
    alarms: float


@dataclass(frozen=True)
class Outcome:
    """The rates on these prompts, and for other prompts too (None with two prompts or fewer)."""

    these: Rates
    others: Rates | None


def simulate(scenario: Scenario, count: int, rng: np.random.Generator) -> Outcome:
    """Simulate `count` sweeps with the effect of cfg."""
    grid = np.array(list(product(*map(range, (*_AXES, scenario.prompts, scenario.seeds)))))
    found = {"these": [], "others": []}  # of each sweep: covered, intervals, whether the ends differ, false alarm
    for _ in range(count):
        cells = grid[rng.random(len(grid)) >= scenario.missing]
        numbers, truths = _draw(scenario, cells, rng)
        tallies = {scope: [0, 0, False, False] for scope in found}
        for axis in (0, 1):
            for pair in _compare(cells, numbers, axis).pairs:
                for scope, interval in (("these", pair.interval), ("others", pair.others)):
                    of = truths[scope][axis]
                    truth = of[pair.value] - of[pair.other]
                    tally = tallies[scope]
                    if interval is not None:
                        tally[0] += interval[0] <= truth <= interval[1]
                        tally[1] += 1
                        tally[2] |= axis == 0 and pair.other - pair.value == 2 and excludes_zero(interval)
                        tally[3] |= truth == 0 and excludes_zero(interval)
        for scope, tally in tallies.items():
            found[scope].append(tally)
    these, others = (_sum_up(np.array(tallies, dtype=float)) for tallies in found.values())
    return Outcome(these, others if scenario.prompts > 2 else None)


def _compare(cells, numbers, axis):
    rest = cells[:, 1 - axis], cells[:, 2], cells[:, 3]
    rows = renumber(*rest)
    first = np.unique(rows, return_index=True)[1]
    table = np.full((len(first), _AXES[axis]), np.nan)
    table[rows, cells[:, axis]] = numbers
    settings, prompts, seeds = (codes[first] for codes in rest)
    has_prompts = len(np.unique(cells[:, 2])) > 1
    return compare_values(table, Replicates(settings, prompts if has_prompts else None, seeds), 1 - 0.05 / len(_AXES))


def _draw(scenario, cells, rng):
    """The numbers, and for each scope the truth of the values of each axis."""
    cfg, sampler, prompt, seed = cells.T
    means = np.linspace(0, scenario.difference, _AXES[0]), np.zeros(_AXES[1])
    scale = (
        np.exp(rng.uniform(np.log(0.5), np.log(2), scenario.prompts))[prompt] if scenario.noise == "by prompt" else 1
    )
    draw = rng.lognormal(0, 1, len(cells)) / 2.16 if scenario.noise == "lognormal" else rng.normal(0, 1, len(cells))
    numbers = means[0][cfg] + draw * scale
    numbers += rng.normal(0, 3, scenario.prompts)[prompt] + rng.normal(0, 2, scenario.seeds)[seed]
    these = []
    for codes, of in ((cfg, means[0]), (sampler, means[1])):
        varied = rng.normal(0, scenario.by_prompt, (len(of), scenario.prompts)) if scenario.by_prompt else None
        if varied is not None:
            numbers += varied[codes, prompt]
        if scenario.by_seed:
            numbers += rng.normal(0, scenario.by_seed, (len(of), scenario.seeds))[codes, seed]
        these.append(of if varied is None else of + varied.mean(axis=1))
    return numbers, {"these": these, "others": means}


def _sum_up(tallies):
    covered, intervals, power, alarms = tallies.sum(axis=0)
    return Rates(covered / intervals if intervals else 1.0, power / len(tallies), alarms / len(tallies))


SCENARIOS = (
    Scenario("2 prompts x 2 seeds", 2, 2),
    Scenario("2 prompts x 3 seeds", 2, 3),
    Scenario("3 prompts x 2 seeds", 3, 2),
    Scenario("3 prompts x 3 seeds", 3, 3),
    Scenario("3 prompts x 3 seeds, 4 sd", 3, 3, difference=4.0),
    Scenario("3 seeds", 1, 3),
    Scenario("5 seeds", 1, 5),
    Scenario("3 prompts x 3 seeds, effects vary by prompt 1.5", 3, 3, by_prompt=1.5),
    Scenario("4 prompts x 4 seeds, effects vary by both 0.5", 4, 4, by_prompt=0.5, by_seed=0.5),
    Scenario("4 prompts x 2 seeds, effects vary by seed 0.3", 4, 2, by_seed=0.3),
    Scenario("4 prompts x 2 seeds, effects vary by seed 0.7", 4, 2, by_seed=0.7),
    Scenario("3 prompts x 3 seeds, noise by prompt", 3, 3, noise="by prompt"),
    Scenario("3 prompts x 3 seeds, lognormal noise", 3, 3, noise="lognormal"),
    Scenario("3 prompts x 3 seeds, 15 % missing", 3, 3, 0.15),
    Scenario("3 prompts x 3 seeds, 30 % missing", 3, 3, 0.3),
    Scenario("10 prompts x 4 seeds, effects vary, 20 % missing", 10, 4, 0.2, 0.5, 0.3),
)
