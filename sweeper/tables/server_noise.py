"""The noise of a server: how much a number differs between repeats of one trial, as far as results are at hand."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, variance
from typing import Any, Final

from sweeper.model.result import REPEAT_COLUMN, SUCCEEDED
from sweeper.schemas.values import is_number
from sweeper.store import FILE_NAME, Store

_LARGEST: Final = 1e100  # the square of a larger number may be infinite
Repeats = Mapping[str, Sequence[float]]  # metric -> its numbers in the repeats of one trial


def measure_server_noise(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """The standard deviation between repeats of a trial for each metric that has any.

    Repeats are the results that several runs have for a trial (`--fresh`, several targets), and those of
    `sweeper calibrate` in its default folder. Raises ResultsError.
    """
    with Store.open(folder, readonly=True) as store:
        trials = list(_iter_repeated_jobs(store, names))
    calibration = folder.with_name(f"{folder.name}-calibrate")
    if (calibration / FILE_NAME).is_file():
        with Store.open(calibration, readonly=True) as store:
            trials += _iter_calibrated(store, names)
    noise = {}
    for name in names:
        samples = [trial[name] for trial in trials if len(trial.get(name, ())) > 1]
        samples = [sample for sample in samples if max(map(abs, sample)) < _LARGEST]
        if samples:
            squares = math.fsum(variance(sample) * (len(sample) - 1) for sample in samples)
            noise[name] = math.sqrt(squares / sum(len(sample) - 1 for sample in samples))
    return noise


def _iter_repeated_jobs(store: Store, names: Sequence[str]) -> Iterator[Repeats]:
    jobs = defaultdict(list)
    for job in store.jobs():
        if job.state == SUCCEEDED:
            jobs[job.digest].append(job)
    repeated = [group for group in jobs.values() if len(group) > 1]
    cached = {name: store.load_cached_metrics(name) for name in names} if repeated else {}
    for group in repeated:
        files = [[artifact.sha256 for artifact in store.artifacts(job.id)] for job in group]
        numbers = {name: [_average(cached[name], shas) for shas in files] for name in names}
        numbers["ran_s"] = [job.seconds for job in group]
        yield {name: [one for one in of if one is not None] for name, of in numbers.items()}


def _average(values: Mapping[str, Any], files: Sequence[str]) -> float | None:
    """The mean of the numbers of a job's files; None unless each file has one."""
    numbers = [values[sha] for sha in files if is_number(values.get(sha))]
    return fmean(numbers) if numbers and len(numbers) == len(files) else None


def _iter_calibrated(store: Store, names: Sequence[str]) -> Iterator[Repeats]:
    repeats: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in store.results():
        cells = {name: cell for name, cell in row.columns.items() if name != REPEAT_COLUMN}
        for name in names:
            value = row.ran_s if name == "ran_s" else row.metrics.get(name)
            if value is not None and is_number(value):
                repeats[json.dumps(cells)][name].append(value)
    yield from repeats.values()
