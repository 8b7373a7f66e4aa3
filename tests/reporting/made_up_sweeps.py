"""Results folders made without a server: rows, jobs and pictures of a run that never happened."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sweeper.store import Store
from sweeper.store.records import JobRecord, TableLayout

_get_cells = attrgetter(*JobRecord.__slots__)


@lru_cache(maxsize=300)  # many tests show the same ones
def picture(seed: int, *, size: tuple[int, int] = (64, 48), kind: str = "PNG", noise: int = 24) -> bytes:
    """A different picture for each seed: a colour gradient with some noise."""
    random = np.random.default_rng(seed)
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    colours = random.integers(0, 200, size=(2, 3))
    pixels = colours[0] * across[..., None] + colours[1] * down[..., None]
    pixels = np.clip(pixels + random.integers(0, noise + 1, size=pixels.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@dataclass
class Sweep:
    """The content of a made-up run. `ends`: by trial, a state other than succeeded and its error."""

    axes: Mapping[str, Sequence[Any]]
    name: str = "made-up"
    slots: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    distinct: int = 1_000_000  # how many different pictures there are
    size: tuple[int, int] = (64, 48)
    sizes: Sequence[tuple[int, int]] = ()  # of the pictures in their order, in place of `size`
    ends: Mapping[int, tuple[str, tuple[str, str] | None]] = field(default_factory=dict)
    skip: frozenset[int] = frozenset()  # points of the product that are not in the plan
    suffix: str = "png"
    content: bytes | None = None
    file: str = "gone.yaml"
    target: str = "embedded"
    together: tuple[tuple[str, str], ...] = ()  # axes that vary together

    def write(self, out: Path) -> Path:
        layout = TableLayout(self.name, tuple(self.axes), tuple(self.slots), ("brightness",), together=self.together)
        points = [p for n, p in enumerate(itertools.product(*self.axes.values())) if n not in self.skip]
        names = list(self.axes)
        trials = []
        for index, point in enumerate(points):
            columns = dict(zip(names, point, strict=True))
            digest = hashlib.sha256(repr((index, point)).encode("utf-8", "surrogatepass")).hexdigest()
            trials.append((index, digest, {**self.slots, **columns}, columns))
        (out / "artifacts").mkdir(parents=True, exist_ok=True)
        pictures = [self._picture(out, n) for n in range(min(self.distinct, len(trials) * self.outputs))]
        with Store.open(out) as store:
            with store.transaction():
                run = store.create_run(layout, file=self.file, targets=[self.target], now=1_000_000.0)
                store.add_trials(run, trials)
            self._jobs(store, run, trials, pictures)
            store.cache_metrics([(sha, "brightness", 10.0 + n % 90) for n, (_, sha, _) in enumerate(pictures)])
            store.end_run(run, now=1_000_060.0, stopped_by=None)
        return out

    def _jobs(self, store: Store, run: int, trials: Sequence[Any], pictures: Sequence[tuple[str, str, int]]) -> None:
        """Record the jobs and their files, all at once: some sweeps have ten thousand."""
        jobs, files = [], []
        for index, digest, _, _ in trials:
            state, error = self.ends.get(index, ("succeeded", None))
            if state == "pending":
                continue
            job = JobRecord(f"job{index}", run, self.target, digest, digest, 1, f"p{index}", state, 1.0, 1.0, 2.0, 2.5,
                            *(error or (None, None)))  # fmt: skip
            jobs.append(job)
            for place in range(self.outputs if state == "succeeded" else 0):
                file = pictures[(index * self.outputs + place) % len(pictures)]
                files.append((job.id, place, "9", "images", place, *file, "x.png"))
        with store.transaction():
            for table, rows in (("jobs", list(map(_get_cells, jobs))), ("artifacts", files)):
                if rows:
                    marks = ", ".join("?" * len(rows[0]))
                    store._database.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)
            store.assign_jobs(run, jobs)

    def _picture(self, out: Path, number: int) -> tuple[str, str, int]:
        size = self.sizes[number] if number < len(self.sizes) else self.size
        data = self.content if self.content is not None else picture(number, size=size)
        path = out / "artifacts" / f"picture-{number}.{self.suffix}"
        path.write_bytes(data)
        return f"artifacts/{path.name}", hashlib.sha256(data).hexdigest(), len(data)
