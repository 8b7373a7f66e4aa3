"""How near a run on many servers comes to the ideal time: `python tests/benchmarks/many_servers.py`.

Three numbers choose another setup: SERVERS SECONDS JOBS. The servers are lean ComfyUIs (`runner_lean.py`), all in one
process, whose jobs sleep; JOBS is for each server. The ideal is that each server runs its share without a pause: JOBS
times SECONDS. The first number is the time from the first start to the last end, by the servers' own record, as a
multiple of that. Then follows where the rest went, as a mean of the servers in units of one job:

- head: from the first start anywhere to the server's own first start;
- gaps: between two jobs of one server;
- tail: from the server's last end to the last end anywhere.

Goals: 1.05 with 16 servers of 0.25 s, and 1.15 with 64. Nothing is asserted, because a number from a busy machine is no
failure. 64 servers have jobs of a second, because 256 jobs a second are more than one process of sweeper can send.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
SETUPS = ((16, 0.25, 20), (64, 1.0, 8))  # servers, seconds of a job, jobs for each server

Times = list[tuple[float, float]]


async def serve(servers: int, seconds: float) -> None:
    """Serve until stdin ends. Prints the URLs, and then the times of all jobs by server."""
    from runner_lean import Connection, Lean

    leans = [Lean("comfyui", 1, seconds, 1) for _ in range(servers)]
    for lean in leans:
        listening = await lean.loop.create_server(lambda lean=lean: Connection(lean), "127.0.0.1", 0)
        lean.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    print(json.dumps([lean.url for lean in leans]), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps([sorted((job.began, job.ended) for job in lean.jobs.values()) for lean in leans]))


def run(urls: list[str], jobs: int, folder: Path) -> tuple[float, float]:
    """Run an experiment on all servers. Returns the seconds of the call, and of its CPU."""
    import sweeper
    from tests.benchmarks.runner_clients import workflow

    template = workflow("{{ color }}")
    template["2"]["inputs"]["filename_prefix"] = "bench"
    (folder / "template.json").write_text(json.dumps(template))
    body: dict[str, Any] = {"template": "template.json", "target": "farm", "targets": {"farm": urls}}
    body["sweep"] = {"grid": {"color": {"from": 0, "to": jobs - 1, "step": 1}}}
    (folder / "experiment.yaml").write_text(json.dumps(body))
    began, cpu = time.perf_counter(), time.process_time()
    ended = sweeper.run(folder / "experiment.yaml", out=folder / "results")
    if ended.succeeded != jobs:
        raise SystemExit(f"{ended.succeeded} of {jobs} trials succeeded")
    return time.perf_counter() - began, time.process_time() - cpu


def summarize(found: list[Times], seconds: float, jobs: int) -> str:
    """Times the ideal, and where the rest went."""
    first, last = min(times[0][0] for times in found), max(times[-1][1] for times in found)
    count = len(found)
    head = sum(times[0][0] - first for times in found) / count / seconds
    tail = sum(last - times[-1][1] for times in found) / count / seconds
    gaps = sum(after[0] - before[1] for times in found for before, after in pairwise(times))
    counts = [len(times) for times in found]
    gap = gaps / count / seconds
    return (
        f"{(last - first) / (jobs * seconds):.3f} of the ideal time (head {head:.2f}, gaps {gap:.2f}, tail {tail:.2f} "
        f"jobs; {min(counts)} to {max(counts)} jobs a server)"
    )


def main() -> None:
    given = sys.argv[1:]
    if given[:1] == ["serve"]:
        asyncio.run(serve(int(given[1]), float(given[2])))
        return
    sys.path.insert(0, str(HERE.parent.parent))
    setups = [(int(given[0]), float(given[1]), int(given[2]))] if given else SETUPS
    for servers, seconds, jobs in setups:
        command = [sys.executable, __file__, "serve", str(servers), str(seconds)]
        with (
            TemporaryDirectory() as folder,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            urls = json.loads(process.stdout.readline())
            wall, cpu = run(urls, servers * jobs, Path(folder))
            process.stdin.close()
            found = json.loads(process.stdout.readline())
        first, last = min(times[0][0] for times in found), max(times[-1][1] for times in found)
        outside = wall - (last - first)
        print(f"{servers} servers of {seconds:g} s: {summarize(found, seconds, jobs)}")
        each = 1000 * cpu / servers / jobs
        print(f"  {outside:.1f} s before the first job and after the last; {each:.1f} ms of CPU a job")


if __name__ == "__main__":
    main()
