"""`calibrate`: how much the pictures of one trial differ from time to time on a target, and which bounds hold that.

Every trial runs several times. A server keeps the results of nodes that it has run, so that a plain repetition would
measure its memory and not its noise: each repeat therefore bears an input that no node knows, which ComfyUI leaves out
of the call but not out of the key of its cache. Nodes that only load files keep theirs: they make no noise, and loading
a checkpoint anew for every repeat would take minutes.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import ImageError, UsageError
from sweeper.model.trial import InputFile, Trial
from sweeper.planning.compatibility import Compatibility
from sweeper.planning.order import Costs
from sweeper.planning.plan import Plan
from sweeper.regression.cases import Case, read_run
from sweeper.regression.match_files import HIGHER_IS_CLOSER, Match, map_parallel, match_files
from sweeper.regression.noise import CaseNoise, MeasureNoise
from sweeper.regression.propose_thresholds import propose_checks
from sweeper.regression.thresholds import Threshold, parse_threshold

if TYPE_CHECKING:
    from sweeper.model.experiment import Experiment
    from sweeper.model.node_classes import NodeInfo
    from sweeper.model.target_spec import NamedTargets, TargetSpec
    from sweeper.running.run_events import Event

REPEAT: Final = "sweeper_repeat"
_PICTURE_MEASURES: Final = ("ssim", "psnr", "mae", "differing", "windowed")
# What bounds are proposed of, whatever kind of file a case is, and what each says of equal files.
_EQUAL_VALUES: Final[Mapping[str, float]] = {
    "ssim": 1.0, "psnr": math.inf, "mae": 0.0, "windowed": 0.0, "sound_snr": math.inf, "sound_mae": 0.0,
    "text_ratio": 1.0,
}  # fmt: skip
_DECIBELS: Final = ("psnr", "sound_snr")
_MAX_NEIGHBOURS: Final = 6  # other cases that a case is told from


@dataclass(frozen=True, slots=True)
class Calibration:
    """The noise of every case. `stopped_by`: why the run ended early, if it did."""

    experiment: str
    repeats: int
    items: tuple[CaseNoise, ...]
    stopped_by: str | None = None

    @property
    def checks(self) -> dict[str, Any]:
        """Proposed `checks`, with `overrides` where cases differ much. Empty where every picture was the same every
        time, or where no one measure serves all cases: identical pixels is the check then, or there is none.
        """
        return propose_checks(self.items)


class RepeatedPlan(Plan):
    """A plan whose trials come several times, each repeat a piece of work of its own."""

    def __init__(self, plan: Plan, repeats: int) -> None:
        self.experiment = plan.experiment
        self._plan, self._repeats = plan, repeats
        self._trials = list(plan.written())
        self.axis_columns = (*plan.axis_columns, REPEAT)
        self.axis_sizes = {**plan.axis_sizes, REPEAT: repeats}

    @property
    def slot_names(self) -> tuple[str, ...]:
        return self._plan.slot_names

    def __len__(self) -> int:
        return len(self._trials) * self._repeats

    def __iter__(self) -> Iterator[Trial]:
        return self.written()

    def written(self) -> Iterator[Trial]:
        for index, (repeat, trial) in enumerate(itertools.product(range(self._repeats), self._trials)):
            digest = hashlib.sha256(f"{trial.digest}/{repeat}".encode()).hexdigest()
            yield Trial(index, trial.params, trial.axes, digest, {**trial.columns, REPEAT: repeat})

    def workflow(self, trial: Trial) -> dict[str, Any]:
        repeat, place = divmod(trial.index, len(self._trials))
        graph = self._plan.workflow(self._trials[place])
        for node in graph.values():
            if "load" not in node["class_type"].casefold():
                node["inputs"] = {**node["inputs"], REPEAT: repeat}
        return graph

    def files(self, trial: Trial) -> tuple[InputFile, ...]:
        return self._plan.files(self._trials[trial.index % len(self._trials)])

    def reordered(self, costs: Costs) -> Plan:  # noqa: ARG002 - repeats go round and round, so that each is apart
        return self

    def fit(self, nodes: NodeInfo) -> Compatibility:
        return self._plan.fit(nodes)


def calibrate(
    experiment: Experiment | str | os.PathLike[str],
    repeats: int = 5,
    *,
    margin: float = 2.0,
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    named: NamedTargets | None = None,
    progress: Callable[[Event], None] | None = None,
    **changes: Any,
) -> Calibration:
    """Run every trial `repeats` times and measure how much its pictures differ among themselves.

    `margin`: how many times the worst noise a bound allows (of decibels: that ratio in dB). `out`: by default
    `results/<name>-calibrate/` here. The rest are the arguments of `sweeper.run`. Raises UsageError for fewer than two
    repeats or a margin below 1; what `sweeper.run` raises.
    """
    from sweeper.loading.load import load  # noqa: PLC0415 - as the runner, only where it is used
    from sweeper.running.run import run  # noqa: PLC0415

    if repeats < 2:
        raise UsageError(f"repeats: {repeats} is less than 2; noise shows only between pictures")
    if not margin >= 1:
        raise UsageError(f"margin: {margin} is below 1; it would refuse the noise that was measured")
    if isinstance(experiment, (str, os.PathLike)):
        experiment = load(experiment)
    place = Path(out) if out is not None else Path("results") / f"{experiment.name}-calibrate"
    plan = RepeatedPlan(Plan(experiment), repeats)
    ended = run(experiment, target, place, plan=plan, named=named, progress=progress, fresh=True, **changes)
    pictures: dict[str, tuple[Case, list[Path]]] = {}
    observed = read_run(place, ended.run_id)
    observed.fetch(shown for row in observed.rows for shown in row.outputs if row.run == ended.run_id)
    for row in observed.rows:
        for shown in row.outputs if row.run == ended.run_id else ():
            cells = {axis: value for axis, value in shown.case.cells.items() if axis != REPEAT}
            case = Case(cells, shown.case.node, shown.case.position)
            pictures.setdefault(case.key, (case, []))[1].append(shown.path)
    known = list(pictures.values())
    items = map_parallel(lambda one: _measure_noise(one[0], one[1], known, margin), known)
    return Calibration(experiment.name, repeats, tuple(items), ended.stopped_by)


def _measure_noise(case: Case, paths: list[Path], known: list[tuple[Case, list[Path]]], margin: float) -> CaseNoise:
    if len(paths) < 2:
        return CaseNoise(case, len(paths), False, (), "fewer than two of its repeats succeeded")
    try:
        pairs = [_match_pair(*pair) for pair in itertools.combinations(paths, 2)]
        others = [_match_pair(paths[0], path) for path in _find_neighbours(case, known)]
    except ImageError as error:
        return CaseNoise(case, len(paths), False, (), f"its repeats cannot be compared: {error}")
    apart = next((pair for pair in pairs if not pair.comparable), None)
    if apart is not None:
        return CaseNoise(case, len(paths), False, (), f"its repeats cannot be compared: {apart.reason}")
    if all(pair.passes for pair in pairs):
        return CaseNoise(case, len(paths), True, ())
    told = [name for name in _EQUAL_VALUES if any(name in pair.metrics for pair in pairs)]
    measured = [other.metrics for other in others if other.tier == "beyond"]  # another size is told from any noise
    noise = tuple(
        _summarize_noise(
            name, [pair.metrics.get(name, _EQUAL_VALUES[name]) for pair in pairs], [other[name] for other in measured],
            margin,
        )
        for name in told
    )  # fmt: skip
    reason = "" if any(one.threshold for one in noise) else "its noise is as large as what tells it from its neighbours"
    return CaseNoise(case, len(paths), False, noise, reason)


def _match_pair(one: Path, other: Path) -> Match:
    return match_files(one, other, {}, reported=_PICTURE_MEASURES)


def _find_neighbours(case: Case, known: list[tuple[Case, list[Path]]]) -> list[Path]:
    """A picture of each case of the same output that is nearest in the sweep: fewest cells apart."""

    def count_differences(other: Case) -> int:
        axes = {*case.cells, *other.cells}
        return sum(case.cells.get(axis) != other.cells.get(axis) for axis in axes)

    same = [
        (count_differences(one), paths[0])
        for one, paths in known
        if (one.node, one.position) == (case.node, case.position)
    ]
    near = sorted(((steps, str(path)) for steps, path in same if steps))
    return [Path(path) for _, path in near[:_MAX_NEIGHBOURS]]


def _summarize_noise(measure: str, values: list[float], effects: list[float], margin: float) -> MeasureNoise:
    higher = measure in HIGHER_IS_CLOSER
    worst = min(values) if higher else max(values)
    finite = [value for value in values if math.isfinite(value)]
    mean = math.fsum(finite) / len(finite) if finite else math.inf
    effect = (max(effects) if higher else min(effects)) if effects else None
    if not math.isfinite(worst):
        return MeasureNoise(measure, mean, worst, effect, None, "its noise is beyond any bound")
    bound = _propose_threshold(measure, worst, margin)
    if effect is not None and bound.is_met_by(effect):
        return MeasureNoise(
            measure, mean, worst, effect, None, f"{bound} would let a neighbour's picture pass ({effect:.4g})"
        )
    return MeasureNoise(measure, mean, worst, effect, bound)


def _propose_threshold(measure: str, worst: float, margin: float) -> Threshold:
    """The worst noise, `margin` times over, rounded outwards to three digits."""
    if measure in _DECIBELS:
        return parse_threshold(f">= {math.floor((worst - 20 * math.log10(margin)) * 10) / 10:.1f}")
    if measure in HIGHER_IS_CLOSER:
        loss = _round_up(margin * (1 - worst))
        return parse_threshold(f">= {1 - loss:.6f}")
    return parse_threshold(f"<= {_round_up(margin * worst):.6g}")


def _round_up(value: float) -> float:
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step) * step
