"""Invariants of a results folder after any fault: one row per trial, whole files, no leftovers, no job twice."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from sweeper.store import Store
from sweeper.store.records import OPEN_STATES, UNSENT
from tests.running.servers import Served, colour


def broken_promises(out: Path, trials: int, servers: Iterable[Served], *, outputs: int = 1) -> list[str]:
    """Messages for the invariants that do not hold. Each trial must have `outputs` files."""
    with Store.open(out, readonly=True) as store:
        rows, jobs = list(store.results()), list(store.jobs())
    found = [line for server in servers for line in server.twice()]
    if [row.trial for row in rows] != list(range(trials)):
        found.append(f"rows of trials {[row.trial for row in rows]}")
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        listed = [(int(line["trial"]), line["status"]) for line in csv.DictReader(file)]
    if listed != [(row.trial, row.status) for row in rows]:
        found.append(f"results.csv says {listed}")
    for row in rows:
        sent = [job for job in jobs if job.digest == row.digest and job.state != UNSENT]
        if row.status != "succeeded" or row.attempts != len(sent):
            found.append(f"trial {row.trial}: {row.status} {row.error}, attempts {row.attempts} of {len(sent)}")
        if len(row.outputs) != outputs:
            found.append(f"trial {row.trial} has the files {row.outputs}")
        for path, sha256 in zip(row.outputs, row.sha256, strict=True):
            found += [f"{path}: {problem}" for problem in _file(out / path, sha256, row)]
    found += [
        f"job {job.id} of trial {job.digest[:8]} is still {job.state}" for job in jobs if job.state in OPEN_STATES
    ]
    there = {path.name for path in (out / "artifacts").iterdir()}
    known = {Path(path).name for row in rows for path in row.outputs}
    return found + [f"left over: {name}" for name in sorted(there - known)]


def _file(path: Path, sha256: str, row: Any) -> list[str]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        return ["its hash is not the table's"]
    with Image.open(path) as picture:
        red, green, blue = picture.convert("RGB").getpixel((0, 0))
    if path.name.rpartition(".")[0].rpartition(".")[2].startswith("2") and (red << 16) + (green << 8) + blue != colour(
        row.trial
    ):
        return [f"the picture of another trial: {red} {green} {blue}"]
    return []
