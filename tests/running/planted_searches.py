"""Searches with planted objectives, whose optimum is known. Jobs are real; their values follow from the params.

The objectives are metrics of an experiment: `tests.running.planted_searches:smooth` and so on. None was fitted to an
optimiser: two are test functions of the literature, the others are written down with round numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

import sweeper
from sweeper.planning.searching.proposals import Proposer
from sweeper.planning.searching.search_plan import SearchSpace
from sweeper.planning.searching.search_state import SearchState
from sweeper.running.run_events import Event, RoundPlanned
from sweeper.running.stop_control import StopControl
from tests.experiment_files import node

# The functions of Hartmann with 3 axes, and with the first 4 of his 6 axes; see Dixon and Szegoe, "Towards Global
# Optimisation 2", 1978, and https://www.sfu.ca/~ssurjano/hart3.html and hart6.html. Here they are maximised.
_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_STEEPNESS_3 = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
_PEAKS_3 = np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]) / 10_000
_STEEPNESS_4 = np.array([[10, 3, 17, 3.5], [0.05, 10, 17, 0.1], [3, 3.5, 1.7, 10], [17, 8, 0.05, 10]])
_PEAKS_4 = (
    np.array([[1312, 1696, 5569, 124], [2329, 4135, 8307, 3736], [2348, 1451, 3522, 2883], [4047, 8828, 8732, 5743]])
    / 10_000
)
_HIGHEST_3, _HIGHEST_4 = 3.86278, 3.7290  # the first from the literature, the second from 10 million random points
NOISE = 0.1  # of the optimum: the standard deviation of a trial of `noisy`
MODES = ["normal", "multiply", "screen", "overlay", "soft_light", "difference"]
METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
_MODE_GAINS = dict(zip(MODES, [0.5, 0.8, 0.6, 1.0, 0.9, 0.7], strict=True))
_METHOD_GAINS = dict(zip(METHODS, [0.7, 0.8, 0.6, 0.9, 1.0], strict=True))
_MODE_PEAKS = dict(zip(MODES, [0.2, 0.6, 0.4, 0.7, 0.3, 0.9], strict=True))  # where the best `blend` of a mode is
_WIDTH = 0.4  # the standard deviation of a peak, as a share of the axis


def _sum_peaks(shares: list[float], steepness: Any, peaks: Any) -> float:
    return float((_WEIGHTS * np.exp(-(steepness * (np.array(shares) - peaks) ** 2).sum(axis=1))).sum())


def _shares(params: Mapping[str, Any]) -> list[float]:
    """Where each number is in its range, from 0 to 1."""
    return [params["blend"], params["sharpen"] / 5, (params["sigma"] - 0.1) / 9.9, (params["blur"] - 1) / 30]


def smooth(_picture: Any, params: Mapping[str, Any]) -> float:
    return _sum_peaks(_shares(params)[:3], _STEEPNESS_3, _PEAKS_3) / _HIGHEST_3


def smooth_of_4(_picture: Any, params: Mapping[str, Any]) -> float:
    return _sum_peaks(_shares(params), _STEEPNESS_4, _PEAKS_4) / _HIGHEST_4


def noisy(picture: Any, params: Mapping[str, Any]) -> float:
    drawn = hashlib.sha256(json.dumps(sorted(params.items())).encode()).digest()
    share = (int.from_bytes(drawn[:6]) + 0.5) / 256**6
    return smooth(picture, params) + NormalDist(0, NOISE).inv_cdf(share)


def categorical(_picture: Any, params: Mapping[str, Any]) -> float:
    blend, sharpen, *_ = _shares(params)
    distance = (blend - _MODE_PEAKS[params["mode"]]) ** 2 + (sharpen - 0.4) ** 2
    return _MODE_GAINS[params["mode"]] * _METHOD_GAINS[params["method"]] * math.exp(-distance / 2 / _WIDTH**2)


def constrained(_picture: Any, params: Mapping[str, Any]) -> float:
    """More of `blend` and of `sharpen` is better, but `where` allows only so much of both together."""
    blend, sharpen, _, blur = _shares(params)
    return 2 * math.sqrt(blend * sharpen) * math.exp(-((blur - 0.3) ** 2) / 2 / _WIDTH**2)


_BLEND, _SHARPEN = {"from": 0, "to": 1}, {"from": 0, "to": 5}
_SIGMA, _BLUR = {"from": 0.1, "to": 10}, {"from": 1, "to": 31}


@dataclass(frozen=True)
class PlantedSearch:
    """A search. `truth`: its objective without noise, whose optimum is 1."""

    objective: Callable[..., float]
    space: Mapping[str, Any]
    truth: Callable[..., float]
    seeds: int = 1
    where: str | None = None

    @property
    def name(self) -> str:
        return self.objective.__name__

    def load(self, folder: str | Path, *, trials: int, method: str, seed: int, batch: int) -> sweeper.Experiment:
        """Write the experiment and load it."""
        folder = Path(folder)
        write_template(folder)
        search = {
            "maximize": f"{__name__}:{self.name}", "trials": trials, "method": method, "seed": seed, "batch": batch,
            "space": dict(self.space),
            **({"over": {"colour": {"from": 1, "to": self.seeds, "step": 1}}} if self.seeds > 1 else {}),
            **({"where": self.where} if self.where else {}),
        }  # fmt: skip
        file = folder / f"{self.name}-{method}-{seed}.yaml"
        file.write_text(json.dumps({"template": "planted.json", "search": search}))
        return sweeper.load(file)


SEARCHES = (
    PlantedSearch(smooth, {"blend": _BLEND, "sharpen": _SHARPEN, "sigma": _SIGMA}, smooth),
    PlantedSearch(smooth_of_4, {"blend": _BLEND, "sharpen": _SHARPEN, "sigma": _SIGMA, "blur": _BLUR}, smooth_of_4),
    PlantedSearch(noisy, {"blend": _BLEND, "sharpen": _SHARPEN, "sigma": _SIGMA}, smooth, seeds=3),
    PlantedSearch(categorical, {"blend": _BLEND, "sharpen": _SHARPEN, "mode": MODES, "method": METHODS}, categorical),
    PlantedSearch(
        constrained,
        {"blend": _BLEND, "sharpen": _SHARPEN, "blur": _BLUR},
        constrained,
        where="blend + sharpen / 5 <= 1",
    ),
)


def write_template(folder: Path) -> None:
    """A workflow of small pictures without a model; every param of the objectives is a setting of one of its nodes."""
    graph = {
        "1": node("EmptyImage", width=32, height=32, batch_size=1, color=0),
        "2": node("EmptyImage", width=32, height=32, batch_size=1, color=16_711_680),
        "3": node("ImageScale", image=["1", 0], upscale_method="area", width=32, height=32, crop="disabled"),
        "4": node("ImageSharpen", image=["3", 0], sharpen_radius=1, sigma=1.0, alpha=1.0),
        "5": node("ImageBlur", image=["4", 0], blur_radius=1, sigma=1.0),
        "6": node("ImageBlend", image1=["5", 0], image2=["2", 0], blend_factor=0.5, blend_mode="normal"),
        "7": node("SaveImage", images=["6", 0], filename_prefix="planted"),
    }
    number, integer, text = {"type": "number"}, {"type": "integer"}, {"type": "string"}
    slots = {
        "blend": {"at": "6.blend_factor", "schema": number}, "sharpen": {"at": "4.alpha", "schema": number},
        "sigma": {"at": "4.sigma", "schema": number}, "blur": {"at": "5.blur_radius", "schema": integer},
        "mode": {"at": "6.blend_mode", "schema": text}, "method": {"at": "3.upscale_method", "schema": text},
        "colour": {"at": "1.color", "schema": integer},
    }  # fmt: skip
    (folder / "planted.json").write_text(json.dumps(graph))
    (folder / "planted.slots.yaml").write_text(json.dumps({"slots": slots}))


GOAL = 0.95  # of the optimum
_DEFAULTS: Mapping[str, Any] = {  # what the workflow has
    "blend": 0.5, "sharpen": 1.0, "sigma": 1.0, "blur": 1, "mode": "normal", "method": "area", "colour": 0,
}  # fmt: skip
SeenPoint = tuple[Mapping[str, Any], float]  # the values of a point, and the mean that the search sees


def count_trials_to_goal(search: PlantedSearch, points: Iterable[SeenPoint]) -> int | None:
    """Return how many trials are done when the best point so far truly reaches the goal; None if that never happens.

    The best point is the one that the search would name, so noise can hide a better one. `points`: in their order.
    """
    best = -math.inf
    for count, (values, mean) in enumerate(points, 1):
        if mean > best:
            best = mean
            if _is_at_goal(search, values):
                return count * search.seeds
    return None


def _is_at_goal(search: PlantedSearch, values: Mapping[str, Any]) -> bool:
    return search.truth(None, {**_DEFAULTS, **values}) >= GOAL


def search_for_goal(experiment: sweeper.Experiment, search: PlantedSearch, out: Path) -> list[SeenPoint]:
    """Search with real jobs until the goal; return the points in the order in which they were asked for."""
    control = StopControl()

    def stop_at_goal(event: Event) -> None:
        if isinstance(event, RoundPlanned) and event.best is not None and _is_at_goal(search, event.best.values):
            control.stop()

    done = sweeper.search(experiment, out=out, progress=stop_at_goal, control=control, handle_signals=False)
    assert done.ended_by in ("trials", "interrupt"), done.error
    assert done.run is not None
    assert done.run.failed == 0
    table = sweeper.results(out)
    rows = table[table["status"] == "succeeded"].sort_values("trial").drop_duplicates(list(search.space))
    return [({name: row[name] for name in search.space}, row["objective"]) for row in rows.to_dict("records")]


def propose_alone(experiment: sweeper.Experiment, search: PlantedSearch, batch: int) -> Iterator[SeenPoint]:
    """Yield the points that the search of an experiment asks for, without jobs: each has its planted value at once."""
    assert experiment.search is not None
    space = SearchSpace(experiment, experiment.search)
    describe = SearchState(space).describe_values
    proposer = Proposer(space)
    tried: dict[Any, Any] = {}
    while True:
        for point in proposer.propose(tried, batch):
            values = describe(point)
            numbers = [
                search.objective(None, {**_DEFAULTS, **values, **({"colour": colour} if search.seeds > 1 else {})})
                for colour in range(1, search.seeds + 1)
            ]
            mean = sum(numbers) / len(numbers)
            tried[point] = (mean,)
            yield values, mean
