"""How often the intervals of `sweeper effects` contain the truth, and how often it reports a difference that is none.

    python tests/benchmarks/effects.py [SIMULATIONS]

For each kind of sweep it simulates that many sweeps (by default 2,000) with planted effects and as many without. The
intervals should cover 95 %, and at most 5 % of the sweeps should have any false alarm in the family of a metric.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from tests.statistics.simulated_sweeps import SCENARIOS, simulate


def measure(scenario, *, count):
    planted = simulate(scenario, count, np.random.default_rng(1), planted=True)
    none = simulate(scenario, count, np.random.default_rng(2), planted=False)
    return scenario.name, planted, none


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"{count} simulations each, with planted effects and without; coverage of 95 % intervals\n")
    print(f"{'sweep':<50} {'coverage':>9} {'alarms':>8} | {'coverage':>9} {'alarms':>8}")
    with ProcessPoolExecutor(2) as pool:
        for name, planted, none in pool.map(partial(measure, count=count), SCENARIOS):
            texts = [f"{outcome.coverage:>9.1%} {outcome.alarms:>8.1%}" for outcome in (planted, none)]
            print(f"{name:<50} {' | '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
