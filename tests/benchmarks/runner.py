"""How busy the runner keeps a server, against other clients, in one run: `python tests/benchmarks/runner.py`.

Servers are processes of their own, on loopback. The lean one (`runner_lean.py`) sleeps instead of working, so that
clients are measured, and not the server: as a ComfyUI with one slot, as a ComfyUI with eight (there is none, but
published clients speak nothing else), and as Comfy Cloud with eight. The embedded one is the whole stack: it executes
graphs and needs 4 to 8 ms of a core for a job, so eight slots are more than it can keep busy with jobs of 20 ms.
Every client gets a fresh server, the same workflows, and two jobs a slot in flight. Per client:

- jobs/s: from the start of the first job to the end of the last, by the server's own record;
- idle: the share of the slots' time in which no job ran although work was left, by the same record. The line "queue
  filled before" is the server alone: its jobs start when all of them are queued, and nobody can be less idle;
- requests, the client's CPU ms (between the same two moments) and the server's CPU ms per job, and the seconds from the
  call to the last file on disk, the client's start included. A proxy's CPU is not in it.

Files go to the disk of `--out` (a temporary folder), and are removed at the end of all: a file system that has just
lost thousands of files is slow to make new ones (ext4 passes over inodes freed in the last seconds). On a disk, what
it costs to make a file is measured too; `--out /dev/shm` leaves that out.

Published clients run in an interpreter of yours: `python -m venv rivals`, `rivals/bin/pip install comfy-api-simplified
comfy-sdk comfy-api-proxy`, then `--rivals rivals/bin/python`; one that is missing is skipped. Nothing is asserted: a
number from a busy machine is no failure; there, `nice -n -15` before the command says more.
"""

from __future__ import annotations

import argparse
import heapq
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

HERE = Path(__file__).parent
FILLED = "queue filled before"
OURS = ("sweeper", "httpx loop", FILLED)  # clients that run in our own interpreter
PUBLISHED = ("comfy-api-simplified", "comfy-sdk and proxy")
SERVERS = {"lean": "runner_lean.py", "embedded": "runner_server.py"}
SETUPS = (
    *("lean:comfyui:1:0", "lean:comfyui:1:20", "lean:comfyui:8:0", "lean:comfyui:8:20"),
    *("lean:cloud:8:0", "lean:cloud:8:20"),
    *("embedded:comfyui:1:20", "embedded:comfyui:8:200", "embedded:cloud:8:200"),
)
LONGEST = 300  # seconds that one client gets

Setup = tuple[str, str, int, float]  # server, dialect, slots, seconds of a job


def idle_share(jobs: list[tuple[float, float]], slots: int) -> float:
    """The share of the slots' time, from the first start to the last end, in which they could have run a job that was
    not done yet, and did not.
    """
    ends = sorted(ended for _, ended in jobs)
    # As jobs run out, fewer slots than all can be busy: k jobs that are left keep at most k of them.
    available = sum(
        (after - before) * min(slots, len(ends) - number)
        for number, (before, after) in enumerate(zip([jobs[0][0], *ends], ends, strict=False))
    )
    return 1 - sum(ended - began for began, ended in jobs) / available


def most_at_once(jobs: list[tuple[float, float]]) -> int:
    """How many jobs ran at the same time, at most."""
    running: list[float] = []
    most = 0
    for began, ended in jobs:
        while running and running[0] <= began:
            heapq.heappop(running)
        heapq.heappush(running, ended)
        most = max(most, len(running))
    return most


def measure(python: str, name: str, setup: Setup, jobs: int, folder: Path) -> dict[str, Any]:
    """One client against a fresh server, its files in a new folder below `folder`: what both say."""
    server, dialect, slots, seconds = setup
    command = [sys.executable, str(HERE / SERVERS[server]), dialect, str(slots), str(seconds)]
    if server == "lean":
        command.append(str(jobs if name == FILLED else 1))
    out = mkdtemp(dir=folder)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        client = [python, str(HERE / "runner_clients.py"), name, url, dialect, str(slots), str(jobs), out]
        try:
            said = subprocess.run(client, stdout=subprocess.PIPE, text=True, timeout=LONGEST, check=True).stdout
        except subprocess.SubprocessError as problem:
            said = json.dumps({"skipped": f"failed: {problem}"})
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        told, _ = process.communicate()
    return found | {"server": json.loads(told)}


def cpu_between(samples: list[tuple[float, float]], began: float, ended: float) -> float:
    """CPU seconds of the client from `began` to `ended`, of samples (seconds since 1970, CPU seconds)."""

    def at(moment: float) -> float:
        after = next((n for n, (when, _) in enumerate(samples) if when >= moment), len(samples) - 1)
        (left, low), (right, high) = samples[max(0, after - 1)], samples[after]
        share = (moment - left) / (right - left) if right > left else 1.0
        return low + (high - low) * min(1.0, max(0.0, share))

    return at(ended) - at(began)


def line(name: str, found: dict[str, Any], slots: int, base: tuple[float, float] | None) -> tuple[str, float, float]:
    """One row of the table; its jobs per second, and the client's CPU milliseconds per job."""
    server = found["server"]
    jobs = [tuple(times) for times in server["jobs"]]
    began, ended = jobs[0][0], max(ended for _, ended in jobs)
    rate = len(jobs) / max(1e-3, ended - began)
    cpu = 1000 * cpu_between(found["samples"], began, ended) / len(jobs)
    slept = sum(ended - began for began, ended in jobs) > len(jobs) / 100
    idle = f"{idle_share(jobs, slots):6.1%}" if slept else "     -"
    ratio = "" if base is None else f"{rate / base[0]:5.2f} x the jobs/s, {cpu / base[1]:5.2f} x the cpu of sweeper"
    return (
        f"{name:<22}{rate:8.0f}{idle:>8}{server['requests'] / len(jobs):8.1f}{cpu:8.2f}"
        f"{1000 * server['cpu'] / len(jobs):8.2f}{found['wall']:8.1f}  {ratio}",
        rate,
        cpu,
    )


def compare(setup: Setup, jobs: int, names: Sequence[str], rivals: str, folder: Path) -> None:
    """The table of one setup: every client once, one after another."""
    server, dialect, slots, seconds = setup
    print(f"\n{server} server, {dialect}, slots: {slots}, jobs of {1000 * seconds:g} ms, {jobs} of them")
    print(f"{'':<22}{'jobs/s':>8}{'idle':>8}{'req/job':>8}{'cpu ms':>8}{'srv ms':>8}{'wall s':>8}")
    base: tuple[float, float] | None = None
    for name in names:
        if name in PUBLISHED and dialect == "cloud":
            print(f"{name:<22} speaks ComfyUI's paths only")
            continue
        found = measure(sys.executable if name in OURS else rivals, name, setup, jobs, folder)
        if "skipped" in found:
            print(f"{name:<22} {found['skipped']}")
            continue
        text, rate, cpu = line(name, found, slots, base)
        base = (rate, cpu) if name == OURS[0] else base
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=600, help="per client and setup; at most 2000")
    parser.add_argument("--rivals", default=sys.executable, metavar="PYTHON", help="where published clients are")
    parser.add_argument("--only", action="append", metavar="NAME", help="of the clients; may be repeated")
    parser.add_argument("--out", metavar="DIR", help="below which the clients' files go")
    parser.add_argument("--setup", action="append", metavar="SERVER:DIALECT:SLOTS:MS", help="may be repeated")
    given = parser.parse_args()
    names = given.only or (*OURS[:-1], *PUBLISHED, FILLED)
    with TemporaryDirectory(dir=given.out) as folder:
        for text in given.setup or SETUPS:
            server, dialect, slots, ms = text.split(":")
            setup = (server, dialect, int(slots), float(ms) / 1000)
            compare(setup, min(given.jobs, 2000), names, given.rivals, Path(folder))


if __name__ == "__main__":
    main()
