"""The clients of `runner.py`, one a process: `python runner_clients.py NAME URL DIALECT SLOTS JOBS OUT`.

Each brings JOBS pictures of one small workflow into the folder OUT, with two jobs a slot in flight, and prints a JSON
object: seconds from the call to the last file, and samples of its CPU seconds. A client whose library is not installed
prints `{"skipped": why}`. Measuring the server, and comparing, is `runner.py`'s.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

PREFIX = "bench"


def workflow(number: Any) -> dict[str, Any]:
    """The workflow of one job: a picture of one colour, saved."""
    paint = {"width": 64, "height": 64, "batch_size": 1, "color": number}
    return {
        "1": {"class_type": "EmptyImage", "inputs": paint, "_meta": {"title": "Empty Image"}},
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": f"{PREFIX}/{number}/{PREFIX}"},
            "_meta": {"title": "Save Image"},
        },
    }


def by_sweeper(url: str, dialect: str, slots: int, jobs: int, out: Path) -> None:
    """sweeper through its public door, with everything on: plan, check, store, files, table."""
    import sweeper

    template = workflow("{{ color }}")
    template["2"]["inputs"]["filename_prefix"] = PREFIX
    (out / "template.json").write_text(json.dumps(template))
    body = {
        "name": "bench",
        "template": "template.json",
        "sweep": {"grid": {"color": {"from": 0, "to": jobs - 1, "step": 1}}},
    }
    (out / "experiment.yaml").write_text(json.dumps(body))
    target = {"url": url, "dialect": dialect, "name": "bench", "concurrency": 2 * slots}
    run = sweeper.run(out / "experiment.yaml", target=target, out=out / "results")
    if run.succeeded != jobs:
        raise SystemExit(f"{run.succeeded} of {jobs} trials succeeded")


def by_filling(url: str, dialect: str, _slots: int, jobs: int, _out: Path) -> None:
    """Jobs queued without waiting for any, and no file fetched: what the server can do when nobody disturbs it."""
    import httpx

    root = url + ("/api" if dialect == "cloud" else "")
    with httpx.Client(trust_env=False, timeout=60) as http:
        for number in range(jobs):
            http.post(f"{root}/prompt", json={"prompt": workflow(number)}).raise_for_status()
        while http.get(f"{root}/prompt").json()["exec_info"]["queue_remaining"]:
            time.sleep(0.25)


def by_loop(url: str, dialect: str, slots: int, jobs: int, out: Path) -> None:
    """The loop that one writes by hand: httpx, a worker for every job in flight, one event stream."""
    asyncio.run(_Loop(url, dialect, out).run(2 * slots, jobs))


class _Loop:
    def __init__(self, url: str, dialect: str, out: Path) -> None:
        self.cloud = dialect == "cloud"
        self.url, self.root, self.out = url, url + ("/api" if self.cloud else ""), out
        self.client_id = str(uuid4())
        self.ended: dict[str, asyncio.Event] = {}

    async def run(self, workers: int, jobs: int) -> None:
        import httpx
        import websockets

        numbers = iter(range(jobs))
        address = self.url.replace("http", "ws", 1) + f"/ws?clientId={self.client_id}"
        async with (
            httpx.AsyncClient(timeout=60, follow_redirects=True, trust_env=False) as http,
            websockets.connect(address, max_size=None, proxy=None) as stream,
        ):
            listening = asyncio.create_task(self._listen(stream))
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(http, numbers))
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    async def _listen(self, stream: Any) -> None:
        async for text in stream:
            message = json.loads(text)
            data = message["data"]
            over = message["type"] == "execution_success" if self.cloud else data.get("node", "") is None
            if over:
                self.ended.setdefault(data["prompt_id"], asyncio.Event()).set()

    async def _work(self, http: Any, numbers: Any) -> None:
        for number in numbers:
            body = {"prompt": workflow(number), "client_id": self.client_id}
            answer = (await http.post(f"{self.root}/prompt", json=body)).raise_for_status()
            job = answer.json()["prompt_id"]
            await self.ended.setdefault(job, asyncio.Event()).wait()
            for file in await self._files(http, job):
                picture = (await http.get(f"{self.root}/view", params=file)).raise_for_status()
                (self.out / f"{number}-{file['filename']}").write_bytes(picture.content)

    async def _files(self, http: Any, job: str) -> list[dict[str, str]]:
        path = f"/jobs/{job}" if self.cloud else f"/history/{job}"
        while True:
            found = (await http.get(self.root + path)).raise_for_status().json()
            found = found if self.cloud else found.get(job, {})
            if found.get("status") == "completed" or (found and not self.cloud):
                return [file for kinds in found["outputs"].values() for files in kinds.values() for file in files]
            await asyncio.sleep(0.01)


def by_comfy_api_simplified(url: str, _dialect: str, _slots: int, jobs: int, out: Path) -> None:
    """As its README shows: one job after another. (Two at once take the end of each other's queue for their own.)"""
    from comfy_api_simplified import ComfyApiWrapper

    api = ComfyApiWrapper(url)
    for number in range(jobs):
        for name, content in api.queue_and_wait_images(workflow(number), "Save Image").items():
            (out / f"{number}-{name}").write_bytes(content)


def by_comfy_sdk(url: str, _dialect: str, slots: int, jobs: int, out: Path) -> None:
    """The official client of the API v2, through the official proxy that puts it in front of a ComfyUI."""
    import comfy_api_proxy  # noqa: F401 (only to know that it is there)
    import comfy_sdk  # noqa: F401

    proxy = subprocess.Popen(
        [Path(sys.executable).with_name("comfy-api-proxy"), "--comfyui", url, "--port", str(_free_port())],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=out,
    )
    base = f"http://127.0.0.1:{proxy.args[-1]}"
    try:
        _wait_for(base)
        asyncio.run(_by_comfy_sdk(base, 2 * slots, jobs, out))
    finally:
        proxy.terminate()
        proxy.wait()


async def _by_comfy_sdk(base: str, workers: int, jobs: int, out: Path) -> None:
    import os

    from comfy_sdk import AsyncComfy, Workflow

    os.environ["COMFY_BASE_URL"] = base
    numbers = iter(range(jobs))

    async def work(client: Any) -> None:
        for number in numbers:
            job = await (await client.submit(Workflow(workflow(number)))).wait()
            for _ in range(10):
                if job.status != "expired":
                    break
                # The proxy asks for the history and then for the queue: a job that ends in between is in neither.
                await job.refresh()
            for output in job.outputs:
                await output.to_file(out / f"{number}.png")

    async with AsyncComfy() as client, asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work(client))


def _wait_for(url: str) -> None:
    import httpx

    for _ in range(100):
        with suppress(httpx.HTTPError):
            httpx.get(url, timeout=1)
            return
        time.sleep(0.1)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


CLIENTS: dict[str, Callable[[str, str, int, int, Path], None]] = {
    "sweeper": by_sweeper,
    "httpx loop": by_loop,
    "comfy-api-simplified": by_comfy_api_simplified,
    "comfy-sdk and proxy": by_comfy_sdk,
    "queue filled before": by_filling,
}


class Samples:
    """This process's CPU seconds, noted with the time again and again: so start and jobs can be told apart."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.take()

    def take(self) -> None:
        self.taken.append((time.time(), time.process_time()))

    def __enter__(self) -> Self:
        self.take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.take()


def main() -> None:
    name, url, dialect, slots, jobs, out = sys.argv[1:]
    began = time.perf_counter()
    try:
        with Samples() as samples:
            CLIENTS[name](url, dialect, int(slots), int(jobs), Path(out))
    except ImportError as missing:
        print(json.dumps({"skipped": f"{missing.name} is not installed"}))
        return
    print(json.dumps({"wall": time.perf_counter() - began, "samples": samples.taken}))


if __name__ == "__main__":
    main()
