"""How often `sweeper effects` finds an axis in the results of a simulated search that has an effect, or none.

    python tests/benchmarks/search_effects.py [SEARCHES]

`cfg` has an effect unless its shape is "nothing", `sampler` if it has a gain, and `steps` never. For each axis: the
share of the searches in which two values differ, and in which it "hardly changes" the metric. Then the values of cfg
that are called best (5th, 50th and 95th percentile): they should be 6, or none for the shape "log", of which the end is
best.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from sweeper.statistics.variance_shares import INSIDE
from tests.statistics.simulated_searches import PlantedAxes, find_effects

_PLANTED = (
    PlantedAxes("nothing", 1.0),
    PlantedAxes("nothing", 1.0, method="random"),
    PlantedAxes("parabola"),
    PlantedAxes("parabola", method="random"),
    PlantedAxes("peak"),
    PlantedAxes("log", 0.2),
    PlantedAxes("parabola", gain=0.6),
    PlantedAxes("peak", 0.2, 0.3),
    PlantedAxes("parabola", 0.2, points=80),
)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print(f"{count} searches each; values differ, and the axis hardly changes the metric\n")
    print(f"{'search':<62}" + "".join(f"{name:>16}" for name in ("cfg", "steps", "sampler")) + "   best cfg")
    with ProcessPoolExecutor(2) as pool:
        for planted in _PLANTED:
            found = list(pool.map(partial(find_effects, planted), range(count), chunksize=10))
            texts = []
            for name in ("cfg", "steps", "sampler"):
                effects = [one[name] for one in found]
                seen, idle = np.mean([effect.differs for effect in effects]), np.mean([e.idle for e in effects])
                texts.append(f"{seen:>8.1%} {idle:>7.1%}")
            trends = [effects["cfg"].trend for effects in found]
            best = [float(trend.value) for trend in trends if trend and trend.word == INSIDE]
            near = " ".join(f"{value:.1f}" for value in np.percentile(best, [5, 50, 95])) if best else "none"
            print(f"{str(planted).removeprefix('PlantedAxes'):<62}{''.join(texts)}   {near}", flush=True)


if __name__ == "__main__":
    main()
