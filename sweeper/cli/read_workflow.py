"""Reads a workflow for `sweeper template`: a JSON file of either format, or a picture that carries its own.

What the editor's Save writes is converted to the API format here. Nothing here decides what could be swept
(`sweeper.loading.suggest_slots`), and no experiment is read here (`sweeper.loading.load`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.cli.embedded_workflow import PROMPT, WORKFLOW, detect_image_format, read_workflow_texts
from sweeper.cli.node_class_source import NodeClassSource
from sweeper.errors import Problem, TemplateError
from sweeper.loading.load import read_workflow
from sweeper.loading.ui_format.convert import UiFormatError, convert_to_api
from sweeper.model.source import Source
from sweeper.model.workflow import Graph, find_shape_problems, is_ui_format


@dataclass(frozen=True, slots=True)
class LoadedWorkflow:
    """A checked API-format graph out of a file. `content` are the bytes of a JSON file of it: the file's own where
    `untouched`. `notes` tell what was done to it on the way.
    """

    source: Source
    content: bytes
    is_unchanged: bool
    notes: tuple[str, ...] = ()

    @property
    def graph(self) -> Graph:
        """The graph."""
        graph: Graph = self.source.value
        return graph


def read_graph(path: Path, classes: NodeClassSource) -> LoadedWorkflow:
    """The workflow of a file; `classes` are asked for only where a UI-format one must be converted.

    Raises TemplateError: unreadable, no workflow in it, cannot be converted for sure, links to nowhere. Raises
    UsageError and TargetError as `ClassSource.object_info` does.
    """
    kind = detect_image_format(path)
    source = _from_picture(path, kind) if kind else read_workflow(path)
    notes: list[str] = []
    unwrapped = _unwrap_prompt(source) if kind is None else source
    if unwrapped is not source:
        note = source.make_problem(("prompt",), "the workflow is wrapped in a `prompt` key; what is inside it is taken")
        notes.append(str(note))
    graph = _convert_ui_format(unwrapped, classes, notes) if is_ui_format(unwrapped.value) else unwrapped
    problems = [graph.make_problem(where, message) for where, message in find_shape_problems(graph.value)]
    if problems:
        raise TemplateError(problems)
    untouched = kind is None and graph is source
    content = path.read_bytes() if untouched else encode_workflow(graph.value)
    return LoadedWorkflow(graph, content, untouched, tuple(notes))


def encode_workflow(graph: Graph) -> bytes:
    """A graph as the text of a JSON file, as ComfyUI exports it."""
    try:
        return json.dumps(graph, indent=2, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can escape and UTF-8 cannot hold
        return json.dumps(graph, indent=2).encode() + b"\n"


def _unwrap_prompt(source: Source) -> Source:
    """What is inside the `prompt` of a request to a server, with its lines."""
    value = source.value
    if not isinstance(value, dict) or "class_type" in value or not isinstance(value.get("prompt"), dict):
        return source
    inner = value["prompt"]
    if "class_type" in inner and not isinstance(inner["class_type"], dict):
        return source  # a node that bears the id "prompt"
    return Source(
        source.name, inner, lambda: {path[1:]: line for path, line in source.lines.items() if path[:1] == ("prompt",)}
    )


def _convert_ui_format(source: Source, classes: NodeClassSource, notes: list[str]) -> Source:
    """The API-format graph of a UI-format workflow; what became of the rest goes into `notes`."""
    try:
        converted = convert_to_api(source.value, classes.object_info)
    except UiFormatError as error:
        problems = [source.make_problem(path, message) for path, message in error.problems]
        if classes.is_default:
            first = problems[0]
            told = (
                f"{first.message}, by the node classes of the embedded server (--target or --object-info gives others)"
            )
            problems[0] = Problem(first.file, first.line, first.key, told)
        raise TemplateError(problems) from error
    notes += [str(source.make_problem(path, message)) for path, message in converted.notes]
    return Source(source.name, converted.graph, dict)


def _from_picture(path: Path, kind: str) -> Source:
    texts = read_workflow_texts(path, kind)
    name = PROMPT if PROMPT in texts else WORKFLOW
    if name not in texts:
        message = (
            f"this {kind} carries no workflow (neither a `prompt` text nor a `workflow` one); ComfyUI's SaveImage "
            "writes both unless metadata is off, and most web sites take them out"
        )
        raise TemplateError(Problem(str(path), 0, "", message))
    try:
        value = json.loads(texts[name])
    except (ValueError, RecursionError) as error:
        raise TemplateError(Problem(str(path), 0, name, f"the {kind}'s workflow is not JSON: {error}")) from error
    return Source(str(path), _strip_is_changed(value), dict)


def _strip_is_changed(value: Any) -> Any:
    """ComfyUI leaves `is_changed` (often NaN, which is no JSON) beside the inputs of nodes it has run."""
    if not isinstance(value, Mapping):
        return value
    return {
        node_id: {key: part for key, part in node.items() if key != "is_changed"}
        if isinstance(node, dict) and "class_type" in node
        else node
        for node_id, node in value.items()
    }
