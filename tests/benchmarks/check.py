"""How long a check of many cases takes beside the reading of their files: `python tests/benchmarks/check.py`.

`--cases` (10,000) pictures of 1024 x 1024 RGB, of which `--changed` (100) differ, the others only in their text, as
ComfyUI's do from run to run; a results folder and a baseline with hard links to a few files. In one run: reading all
files, reading them and hashing the accepted ones (which would show that they are those of the manifest), comparing the
changed ones alone, which is mostly their decoding, `sweeper.check`; and that beside the reading and the comparing.
Seconds on the wall with all cores, and of the processor; nothing is asserted. The check runs in a process of its own,
so that its memory is told without the benchmark's: the most that was resident before the check (its modules loaded)
and at the end of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sweeper.images.compare import png_checksums
from sweeper.regression.baseline import AcceptedFile, Baseline, BaselineEntry
from sweeper.regression.cases import Case
from sweeper.regression.match_files import match_files
from sweeper.store import Store
from sweeper.store.records import SUCCEEDED, JobRecord, TableLayout
from tests.benchmarks.images import write_pair

KINDS = 8  # different pictures


def write_kinds(folder: Path) -> list[tuple[Path, Path, Path]]:
    """(accepted, the same with another text, changed) of each kind."""
    found = []
    for number in range(KINDS):
        accepted, changed = write_pair(folder, number)
        again = folder / f"{number}c.png"
        info = PngInfo()
        info.add_text("prompt", f'{{"9": {{"filename_prefix": "{number}"}}}}')
        with Image.open(accepted) as image:
            image.save(again, pnginfo=info)
        found.append((accepted, again, changed))
    return found


def write_suite(folder: Path, cases: int, changed: int) -> tuple[Path, Path, list[tuple[Path, Path]]]:
    """A results folder, a baseline, and their files in pairs."""
    kinds = write_kinds(folder)
    hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest() for kind in kinds for path in kind}
    sizes = {path: path.stat().st_size for kind in kinds for path in kind}
    endings = {path: png_checksums(path.read_bytes()).hex() for kind in kinds for path in kind}
    results, held = folder / "results", folder / "baseline"
    (results / "artifacts").mkdir(parents=True)
    held.mkdir()
    baseline, pairs = Baseline(held, "many"), []
    with Store.open(results) as store:
        with store.transaction():
            run = store.create_run(TableLayout("many", ("n",), ("n",)), file="gone.yaml", targets=["t"], now=1.0)
            store.add_trials(run, ((n, f"d{n}", {"n": n}, {"n": n}) for n in range(cases)))
        jobs, artifacts = [], []
        for n in range(cases):
            accepted, again, other = kinds[n % KINDS]
            now = other if n < changed else again
            case = Case({"n": n}, "9", 0)
            name = case.build_file_name("png")
            os.link(now, results / "artifacts" / f"{n}.png")
            os.link(accepted, held / name)
            jobs.append(JobRecord(f"j{n}", run, "t", f"d{n}", "s", 1, f"p{n}", SUCCEEDED, 1.0))
            artifacts.append((f"j{n}", 0, "9", "images", 0, f"artifacts/{n}.png", hashes[now], 1, "x"))
            kept = AcceptedFile(
                name, hashes[accepted], None, sizes[accepted], {"n": n}, f"d{n}", "t", ending=endings[accepted]
            )
            baseline.entries[case.key] = BaselineEntry(case, (kept,))
            pairs.append((held / name, results / "artifacts" / f"{n}.png"))
        with store.transaction():  # at once: `intend` and `finish` wait for the disk each time
            marks = ",".join("?" * len(JobRecord.__slots__))
            rows = [[getattr(job, name) for name in JobRecord.__slots__] for job in jobs]
            store._database.executemany(f"INSERT INTO jobs({','.join(JobRecord.__slots__)}) VALUES ({marks})", rows)
            store._database.executemany("INSERT INTO artifacts VALUES (?,?,?,?,?,?,?,?,?)", artifacts)
            store.assign_jobs(run, jobs)
    baseline.save()
    return results, held, pairs


def read(pair: tuple[Path, Path]) -> None:
    for path in pair:
        path.read_bytes()


def read_and_hash(pair: tuple[Path, Path]) -> None:
    hashlib.sha256(pair[0].read_bytes()).digest()
    pair[1].read_bytes()


def spread(work: Callable[[tuple[Path, Path]], object], pairs: list[tuple[Path, Path]]) -> None:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(work, pairs))


def measure_time(work: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def report(name: str, taken: tuple[float, float], reading: tuple[float, float]) -> None:
    told = [f"{seconds:7.2f} s {seconds / base:5.2f} x" for seconds, base in zip(taken, reading, strict=True)]
    print(f"{name:<22} wall {told[0]}   processor {told[1]}")


def measure_peak_memory() -> float:
    """The most memory that this process ever had, in MiB. Not `getrusage`, which tells a child of its parent's too."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def check_alone(results: Path, held: Path) -> None:
    """In a process of its own: `sweeper.check`, and what it took, as JSON."""
    from sweeper.regression.check import check

    before, found = measure_peak_memory(), []
    taken = measure_time(lambda: found.append(check(results, held)))
    counts = {state: count for state, count in found[0].counts.items() if count}
    print(json.dumps({"taken": taken, "before": before, "most": measure_peak_memory(), "counts": counts}))


def run_check(results: Path, held: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--alone", str(results), str(held)]
    told: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--changed", type=int, default=100)
    parser.add_argument("--alone", nargs=2, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.alone:
        check_alone(*chosen.alone)
        return
    with TemporaryDirectory() as folder:
        results, held, pairs = write_suite(Path(folder), chosen.cases, chosen.changed)
        print(f"{chosen.cases} cases, {chosen.changed} of them changed")
        reading = measure_time(lambda: spread(read, pairs))
        report("reading", reading, reading)
        report("reading and hashing", measure_time(lambda: spread(read_and_hash, pairs)), reading)
        changed = pairs[: chosen.changed]
        comparing = measure_time(lambda: spread(lambda pair: match_files(*pair, {}), changed))
        report("comparing the changed", comparing, reading)
        told = run_check(results, held)
        report("check", told["taken"], reading)
        least = tuple(map(sum, zip(reading, comparing, strict=True)))
        report("  beside both of these", told["taken"], (least[0], least[1]))
        print(told["counts"])
        print(f"{told['before']:.0f} MiB before the check, {told['most']:.0f} MiB at most")


if __name__ == "__main__":
    main()
