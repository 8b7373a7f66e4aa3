"""What a running job says: its status messages for the history, and its events for the streams, in ComfyUI's order.

The order and contents are those measured on ComfyUI 0.3.64. Who hears them is `events.Hub`'s business, when they are
said is the executor's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeper.embedded.jobs import ServerJob, now_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from sweeper.embedded.event_streams import Hub


class JobMessages:
    """The voice of one job, heard by its client. Without a client id only progress and interruption are heard, and by
    everybody (ComfyUI's way). Where the hub tells all, everybody hears everything (Cloud's).
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

    def send_start(self) -> None:
        """The job begins."""
        if self.hub.broadcast_all:
            self.hub.send("notification", {"value": "Executing workflow...", "prompt_id": self.job.id})
        self._send_message("execution_start", {"prompt_id": self.job.id})

    def send_cached(self, nodes: list[str]) -> None:
        """These nodes' results are at hand."""
        self._send_message("execution_cached", {"nodes": nodes, "prompt_id": self.job.id})

    def send_success(self) -> None:
        """All outputs are made."""
        self._send_message("execution_success", {"prompt_id": self.job.id})

    def send_failure(self, node_id: str, class_type: str, executed: list[str], details: Mapping[str, Any]) -> None:
        """A node failed; `details` hold the exception and the node's inputs."""
        where = {"prompt_id": self.job.id, "node_id": node_id, "node_type": class_type, "executed": executed}
        shape: dict[str, Any] = (
            {"current_outputs": {}} if self.hub.broadcast_all else {}
        )  # an object on Cloud, a list of ids in ComfyUI
        self._send_message("execution_error", {**where, **details, **shape})

    def send_interrupted(self, node_id: str, class_type: str, executed: list[str]) -> None:
        """The job stopped because it was asked to."""
        where = {"prompt_id": self.job.id, "node_id": node_id, "node_type": class_type, "executed": executed}
        self._send_message("execution_interrupted", where, broadcast=True)

    def send_executing(self, node_id: str) -> None:
        """A node starts."""
        self._update_state(node_id, 0.0, 1.0, "running")
        if self.client is not None:
            self.hub.current_nodes[self.client] = node_id
        if self._has_audience:
            data = {"node": node_id, "display_node": node_id, "prompt_id": self.job.id}
            self.hub.send("executing", data, self.client)

    def send_executed(self, node_id: str, ui: Mapping[str, Any] | None) -> None:
        """A node showed something, or an output's old result is used again."""
        if self._has_audience:
            data = {"node": node_id, "display_node": node_id, "output": ui, "prompt_id": self.job.id}
            self.hub.send("executed", data, self.client)

    def mark_finished(self, node_id: str) -> None:
        """A node has its result."""
        maximum = self._progress.get(node_id, {}).get("max", 1)
        self._update_state(node_id, maximum, maximum, "finished")

    def send_progress(self, node_id: str, value: int, maximum: int, preview: Image.Image | None) -> None:
        """A node is `value` of `maximum` steps on its way."""
        self._update_state(node_id, value, maximum, "running")
        data = {"value": value, "max": maximum, "prompt_id": self.job.id, "node": node_id}
        self.hub.send("progress", data, self.client)
        if preview is not None:
            self.hub.send_preview(preview, {**_node_ids(node_id), "prompt_id": self.job.id}, self.client)

    def send_picture(self, node_id: str, picture: Image.Image) -> None:
        """A node gives a result to whoever listens."""
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
        """The last word, said when the history already knows the job."""
        if self.client is not None:
            self.hub.current_nodes.pop(self.client, None)
        if self._has_audience:
            self.hub.send("executing", {"node": None, "prompt_id": self.job.id}, self.client)


def _node_ids(node_id: str) -> dict[str, Any]:
    return {"node_id": node_id, "display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id}
