"""Mark a submitted graph with its job: a prefix in every `filename_prefix`, and a fingerprint without it. Pure.

The prefix makes file names on the server unique and keeps its folders small (ComfyUI finds the next number by listing
the folder). It also prevents a mix-up: ComfyUI answers a fully cached graph with the file of the earlier run, and
reuses the number of a deleted file. The trial's digest does not include the prefix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sweeper.model import workflow
from sweeper.model.workflow import PREFIX_INPUT

_MARKER: Final = re.compile(r"sweeper/[a-z0-9][a-z0-9-]*/([0-9a-f]{8})/")

Graph = Mapping[str, Mapping[str, Any]]


def to_slug(text: str, limit: int = 40) -> str:
    """Reduce a text to lower-case ASCII letters, digits and single dashes, at most `limit` characters; `x` if empty."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.casefold().encode("ascii", "ignore").decode()).strip("-")
    return cleaned[:limit].strip("-") or "x"


def add_marker(graph: Graph, experiment: str, job: str) -> dict[str, Any]:
    """A copy of the graph with `sweeper/<experiment>/<first 8 of job>/` in front of each `filename_prefix`."""
    marker = f"sweeper/{to_slug(experiment)}/{job[:8]}/"
    return _with_prefixes(graph, lambda prefix: marker + prefix)


def strip_marker(graph: Graph) -> dict[str, Any]:
    """A copy of the graph without the markers."""
    return _with_prefixes(graph, lambda prefix: _MARKER.sub("", prefix, count=1) if _MARKER.match(prefix) else prefix)


def read_markers(graph: Graph) -> frozenset[str]:
    """The job ids in the graph's markers, each as its first 8 hex digits."""
    inputs = (node.get("inputs") for node in graph.values())
    prefixes = (value.get(PREFIX_INPUT) for value in inputs if isinstance(value, Mapping))
    return frozenset(match[1] for prefix in prefixes if isinstance(prefix, str) and (match := _MARKER.match(prefix)))


def read_path_marker(path: str) -> frozenset[str]:
    """The job id in the path of an output file, as its first 8 hex digits; empty without our marker."""
    match = _MARKER.match(path)
    return frozenset([match[1]]) if match else frozenset()


def fingerprint(graph: Graph) -> str:
    """SHA-256 of the graph without its marker, to recognise the graph in a server's listing."""
    return workflow.compute_digest(strip_marker(graph))


def _with_prefixes(graph: Graph, change: Any) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for node_id, node in graph.items():
        copied[node_id] = dict(node)
        if workflow.has_filename_prefix(node):
            inputs = node["inputs"]
            copied[node_id]["inputs"] = {**inputs, PREFIX_INPUT: change(inputs[PREFIX_INPUT])}
    return copied
