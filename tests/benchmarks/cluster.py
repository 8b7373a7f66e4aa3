"""What a Dask cluster costs beside one process that drives the same servers.

python tests/benchmarks/cluster.py scaling                  1 s jobs on 1, 2, 4, 8 and 16 workers: efficiency
python tests/benchmarks/cluster.py overhead                 jobs that do nothing: seconds and CPU per trial, and ratios
python tests/benchmarks/cluster.py memory --trials 100000   a long plan of such jobs: memory of driver and scheduler

The servers run in a process of their own, one ComfyUI per worker; a job of 1 s sleeps, so a few cores are enough for
all of them. The rival is `sweeper.run` in one process over the same servers, in the same run of this file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import sweeper
from sweeper.embedded import EmbeddedServer, Faults, Scenario
from sweeper.running.run_events import JobSubmitted, RunStarted, TrialDone
from tests.cluster.probes import NODES, SLOTS, TEMPLATE, BesideServers
from tests.cluster.result_rows import run_on

TARGET = {"worker": "${SERVER_URL}", "name": "fleet"}


@contextmanager
def serving(number: int, job_seconds: float) -> Iterator[list[str]]:
    """So many servers, each of whose jobs takes that long: two nodes, half of it each. They are in another process:
    neither the driver nor its rival is to hold them up.
    """
    command = [sys.executable, __file__, "serve", "--workers", str(number), "--seconds", str(job_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield [process.stdout.readline().strip() for _ in range(number)]
        process.communicate("")


def serve(number: int, job_seconds: float) -> None:
    """Print the URLs of the servers; until the end of stdin."""
    scenario = Scenario(node_seconds=(job_seconds / 2, job_seconds / 2))
    with ExitStack() as stack:
        for _ in range(number):
            server = EmbeddedServer("comfyui", nodes=NODES, faults=Faults(scenario=scenario))
            print(stack.enter_context(server).url, flush=True)
        sys.stdin.read()


def experiment(folder: Path, trials: int) -> Path:
    (folder / "template.json").write_text(json.dumps(TEMPLATE))
    (folder / "template.slots.yaml").write_text(json.dumps({"slots": SLOTS}))
    sweep = {"grid": {"size": [8], "seed": {"from": 1, "to": trials, "step": 1}}}
    body = {"name": "probe", "template": "template.json", "target": TARGET, "sweep": sweep}
    file = folder / "experiment.yaml"
    file.write_text(json.dumps({**body, "run": {"max_trials": trials}}))
    return file


class Clock:
    """Seconds from a run's first submission to the end of its last trial, as the driver hears of them; `start_up` is
    what went before, from the run's start.
    """

    def __init__(self) -> None:
        self.started = self.began = self.ended = 0.0
        self.job = 0.0  # seconds that a job ran on its server, on average, as that tells

    def __call__(self, event: Any) -> None:
        if isinstance(event, RunStarted):
            self.started = time.monotonic()
        if isinstance(event, JobSubmitted) and not self.began:
            self.began = time.monotonic()
        if isinstance(event, TrialDone):
            self.ended = time.monotonic()

    @property
    def start_up(self) -> float:
        return self.began - self.started

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def on_cluster(urls: list[str], trials: int) -> Clock:
    with tempfile.TemporaryDirectory() as name, BesideServers(urls, silence_logs=50) as cluster:
        cluster.scale(len(urls))
        cluster.wait_for_workers(len(urls))
        clock = Clock()
        run = run_on(experiment(Path(name), trials), cluster.scheduler_address, out=Path(name) / "out", progress=clock)
        assert run.succeeded == trials, run
        clock.job = float(sweeper.results(run.out)["ran_s"].mean())
        return clock


def in_one_process(urls: list[str], trials: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        clock = Clock()
        run = sweeper.run(experiment(Path(name), trials), urls, out=Path(name) / "out", progress=clock)
        assert run.succeeded == trials, run
        return clock.seconds


def scaling(sizes: list[int], per_worker: int) -> None:
    print(f"{per_worker} jobs of 1 s per worker, first submission to last end; efficiency is {per_worker} s over that")
    print("job s: what a job took on its server, which shares these cores; the rest of the loss is the cluster's")
    heads = f"{'workers':>8} {'start-up s':>11} {'job s':>7} {'cluster s':>10} {'efficiency':>11}"
    print(f"{heads} {'one process s':>14} {'efficiency':>11}")
    for workers in sizes:
        with serving(workers, 1.0) as urls:
            clock = on_cluster(urls, workers * per_worker)
            cluster = clock.seconds
            alone = in_one_process(urls, workers * per_worker)
        print(
            f"{workers:>8} {clock.start_up:>11.1f} {clock.job:>7.3f} {cluster:>10.1f} {per_worker / cluster:>11.1%} "
            f"{alone:>14.1f} {per_worker / alone:>11.1%}",
            flush=True,
        )


def overhead(trials: int, workers: int) -> None:
    with serving(workers, 0.0) as urls:
        began = time.process_time()
        cluster = on_cluster(urls, trials).seconds
        driver = time.process_time() - began
        began = time.process_time()
        alone = in_one_process(urls, trials)
        single = time.process_time() - began
    print(f"{trials} jobs that do nothing, {workers} workers; CPU is this process's, both times")
    print(f"cluster      {1000 * cluster / trials:7.1f} ms per trial, {1000 * driver / trials:7.1f} ms CPU")
    print(f"one process  {1000 * alone / trials:7.1f} ms per trial, {1000 * single / trials:7.1f} ms CPU")
    print(f"ratio        {cluster / alone:7.2f}                {driver / single:7.2f}")


def memory(trials: int, workers: int) -> None:
    import psutil

    with serving(workers, 0.0) as urls, tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        file = folder / "scheduler.json"
        dask = [sys.executable, "-m", "dask"]
        scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)]
        processes = [stack.enter_context(_process([*scheduler, "--dashboard-address", "127.0.0.1:0"]))]
        while not file.is_file():
            time.sleep(0.1)
        for url in urls:
            worker = [*dask, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard"]
            processes.append(stack.enter_context(_process(worker, SERVER_URL=url)))
        command = [sys.executable, "-m", "sweeper", "run", str(experiment(folder, trials)), "--dask", str(file)]
        driver = stack.enter_context(_process([*command, "-o", str(folder / "out"), "-q", "--json"]))
        watched = {"driver": psutil.Process(driver.pid), "scheduler": psutil.Process(processes[0].pid)}
        print(f"{trials} jobs that do nothing, {workers} workers; resident MB")
        print(f"{'seconds':>8} {'done':>8} {'driver':>8} {'scheduler':>10}")
        began, rows = time.monotonic(), folder / "out" / "artifacts"
        while driver.poll() is None:
            sizes = [process.memory_info().rss / 2**20 for process in watched.values()]
            done = sum(1 for _ in rows.iterdir()) if rows.is_dir() else 0
            print(f"{time.monotonic() - began:>8.0f} {done:>8} {sizes[0]:>8.0f} {sizes[1]:>10.0f}", flush=True)
            threading.Event().wait(max(5.0, trials / 2000))
        assert driver.returncode == 0


@contextmanager
def _process(command: list[str], **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    import os

    process = subprocess.Popen(
        command, env={**os.environ, **environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scaling", "overhead", "memory", "serve"])
    parser.add_argument("--seconds", type=float, default=1.0, help="that a job takes, for serve")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--workers", type=int, nargs="+", default=[])
    parser.add_argument("--jobs", type=int, default=60, help="per worker, for scaling; start and end weigh")
    asked = parser.parse_args()
    if asked.what == "serve":
        serve((asked.workers or [1])[0], asked.seconds)
    elif asked.what == "scaling":
        scaling(asked.workers or [1, 2, 4, 8, 16], asked.jobs)
    elif asked.what == "overhead":
        overhead(asked.trials, (asked.workers or [2])[0])
    else:
        memory(asked.trials, (asked.workers or [2])[0])


if __name__ == "__main__":  # worker processes import this file
    main()
