"""How many trials a search needs until its best point has 95 % of a planted optimum: `auto` against `random`.

    python tests/benchmarks/search.py [--seeds N] [--only NAME]

`auto` is `sweeper.search` with real jobs on the embedded server. For `random`, which needs many more trials, the same
proposer proposes the same points as `method: random`, and each gets its planted value without a job;
`tests/running/test_planted_searches.py` shows that this is the same.
"""

from __future__ import annotations

import argparse
import itertools
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.running.planted_searches import SEARCHES, count_trials_to_goal, propose_alone, search_for_goal

BATCH = 4
MOST_AUTO, MOST_RANDOM = 100, 5000  # points; a search that needs more counts as if it had needed so many


def measure(index: int, seed: int) -> tuple[int, int]:
    """Return how many trials `auto` and `random` need with one seed."""
    search = SEARCHES[index]
    most = MOST_AUTO * search.seeds
    with TemporaryDirectory() as folder:
        auto = search.load(folder, trials=most, method="auto", seed=seed, batch=BATCH)
        points = search_for_goal(auto, search, Path(folder) / "out")
        rival = search.load(folder, trials=1, method="random", seed=seed, batch=BATCH)
        proposed = itertools.islice(propose_alone(rival, search, BATCH), MOST_RANDOM)
        return (
            count_trials_to_goal(search, points) or most,
            count_trials_to_goal(search, proposed) or MOST_RANDOM * search.seeds,
        )


def describe(counts: list[int], most: int) -> str:
    lost = sum(count >= most for count in counts)
    return f"{median(counts):>6g} ({min(counts)}-{max(counts)})" + (f", {lost} never" if lost else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", choices=[search.name for search in SEARCHES])
    given = parser.parse_args()
    print(f"trials until 95 % of the optimum, median of {given.seeds} seeds (fewest-most), {BATCH} points in a round")
    print(f"{'objective':<12} {'seeds':>5}  {'auto':<26} {'random':<28} ratio")
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for index, search in enumerate(SEARCHES):
            if given.only in (None, search.name):
                pairs = list(pool.map(measure, [index] * given.seeds, range(given.seeds)))
                auto, rival = [one for one, _ in pairs], [one for _, one in pairs]
                cells = (describe(auto, MOST_AUTO * search.seeds), describe(rival, MOST_RANDOM * search.seeds))
                ratio = median(auto) / median(rival)
                print(f"{search.name:<12} {search.seeds:>5}  {cells[0]:<26} {cells[1]:<28} {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
