"""Every trial's concrete workflow in little space: the first one whole, and for each trial only what differs.

The page puts them together again to copy or save one. Which trials there are is told by their digests: a workflow is
given only where the experiment, as it stands now, still makes the very work that the row is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sweeper.model.result import Result
from sweeper.model.trial import Trial
from sweeper.planning.plan import Plan
from sweeper.reporting.dataset import encode_values

_ABSENT: Final = {"$absent": True}


UploadedInputs = Mapping[
    str, Mapping[str, Any]
]  # by target: what a workflow must have for an input file, by its content


def encode_workflows(plan: Plan, rows: Sequence[Result], uploaded: UploadedInputs) -> dict[str, Any] | None:
    """`{base, changes: [{node, input, values, of}], known: [0 or 1 per row]}`; None where no row's work is known.

    Input files stand in them as the row's target has them, so that it takes the workflow as it is; where nothing is
    known of that, under their names here.
    """
    digests = [row.digest for row in rows]
    target_of = {row.digest: row.target or "" for row in rows}
    graphs: dict[str, Mapping[str, Any]] = {}
    for trial in plan.written():
        if trial.digest in target_of and trial.digest not in graphs:
            graphs[trial.digest] = _build_run_graph(plan, trial, uploaded.get(target_of[trial.digest], {}))
    if not graphs:
        return None
    base = next(iter(graphs.values()))
    flat = {digest: dict(_iter_inputs(graph)) for digest, graph in graphs.items()}
    start = dict(_iter_inputs(base))
    # Slots change inputs and never nodes, so the addresses of one graph are those of all.
    varying = [at for at in start if any(inputs.get(at, _ABSENT) != start[at] for inputs in flat.values())]
    changes = []
    for at in varying:
        values, of = encode_values(flat[digest].get(at) if digest in flat else None for digest in digests)
        changes.append({"node": at[0], "input": at[1], "values": values, "of": of})
    (base_coded,), _ = encode_values([dict(base)])
    return {"base": base_coded, "changes": changes, "known": [int(digest in flat) for digest in digests]}


def _build_run_graph(plan: Plan, trial: Trial, uploaded: Mapping[str, Any]) -> dict[str, Any]:
    graph: dict[str, Any] = plan.workflow(trial)
    for file in plan.files(trial):
        graph[file.node]["inputs"][file.input] = uploaded.get(file.content_key, file.value)
    return graph


def _iter_inputs(graph: Mapping[str, Any]) -> Iterable[tuple[tuple[str, str], Any]]:
    for node, content in graph.items():
        for name, value in content.get("inputs", {}).items():
            yield (node, name), value
