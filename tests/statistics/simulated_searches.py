"""Simulated searches with known truth: what stopping early drops and saves, and which axes are found to matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import optuna

from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.search_columns import Objective, SearchColumns
from sweeper.statistics.paired import find_clearly_worse
from sweeper.store.records import TableLayout
from sweeper.tables.effect_answer import AxisEffect
from sweeper.tables.effects import SearchAnalysis, find_search_axes


@dataclass(frozen=True)
class Scenario:
    """A search of rounds of `batch` points, each tried on prompts x seeds; the noise of a trial has deviation 1.

    `spread` is the standard deviation of the points' true values, `progress` what the mean of a round gains on the one
    before. `by_prompt` is the deviation with which the value of a point differs from prompt to prompt. `tails` are the
    degrees of freedom of the noise (0: normal). `uneven`: how much the noise differs from point to point.
    """

    name: str
    prompts: int = 2
    seeds: int = 2
    points: int = 40
    spread: float = 3.0
    progress: float = 0.5
    by_prompt: float = 0.0
    tails: int = 0
    uneven: float = 0.0
    batch: int = 8


SCENARIOS = (
    Scenario("2 combinations", 1, 2),
    Scenario("4 combinations"),
    Scenario("8 combinations", 2, 4),
    Scenario("16 combinations", 4, 4),
    Scenario("4 combinations, points close together", spread=1.0, progress=0.0),
    Scenario("4 combinations, points far apart", spread=6.0),
    Scenario("4 combinations, all points equal", spread=0.0, progress=0.0),
    Scenario("16 combinations, all points equal", 4, 4, spread=0.0, progress=0.0),
    Scenario("8 combinations, 120 points", 2, 4, points=120),
    Scenario("4 prompts x 2 seeds, points differ by prompt", 4, 2, by_prompt=1.0),
    Scenario("4 prompts x 2 seeds, equal points differ by prompt", 4, 2, spread=0.0, progress=0.0, by_prompt=1.0),
    Scenario("8 combinations, long tails", 2, 4, tails=4),
    Scenario("8 combinations, equal points, long tails", 2, 4, spread=0.0, progress=0.0, tails=4),
    Scenario("8 combinations, uneven noise", 2, 4, uneven=0.5),
    Scenario("8 combinations, equal points, uneven noise", 2, 4, spread=0.0, progress=0.0, uneven=0.5),
)


def simulate(scenario: Scenario, count: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the share of searches that dropped the best point, and the share of trials that stopping early saved.

    Of equal points, any may be the best: the first number is then the share of dropped points.
    """
    lost, run, possible = 0.0, 0, 0
    for _ in range(count):
        truth, values = draw(scenario, rng)
        seen = run_search(scenario, values)
        is_dropped = np.isnan(seen).any(axis=1)
        best = truth == truth.max()
        lost += float(is_dropped[best].mean())
        run += int(np.isfinite(seen).sum())
        possible += values.size
    return lost / count, 1 - run / possible


def draw(scenario: Scenario, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rounds = np.arange(scenario.points) // scenario.batch
    truth = rng.normal(0, scenario.spread, scenario.points) + scenario.progress * rounds
    shape = (scenario.points, scenario.prompts, scenario.seeds)
    noise = rng.standard_t(scenario.tails, shape) / np.sqrt(scenario.tails / (scenario.tails - 2)) if scenario.tails \
        else rng.normal(0, 1, shape)  # fmt: skip
    noise *= np.exp(rng.normal(0, scenario.uneven, (scenario.points, 1, 1)))
    differs = rng.normal(0, scenario.by_prompt, shape[:2])
    if scenario.spread:  # the best point is that of the highest mean over these prompts
        truth = truth + differs.mean(axis=1)
    else:
        differs -= differs.mean(axis=1, keepdims=True)
    values = (truth - differs.mean(axis=1))[:, None, None] + differs[:, :, None] + noise
    values += rng.normal(0, 3, (1, scenario.prompts, 1)) + rng.normal(0, 2, (1, 1, scenario.seeds))
    # the first few trials of a point differ in prompt and in seed
    order = [(i % scenario.prompts) * scenario.seeds + (i % scenario.prompts + i // scenario.prompts) % scenario.seeds
             for i in range(scenario.prompts * scenario.seeds)]  # fmt: skip
    assert len(set(order)) == len(order)
    return truth, values.reshape(scenario.points, -1)[:, order]


def run_search(scenario: Scenario, values: np.ndarray) -> np.ndarray:
    """What a search sees whose points get a quarter of their trials, then half of them, then all."""
    seen = np.full_like(values, np.nan)
    ends = sorted({-(-values.shape[1] // part) for part in (4, 2, 1)})
    for start in range(0, scenario.points, scenario.batch):
        going = set(range(start, min(start + scenario.batch, scenario.points)))
        for end in ends:
            points = sorted(going)
            seen[points, :end] = values[points, :end]
            going -= set(find_clearly_worse([seen[: start + scenario.batch]], [True], looks=len(ends) - 1))
    return seen


SAMPLERS = ("euler", "heun", "lcm")
SHAPES = {
    "nothing": lambda _: 0.0,
    "parabola": lambda cfg: -(((cfg - 6) / 3) ** 2),
    "peak": lambda cfg: 3 * np.exp(-(((cfg - 6) / 1.5) ** 2)),
    "log": lambda cfg: 1.5 * np.log(cfg),
}


@dataclass(frozen=True)
class PlantedAxes:
    """A search over cfg (whose effect has a shape), steps (without effect) and sampler (the last is better by `gain`).

    The noise of a point has deviation `noise`. The method is `tpe` after ten random points, or `random`.
    """

    shape: str = "parabola"
    noise: float = 0.5
    gain: float = 0.0
    points: int = 40
    method: str = "tpe"


def find_effects(planted: PlantedAxes, seed: int) -> dict[str, AxisEffect]:
    """Run such a search in rounds of four points, and return what `sweeper effects` says of each axis."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = np.random.default_rng(seed)
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    study = optuna.create_study(direction="maximize", sampler=samplers[planted.method](seed=seed))
    rows = []
    for _ in range(planted.points // 4):
        told = []
        for trial in [study.ask() for _ in range(4)]:
            point = {
                "cfg": trial.suggest_float("cfg", 1, 12),
                "steps": trial.suggest_int("steps", 4, 40, step=2),
                "sampler": trial.suggest_categorical("sampler", SAMPLERS),
            }
            value = SHAPES[planted.shape](point["cfg"]) + planted.gain * (point["sampler"] == SAMPLERS[-1])
            value = float(value + rng.normal(0, planted.noise))
            told.append((trial, value))
            rows.append(Result(len(rows), point, point, str(len(rows)), SUCCEEDED, metrics={"quality": value}))
        for trial, value in told:
            study.tell(trial, value)
    search = SearchColumns((Objective("quality"),), ("cfg", "steps", "sampler"))
    layout = TableLayout("made", search.space, (), ("quality",), search=search)
    metric = SearchAnalysis(rows, find_search_axes(rows, layout, search), search, ()).analyse("quality")
    return {effect.axis: effect for effect in metric.effects}
