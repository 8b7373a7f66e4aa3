"""The messages of a running job: status messages for the history, and events for the event streams.

Order and contents are those measured on ComfyUI 0.3.64. `event_streams.Hub` delivers the events; the executor decides
when to send them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeper.embedded.jobs import ServerJob, now_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from sweeper.embedded.event_streams import Hub


class JobMessages:
    """Sends the messages of one job.

    ComfyUI sends them to the client that submitted the job. If the job has no client id, it sends only progress and
    interruption, to every client. Cloud (`hub.broadcast_all`) sends everything to every client.
    """

    def __init__(self, hub: Hub, job: ServerJob) -> None:
        self.hub = hub
        self.job = job
        self.client = None if hub.broadcast_all else job.client_id
        self._has_audience = self.client is not None or hub.broadcast_all
        self._progress: dict[str, dict[str, Any]] = {}

    def _send_message(self, event: str, data: dict[str, Any], *, broadcast: bool = False) -> None:
        data = {**data, "timestamp": now_ms()}
        self.job.messages.append((event, data))
        if self._has_audience or broadcast:
            self.hub.send(event, data, self.client)

    def _send(self, event: str, data: dict[str, Any]) -> None:
        if self._has_audience:
            self.hub.send(event, data | {"prompt_id": self.job.id}, self.client)

    def send_start(self) -> None:
        """Announce that the job starts."""
        if self.hub.broadcast_all:
            self._send("notification", {"value": "Executing workflow..."})
        self._send_message("execution_start", {"prompt_id": self.job.id})

    def send_cached(self, nodes: list[str]) -> None:
        """List the nodes whose results are taken from the cache."""
        self._send_message("execution_cached", {"nodes": nodes, "prompt_id": self.job.id})

    def send_success(self) -> None:
        """Announce that all outputs are done."""
        self._send_message("execution_success", {"prompt_id": self.job.id})

    def send_failure(self, node_id: str, class_type: str, executed: list[str], details: Mapping[str, Any]) -> None:
        """Announce that a node failed; `details` hold the exception and the node's inputs."""
        data = {"prompt_id": self.job.id, "node_id": node_id, "node_type": class_type, "executed": executed, **details}
        if self.hub.broadcast_all:
            data["current_outputs"] = {}  # an object on Cloud, a list of ids in ComfyUI
        self._send_message("execution_error", data)

    def send_interrupted(self, node_id: str, class_type: str, executed: list[str]) -> None:
        """Announce that the job stopped because a client interrupted it."""
        data = {"prompt_id": self.job.id, "node_id": node_id, "node_type": class_type, "executed": executed}
        self._send_message("execution_interrupted", data, broadcast=True)

    def send_executing(self, node_id: str) -> None:
        """Announce that a node starts."""
        self._update_state(node_id, 0.0, 1.0, "running")
        if self.client is not None:
            self.hub.current_nodes[self.client] = node_id
        self._send("executing", {"node": node_id, "display_node": node_id})

    def send_executed(self, node_id: str, ui: Mapping[str, Any] | None) -> None:
        """Send the `ui` output of a node that ran, or of an output node whose result is cached."""
        self._send("executed", {"node": node_id, "display_node": node_id, "output": ui})

    def mark_finished(self, node_id: str) -> None:
        """Report that a node has its result."""
        maximum = self._progress.get(node_id, {}).get("max", 1)
        self._update_state(node_id, maximum, maximum, "finished")

    def send_progress(self, node_id: str, value: int, maximum: int, preview: Image.Image | None) -> None:
        """Report that a node has done `value` of `maximum` steps, with a preview of its work if there is one."""
        self._update_state(node_id, value, maximum, "running")
        data = {"value": value, "max": maximum, "prompt_id": self.job.id, "node": node_id}
        self.hub.send("progress", data, self.client)
        if preview is not None:
            self.hub.send_preview(preview, {**_node_ids(node_id), "prompt_id": self.job.id}, self.client)

    def send_text(self, node_id: str, text: str | None) -> None:
        """Send the text that a partner node of a ComfyUI shows, to every client, as ComfyUI 0.33.0 does."""
        if text is not None and not self.hub.broadcast_all:
            self.hub.send_text(node_id, text)

    def send_picture(self, node_id: str, picture: Image.Image) -> None:
        """Send a picture that is itself a result of a node (SaveImageWebsocket)."""
        self.hub.send_picture(picture, {**_node_ids(node_id), "prompt_id": self.job.id}, self.client)

    def _update_state(self, node_id: str, value: float, maximum: float, state: str) -> None:
        self._progress[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "prompt_id": self.job.id,
            **_node_ids(node_id),
        }
        if self.hub.has_listener(self.client):
            self.hub.send("progress_state", {"prompt_id": self.job.id, "nodes": self._progress}, self.client)

    def send_end(self) -> None:
        """Announce that the job has ended. Call this after the history lists the job, because clients then read it."""
        if self.client is not None:
            self.hub.current_nodes.pop(self.client, None)
        self._send("executing", {"node": None})


def _node_ids(node_id: str) -> dict[str, Any]:
    return {"node_id": node_id, "display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id}
