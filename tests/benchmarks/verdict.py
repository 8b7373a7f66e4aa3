"""How often `sweeper compare --verdict` is wrong, by simulation: `python tests/benchmarks/verdict.py [TIMES]`."""

from __future__ import annotations

import sys

from tests.statistics.simulated_verdicts import TRUTHS, count_false


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    print(f"{times} comparisons each; a false verdict on any metric is allowed in 5 %")
    print(f"{'truth':<50} {'pairs':>6} {'false':>7} {'all right':>10}")
    for truth in TRUTHS:
        false, right = count_false(truth, times)
        print(f"{truth.name:<50} {truth.prompts * truth.seeds:>6} {false:>7.1%} {right:>10.1%}", flush=True)


if __name__ == "__main__":
    main()
