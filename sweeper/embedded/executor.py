"""Runs one job's graph at a time on its thread: cached results first, then node by node what the outputs still need.

One `Executor` per worker, each with a cache of its own. It knows nothing of HTTP; it speaks through an `Announcer`, and
whatever a node raises ends in the job's messages, never in the thread.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeper.embedded.cache import Cache, CacheEntry, Keys, compute_keys
from sweeper.embedded.execution_order import ExecutionOrder
from sweeper.embedded.jobs import CANCELLED, ERROR, EXECUTING, SUCCESS, ServerJob
from sweeper.embedded.node_inputs import is_link
from sweeper.embedded.nodes.base import Folders, Interrupted, NodeClass

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL import Image

    from sweeper.embedded.event_streams import Hub
    from sweeper.embedded.faults import Faults
    from sweeper.embedded.job_messages import JobMessages
    from sweeper.embedded.request_log import RequestLog


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What all executors of a server share."""

    nodes: Mapping[str, NodeClass]
    folders: Folders
    hub: Hub
    faults: Faults
    seen: RequestLog
    save_metadata: bool = True
    previews: bool = True  # whether samplers show their work in progress


class NodeRunContext:
    """The `Context` of one run of a node (see `nodes.base`)."""

    def __init__(
        self, server: ServerContext, job: ServerJob, messages: JobMessages, graph: Mapping[str, Any], node_id: str
    ) -> None:
        self.input_dir: Path = server.folders.input_dir
        self.output_dir: Path = server.folders.output_dir
        self.temp_dir: Path = server.folders.temp_dir
        self.save_metadata = server.save_metadata
        self.prompt = graph
        info = job.extra_data.get("extra_pnginfo")
        self.extra_pnginfo: Mapping[str, Any] = info if isinstance(info, dict) else {}
        self._previews = server.previews
        self._cancel = job.cancel_event
        self._messages = messages
        self._node_id = node_id

    def check(self) -> None:
        """Raise `Interrupted` if the job is to stop."""
        if self._cancel.is_set():
            raise Interrupted

    def progress(self, value: int, maximum: int, preview: Image.Image | None = None) -> None:
        """Report steps done; stops the node if the job is to stop."""
        self.check()
        self._messages.send_progress(self._node_id, value, maximum, preview if self._previews else None)

    def show(self, picture: Image.Image) -> None:
        """Send a picture as it is to the event stream."""
        self._messages.send_picture(self._node_id, picture)


class NodeFailedError(Exception):
    """A node raised; carries what the history says about it."""

    def __init__(self, node_id: str, details: dict[str, Any]) -> None:
        super().__init__(details["exception_message"])
        self.node_id = node_id
        self.details = details


class Executor:
    """Runs jobs one after another, keeping node results between them by the policy of its cache."""

    def __init__(self, server: ServerContext, cache: Cache) -> None:
        self.server = server
        self.cache = cache

    def run(self, job: ServerJob, messages: JobMessages) -> str:
        """Run a job to its end; fills its messages, results and meta. Returns the state in which it ends.

        Never raises: a failure of the server's own code ends the job as an error too.
        """
        try:
            return _JobRun(self, job, messages).execute()
        except Exception as problem:  # noqa: BLE001 - the worker must outlive every job
            messages.send_failure("", "", [], describe_failure(problem, {}))
            return ERROR


class _JobRun:
    """One job under way."""

    def __init__(self, executor: Executor, job: ServerJob, messages: JobMessages) -> None:
        self.server = executor.server
        self.cache = executor.cache
        self.job = job
        self.messages = messages
        # Copies, because fingerprints are written beside the inputs (so does ComfyUI, hence in the PNG) and must not
        # show in the history.
        self.graph: dict[str, Any] = {node_id: dict(node) for node_id, node in job.graph.items()}
        self.executed: list[str] = []
        self.planned_failure = executor.server.faults.draw_job_failure()

    def execute(self) -> str:
        self.job.set_state(EXECUTING)
        self.messages.send_start()
        keys: Keys = compute_keys(self.graph, self.server.nodes, self._compute_fingerprint)
        self.cache.begin_prompt(keys)
        self.messages.send_cached([node_id for node_id in self.graph if self._is_cached(node_id)])
        schedule = ExecutionOrder(self.graph, lambda kind: self.server.nodes[kind].output_node, self._is_cached)
        for node_id in self.job.outputs:
            schedule.add(node_id)
        state = self._run_nodes(schedule)
        self._collect_results()
        return state

    def _run_nodes(self, order: ExecutionOrder) -> str:
        node_id = next(iter(self.job.outputs), "")
        try:
            self._wait(self.server.faults.draw_job_delay())
            while order:
                picked = order.pick()
                node_id = order.find_cycle_node() if picked is None else picked
                if picked is None:
                    raise NodeFailedError(node_id, _CYCLE)  # noqa: TRY301 - ends as any failed node does
                self._run_node(node_id)
                order.complete(node_id)
        except Interrupted:
            self.messages.send_interrupted(node_id, self.graph[node_id]["class_type"], self.executed)
            return CANCELLED
        except NodeFailedError as failed:
            details = {**failed.details, "current_outputs": list(self.graph)}
            self.messages.send_failure(node_id, self.graph[node_id]["class_type"], self.executed, details)
            return ERROR
        self.messages.send_success()
        return SUCCESS

    def _is_cached(self, node_id: str) -> bool:
        return self.cache.get(node_id) is not None

    def _compute_fingerprint(self, node_id: str) -> Any:
        """The class's IS_CHANGED for this node; NaN (always run) when it raises, as in ComfyUI."""
        node = self.graph[node_id]
        if "is_changed" in node:
            return node["is_changed"]
        known = self.server.nodes[node["class_type"]]
        assert known.fingerprint is not None
        widgets = {
            name: value
            for name, value in node["inputs"].items()
            if (name in known.required or name in known.optional) and not is_link(value)
        }
        try:
            context = NodeRunContext(self.server, self.job, self.messages, self.graph, node_id)
            value = known.fingerprint(context, **widgets)
        except Exception:  # noqa: BLE001 - a file that is gone shows when the node runs
            return float("nan")
        node["is_changed"] = [value]
        return value

    def _run_node(self, node_id: str) -> None:
        entry = self.cache.get(node_id)
        if entry is not None:
            self.messages.send_executed(node_id, entry.ui)
            self.messages.mark_finished(node_id)
            return
        self.messages.send_executing(node_id)
        node = self.graph[node_id]
        class_type = node["class_type"]
        known = self.server.nodes[class_type]
        inputs: dict[str, list[Any]] = {}
        try:
            inputs = self._resolve_inputs(node, known)
            context = NodeRunContext(self.server, self.job, self.messages, self.graph, node_id)
            context.check()
            self._inject_faults(node_id, known)
            values, ui = _run_over_lists(known, context, inputs)
        except Interrupted:
            raise
        except Exception as problem:
            inputs = {**inputs, **self._hidden_inputs(node_id, known)}
            raise NodeFailedError(node_id, describe_failure(problem, inputs)) from problem
        self.server.seen.record_node_run(node_id, class_type)
        meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
        self.cache.put(node_id, CacheEntry(values, ui, meta))
        if ui:
            self.messages.send_executed(node_id, ui)
        self.messages.mark_finished(node_id)
        self.executed.append(node_id)

    def _resolve_inputs(self, node: Mapping[str, Any], known: NodeClass) -> dict[str, list[Any]]:
        """The list of each known input, links resolved; unknown ones stay behind, as in ComfyUI."""
        inputs: dict[str, list[Any]] = {}
        for name, value in node["inputs"].items():
            if name not in known.required and name not in known.optional:
                continue
            if is_link(value):
                source = self.cache.get(value[0])
                assert source is not None, "the schedule runs sources first"
                inputs[name] = source.values[value[1]]
            else:
                inputs[name] = [value]
        return inputs

    def _hidden_inputs(self, node_id: str, known: NodeClass) -> dict[str, list[Any]]:
        """What ComfyUI hands to an older class beside its inputs, and shows with them when it fails."""
        values = {
            "PROMPT": self.graph,
            "EXTRA_PNGINFO": self.job.extra_data.get("extra_pnginfo"),
            "UNIQUE_ID": node_id,
        }
        return {} if known.v3 else {name: [values[kind]] for name, kind in known.hidden.items() if kind in values}

    def _inject_faults(self, node_id: str, known: NodeClass) -> None:
        """Stalls, delays and failures that `Faults` ask for."""
        faults, class_type = self.server.faults, known.name
        released = faults.get_stall(node_id, class_type)
        while released is not None and not released.wait(0.01):
            if self.job.cancel_event.is_set():
                raise Interrupted
        self._wait(faults.draw_node_delay(loads=bool(known.models)))
        failure = self.planned_failure or faults.take_node_failure(node_id, class_type)
        if failure is not None:
            raise failure

    def _wait(self, seconds: float) -> None:
        """Be slow, but hear when the job is to stop."""
        if seconds > 0 and self.job.cancel_event.wait(seconds):
            raise Interrupted

    def _collect_results(self) -> None:
        for node_id in self.graph:
            entry = self.cache.get(node_id)
            if entry is not None and entry.ui:
                self.job.results[node_id] = entry.ui
                self.job.meta[node_id] = entry.meta


def _run_over_lists(
    known: NodeClass, context: NodeRunContext, inputs: Mapping[str, list[Any]]
) -> tuple[tuple[list[Any], ...], dict[str, list[Any]] | None]:
    """Run a node over its lists of inputs: a list of values per output, and what the runs showed, joined.

    As ComfyUI does it: once for each item of the longest list, shorter ones repeat their last; at once with the lists
    themselves where the class wants them. An output that is itself a list is joined to one.
    """
    if known.input_is_list:
        outputs = [known.run(context, **inputs)]
    else:
        outputs = []
        for place in range(max((len(items) for items in inputs.values()), default=0) or 1):
            context.check()
            one = {name: items[min(place, len(items) - 1)] for name, items in inputs.items() if items}
            outputs.append(known.run(context, **one))
    values: list[list[Any]] = []
    for place, each in enumerate(zip(*(output.values for output in outputs), strict=True)):
        listed = place < len(known.output_is_list) and known.output_is_list[place]
        values.append([item for items in each for item in items] if listed else list(each))
    shown = [output.ui for output in outputs if output.ui]
    ui = {name: [entry for one in shown for entry in one[name]] for name in shown[0]} if shown else None
    return tuple(values), ui


_CYCLE = {
    "exception_message": "Dependency cycle detected",
    "exception_type": "graph.DependencyCycleError",
    "traceback": [],
    "current_inputs": [],
}


def describe_failure(problem: BaseException, inputs: Mapping[str, list[Any]]) -> dict[str, Any]:
    """An exception as `execution_error` tells it; the message ends with a line feed, as ComfyUI's does."""
    kind = type(problem)
    plain = kind.__module__ == "builtins"
    return {
        "exception_message": f"{problem}\n",
        "exception_type": kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}",
        "traceback": traceback.format_tb(problem.__traceback__),
        "current_inputs": {name: [_to_json_value(value) for value in values] for name, values in inputs.items()},
        "current_outputs": [],
    }


def _to_json_value(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)[:2000]
