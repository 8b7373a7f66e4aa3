"""The workflows of all trials in little space: the first in full, and for each trial only its differences.

The page assembles them again to copy or save one. Trials are matched by digest: a row has a workflow only if the
experiment still makes exactly that trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sweeper.model.result import Result
from sweeper.model.trial import Trial
from sweeper.planning.plan import Plan
from sweeper.reporting.dataset import encode_values

_ABSENT: Final = {"$absent": True}


UploadedInputs = Mapping[str, Mapping[str, Any]]
"""By target, then by the file's content: the value that a workflow needs for an input file on that target."""


def encode_workflows(plan: Plan, rows: Sequence[Result], uploaded: UploadedInputs) -> dict[str, Any] | None:
    """Return `{base, changes: [{node, input, values, of}], known: [0 or 1 per row]}`, or None if no workflow is known.

    Input files have the names that they have on the row's target, so that the target accepts the workflow unchanged.
    If those are unknown, they keep their names on this machine.
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
    # Slots change inputs and never nodes, so all graphs have the same inputs.
    varying = [key for key in start if any(inputs.get(key, _ABSENT) != start[key] for inputs in flat.values())]
    changes = []
    for node, name in varying:
        values, of = encode_values(flat[digest].get((node, name)) if digest in flat else None for digest in digests)
        changes.append({"node": node, "input": name, "values": values, "of": of})
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
