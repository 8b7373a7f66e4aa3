"""Runs the graph of a job: the nodes on which its outputs depend and whose results are not cached.

Each worker thread has a cache of its own, and runs one job at a time. A run reports through `JobMessages`. An exception
of a node ends the job and is reported in its messages; it never ends the thread.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sweeper.embedded.cache import Cache, CacheEntry, Keys, compute_keys, make_cache
from sweeper.embedded.event_streams import JobMessages
from sweeper.embedded.jobs import CANCELLED, ERROR, EXECUTING, SUCCESS, ServerJob
from sweeper.embedded.nodes import Context, Interrupted, NodeClass
from sweeper.embedded.service import Service
from sweeper.embedded.validation import is_link, iter_upstream, list_sources

if TYPE_CHECKING:
    from sweeper.embedded.diffusion.arrays import Array

_PREVIEWS = {"none": False, "auto": True, "latent2rgb": True, "taesd": True}
_MAX_LISTED = 2 * 2**30  # bytes of all pictures that a node makes of the items of lists: lists of lists grow fast


class NodeFailedError(Exception):
    """A node raised an exception: its `args` are the id of the node, and what the history says about it."""


def run_jobs(service: Service) -> None:
    """Run the jobs of the queue one by one until it closes. An error in the server's own code fails the job too."""
    cache, clearings = make_cache(service.settings.cache), service.clearings
    while (job := service.queue.take()) is not None:
        if service.clearings > clearings:
            clearings = service.clearings
            cache.clear()
        service.seen.record_job_start(job.id, len(service.queue.snapshot()[0]))
        messages = JobMessages(service.hub, job)
        seconds = service.faults.draw_seconds("capacity_seconds")
        if seconds > 0:
            service.queue.hold(job, seconds)
        if service.faults.should_inject("cancel"):
            service.queue.interrupt(job.id)
        started = time.monotonic()
        try:
            state = _JobRun(service, cache, job, messages).execute()
        except Exception as problem:  # noqa: BLE001 - the worker must outlive every job
            messages.announce("execution_error", node_id="", node_type="", executed=[], **describe_failure(problem, {}))
            state = ERROR
        service.account.charge_time(job, time.monotonic() - started)
        service.queue.finish(job, state)
        messages.send_end()


class _JobRun:
    def __init__(self, service: Service, cache: Cache, job: ServerJob, messages: JobMessages) -> None:
        self.service = service
        self.nodes = service.select_classes(job.graph)
        self.cache = cache
        self.job = job
        self.messages = messages
        # Copies, because fingerprints are added to the nodes. As in ComfyUI, these are written to the PNG but must not
        # show in the history.
        self.graph: dict[str, Any] = {node_id: dict(node) for node_id, node in job.graph.items()}
        self.executed: list[str] = []
        self.planned_failure = service.faults.draw_job_failure()

    def execute(self) -> str:
        self.job.set_state(EXECUTING)
        self.messages.announce("execution_start")
        graph: dict[str, Any] = dict(self.graph)
        if self.service.settings.cloud:  # a replaced model file is another one for its cache
            for node_id, node in graph.items():
                node_class = self.nodes[node["class_type"]]
                named = {name: self._name_content(node_class, name, value) for name, value in node["inputs"].items()}
                graph[node_id] = {**node, "inputs": named}
        keys: Keys = compute_keys(graph, self.nodes, self._compute_fingerprint)
        self.cache.begin_prompt(keys)
        cached = [node_id for node_id in self.graph if self._is_cached(node_id)]
        self.messages.announce("execution_cached", nodes=cached)
        state = self._run_nodes()
        for node_id in self.graph:
            entry = self.cache.get(node_id)
            if entry is not None and entry.ui:
                self.job.results[node_id] = entry.ui
                self.job.meta[node_id] = entry.meta
        return state

    def _make_context(self, node_id: str) -> Context:
        info = self.job.extra_data.get("extra_pnginfo")
        texts = info if isinstance(info, dict) else {}
        # A job may choose with `preview_method`. A ComfyUI that is started without this option sends none otherwise.
        previews = _PREVIEWS.get(str(self.job.extra_data.get("preview_method")), self.service.settings.cloud)
        folder, cancelled = self.service.folders.base, self.job.cancel_event
        return Context(folder, node_id, self.graph, texts, cancelled, self.messages, previews)

    def _run_nodes(self) -> str:
        node_id = next(iter(self.job.outputs), "")
        try:
            self._wait(self.service.faults.draw_seconds("job_seconds"))
            for node_id in list_order(self.graph, self.job.outputs, self._is_cached):
                self._run_node(node_id)
        except Interrupted:
            kind = self.graph[node_id]["class_type"]
            self.messages.announce("execution_interrupted", node_id=node_id, node_type=kind, executed=self.executed)
            return CANCELLED
        except NodeFailedError as failed:
            node_id, details = failed.args
            facts = {"node_id": node_id, "node_type": self.graph[node_id]["class_type"], "executed": self.executed}
            facts |= {**details, "current_outputs": list(self.graph)}
            self.messages.announce("execution_error", **facts)
            return ERROR
        self.messages.announce("execution_success")
        return SUCCESS

    def _is_cached(self, node_id: str) -> bool:
        return self.cache.get(node_id) is not None

    def _compute_fingerprint(self, node_id: str) -> Any:
        """IS_CHANGED of the node's class for this node; NaN (always run) if it raises, as in ComfyUI."""
        node = self.graph[node_id]
        if "is_changed" in node:
            return node["is_changed"]
        node_class = self.nodes[node["class_type"]]
        assert node_class.fingerprint is not None
        known = node_class.list_inputs(node["inputs"])
        widgets = {name: value for name, value in node["inputs"].items() if name in known and not is_link(value)}
        try:
            value = node_class.fingerprint(self._make_context(node_id), **widgets)
        except Exception:  # noqa: BLE001 - the error, such as a missing file, shows again when the node runs
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
        node_class = self.nodes[class_type]
        inputs: dict[str, list[Any]] = {}
        try:
            inputs = self._resolve_inputs(node, node_class)
            context = self._make_context(node_id)
            context.check()
            self._inject_faults(node_id, node_class)
            if node_class.output_node:
                context, inputs = self._prepare_pictures(context, inputs)
            read = {  # so that the node depends on the content of model files
                name: [self._name_content(node_class, name, value) for value in values]
                for name, values in inputs.items()
            }
            calls = _list_calls(node_class, read)
            values, ui = _run_calls(node_class, context, calls)
        except Interrupted:
            raise
        except Exception as problem:
            raise NodeFailedError(node_id, describe_failure(problem, inputs)) from problem
        self.service.seen.record_node_run(node_id, class_type)
        usd = self.service.account.charge_node(self.job, node_id, node_class, calls)
        self.messages.send_text(node_id, self.service.account.make_price_text(usd))
        meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
        self.cache.put(node_id, CacheEntry(values, ui, meta))
        if ui:
            self.messages.send_executed(node_id, ui)
        self.messages.mark_finished(node_id)
        self.executed.append(node_id)

    def _resolve_inputs(self, node: Mapping[str, Any], node_class: NodeClass) -> dict[str, list[Any]]:
        """The values of each input as a list, with links resolved. Skips inputs that the class does not have."""
        known = node_class.list_inputs(node["inputs"])
        inputs: dict[str, list[Any]] = {name: [value] for name, value in node["inputs"].items() if name in known}
        for name, (value,) in inputs.items():
            if is_link(value):
                source = self.cache.get(value[0])
                assert source is not None, "sources run first"
                inputs[name] = source.values[value[1]]
        return inputs

    def _name_content(self, node_class: NodeClass, name: str, value: Any) -> Any:
        """The value of an input; the name of a model file with the content of the file in it."""
        if name not in node_class.models:
            return value
        return self.service.folders.name_content(node_class.get_model_folder(name), value)

    def _inject_faults(self, node_id: str, node_class: NodeClass) -> None:
        """Stall, delay or fail as `Faults` say."""
        faults, class_type = self.service.faults, node_class.name
        stall = faults.get_stall(node_id, class_type)
        while stall is not None and not stall.wait(0.01):
            if self.job.cancel_event.is_set():
                raise Interrupted
        kinds = ("node_seconds", "model_seconds") if node_class.models else ("node_seconds",)
        self._wait(faults.node_seconds + sum(faults.draw_seconds(kind, class_type) for kind in kinds))
        failure = self.planned_failure or faults.take_node_failure(node_id, class_type)
        if failure is not None:
            raise failure

    def _prepare_pictures(self, context: Context, inputs: dict[str, list[Any]]) -> tuple[Context, dict[str, list[Any]]]:
        """What a node gets that saves or shows: pictures with the scenario's noise, and with the mark of stand-ins."""
        if self.service.faults.scenario.noise:
            node_class = self.nodes[self.graph[context.node_id]["class_type"]]
            for name, (kind, _) in {**node_class.required, **node_class.optional}.items():
                if kind == "IMAGE" and name in inputs:
                    noisy = [_add_noise(value, *self.service.faults.draw_noise()) for value in inputs[name]]
                    inputs = {**inputs, name: noisy}
        # The stand-ins that had a part in what reaches the node, itself included.
        classes = {self.graph[source]["class_type"] for source in iter_upstream(self.graph, [context.node_id])}
        names = sorted(name for name in classes if self.nodes[name].is_stand_in)
        if names:
            from sweeper.embedded.stand_ins.stand_in_run import METADATA_KEY, mark_value

            inputs = {name: [mark_value(value) for value in values] for name, values in inputs.items()}
            context = replace(context, extra_pnginfo={**context.extra_pnginfo, METADATA_KEY: names})
        return context, inputs

    def _wait(self, seconds: float) -> None:
        """Sleep. Raises `Interrupted` as soon as the job should stop."""
        if seconds > 0 and self.job.cancel_event.wait(seconds):
            raise Interrupted


def _list_calls(node_class: NodeClass, inputs: Mapping[str, list[Any]]) -> list[Mapping[str, Any]]:
    """The arguments of each run of a node over its lists of inputs.

    Follows ComfyUI: run once per item of the longest list, and repeat the last item of shorter lists. A class with
    INPUT_IS_LIST runs once with the lists themselves.
    """
    if node_class.input_is_list:
        return [inputs]
    count = max((len(items) for items in inputs.values()), default=0) or 1
    return [
        {name: items[min(index, len(items) - 1)] for name, items in inputs.items() if items} for index in range(count)
    ]


def _run_calls(
    node_class: NodeClass, context: Context, calls: Iterable[Mapping[str, Any]]
) -> tuple[tuple[list[Any], ...], dict[str, list[Any]] | None]:
    """Run a node with each of the arguments. Returns a list of values per output, and the joined `ui` of the runs.

    The lists of an output with OUTPUT_IS_LIST are joined, as in ComfyUI.
    """
    outputs = []
    size = 0
    for arguments in calls:
        context.check()
        outputs.append(node_class.run(context, **arguments))
        size += sum(map(_count_bytes, outputs[-1].values))
        if size > _MAX_LISTED:
            raise ValueError(f"the lists of this node's outputs are larger than {_MAX_LISTED // 2**30} GiB")
    values: list[list[Any]] = []
    for slot, slot_values in enumerate(zip(*(output.values for output in outputs), strict=True)):
        is_list = slot < len(node_class.output_is_list) and node_class.output_is_list[slot]
        values.append([item for items in slot_values for item in items] if is_list else list(slot_values))
    uis = [output.ui for output in outputs if output.ui]
    ui = {name: [entry for each in uis for entry in each[name]] for name in uis[0]} if uis else None
    return tuple(values), ui


def _count_bytes(value: Any) -> int:
    """The size of a picture, or of a list of pictures."""
    return sum(map(_count_bytes, value)) if isinstance(value, list) else int(getattr(value, "nbytes", 0))


def describe_failure(problem: BaseException, inputs: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Describe an exception as `execution_error` does. The message ends with a line feed, as in ComfyUI."""
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


def _add_noise(images: Array, deviation: float, seed: str) -> Array:
    """Add normal noise to the colours of IMAGE [B, H, W, C], as some GPUs do. `deviation` is of 255."""
    import numpy as np

    random = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
    colours = images[..., :3]
    noise = random.normal(0.0, deviation / 255, colours.shape)
    noisy = np.clip(colours + noise, 0.0, 1.0).astype(images.dtype)
    return np.concatenate([noisy, images[..., 3:]], axis=-1)


def list_order(graph: Mapping[str, Any], outputs: Iterable[str], is_cached: Callable[[str], bool]) -> list[str]:
    """The output nodes, and before each the uncached nodes that it depends on. Raises NodeFailedError for a cycle."""
    order: dict[str, None] = {}
    opened = set()
    # Those that need the fewest nodes come first, because ComfyUI prefers nodes near outputs.
    stack = sorted(outputs, key=lambda node_id: sum(1 for _ in iter_upstream(graph, [node_id])))[::-1]
    while stack:
        node_id = stack[-1]
        sources = [node for node in list_sources(graph[node_id]) if node not in order and not is_cached(node)]
        if node_id in order or not sources:
            order[stack.pop()] = None
        elif node_id in opened:
            message = "Dependency cycle detected"
            details = {"exception_message": message, "exception_type": "graph.DependencyCycleError"}
            raise NodeFailedError(node_id, {**details, "traceback": [], "current_inputs": []})
        else:
            opened.add(node_id)
            stack += sources[::-1]
    return list(order)
