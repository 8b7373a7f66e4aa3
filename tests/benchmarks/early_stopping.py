"""How often stopping early drops the best point of a simulated search, and the share of the trials that it saves.

python tests/benchmarks/early_stopping.py [SEARCHES]
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from tests.statistics.simulated_searches import SCENARIOS, simulate


def measure(scenario, *, count):
    return scenario.name, *simulate(scenario, count, np.random.default_rng(1))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{count} searches each; of equal points, the share of dropped points\n")
    print(f"{'search':<55} {'best dropped':>13} {'trials saved':>13}")
    with ProcessPoolExecutor(2) as pool:
        for name, lost, saved in pool.map(partial(measure, count=count), SCENARIOS):
            print(f"{name:<55} {lost:>13.2%} {saved:>13.0%}", flush=True)


if __name__ == "__main__":
    main()
