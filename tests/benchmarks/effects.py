"""How often the intervals of `sweeper effects` contain the truth, what it finds, and how often it is wrong.

    python tests/benchmarks/effects.py [SIMULATIONS]

For each kind of sweep it simulates that many sweeps (by default 1,000). *cover*: the share of the intervals with the
truth. *found*: the share of sweeps in which the two ends of cfg, which differ, are told apart. *false*: the share in
which values that are equal in truth are. The first three columns are those of the former rule (an F test for each axis,
uncorrected intervals, p-values after Holm), measured with the same draws, 600 of each kind.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from tests.statistics.simulated_sweeps import SCENARIOS, simulate

FORMER = {  # cover, found, false: for all prompts from three on, otherwise for these
    "2 prompts x 2 seeds": (0.997, 0.027, 0.002),
    "2 prompts x 3 seeds": (0.956, 0.095, 0.013),
    "3 prompts x 2 seeds": (0.953, 0.140, 0.013),
    "3 prompts x 3 seeds": (0.988, 0.248, 0.007),
    "3 prompts x 3 seeds, 4 sd": (0.988, 0.568, 0.017),
    "3 seeds": (0.950, 0.033, 0.007),
    "5 seeds": (0.950, 0.480, 0.040),
    "3 prompts x 3 seeds, effects vary by prompt 1.5": (0.967, 0.013, 0.032),
    "4 prompts x 4 seeds, effects vary by both 0.5": (0.979, 0.150, 0.022),
    "4 prompts x 2 seeds, effects vary by seed 0.3": (0.904, 0.228, 0.032),
    "4 prompts x 2 seeds, effects vary by seed 0.7": (0.734, 0.098, 0.075),
    "3 prompts x 3 seeds, noise by prompt": (0.990, 0.203, 0.002),
    "3 prompts x 3 seeds, lognormal noise": (0.994, 0.273, 0.003),
    "3 prompts x 3 seeds, 15 % missing": (0.990, 0.182, 0.005),
    "3 prompts x 3 seeds, 30 % missing": (0.982, 0.107, 0.003),
    "10 prompts x 4 seeds, effects vary, 20 % missing": (0.967, 0.767, 0.037),
}


def measure(scenario, *, count):
    return scenario.name, simulate(scenario, count, np.random.default_rng(1))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{count} simulations each, by the former rule, on these prompts, and for other prompts too\n")
    print(f"{'sweep':<50}" + " |".join([f"{'cover':>7} {'found':>6} {'false':>6}"] * 3))
    with ProcessPoolExecutor(2) as pool:
        for name, found in pool.map(partial(measure, count=count), SCENARIOS):
            rates = [FORMER[name], *((r.coverage, r.power, r.alarms) for r in (found.these, found.others) if r)]
            print(f"{name:<50}" + " |".join(f"{c:>7.1%} {p:>6.0%} {a:>6.1%}" for c, p, a in rates), flush=True)


if __name__ == "__main__":
    main()
