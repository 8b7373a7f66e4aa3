"""Build the rows of the table from a trial, its job, its files and their metrics.

A trial has two rows. In the view of one run, the job that the run claims fills it. In the view of the folder, a job of
another run may fill it, so that a partial run hides no result: the best job of the store for the trial's digest.

The queries are here, beside the code that reads their columns; `store` executes them. The rows of a run share most of
their texts (`interned`), so each text is kept in memory once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sweeper.model import result
from sweeper.model.charges import JobCost
from sweeper.model.model_facts import MODELS_SHAPE, decode_models, describe_models
from sweeper.model.money import to_usd
from sweeper.model.result import SAMPLING_METRIC, Result
from sweeper.model.search_columns import ROUND, SearchColumns
from sweeper.model.target_spec import EMBEDDED
from sweeper.store.containment import make_artifact_check
from sweeper.store.records import (
    FAILED,
    LOST,
    REJECTED,
    STATUS_OF_STATE,
    SUCCEEDED,
    ArtifactRef,
    TrialOutcome,
    parse_column,
    parse_columns,
)

_RESULT_STATES: Final = f"('{SUCCEEDED}', '{FAILED}', '{REJECTED}', '{LOST}')"
# The trials `t` of a run, each with its job `j` in the view of the run. The parameter is the run's id.
OF_RUN: Final = """
FROM trials t LEFT JOIN claims c ON c.run = t.run AND c.digest = t.digest LEFT JOIN jobs j ON j.id = c.job
WHERE t.run = ?
"""
# The same in the view of the folder. A result of a real server wins over one of the embedded server, then a success
# over a failure, then the run's own claim, then the latest job. Without a result, the row is that of the run. An
# attempt that its own run repeated does not count as a result, nor what a run found to be of other model files.
OF_FOLDER: Final = f"""
FROM trials t LEFT JOIN jobs j ON j.rowid = (
    SELECT k.rowid FROM jobs k LEFT JOIN claims c ON c.run = t.run AND c.digest = t.digest AND c.job = k.id
    WHERE k.digest = t.digest AND (c.job IS NOT NULL OR k.state IN {_RESULT_STATES}
        AND NOT EXISTS (SELECT 1 FROM stale s WHERE s.job = k.id AND s.run <= t.run)
        AND EXISTS (SELECT 1 FROM claims d WHERE d.run = k.run AND d.digest = k.digest AND d.job = k.id))
    ORDER BY k.state NOT IN {_RESULT_STATES}, k.target = '{EMBEDDED}', k.state != '{SUCCEEDED}', c.job IS NULL,
        k.intended DESC, k.attempt DESC
    LIMIT 1)
WHERE t.run = ?
"""  # noqa: S608 - all parts are constants
# A view follows, and `ORDER BY t.idx`. `build_outcomes` reads the rows.
SELECT_ROWS: Final = """
SELECT t.idx, t.columns, t.params, t.digest, j.id, j.state, j.target, j.prompt_id, j.attempt, j.submitted, j.started,
       j.ended, j.error_type, j.error,
       (SELECT json_group_array(json_array(a.place, a.path, a.sha256, a.node, a.position))
           FROM artifacts a WHERE a.job = j.id), j.run,
       (SELECT m.facts FROM job_models q JOIN models m ON m.id = q.models WHERE q.job = j.id AND q.place = 0)

"""
_NO_METRICS: Final[Mapping[str, Any]] = {}
_UNMEASURED: Final = object()
_SIMPLE: Final = (float, int, str)
_BATCH: Final = 256  # rows


def build_outcomes(
    rows: Iterable[tuple[Any, ...]],
    cached: Mapping[str, Mapping[str, Any]],
    costs: MutableMapping[str, JobCost],
    folder: Path,
) -> Iterator[TrialOutcome]:
    """Outcomes from the rows of `SELECT_ROWS` with a view. `folder`: the results folder.

    `cached`: metric -> SHA-256, or for `sampling_s` the id of a job -> value. `costs`: job id -> cost; once a row has
    the cost of a job, it is set to 0. Raises ResultsError for an artifact outside of the folder.
    """
    interned: dict[str, str] = {}
    models: dict[str, dict[str, Any]] = {}  # by the facts: the fields of a row
    check_file = make_artifact_check(folder)
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH)):  # the JSON of many rows is parsed at once
        columns = parse_columns([row[1] for row in batch], {...: object}, "trials.columns", folder)
        params = parse_columns([row[2] for row in batch], {...: object}, "trials.params", folder)
        outputs = json.loads(f"[{','.join(row[-3] for row in batch)}]")
        for row, *cells, files_of_row in zip(batch, columns, params, outputs, strict=True):
            files = []
            for _, path, sha256, node, position in sorted(
                json.loads(item) if isinstance(item, str) else item for item in files_of_row
            ):
                check_file(path, sha256)
                files.append(ArtifactRef(interned.setdefault(node, node), position, path, sha256))
            *facts_of_job, _, run, facts = row
            for mapping in cells:
                _share_texts(mapping, interned)
            found = _build_result(facts_of_job, cells, files, cached, costs, interned=interned)
            if facts is not None:
                if facts not in models:
                    known = decode_models(parse_column(facts, MODELS_SHAPE, "models.facts", folder))
                    models[facts] = {"models": describe_models(known), "model_facts": known}
                found = replace(found, **models[facts]) if facts else found
            yield TrialOutcome(found, run, tuple(files))


def add_search_columns(outcomes: Sequence[TrialOutcome], search: SearchColumns) -> Iterator[TrialOutcome]:
    """Yield all rows of a search with the columns `round` and `objective` among their metrics."""
    objectives = search.compute_objectives([outcome.result for outcome in outcomes])
    for outcome in outcomes:
        row, columns = outcome.result, dict(outcome.result.columns)
        found = dict(zip(search.objective_columns, objectives[search.get_point(row)], strict=True))
        cells = {ROUND: columns.pop(ROUND, None), **found}
        metrics = {**row.metrics, **{name: cell for name, cell in cells.items() if cell is not None}}
        yield replace(outcome, result=replace(row, columns=columns, metrics=metrics))


def _build_result(
    row: Sequence[Any],
    cells: Sequence[Mapping[str, Any]],
    files: Sequence[ArtifactRef],
    cached: Mapping[str, Mapping[str, Any]],
    costs: MutableMapping[str, JobCost],
    *,
    interned: dict[str, str],
) -> Result:
    index, _, _, digest, job_id, state, target, prompt_id, attempt, *times, error_type, error = row
    columns, params = cells
    submitted, started, ended = times
    sha256 = tuple(file.sha256 for file in files)
    cost = costs.get(job_id)
    if cost is not None:
        costs[job_id] = cost._replace(micros=0)
    return Result(
        trial=index,
        columns=columns,
        params=params,
        digest=digest,
        status=STATUS_OF_STATE.get(state, result.PENDING),
        outputs=tuple(file.path for file in files),
        sha256=sha256,
        target=interned.setdefault(target, target) if target is not None else None,
        prompt_id=prompt_id,
        attempts=attempt or 0,
        queued_s=_compute_elapsed(submitted, started),
        ran_s=_compute_elapsed(started, ended),
        cost=None if cost is None else to_usd(cost.micros),
        cost_kind=None if cost is None else cost.kind,
        error_type=error_type,
        error=error,
        metrics=_collect_metrics(job_id, sha256, digest, cached) if cached else _NO_METRICS,
    )


def _share_texts(cells: dict[str, Any], interned: dict[str, str]) -> None:
    """Share the texts of a row with earlier rows, because prompts are repeated in every row."""
    for name, value in cells.items():
        if type(value) is str:
            cells[name] = interned.setdefault(value, value)


def _compute_elapsed(since: float | None, until: float | None) -> float | None:
    """Seconds between two times. Never below zero, because the times may come from the clocks of two machines."""
    return None if since is None or until is None else round(max(0.0, until - since), 6)


def _collect_metrics(
    job_id: str | None, sha256: Sequence[str], digest: str, cached: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    cells = {
        name: known.get(job_id or "") if name == SAMPLING_METRIC else _combine_values(sha256, digest, known)
        for name, known in cached.items()
    }
    return {name: cell for name, cell in cells.items() if cell is not None}


def _combine_values(sha256: Sequence[str], digest: str, known: Mapping[str, Any]) -> float | int | str | None:
    """One metric of a row: the mean of its outputs' numbers, or their texts joined. None if some output has no value.

    A metric that reads the params is cached under `<sha256>:<digest>`. The cached value None means that the output is
    not a picture (but a film or a sound), and it is left out. If an output has no cached value, it was not measured or
    could not be, and the mean of the others would mislead.
    """
    if len(sha256) == 1 and type(value := known.get(sha256[0])) in _SIMPLE:
        return value
    cached = [known.get(sha, known.get(f"{sha}:{digest}", _UNMEASURED)) for sha in sha256]
    if _UNMEASURED in cached:
        return None
    values = [value for value in cached if value is not None]
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) < len(values):
        return " ".join(map(str, values))
    return sum(numbers) / len(numbers) if len(numbers) > 1 else next(iter(numbers), None)
