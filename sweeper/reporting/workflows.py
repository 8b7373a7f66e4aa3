"""Every trial's concrete workflow in little space: the first one whole, and for each trial only what differs.

The page puts them together again to copy or save one. Which trials there are is told by their digests: a workflow is
given only where the experiment, as it stands now, still makes the very work that the row is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sweeper.planner import Plan
from sweeper.reporting.dataset import coded

_ABSENT: Final = {"$absent": True}


def workflows(plan: Plan, digests: Sequence[str]) -> dict[str, Any] | None:
    """`{base, changes: [{node, input, values, of}], known: [0 or 1 per row]}`; None where no row's work is known."""
    wanted = set(digests)
    graphs: dict[str, Mapping[str, Any]] = {}
    for trial in plan.written():
        if trial.digest in wanted and trial.digest not in graphs:
            graphs[trial.digest] = plan.workflow(trial)
    if not graphs:
        return None
    base = next(iter(graphs.values()))
    flat = {digest: dict(_inputs(graph)) for digest, graph in graphs.items()}
    start = dict(_inputs(base))
    # Slots change inputs and never nodes, so the addresses of one graph are those of all.
    varying = [at for at in start if any(inputs.get(at, _ABSENT) != start[at] for inputs in flat.values())]
    changes = []
    for at in varying:
        values, of = coded(flat[digest].get(at) if digest in flat else None for digest in digests)
        changes.append({"node": at[0], "input": at[1], "values": values, "of": of})
    (base_coded,), _ = coded([dict(base)])
    return {"base": base_coded, "changes": changes, "known": [int(digest in flat) for digest in digests]}


def _inputs(graph: Mapping[str, Any]) -> Iterable[tuple[tuple[str, str], Any]]:
    for node, content in graph.items():
        for name, value in content.get("inputs", {}).items():
            yield (node, name), value
