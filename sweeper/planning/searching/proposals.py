"""Choose the points to try next, by Optuna's samplers (https://optuna.readthedocs.io) or without knowledge.

The choice depends only on the search, the points tried so far in their order, and the seed. So it is the same on every
machine and after every interruption.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState
from scipy.stats.qmc import Sobol

from sweeper.planning.searching.search_plan import Point, SearchSpace

STARTUP_POINTS: Final = 10  # spread evenly before a method learns from them
_POPULATION: Final = 20  # points of a generation of nsga2
_MAX_REFUSED: Final = 20  # proposals that are known or not allowed, before the nearest point that is neither
_CANDIDATES: Final = 256  # random points among which the nearest is looked for, at a time
_MAX_DRAWS: Final = 8  # times that so many are drawn


# The points tried so far with their objectives, in the order of the search; None: it failed, or they are not known yet.
TriedPoints = Mapping[Point, tuple[float, ...] | None]


class Proposer:
    """Proposes points of one search, in its space."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._search = space.search
        self._distributions = {str(index): self._make_distribution(index) for index in range(len(space.axes))}

    def propose(self, tried: TriedPoints, count: int) -> list[Point]:
        """Return up to `count` new points; fewer if hardly any allowed point is left."""
        known = set(tried)
        seed = np.random.SeedSequence([self._search.seed, len(tried)])
        numbers = np.random.default_rng(seed)
        learnt = sum(values is not None for values in tried.values())
        method = self._search.method
        if method in ("random", "qmc") or learnt < STARTUP_POINTS:
            stream = self._iter_random(numbers) if method == "random" else self._iter_sobol(len(tried))
        else:
            stream = self._iter_optuna(tried, int(seed.generate_state(1)[0]))
        found: list[Point] = []
        while len(found) < count:
            point = self._take_new(stream, known, numbers)
            if point is None:
                break
            known.add(point)
            found.append(point)
        return found

    def _take_new(self, stream: Iterator[Point], known: set[Point], numbers: np.random.Generator) -> Point | None:
        """The first point of the stream that is new and allowed, or one near to what it proposes."""
        for _ in range(_MAX_REFUSED):
            centre = next(stream)
            if self._keep_new([centre], known):
                return centre

        def rank(point: Point) -> float:
            return self._space.measure_distance(point, centre)

        for _ in range(_MAX_DRAWS):
            vectors = numbers.random((_CANDIDATES, len(self._space.axes))).tolist()
            if candidates := self._keep_new(dict.fromkeys(map(self._space.from_vector, vectors)), known):
                return min(candidates, key=rank)
        return min(self._keep_new(self._space.list_points(), known), key=rank, default=None)

    def _keep_new(self, points: Any, known: set[Point]) -> list[Point]:
        new = [point for point in points if point not in known]
        return [point for point, allowed in zip(new, self._space.find_allowed(new), strict=True) if allowed]

    def _iter_random(self, numbers: np.random.Generator) -> Iterator[Point]:
        while True:
            yield self._space.from_vector(numbers.random(len(self._space.axes)).tolist())

    def _iter_sobol(self, start: int) -> Iterator[Point]:
        """Points that fill the space evenly, as scrambled Sobol' sequences do, beginning after the first `start`."""
        sequence = Sobol(len(self._space.axes), rng=np.random.default_rng(self._search.seed))
        if start:
            sequence.fast_forward(start)
        while True:
            yield self._space.from_vector(sequence.random(1)[0].tolist())

    def _iter_optuna(self, tried: TriedPoints, seed: int) -> Iterator[Point]:
        """What a sampler of Optuna proposes after these points. A proposal counts as being tried from then on."""
        directions = [
            StudyDirection.MAXIMIZE if objective.maximize else StudyDirection.MINIMIZE
            for objective in self._search.objectives
        ]
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=self._make_sampler(seed), directions=directions)
        optuna.logging.set_verbosity(verbosity)
        learnt = 0
        for point, values in tried.items():
            past_trial = optuna.create_trial(
                state=TrialState.FAIL if values is None else TrialState.COMPLETE,
                values=values,
                params={key: point[int(key)] for key in self._distributions},
                distributions=self._distributions,
                system_attrs={"NSGAIISampler:generation": learnt // _POPULATION},  # so that nsga2 knows the generation
            )
            study.add_trial(past_trial)
            learnt += values is not None
        while True:
            trial = study.ask(self._distributions)
            yield tuple([
                int(trial.params[key]) if item.numbers is None else item.numbers.round(trial.params[key])
                for key, item in zip(self._distributions, self._space.axes, strict=True)
            ])  # fmt: skip

    def _make_sampler(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an option is experimental
            match self._search.method:
                case "gp":
                    return GPSampler(seed=seed, n_startup_trials=1, deterministic_objective=not self._search.over)
                case "nsga2":
                    return NSGAIISampler(population_size=_POPULATION, seed=seed)
                case _:
                    return TPESampler(seed=seed, n_startup_trials=1)

    def _make_distribution(self, index: int) -> BaseDistribution:
        item = self._space.axes[index]
        if item.numbers is None:
            count = len(item.axis.options)
            if self._space.is_ordered(index):
                return IntDistribution(0, count - 1)
            return CategoricalDistribution(tuple(range(count)))
        if item.numbers.is_integer:
            return IntDistribution(int(item.numbers.low), int(item.numbers.high), log=item.numbers.is_log)
        return FloatDistribution(item.numbers.low, item.numbers.high, log=item.numbers.is_log)
