"""Clients of the embedded server, one per dialect, that know how to wait for a job's end."""

from __future__ import annotations

from typing import Any

import httpx

from sweeper.embedded import EmbeddedServer
from tests.embedded.cloud_contract import judge
from tests.waiting import wait_until

DEADLINE = 20.0


class Comfy:
    """A client of the comfyui dialect that knows how to wait."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.url)

    def submit(self, graph: Any, **fields: Any) -> str:
        answer = self.http.post("/prompt", json={"prompt": graph, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["prompt_id"])

    def ended(self, prompt_id: str) -> dict[str, Any]:
        """The history entry, once there is one."""
        return wait_until(lambda: self.http.get(f"/history/{prompt_id}").json().get(prompt_id))

    def run(self, graph: Any, **fields: Any) -> dict[str, Any]:
        return self.ended(self.submit(graph, **fields))

    def executed(self, graph: Any) -> dict[str, int]:
        """Run it, and count which node ids were executed for it."""
        before = self.server.seen.node_ids.copy()
        assert self.run(graph)["status"]["status_str"] == "success"
        return dict(self.server.seen.node_ids - before)


class Cloud:
    """A client of the cloud dialect that knows how to wait, and holds every answer to the published contract.

    `answered` are the operations and statuses that it has met. Set `trusting` where a broken answer is wanted.
    """

    def __init__(self, server: EmbeddedServer, key: str | None = None) -> None:
        self.server = server
        self.answered: set[tuple[str, int]] = set()
        self.trusting = False
        headers = {} if key is None else {"X-API-Key": key}
        self.http = httpx.Client(base_url=server.url, headers=headers, event_hooks={"response": [self._judge]})

    def _judge(self, response: httpx.Response) -> None:
        met = None if self.trusting else judge(response)
        if met is not None:
            self.answered.add(met)

    def submit(self, graph: Any, **fields: Any) -> str:
        answer = self.http.post("/api/prompt", json={"prompt": graph, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["prompt_id"])

    def status(self, prompt_id: str) -> str:
        return str(self.http.get(f"/api/job/{prompt_id}/status").json()["status"])

    def ended(self, prompt_id: str) -> dict[str, Any]:
        """The job's details, once it has ended."""
        wait_until(lambda: self.status(prompt_id) in {"success", "error", "cancelled", "lost"})
        answer: dict[str, Any] = self.http.get(f"/api/jobs/{prompt_id}").json()
        return answer

    def run(self, graph: Any, **fields: Any) -> dict[str, Any]:
        return self.ended(self.submit(graph, **fields))
