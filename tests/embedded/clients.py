"""Test clients of the embedded server, one per dialect."""

from __future__ import annotations

import uuid
from typing import Any

import httpx

from sweeper.embedded import EmbeddedServer
from tests.embedded.cloud_contract import judge
from tests.waiting import wait_until

DEADLINE = 20.0


def job_id(name: str) -> str:
    """A job id that ComfyUI takes. It stands for a name of at most 16 ASCII letters, and sorts like it."""
    return str(uuid.UUID(hex=name.encode("ascii").hex().ljust(32, "0")))


def name_of(prompt_id: str) -> str:
    """The name for which `job_id` made this id."""
    return uuid.UUID(prompt_id).bytes.rstrip(b"\0").decode("ascii")


class Comfy:
    """A client of the comfyui dialect."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.url, verify=False)  # certificates take 7 ms to load

    def submit(self, graph: Any, **fields: Any) -> str:
        answer = self.http.post("/prompt", json={"prompt": graph, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["prompt_id"])

    def wait_for_end(self, prompt_id: str) -> dict[str, Any]:
        """Wait for the end of a job. Returns its history entry."""
        return wait_until(lambda: self.http.get(f"/history/{prompt_id}").json().get(prompt_id))

    def run(self, graph: Any, **fields: Any) -> dict[str, Any]:
        return self.wait_for_end(self.submit(graph, **fields))

    def count_executed(self, graph: Any) -> dict[str, int]:
        """Run a graph. Returns how often each node id was executed for it."""
        before = self.server.seen.node_ids.copy()
        assert self.run(graph)["status"]["status_str"] == "success"
        return dict(self.server.seen.node_ids - before)


class Cloud:
    """A client of the cloud dialect. It checks that every answer conforms to the published contract.

    `answered` are the (operation, status) pairs that it has received. Set `trusting` to accept broken answers.
    """

    def __init__(self, server: EmbeddedServer, key: str | None = None) -> None:
        self.server = server
        self.answered: set[tuple[str, int]] = set()
        self.trusting = False
        headers = {} if key is None else {"X-API-Key": key}
        hooks = {"response": [self._judge]}
        self.http = httpx.Client(base_url=server.url, headers=headers, event_hooks=hooks, verify=False)

    def _judge(self, response: httpx.Response) -> None:
        operation_and_status = None if self.trusting else judge(response)
        if operation_and_status is not None:
            self.answered.add(operation_and_status)

    def submit(self, graph: Any, **fields: Any) -> str:
        answer = self.http.post("/api/prompt", json={"prompt": graph, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["prompt_id"])

    def status(self, prompt_id: str) -> str:
        return str(self.http.get(f"/api/job/{prompt_id}/status").json()["status"])

    def wait_for_end(self, prompt_id: str) -> dict[str, Any]:
        """Wait for the end of a job. Returns its details."""
        wait_until(lambda: self.status(prompt_id) in {"success", "error", "cancelled", "lost"})
        answer: dict[str, Any] = self.http.get(f"/api/jobs/{prompt_id}").json()
        return answer

    def run(self, graph: Any, **fields: Any) -> dict[str, Any]:
        return self.wait_for_end(self.submit(graph, **fields))

    def cancel_all(self) -> None:
        """Cancel every job that waits or runs."""
        rows = self.http.get("/api/jobs", params={"status": "pending,in_progress"}).json()["jobs"]
        for row in rows:
            self.http.post(f"/api/jobs/{row['id']}/cancel")
