"""How busy the runner keeps a server, against other clients, in one run: `python tests/benchmarks/runner.py`.

The embedded server in a process of its own, on loopback, with jobs of 0 and of 20 ms: as a ComfyUI (one slot), as a
ComfyUI with eight slots (there is none, but published clients speak nothing else), and as Comfy Cloud with eight. The
server needs some 3 ms of one core for a job, so eight slots with jobs of 20 ms are more than it can keep busy: there,
jobs of 200 ms tell more. Every client gets a fresh server, the same workflows, and two jobs a slot in flight. Per
client:

- jobs/s: from the start of the first job to the end of the last, by the server's own record;
- idle: the share of the slots' time in which no job ran although work was left, by the same record. The line "queue
  filled before" is the server alone: nobody can be less idle than that;
- requests and the client's CPU ms per job, the server's CPU ms per job (both processes share the machine), and the
  seconds from the call to the last file on disk, the client's start included.

Published clients run in an interpreter of yours: `python -m venv rivals`, `rivals/bin/pip install comfy-api-simplified
comfy-sdk comfy-api-proxy`, then `--rivals rivals/bin/python`; one that is missing is skipped. Nothing is asserted: a
number from a busy machine is no failure.
"""

from __future__ import annotations

import argparse
import heapq
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
OURS = ("sweeper", "httpx loop", "queue filled before")  # clients that run in our own interpreter
PUBLISHED = ("comfy-api-simplified", "comfy-sdk and proxy")
SETUPS = (
    *("comfyui:1:0", "comfyui:1:20", "comfyui:8:0", "comfyui:8:20", "comfyui:8:200"),
    *("cloud:8:0", "cloud:8:20", "cloud:8:200"),
)
LONGEST = 300  # seconds that one client gets


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


def measure(python: str, name: str, setup: tuple[str, int, float], jobs: int) -> dict[str, Any]:
    """One client against a fresh server: what both say. `setup`: dialect, slots, seconds of a job."""
    dialect, slots, seconds = setup
    command = [sys.executable, str(HERE / "runner_server.py"), dialect, str(slots), str(seconds)]
    with (
        TemporaryDirectory() as out,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        client = [python, str(HERE / "runner_clients.py"), name, url, dialect, str(slots), str(jobs), out]
        try:
            said = subprocess.run(client, stdout=subprocess.PIPE, text=True, timeout=LONGEST, check=True).stdout
        except subprocess.SubprocessError as problem:
            said = json.dumps({"skipped": f"failed: {problem}"})
        found = json.loads(said.splitlines()[-1])
        told, _ = server.communicate()
    return found | {"server": json.loads(told)}


def line(name: str, found: dict[str, Any], slots: int, base: float | None) -> tuple[str, float]:
    """One row of the table, and the jobs per second in it."""
    server = found["server"]
    jobs = [tuple(times) for times in server["jobs"]]
    rate = len(jobs) / max(1e-3, max(ended for _, ended in jobs) - jobs[0][0])
    idle = (
        f"{idle_share(jobs, slots):6.1%}" if sum(ended - began for began, ended in jobs) > len(jobs) / 100 else "     -"
    )
    each = 1000 / len(jobs)
    ratio = "" if base is None else f"{rate / base:.2f} of sweeper's"
    return (
        f"{name:<24}{rate:8.0f}{idle:>8}{server['requests'] / len(jobs):8.1f}{found['cpu'] * each:9.2f}"
        f"{server['cpu'] * each:9.2f}{found['wall']:8.1f}   {ratio}",
        rate,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=400, help="per client and setup; at most 1000")
    parser.add_argument("--rivals", default=sys.executable, metavar="PYTHON", help="where published clients are")
    parser.add_argument("--only", action="append", metavar="NAME", help="of the clients; may be repeated")
    parser.add_argument("--setup", action="append", metavar="DIALECT:SLOTS:MS", help="may be repeated")
    given = parser.parse_args()
    jobs = min(given.jobs, 1000)
    for setup in given.setup or SETUPS:
        dialect, slots, ms = setup.split(":")
        print(f"\n{dialect}, slots: {slots}, jobs of {ms} ms, {jobs} of them")
        print(f"{'':<24}{'jobs/s':>8}{'idle':>8}{'req/job':>8}{'cpu ms':>9}{'srv ms':>9}{'wall s':>8}")
        base: float | None = None
        for name in given.only or ("sweeper", "httpx loop", *PUBLISHED, "queue filled before"):
            if name in PUBLISHED and dialect == "cloud":
                print(f"{name:<24} speaks ComfyUI's paths only")
                continue
            python = sys.executable if name in OURS else given.rivals
            found = measure(python, name, (dialect, int(slots), float(ms) / 1000), jobs)
            if "skipped" in found:
                print(f"{name:<24} {found['skipped']}")
                continue
            text, rate = line(name, found, int(slots), base)
            base = rate if base is None else base
            print(text, flush=True)


if __name__ == "__main__":
    main()
