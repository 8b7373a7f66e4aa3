"""Servers for the fault suite, each behind faulty proxies: ours in a thread, ours as a process, or a real ComfyUI.

Each can be restarted, and knows the jobs that it had. The colour of a picture identifies its trial.
SWEEPER_REAL_COMFYUI=URL uses a running ComfyUI in place of our comfyui dialect, SWEEPER_REAL_V2=URL a comfy-api-proxy
in place of our v2. SWEEPER_REAL_RESTART=COMMAND restarts it (without it, schedules with a restart are skipped).
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx

from sweeper.embedded import EmbeddedServer
from tests.few_classes import pick_classes
from tests.running.fault_proxy import FaultyProxy
from tests.waiting import read_line

REAL_V2 = os.environ.get("SWEEPER_REAL_V2")  # a comfy-api-proxy in front of a ComfyUI
REAL = os.environ.get("SWEEPER_REAL_COMFYUI") or REAL_V2
REAL_RESTART = os.environ.get("SWEEPER_REAL_RESTART")
DIALECTS = ("v2",) if REAL_V2 else ("comfyui",) if REAL else ("cloud", "comfyui", "v2")
CAN_RESTART = not REAL or REAL_RESTART is not None

BASE = 0x0A0000
TEMPLATE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": "{{ color }}"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sweep"}},
}
# The same with a second picture out of an uploaded file.
WITH_UPLOAD = {
    **TEMPLATE,
    "3": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "copy"}},
}


# A real server takes 0.1 to 0.5 s for each blur, ours waits for BLUR_SECONDS; between two it can be stopped.
BLURS = 24 if REAL else 8
BLUR_SECONDS = 0.25
SIZE = 2048 if REAL else 16
SLOW = {
    **TEMPLATE,
    "1": {"class_type": "EmptyImage",
          "inputs": {"width": SIZE, "height": SIZE, "batch_size": 1, "color": "{{ color }}"}},
    **{str(3 + number): {"class_type": "ImageBlur",
                         "inputs": {"image": [str(2 + number) if number else "1", 0], "blur_radius": 5, "sigma": 5.0}}
       for number in range(BLURS)},
    "2": {"class_type": "SaveImage", "inputs": {"images": [str(2 + BLURS), 0], "filename_prefix": "sweep"}},
}  # fmt: skip


def colour(trial: int) -> int:
    return BASE + trial


def trial_of(graph: dict[str, Any]) -> int:
    (found,) = (node["inputs"]["color"] for node in graph.values() if node["class_type"] == "EmptyImage")
    return int(found) - BASE


class Served:
    """One server and its proxy. `processes`: ours as a process of its own, which a restart kills with SIGKILL."""

    def __init__(self, dialect: str, data: Path, *, processes: bool = False, workers: int = 1) -> None:
        self.dialect = dialect
        self.data = data
        self.processes = processes and not REAL
        self.workers = 1 if dialect == "comfyui" else workers
        self.executions: list[Counter[str]] = []  # of each life of a server of ours in a thread
        self.forgets = 0  # jobs that it takes and then knows nothing of
        self._embedded: EmbeddedServer | None = None
        self._process: subprocess.Popen[str] | None = None
        self._stack = ExitStack()
        self._restarting: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.url = self._start()
        self.proxy = self._stack.enter_context(FaultyProxy(self.url))
        self.storage: FaultyProxy | None = None
        if self._embedded is not None and self._embedded.storage_url:
            self.storage = self._stack.enter_context(FaultyProxy(self._embedded.storage_url))
            self.proxy.elsewhere = {self._embedded.storage_url: self.storage.url}
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        self._stack.close()
        self._stop()

    def target(self, **more: Any) -> dict[str, Any]:
        return {"url": self.proxy.url, "dialect": self.dialect, "name": f"{self.data.name}-server", **more}

    def slow_down(self, seconds: float = BLUR_SECONDS) -> None:
        """Have each node take longer, so that `SLOW` is as slow on our server in a thread as on a real one."""
        if self._embedded is not None:
            self._embedded.faults.node_seconds = seconds

    @cached_property
    def has_job_calls(self) -> bool:
        """Whether it has the calls below /api/jobs; a ComfyUI 0.3.64 has only /queue, /history and /interrupt."""
        return self.dialect != "comfyui" or httpx.get(f"{self.url}/api/jobs", trust_env=False).is_success

    def get_status(self, prompt_id: str) -> str:
        """Return the status of a job, in the words of /api/jobs."""
        with httpx.Client(base_url=self.url, trust_env=False) as http:
            if not self.has_job_calls:
                return _read_old_status(http, prompt_id)
            status = http.get(f"/api/{'v2/' if self.dialect == 'v2' else ''}jobs/{prompt_id}").json()["status"]
        return {"running": "in_progress", "succeeded": "completed", "canceled": "cancelled"}.get(status, status)

    def cancel(self, prompt_id: str) -> None:
        """Have the server stop a running job, as another client would."""
        path = f"/api/jobs/{prompt_id}/cancel" if self.has_job_calls else "/interrupt"
        httpx.post(f"{self.url}{path}", json={"prompt_id": prompt_id}, trust_env=False).raise_for_status()

    @property
    def pid(self) -> int:
        """The process id of our server, if it has a process of its own."""
        assert self._process is not None
        return self._process.pid

    def _start(self) -> str:
        if REAL:
            return REAL.rstrip("/")
        if not self.processes:
            self._embedded = EmbeddedServer(self.dialect, data=self.data, workers=self.workers, nodes=pick_classes())  # type: ignore[arg-type]
            self._embedded.faults.retry_after = 0.0
            return self._embedded.start().url
        command = [sys.executable, "-m", "sweeper", "serve", "--dialect", self.dialect, "--data", str(self.data)]
        if self.workers > 1:
            command += ["--workers", str(self.workers)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return read_line(self._process.stdout).strip()

    def _stop(self) -> None:
        if self._embedded is not None:
            self.executions.append(self._embedded.seen.executions)
            self._embedded.stop()
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate(timeout=60)

    def restart(self) -> None:
        """Restart the server in a thread. Requests are refused meanwhile."""
        self.settle()
        self._restarting = threading.Thread(target=self._restart)
        self.proxy.down = True
        self._restarting.start()

    def _restart(self) -> None:
        self.proxy.life += 1
        if REAL:
            assert REAL_RESTART is not None
            subprocess.run(shlex.split(REAL_RESTART), check=True, stdout=subprocess.DEVNULL)
        else:
            self._stop()
            self.proxy.upstream = self.url = self._start()
        if self._embedded is not None and self._embedded.storage_url and self.storage is not None:
            self.storage.upstream = self._embedded.storage_url
            self.proxy.elsewhere = {self._embedded.storage_url: self.storage.url}
        self.proxy.down = False

    def settle(self) -> None:
        """Wait for the end of a restart."""
        if self._restarting is not None:
            self._restarting.join(100)
            assert not self._restarting.is_alive(), "the server did not start again"
            self._restarting = None

    # --- the witness

    def knobs(self, **values: int) -> None:
        """Set the faults of our server in a thread, until its next restart."""
        if self._embedded is not None:
            for name, value in values.items():
                setattr(self._embedded.faults, name, value)
            self.forgets = values.get("lose_times", 0)

    def twice(self) -> list[str]:
        """Messages about trials that ran twice although the server had not lost them, and about ids that came twice."""
        self.settle()
        found = self._twice_on_comfyui() if REAL or self.dialect == "comfyui" else self._twice_on_cloud()
        ids = Counter(job.prompt_id for job in self.proxy.accepted)
        found += [f"{prompt_id} was accepted {n} times" for prompt_id, n in ids.items() if n > 1]
        lives = [*self.executions, *([self._embedded.seen.executions] if self._embedded else [])]
        return found + [f"{job} ran {n} times in one life" for life in lives for job, n in life.items() if n > 1]

    def _twice_on_comfyui(self) -> list[str]:
        """A restart loses every job, so a trial may run once per life, and once more for each lost job."""
        counts = Counter((job.life, trial_of(job.graph)) for job in self.proxy.accepted)
        more = {key: n - 1 for key, n in counts.items() if n > 1}
        if sum(more.values()) <= self.forgets:
            return []
        return [f"trial {trial} was taken {n + 1} times in life {life}" for (life, trial), n in more.items()]

    def _twice_on_cloud(self) -> list[str]:
        """Jobs survive restarts, so each trial has exactly one job that was not lost."""
        jobs: Counter[int] = Counter()
        with httpx.Client(base_url=self.url, trust_env=False) as http:
            for prompt_id, was_lost in _list_v2_jobs(http) if self.dialect == "v2" else _list_cloud_jobs(http):
                path = f"/api/v2/jobs/{prompt_id}/workflow" if self.dialect == "v2" else f"/api/jobs/{prompt_id}"
                graph = http.get(path).json()["workflow"]
                graph = graph.get("prompt", graph)
                jobs[trial_of(graph)] += not was_lost
        return [f"trial {trial} has {n} jobs" for trial, n in jobs.items() if n > 1]


def _read_old_status(http: httpx.Client, prompt_id: str) -> str:
    queue = http.get("/queue").json()
    for name, status in (("queue_running", "in_progress"), ("queue_pending", "pending")):
        if any(item[1] == prompt_id for item in queue[name]):
            return status
    messages = http.get(f"/history/{prompt_id}").json()[prompt_id]["status"]["messages"]
    ends = {"execution_success": "completed", "execution_interrupted": "cancelled"}
    return ends.get(messages[-1][0], "failed")


def _list_cloud_jobs(http: httpx.Client) -> Iterator[tuple[str, bool]]:
    """(id, whether the server lost it) of each job."""
    for row in http.get("/api/jobs", params={"limit": 1000}).json()["jobs"]:
        yield row["id"], http.get(f"/api/job/{row['id']}/status").json()["status"] == "lost"


def _list_v2_jobs(http: httpx.Client) -> Iterator[tuple[str, bool]]:
    page = {"next_cursor": ""}
    while "next_cursor" in page:
        page = http.get("/api/v2/jobs", params={"limit": 100, "cursor": page["next_cursor"]}).json()
        yield from ((row["id"], row["status"] == "expired") for row in page["jobs"])
