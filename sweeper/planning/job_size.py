"""How large a job is beside another of the same template, by pixels, frames, steps and batch, to scale measured times.

A job of 512 x 512 says little about the time of one of 1536 x 1536. How the time grows depends on the model and on what
a job does besides sampling, so a scaled time is a range: from the square root of the growth to a little more than it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sweeper.model.expressions import ExpressionError
from sweeper.model.template import Leaf, Template
from sweeper.schemas.values import is_number

if TYPE_CHECKING:
    from sweeper.planning.plan import Plan

_KINDS: Final = {
    "width": "width", "height": "height", "megapixels": "pixels", "steps": "steps", "batch_size": "batch",
    "length": "frames", "frames": "frames", "num_frames": "frames", "video_frames": "frames", "frame_count": "frames",
    "max_frames": "frames", "duration": "frames",
}  # fmt: skip
_NO_MODELS: Final = ("sampler_name", "scheduler_name")  # of the inputs that end with `_name`, which choose model files
_LEAST: Final = 0.5  # exponents of the growth, between which that of the time lies
_MOST: Final = 1.25  # attention takes the square of the pixels
_MAX_COMPARED: Final = 5_000  # trials
_OTHER_MODELS: Final = 8.0  # times longer or shorter: what a job with other model files may take


class JobSize(NamedTuple):
    """The size of a job, in a unit that only jobs of the same template share, and the model files that it chooses."""

    size: float
    models: tuple[Any, ...]


class JobSizes:
    """Measures the jobs of a template by their params."""

    def __init__(self, template: Template) -> None:
        inputs = [(str(leaf.path[2]), leaf) for leaf in template.leaves if len(leaf.path) > 2]
        self._models = [leaf for name, leaf in inputs if name.endswith("_name") and name not in _NO_MODELS]
        self._kinds: dict[str, list[Leaf]] = {}
        for name, leaf in inputs:
            if name in _KINDS:
                self._kinds.setdefault(_KINDS[name], []).append(leaf)
        leaves = [*self._models, *(leaf for kind in self._kinds.values() for leaf in kind)]
        self._names = tuple(dict.fromkeys(name for leaf in leaves for name in leaf.names))
        self._known: dict[str, JobSize | None] = {}

    def differ(self, plan: Plan) -> bool:
        """Whether jobs of a plan differ in size or model files, by its first trials as written and as executed."""
        trials = chain(islice(plan.written(), _MAX_COMPARED), islice(plan, _MAX_COMPARED)) if self._names else ()
        sizes = (self.measure(trial.params) for trial in trials)
        first = next(sizes, None)
        return any(size != first for size in sizes)

    def measure(self, params: Mapping[str, Any]) -> JobSize | None:
        """Return the size of a job with these params; None if it cannot be computed, as of another template."""
        key = repr([params.get(name) for name in self._names])
        if key not in self._known:
            self._known[key] = self._compute(params)
        return self._known[key]

    def _compute(self, params: Mapping[str, Any]) -> JobSize | None:
        try:
            sums = [sum(leaf.evaluate(params) for leaf in leaves) for leaves in self._kinds.values()]
            models = tuple(repr(leaf.evaluate(params)) for leaf in self._models)
        except (ExpressionError, KeyError, TypeError):
            return None
        return JobSize(math.prod(sums), models) if all(is_number(value) and value > 0 for value in sums) else None


def scale_seconds(seconds: float, growth: float) -> tuple[float, float, float]:
    """Return the seconds of a job that is `growth` times as large: about, at least and at most."""
    ends = growth**_LEAST, growth**_MOST
    return seconds * growth, seconds * min(ends), seconds * max(ends)


class SizedTimes:
    """The seconds of earlier jobs by their size; `times` has at least one."""

    def __init__(self, times: Iterable[tuple[JobSize, float]]) -> None:
        self._times: dict[JobSize, list[float]] = {}
        for size, seconds in times:
            self._times.setdefault(size, []).append(seconds)

    def __contains__(self, size: JobSize) -> bool:
        """Whether a job of this size was measured."""
        return size in self._times

    def is_seen(self, size: JobSize) -> bool:
        """Whether a job with these model files was measured."""
        return any(known.models == size.models for known in self._times)

    def estimate(self, size: JobSize) -> tuple[float, float, float]:
        """Return the seconds of a job of this size: about, at least and at most; from those of the nearest size."""
        alike = [known for known in self._times if known.models == size.models] or list(self._times)
        nearest = min(alike, key=lambda known: abs(math.log(size.size / known.size)))
        times, growth = self._times[nearest], size.size / nearest.size
        mean = scale_seconds(sum(times) / len(times), growth)[0]
        least, most = scale_seconds(min(times), growth)[1], scale_seconds(max(times), growth)[2]
        doubt = 1.0 if nearest.models == size.models else _OTHER_MODELS
        return mean, least / doubt, most * doubt
