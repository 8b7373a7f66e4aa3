"""Measures what comes after a run, in sweeps of 10,000 and 100,000 trials: time, memory, and their growth.

    python tests/benchmarks/large_sweep.py [--folder DIR] [--sizes N ...] [--only WORD ...]

Each command runs in a process of its own on a made-up results folder: the same `run` again, `plan`, `results`, `runs`,
`export`, `report` with new thumbnails and with those that exist. Prints the seconds on the clock and of the processor,
the most memory, and how often the figures of the first size go into those of the last. `--folder` keeps the folders
between calls; `--only` runs the commands whose names contain a word. `page.py --folder DIR/100000` measures the page.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import sweeper
from sweeper.images.metrics.registry import load_metrics
from sweeper.model.result import PIXEL_HASH
from sweeper.running.measure_run import get_cacheable_versions
from sweeper.store import Store
from sweeper.store.records import Artifact, JobEnd, JobRecord, TableLayout

TEMPLATE = Path(__file__).parents[2] / "templates" / "txt2img"
METRICS = ("brightness", "sharpness")
SIDE = 64  # pixels of each picture
NODE = "9"
EXPERIMENT = """\
name: large
template: txt2img.json
target: embedded
params: {{negative: "blurry, watermark", width: 384, height: 384}}
sweep:
  grid:
    prompt: [{prompts}]
    steps: [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    cfg: [1, 2, 3.5, 4, 5, 6.5, 7, 8, 9, 10]
    seed: {{seeds: {seeds}}}
metrics: [{metrics}]
run: {{max_trials: 1000000}}
"""


def make_picture(number: int) -> bytes:
    """Return a PNG of stripes whose colours spell the number, so that no two are equal."""
    colours = hashlib.sha256(str(number).encode()).digest()
    line = b"\0" + (colours * (SIDE * 3 // len(colours) + 1))[: SIDE * 3]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)),
        (b"tEXt", b"prompt\0" + b'{"1": {"class_type": "SaveImage", "inputs": {}}}'),
        (b"IDAT", zlib.compress(line * SIDE, 1)),
        (b"IEND", b""),
    ]
    parts = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def make_folder(folder: Path, size: int) -> Path:
    """Make an experiment of `size` trials with the results of a run that did all of them; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".json", ".slots.yaml"):
        shutil.copy(f"{TEMPLATE}{suffix}", folder)
    prompts = ", ".join(f"a red fox number {n} in a snowy forest at the edge of the lake" for n in range(10))
    file = folder / "large.yaml"
    file.write_text(EXPERIMENT.format(prompts=prompts, seeds=size // 1000, metrics=", ".join(METRICS)))
    plan = sweeper.plan(sweeper.load(file))
    assert len(plan) == size
    out = folder / "results" / "large"
    (out / "artifacts").mkdir(parents=True)
    layout = TableLayout(plan.experiment.name, tuple(plan.axis_columns), tuple(plan.slot_names), METRICS)
    with Store.open(out) as store:
        get_cacheable_versions(store, load_metrics([*METRICS, PIXEL_HASH], folder))
        with store.transaction():
            run = store.create_run(layout, file=str(file), targets=["embedded"], now=1e9)
            store.add_trials(run, ((t.index, t.digest, t.params, t.columns) for t in plan.written()))
        for batch in itertools.batched(plan.written(), 1000) if sys.version_info >= (3, 12) else _cut(plan.written()):
            with store.transaction(durable=False):
                rows = [row for trial in batch for row in _record(store, run, trial, out)]
                store.cache_metrics(rows)
        store.end_run(run, now=1e9 + 60, stopped_by=None)
    return file


def _cut(trials: Iterator[sweeper.Trial]) -> Iterator[Sequence[sweeper.Trial]]:
    while part := list(itertools.islice(trials, 1000)):
        yield part


def _record(store: Store, run: int, trial: sweeper.Trial, out: Path) -> list[tuple[str, str, object]]:
    """Record the job of a trial with its picture; return the values that the cache of metrics has of it."""
    key = f"{trial.digest[:8]}-{trial.digest[8:12]}-4000-8000-{trial.digest[12:24]}"
    data, began = make_picture(trial.index), 1e9 + trial.index / 200
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"artifacts/{trial.index:06}.{key}.{NODE}-0.png"
    (out / path).write_bytes(data)
    intent = JobRecord(key, run, "embedded", trial.digest, trial.digest, 1, key, "submitted", began, began)
    store.record_intent(intent)
    artifact = Artifact(NODE, "images", 0, path, sha256, len(data), "x.png")
    store.record_finished(
        key, JobEnd("succeeded", began + 0.1, began + 0.3 + trial.index % 97 / 100, None, (artifact,))
    )
    values = (trial.index * 7919 % 25500 / 100, trial.index * 104729 % 9973 / 7)
    return [(sha256, name, value) for name, value in zip(METRICS, values, strict=True)] + [(sha256, PIXEL_HASH, sha256)]


def list_commands(file: Path, scratch: Path) -> dict[str, list[str]]:
    """The commands by their names in the table."""
    name = str(file)
    return {
        "plan": ["plan", name],
        "run without its table": ["run", name],  # also checks the store, as the first command after a run does
        "run again": ["run", name],
        "results": ["results", name, "--json"],
        "results --by": ["results", name, "--by", "steps,prompt"],
        "results --where": ["results", name, "--where", "steps > 4 and brightness < 20", "--by", "steps"],
        "rows --where": ["results", name, "--where", "steps > 4 and cfg < 6 and 'number 3' in prompt"],
        "results --pivot": ["results", name, "--pivot", "steps,cfg,sharpness"],
        "runs": ["runs", name],
        "export parquet": ["export", name, "-o", str(scratch / "table.parquet")],
        "export csv": ["export", name, "-o", str(scratch / "table.csv")],
        "export jsonl": ["export", name, "-o", str(scratch / "table.jsonl")],
        "effects": ["effects", name],
        "report, new thumbnails": ["report", name, "--no-check", "-o", str(scratch / "report")],
        "report again": ["report", name, "--no-check", "-o", str(scratch / "report")],
    }


def measure(command: Sequence[str]) -> tuple[float, float, float]:
    """Run the command of sweeper: seconds on the clock, seconds of the processor, MiB of memory."""
    start = time.perf_counter()
    with open(os.devnull, "w") as nothing:  # noqa: PTH123
        words = [sys.executable, "-P", "-m", "sweeper", *command]
        actions = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), 1)]
        process = os.posix_spawn(sys.executable, words, os.environ, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--only", nargs="+", default=[""])
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    found: dict[str, list[tuple[float, float, float]]] = {}
    for size in given.sizes:
        file = folder / str(size) / "large.yaml"
        if not file.exists():
            make_folder(file.parent, size)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            for name, command in list_commands(file, Path(scratch)).items():
                if any(word in name for word in given.only):
                    found.setdefault(name, []).append(measure(command))
            if "run again" in found:  # it added its run to the store
                shutil.rmtree(file.parent / "results")
                make_folder(file.parent, size)
    print("load of the machine:", *map("{:.1f}".format, os.getloadavg()))
    print(f"{'trials':<24}" + "".join(f"{size:>26,}" for size in given.sizes) + f"{'growth':>10}")
    for name, figures in found.items():
        cells = "".join(f"{wall:8.1f} s ({cpu:5.1f}) {memory:4.0f} MiB" for wall, cpu, memory in figures)
        print(f"{name:<24}{cells}{figures[-1][0] / figures[0][0]:9.1f}x")


if __name__ == "__main__":
    main()
