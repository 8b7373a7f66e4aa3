"""Our mark on a submitted graph: a filename prefix per job, and the fingerprint of a graph without it. Pure.

Names on the server become unique, its folders stay small, and an equal trial never gets another run's file back
(COMFYUI_BEHAVIOUR.md 3.2, 3.6, checklist 6). The trial's digest knows nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sweeper.model import workflow

_MARKER: Final = re.compile(r"sweeper/[a-z0-9][a-z0-9-]*/([0-9a-f]{8})/")
_PREFIX_INPUT: Final = "filename_prefix"

Graph = Mapping[str, Mapping[str, Any]]


def to_slug(text: str, limit: int = 40) -> str:
    """Lower-case ASCII letters, digits and single dashes, at most `limit` characters; `x` for what leaves nothing."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.casefold().encode("ascii", "ignore").decode()).strip("-")
    return cleaned[:limit].strip("-") or "x"


def add_marker(graph: Graph, experiment: str, job: str) -> dict[str, Any]:
    """A copy of the graph whose text `filename_prefix` inputs begin with `sweeper/<experiment>/<first 8 of job>/`."""
    ours = f"sweeper/{to_slug(experiment)}/{job[:8]}/"
    return _with_prefixes(graph, lambda prefix: ours + prefix)


def strip_marker(graph: Graph) -> dict[str, Any]:
    """A copy of the graph without our prefixes."""
    return _with_prefixes(graph, lambda prefix: _MARKER.sub("", prefix, count=1) if _MARKER.match(prefix) else prefix)


def read_markers(graph: Graph) -> frozenset[str]:
    """The job marks (8 hex digits) that the graph's prefixes bear."""
    prefixes = (node.get("inputs", {}).get(_PREFIX_INPUT) for node in graph.values())
    return frozenset(found[1] for prefix in prefixes if isinstance(prefix, str) and (found := _MARKER.match(prefix)))


def fingerprint(graph: Graph) -> str:
    """SHA-256 by which a graph that a server lists is known again: our prefix out."""
    return workflow.compute_digest(strip_marker(graph))


def _with_prefixes(graph: Graph, change: Any) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for node_id, node in graph.items():
        inputs = node.get("inputs")
        if isinstance(inputs, Mapping) and isinstance(inputs.get(_PREFIX_INPUT), str):
            copied[node_id] = {**node, "inputs": {**inputs, _PREFIX_INPUT: change(inputs[_PREFIX_INPUT])}}
        else:
            copied[node_id] = dict(node)
    return copied
