"""How much the embedded server carries: `python tests/benchmarks/server.py [--jobs 300]`.

A trivial graph (an 8 x 8 picture is saved), distinct in each job, queued as fast as one connection can and run to the
last. Rival in the same run: the ComfyUI whose URL SWEEPER_REAL_COMFYUI names, if it names one; ask it with a subfolder
of its own, since a full folder slows both. Then what must not fall over: 10,000 queued jobs, in the comfyui dialect,
because Comfy Cloud queues 100, and 500 open event streams. Prints jobs per second, ratios and memory; nothing is
asserted: a number from a busy machine is no failure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import websockets

ROUNDS, QUEUED, STREAMS, HEARD, PAGE = 7, 10_000, 500, 20, 1000


def graph(number: int, folder: str) -> dict[str, object]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": number}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"{folder}/{number % 97}"}},
    }


@contextlib.contextmanager
def start_server(*options: str) -> Iterator[tuple[str, int]]:
    """A server in a process of its own, as a user starts it; its URL and process id."""
    command = [sys.executable, "-m", "sweeper", "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def read_memory(pid: int) -> str:
    """The memory of a process in MiB, now and at most; "unknown" outside of Linux."""
    status = Path(f"/proc/{pid}/status")
    facts = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.is_file() else {}
    sizes = [int(facts[key].split()[0]) // 1024 for key in ("VmRSS", "VmHWM") if key in facts]
    return f"{sizes[0]} MiB, at most {sizes[1]} MiB" if sizes else "unknown"


class Client:
    """One connection, as fast as the standard library is."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)

    def ask(self, method: str, path: str, body: object = None) -> dict[str, object]:
        self.connection.request(method, path, None if body is None else json.dumps(body))
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status == 200, (answer.status, text[:200])
        return json.loads(text) if text else {}

    def submit(self, number: int, folder: str) -> str:
        return str(self.ask("POST", "/api/prompt", {"prompt": graph(number, folder)})["prompt_id"])

    def remaining(self) -> int:
        return self.ask("GET", "/api/prompt")["exec_info"]["queue_remaining"]  # type: ignore[index, call-overload, no-any-return]

    def list_jobs(self) -> list[object]:
        """All jobs, page by page."""
        jobs: list[object] = []
        while True:
            page: Any = self.ask("GET", f"/api/jobs?limit={PAGE}&offset={len(jobs)}")
            jobs += page["jobs"]
            if not page["pagination"]["has_more"]:
                return jobs

    def count_completed(self) -> int:
        page: Any = self.ask("GET", "/api/jobs?status=completed&limit=1")
        return int(page["pagination"]["total"])

    def drain(self) -> None:
        while self.remaining():
            time.sleep(0.02)


def throughput(urls: dict[str, str], jobs: int) -> dict[str, list[float]]:
    """Jobs per second from the first submission to the last end, in rounds that take turns: a busy spell of the
    machine then hits all servers alike.
    """
    clients, folder = {name: Client(url) for name, url in urls.items()}, f"bench-{uuid.uuid4().hex[:8]}"
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for turn in range(ROUNDS + 1):
        for name, client in clients.items():
            start = time.perf_counter()
            for number in range(turn * jobs, (turn + 1) * jobs):
                client.submit(number, f"{folder}-{turn}")
            client.drain()
            rates[name].append(jobs / (time.perf_counter() - start))
    return {name: found[1:] for name, found in rates.items()}  # the first round only warms up


def queue_of(url: str, jobs: int, pid: int) -> str:
    client, folder = Client(url), f"bench-{uuid.uuid4().hex[:8]}"
    start = time.perf_counter()
    ids = [client.submit(number, folder) for number in range(jobs)]
    submitted, deepest = time.perf_counter() - start, client.remaining()
    listing, listed = time.perf_counter(), len(client.list_jobs())
    listing = time.perf_counter() - listing
    client.drain()
    ended = client.count_completed()
    seconds = time.perf_counter() - start
    return (
        f"{jobs} submitted at {jobs / submitted:.0f}/s, {deepest} still queued then; "
        f"{listed} listed in {listing:.1f} s; {ended} of {len(set(ids))} completed after {seconds:.1f} s; "
        f"memory: {read_memory(pid)}"
    )


async def streams_of(url: str, count: int) -> str:
    """So many event streams, all open while jobs run: how many of them heard every one of those to its end."""
    address = url.replace("http", "ws") + "/ws?clientId="

    async def listen(number: int, opened: asyncio.Event, left: list[int]) -> int:
        async with websockets.connect(f"{address}{number}", open_timeout=60, ping_interval=None) as socket:
            left[0] -= 1
            if not left[0]:
                opened.set()
            heard = 0
            while heard < HEARD:
                message = json.loads(await asyncio.wait_for(socket.recv(), 120))
                heard += message["type"] == "execution_success"
            return heard

    opened = asyncio.Event()
    left = [count]
    listeners = [asyncio.create_task(listen(number, opened, left)) for number in range(count)]
    await opened.wait()
    start = time.perf_counter()
    client, folder = Client(url), f"bench-{uuid.uuid4().hex[:8]}"
    for number in range(HEARD):
        await asyncio.to_thread(client.submit, number, folder)
    heard = await asyncio.gather(*listeners)
    seconds = time.perf_counter() - start
    return f"{heard.count(HEARD)} of {count} open streams heard all {HEARD} jobs end, in {seconds:.1f} s"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=300, help="in each round")
    jobs = options.parse_args().jobs
    real = os.environ.get("SWEEPER_REAL_COMFYUI")
    with start_server("--dialect", "cloud") as (cloud, _), start_server("--dialect", "comfyui") as (comfyui, _):
        urls = {"embedded, cloud": cloud, "embedded, comfyui": comfyui}
        rates = throughput(urls | ({"real ComfyUI": real} if real else {}), jobs)
    for name, found in rates.items():
        print(f"{name:20} {statistics.median(found):6.0f} jobs/s (median of {ROUNDS}; best {max(found):.0f})")
    if real:
        pairs = zip(rates["embedded, comfyui"], rates["real ComfyUI"], strict=True)
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        print(f"ratio, round by round: median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}")
    with start_server("--dialect", "comfyui") as (url, pid):
        print(queue_of(url, QUEUED, pid))
    with start_server() as (url, _):
        print(asyncio.run(streams_of(url, STREAMS)))


if __name__ == "__main__":
    main()
