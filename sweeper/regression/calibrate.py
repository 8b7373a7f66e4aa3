"""Measure how much the pictures of a trial differ from one run to the next, and propose thresholds that allow it.

Every trial runs several times. Because servers cache the results of nodes, a plain repetition would only return the
cached picture. Each repeat therefore has an extra input that no node knows: ComfyUI does not pass it to the node, but
it is part of the cache key. Nodes that load files do not get it, because they make no noise and reloading a checkpoint
for every repeat would take minutes.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeAlias

from sweeper.answers.parts import Item, Line, Part, Table, Warn
from sweeper.answers.render import NOT_IN_JSON, json_keys, json_name
from sweeper.errors import ImageError, UsageError
from sweeper.loading.load import load
from sweeper.model.experiment import Experiment
from sweeper.model.node_classes import NodeInfo
from sweeper.model.result import REPEAT_COLUMN
from sweeper.model.target_spec import NamedTargets, TargetSpec
from sweeper.model.trial import InputFile, Trial
from sweeper.planning.compatibility import Compatibility
from sweeper.planning.plan import Plan
from sweeper.regression.cases import Case, read_run
from sweeper.regression.match_files import (
    HIGHER_IS_CLOSER,
    Threshold,
    map_parallel,
    match_files,
    parse_threshold,
    pick_loosest,
    propose_threshold,
)
from sweeper.running.prepare import complete_experiment
from sweeper.running.run import run
from sweeper.running.run_events import Event
from sweeper.tables.results_folder import default_results_folder
from sweeper.wording import count_things

CasePictures: TypeAlias = tuple[Case, list[Path]]  # a case, and its picture from each repeat

_PICTURE_MEASURES: Final = ("ssim", "psnr", "mae", "differing", "windowed")
# The measures with proposed thresholds, for any type of file, and their values for equal files.
_EQUAL_VALUES: Final[Mapping[str, float]] = {
    "ssim": 1.0, "psnr": math.inf, "mae": 0.0, "windowed": 0.0, "sound_snr": math.inf, "sound_mae": 0.0,
    "text_ratio": 1.0,
}  # fmt: skip
_MAX_NEIGHBOURS: Final = 6  # other cases from which a threshold must distinguish a case


@dataclass(frozen=True, slots=True)
class MeasureNoise:
    """The noise of one case by one measure.

    `mean` and `worst` are over all pairs of its repeats. `effect` is the smallest difference to a neighbouring case in
    the sweep (None without neighbours). `threshold`, in JSON `bound`, allows the noise with a margin. It is None, with
    a `reason`, if it would also accept a neighbour's picture.
    """

    measure: str = field(metadata=NOT_IN_JSON)
    mean: float
    worst: float
    effect: float | None
    threshold: Threshold | None = field(metadata=json_keys(bound=lambda threshold: threshold and str(threshold)))
    reason: str = field(default="", metadata=NOT_IN_JSON)


@dataclass(frozen=True, slots=True)
class CaseNoise:
    """The noise of one case. In JSON, `case` is its name.

    `steady`: all `repeats` have identical pixels. `gated`: a check can distinguish a change of this case from its
    noise; if not, `reason` says why. `noise` is by measure.
    """

    case: Case = field(metadata=json_keys(case=attrgetter("name")))
    repeats: int
    stable: bool = field(metadata=json_name("steady"))
    is_checkable: bool = field(init=False, metadata=json_name("gated"))
    noise: tuple[MeasureNoise, ...] = field(
        metadata=json_keys(noise=lambda noise: {measured.measure: measured for measured in noise})
    )
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_checkable", self.stable or bool(self.thresholds))

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """The thresholds that allow its noise, by measure."""
        return {measured.measure: measured.threshold for measured in self.noise if measured.threshold}

    def is_missed_by(self, checks: Mapping[str, str]) -> bool:
        """Whether checks of all cases may miss a change of this one: it needs none, or a neighbour's picture passes."""
        measured = [noise for noise in self.noise if noise.measure in checks]
        return self.stable or all(
            noise.effect is not None and parse_threshold(checks[noise.measure]).is_met_by(noise.effect)
            for noise in measured
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """The answer of `sweeper calibrate`: the noise of every case of an experiment that ran `repeats` times.

    `checks` are those to write into the experiment. They are empty if every case is stable, so that identical pixels is
    the right check, or if no measure suits all cases. `stopped_by` is why the run ended early, if it did.
    """

    experiment: str
    repeats: int
    checks: Mapping[str, str]
    stopped_by: str | None
    cases: tuple[CaseNoise, ...]

    @property
    def ok(self) -> bool:
        """Whether there are cases, a check can distinguish a change of each from its noise, and all were measured."""
        return self.stopped_by is None and bool(self.cases) and all(case.is_checkable for case in self.cases)

    def parts(self) -> Iterator[Part]:
        """The noise, the cases that cannot be checked, and the checks as YAML for the experiment."""
        rows: list[tuple[Any, ...]] = []
        for case in self.cases:
            start = case.case.name, case.repeats
            if case.stable or not case.noise:
                rows.append((*start, "", "", "", "", "the same pixels" if case.stable else case.reason))
            for noise in case.noise:
                bound = str(noise.threshold) if noise.threshold else f"none: {noise.reason}"
                rows.append((*start, noise.measure, noise.mean, noise.worst, noise.effect, bound))
        columns = ("case", "repeats", "measure", "mean", "worst", "effect", "bound")
        yield Table(columns, rows, rounded=("mean", "worst", "effect"))
        for case in self.cases:
            if not case.is_checkable:
                yield Warn(f"no threshold can separate {case.case.name} from noise: {case.reason}")
        if self.checks:
            yield Line("On this server as it runs now, these checks allow the noise:")
            yield Line("checks:")
            yield from (Item(f'{name}: "{threshold}"') for name, threshold in self.checks.items())
            if missed := sum(case.is_checkable and case.is_missed_by(self.checks) for case in self.cases):
                yield Warn(
                    f"they may miss a change of {count_things(missed, 'case')} with less noise; write `overrides` for "
                    "the noisy cases, with the bounds above, and tighter checks for the others"
                )
        elif self.cases and all(case.stable for case in self.cases):
            yield Line(
                "On this server as it runs now, every picture was the same every time. No checks are needed: "
                "by default pixels must be identical."
            )
        else:
            yield Line("No single measure works for all cases; write `overrides` for each.")


class RepeatedPlan(Plan):
    """A plan that repeats all trials several times. Each repeat has its own digest, so that it is executed.

    Its trials are a list and no product of axes, so no order brings the repeats of a trial together.
    """

    def __init__(self, plan: Plan, repeats: int) -> None:
        self.experiment = plan.experiment
        self._plan, self._repeats = plan, repeats
        self._trials = list(plan.written())
        self.axis_columns = (*plan.axis_columns, REPEAT_COLUMN)
        self.axis_sizes = {**plan.axis_sizes, REPEAT_COLUMN: repeats}

    def __len__(self) -> int:
        return len(self._trials) * self._repeats

    def written(self) -> Iterator[Trial]:
        for index, (repeat, trial) in enumerate(itertools.product(range(self._repeats), self._trials)):
            digest = hashlib.sha256(f"{trial.digest}/{repeat}".encode()).hexdigest()
            yield Trial(index, trial.params, trial.axes, digest, {**trial.columns, REPEAT_COLUMN: repeat})

    __iter__ = written

    def workflow(self, trial: Trial) -> dict[str, Any]:
        repeat, index = divmod(trial.index, len(self._trials))
        graph = self._plan.workflow(self._trials[index])
        for node in graph.values():
            if "load" not in node["class_type"].casefold():
                node["inputs"] = {**node["inputs"], REPEAT_COLUMN: repeat}
        return graph

    def files(self, trial: Trial) -> tuple[InputFile, ...]:
        return self._plan.files(self._trials[trial.index % len(self._trials)])

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
    **options: Any,
) -> Calibration:
    """Run every trial `repeats` times and measure how much its pictures differ from each other.

    A proposed threshold allows `margin` times the worst noise (for decibels, that ratio in dB). `out` is by default
    `results/<name>-calibrate/` beside the experiment file. The others are arguments of `sweeper.run`.

    Raises UsageError for fewer than two repeats or a margin below 1, and what `sweeper.run` raises.
    """
    if repeats < 2:
        raise UsageError(f"repeats: {repeats} is less than 2, but noise is measured between pictures; give 2 or more")
    if not margin >= 1:
        raise UsageError(f"margin: {margin} is below 1, so a check would fail on the measured noise; give 1 or more")
    if isinstance(experiment, (str, os.PathLike)):
        experiment = load(experiment)
    experiment = complete_experiment(experiment, target, named, report=progress or (lambda _: None))
    folder = Path(out) if out is not None else default_results_folder(experiment.file, experiment.name, "calibrate")
    plan = RepeatedPlan(Plan(experiment), repeats)
    ended = run(experiment, target, folder, plan=plan, named=named, progress=progress, fresh=True, **options)
    cases = _collect_pictures(folder, ended.run_id)
    noise = tuple(map_parallel(lambda pictures: _measure_noise(*pictures, cases, margin), cases))
    return Calibration(experiment.name, repeats, _propose_checks(noise), ended.stopped_by, noise)


def _collect_pictures(folder: Path, run_id: int) -> list[CasePictures]:
    run_cases = read_run(folder, run_id, own=True)
    outputs = [output for row in run_cases.rows for output in row.outputs]
    run_cases.fetch(outputs)
    pictures: dict[str, CasePictures] = {}
    for output in outputs:
        cells = {axis: value for axis, value in output.case.cells.items() if axis != REPEAT_COLUMN}
        case = replace(output.case, cells=cells, point="")
        pictures.setdefault(case.key, (case, []))[1].append(output.path)
    return list(pictures.values())


def _measure_noise(case: Case, paths: list[Path], cases: list[CasePictures], margin: float) -> CaseNoise:
    if len(paths) < 2:
        return CaseNoise(case, len(paths), False, (), "fewer than two of its repeats succeeded")
    try:
        match = partial(match_files, thresholds={}, reported=_PICTURE_MEASURES)
        pairs = [match(*pair) for pair in itertools.combinations(paths, 2)]
        neighbours = [match(paths[0], path) for path in _find_neighbours(case, cases)]
    except ImageError as error:
        return CaseNoise(case, len(paths), False, (), f"its repeats cannot be compared: {error}")
    incomparable = next((pair for pair in pairs if not pair.comparable), None)
    if incomparable is not None:
        return CaseNoise(case, len(paths), False, (), f"its repeats cannot be compared: {incomparable.reason}")
    if all(pair.passes for pair in pairs):
        return CaseNoise(case, len(paths), True, ())
    # A neighbour of another size cannot be confused with noise, so only those that were measured count.
    measured = [neighbour.metrics for neighbour in neighbours if neighbour.tier == "beyond"]
    noise = []
    for name, equal_value in _EQUAL_VALUES.items():
        if any(name in pair.metrics for pair in pairs):
            values = [pair.metrics.get(name, equal_value) for pair in pairs]
            noise.append(_summarize_noise(name, values, [metrics[name] for metrics in measured], margin))
    is_checkable = any(measured.threshold for measured in noise)
    reason = "" if is_checkable else "its noise is as large as the difference to neighbouring cases"
    return CaseNoise(case, len(paths), False, tuple(noise), reason)


def _find_neighbours(case: Case, cases: list[CasePictures]) -> list[Path]:
    """A picture of each neighbour: the cases of the same output that differ in the fewest cells."""
    same_output = [
        (sum(case.cells.get(axis) != other.cells.get(axis) for axis in {*case.cells, *other.cells}), str(paths[0]))
        for other, paths in cases
        if (other.node, other.position) == (case.node, case.position)
    ]
    nearest = sorted((count, path) for count, path in same_output if count)
    return [Path(path) for _, path in nearest[:_MAX_NEIGHBOURS]]


def _summarize_noise(measure: str, values: list[float], effects: list[float], margin: float) -> MeasureNoise:
    higher = measure in HIGHER_IS_CLOSER
    worst = min(values) if higher else max(values)
    finite = [value for value in values if math.isfinite(value)]
    mean = math.fsum(finite) / len(finite) if finite else math.inf
    effect = (max(effects) if higher else min(effects)) if effects else None
    if not math.isfinite(worst):
        return MeasureNoise(measure, mean, worst, effect, None, "no threshold allows its noise")
    threshold = propose_threshold(measure, worst, margin)
    if effect is not None and threshold.is_met_by(effect):
        reason = f"{threshold} would accept the picture of a neighbouring case ({effect:.4g})"
        return MeasureNoise(measure, mean, worst, effect, None, reason)
    return MeasureNoise(measure, mean, worst, effect, threshold)


def _propose_checks(items: Sequence[CaseNoise]) -> dict[str, str]:
    """The loosest threshold for each measure that all unstable cases have, in the form of the experiment file.

    Empty if all cases are stable. Cases that no threshold can check are ignored.
    """
    bounds = [case.thresholds for case in items if case.is_checkable and not case.stable]
    return {
        measure: str(pick_loosest(measure, [thresholds[measure] for thresholds in bounds]))
        for measure in (bounds[0] if bounds else ())
        if all(measure in thresholds for thresholds in bounds)
    }
