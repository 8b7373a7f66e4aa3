"""Runs one job's graph at a time on its thread: cached results first, then node by node what the outputs still need.

One `Executor` per worker, each with a cache of its own. It knows nothing of HTTP; it speaks through an `Announcer`, and
whatever a node raises ends in the job's messages, never in the thread.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeper.embedded.cache import Cache, Entry, Keys, node_keys
from sweeper.embedded.execution_order import Schedule
from sweeper.embedded.jobs import CANCELLED, ERROR, EXECUTING, SUCCESS, Job
from sweeper.embedded.node_inputs import is_link
from sweeper.embedded.nodes.base import Folders, Interrupted, NodeClass

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL import Image

    from sweeper.embedded.event_streams import Hub
    from sweeper.embedded.faults import Faults
    from sweeper.embedded.job_messages import Announcer
    from sweeper.embedded.request_log import Seen


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all executors of a server share."""

    nodes: Mapping[str, NodeClass]
    folders: Folders
    hub: Hub
    faults: Faults
    seen: Seen
    save_metadata: bool = True
    previews: bool = True  # whether samplers show their work in progress


class RunContext:
    """The `Context` of one run of a node (see `nodes.base`)."""

    def __init__(self, shop: Workshop, job: Job, voice: Announcer, graph: Mapping[str, Any], node_id: str) -> None:
        self.input_dir: Path = shop.folders.input_dir
        self.output_dir: Path = shop.folders.output_dir
        self.temp_dir: Path = shop.folders.temp_dir
        self.save_metadata = shop.save_metadata
        self.prompt = graph
        info = job.extra_data.get("extra_pnginfo")
        self.extra_pnginfo: Mapping[str, Any] = info if isinstance(info, dict) else {}
        self._previews = shop.previews
        self._cancel = job.cancel
        self._voice = voice
        self._node_id = node_id

    def check(self) -> None:
        """Raise `Interrupted` if the job is to stop."""
        if self._cancel.is_set():
            raise Interrupted

    def progress(self, value: int, maximum: int, preview: Image.Image | None = None) -> None:
        """Report steps done; stops the node if the job is to stop."""
        self.check()
        self._voice.progress(self._node_id, value, maximum, preview if self._previews else None)

    def show(self, picture: Image.Image) -> None:
        """Send a picture as it is to the event stream."""
        self._voice.show(self._node_id, picture)


class NodeFailedError(Exception):
    """A node raised; carries what the history says about it."""

    def __init__(self, node_id: str, details: dict[str, Any]) -> None:
        super().__init__(details["exception_message"])
        self.node_id = node_id
        self.details = details


class Executor:
    """Runs jobs one after another, keeping node results between them by the policy of its cache."""

    def __init__(self, shop: Workshop, cache: Cache) -> None:
        self.shop = shop
        self.cache = cache

    def run(self, job: Job, voice: Announcer) -> str:
        """Run a job to its end; fills its messages, results and meta. Returns the state in which it ends.

        Never raises: a failure of the server's own code ends the job as an error too.
        """
        try:
            return _Run(self, job, voice).to_the_end()
        except Exception as problem:  # noqa: BLE001 - the worker must outlive every job
            voice.failure("", "", [], failure_details(problem, {}))
            return ERROR


class _Run:
    """One job under way."""

    def __init__(self, executor: Executor, job: Job, voice: Announcer) -> None:
        self.shop = executor.shop
        self.cache = executor.cache
        self.job = job
        self.voice = voice
        # Copies, because fingerprints are written beside the inputs (so does ComfyUI, hence in the PNG) and must not
        # show in the history.
        self.graph: dict[str, Any] = {node_id: dict(node) for node_id, node in job.graph.items()}
        self.executed: list[str] = []
        self.doom = executor.shop.faults.job_failure()

    def to_the_end(self) -> str:
        self.job.move(EXECUTING)
        self.voice.start()
        keys: Keys = node_keys(self.graph, self.shop.nodes, self._fingerprint)
        self.cache.begin(keys)
        self.voice.cached([node_id for node_id in self.graph if self._cached(node_id)])
        schedule = Schedule(self.graph, lambda kind: self.shop.nodes[kind].output_node, self._cached)
        for node_id in self.job.outputs:
            schedule.add(node_id)
        state = self._dissolve(schedule)
        self._collect()
        return state

    def _dissolve(self, schedule: Schedule) -> str:
        node_id = next(iter(self.job.outputs), "")
        try:
            self._wait(self.shop.faults.job_delay())
            while schedule:
                picked = schedule.pick()
                node_id = schedule.cycle() if picked is None else picked
                if picked is None:
                    raise NodeFailedError(node_id, _CYCLE)  # noqa: TRY301 - ends as any failed node does
                self._node(node_id)
                schedule.done(node_id)
        except Interrupted:
            self.voice.interrupted(node_id, self.graph[node_id]["class_type"], self.executed)
            return CANCELLED
        except NodeFailedError as failed:
            details = {**failed.details, "current_outputs": list(self.graph)}
            self.voice.failure(node_id, self.graph[node_id]["class_type"], self.executed, details)
            return ERROR
        self.voice.success()
        return SUCCESS

    def _cached(self, node_id: str) -> bool:
        return self.cache.get(node_id) is not None

    def _fingerprint(self, node_id: str) -> Any:
        """The class's IS_CHANGED for this node; NaN (always run) when it raises, as in ComfyUI."""
        node = self.graph[node_id]
        if "is_changed" in node:
            return node["is_changed"]
        known = self.shop.nodes[node["class_type"]]
        assert known.fingerprint is not None
        widgets = {
            name: value
            for name, value in node["inputs"].items()
            if (name in known.required or name in known.optional) and not is_link(value)
        }
        try:
            context = RunContext(self.shop, self.job, self.voice, self.graph, node_id)
            value = known.fingerprint(context, **widgets)
        except Exception:  # noqa: BLE001 - a file that is gone shows when the node runs
            return float("nan")
        node["is_changed"] = [value]
        return value

    def _node(self, node_id: str) -> None:
        entry = self.cache.get(node_id)
        if entry is not None:
            self.voice.executed(node_id, entry.ui)
            self.voice.finished(node_id)
            return
        self.voice.executing(node_id)
        node = self.graph[node_id]
        class_type = node["class_type"]
        known = self.shop.nodes[class_type]
        inputs: dict[str, list[Any]] = {}
        try:
            inputs = self._inputs(node, known)
            context = RunContext(self.shop, self.job, self.voice, self.graph, node_id)
            context.check()
            self._misbehave(node_id, known)
            values, ui = _mapped(known, context, inputs)
        except Interrupted:
            raise
        except Exception as problem:
            inputs = {**inputs, **self._hidden(node_id, known)}
            raise NodeFailedError(node_id, failure_details(problem, inputs)) from problem
        self.shop.seen.ran(node_id, class_type)
        meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
        self.cache.put(node_id, Entry(values, ui, meta))
        if ui:
            self.voice.executed(node_id, ui)
        self.voice.finished(node_id)
        self.executed.append(node_id)

    def _inputs(self, node: Mapping[str, Any], known: NodeClass) -> dict[str, list[Any]]:
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

    def _hidden(self, node_id: str, known: NodeClass) -> dict[str, list[Any]]:
        """What ComfyUI hands to an older class beside its inputs, and shows with them when it fails."""
        values = {
            "PROMPT": self.graph,
            "EXTRA_PNGINFO": self.job.extra_data.get("extra_pnginfo"),
            "UNIQUE_ID": node_id,
        }
        return {} if known.v3 else {name: [values[kind]] for name, kind in known.hidden.items() if kind in values}

    def _misbehave(self, node_id: str, known: NodeClass) -> None:
        """Stalls, delays and failures that `Faults` ask for."""
        faults, class_type = self.shop.faults, known.name
        released = faults.stalls(node_id, class_type)
        while released is not None and not released.wait(0.01):
            if self.job.cancel.is_set():
                raise Interrupted
        self._wait(faults.node_delay(loads=bool(known.models)))
        failure = self.doom or faults.failure(node_id, class_type)
        if failure is not None:
            raise failure

    def _wait(self, seconds: float) -> None:
        """Be slow, but hear when the job is to stop."""
        if seconds > 0 and self.job.cancel.wait(seconds):
            raise Interrupted

    def _collect(self) -> None:
        for node_id in self.graph:
            entry = self.cache.get(node_id)
            if entry is not None and entry.ui:
                self.job.results[node_id] = entry.ui
                self.job.meta[node_id] = entry.meta


def _mapped(
    known: NodeClass, context: RunContext, inputs: Mapping[str, list[Any]]
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


def failure_details(problem: BaseException, inputs: Mapping[str, list[Any]]) -> dict[str, Any]:
    """An exception as `execution_error` tells it; the message ends with a line feed, as ComfyUI's does."""
    kind = type(problem)
    plain = kind.__module__ == "builtins"
    return {
        "exception_message": f"{problem}\n",
        "exception_type": kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}",
        "traceback": traceback.format_tb(problem.__traceback__),
        "current_inputs": {name: [_shown(value) for value in values] for name, values in inputs.items()},
        "current_outputs": [],
    }


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)[:2000]
