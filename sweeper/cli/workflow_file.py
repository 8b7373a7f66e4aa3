"""Reads a workflow for `sweeper template`: an exported JSON file, or a PNG that ComfyUI saved, which carries its own.

Nothing here decides what could be swept (`sweeper.slots`), and no experiment is read here (`sweeper.loading`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweeper.errors import Problem, TemplateError
from sweeper.loading import read_workflow
from sweeper.reading.source import Source
from sweeper.workflow import Graph, graph_problems

_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK = "prompt"  # nodes.py, SaveImage: the API-format graph; `workflow` beside it is the UI's


def read_graph(path: Path) -> tuple[Graph, bytes]:
    """The checked API-format graph of a file, and the bytes of an untouched JSON file of it.

    Raises TemplateError: unreadable, no workflow in it, UI format, links to nowhere.
    """
    is_png = _is_png(path)
    source = _from_png(path) if is_png else read_workflow(path)
    problems = [source.problem(where, message) for where, message in graph_problems(source.value)]
    if problems:
        raise TemplateError(problems)
    graph: Graph = source.value
    return graph, json.dumps(graph, indent=2, ensure_ascii=False).encode() + b"\n" if is_png else path.read_bytes()


def _is_png(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_PNG)) == _PNG
    except OSError:
        return False  # `read_workflow` says what is wrong


def _from_png(path: Path) -> Source:
    from PIL import Image  # noqa: PLC0415 - only pictures need it

    try:
        with Image.open(path) as image:
            text = image.info.get(_CHUNK)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TemplateError(Problem(str(path), 0, "", f"is no PNG that can be read: {error}")) from error
    if not isinstance(text, str):
        message = (
            "this PNG carries no workflow (no `prompt` text); ComfyUI's SaveImage writes one unless metadata is off"
        )
        raise TemplateError(Problem(str(path), 0, "", message))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TemplateError(Problem(str(path), 0, "prompt", f"the PNG's workflow is not JSON: {error}")) from error
    return Source(str(path), _without_marks(value), dict)


def _without_marks(value: Any) -> Any:
    """ComfyUI leaves `is_changed` (often NaN, which is no JSON) beside the inputs of nodes it has run."""
    if not isinstance(value, dict):
        return value
    return {
        node_id: {key: part for key, part in node.items() if key != "is_changed"} if isinstance(node, dict) else node
        for node_id, node in value.items()
    }
