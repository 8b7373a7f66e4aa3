"""Build the rows of the table from a trial, its job, its files and their metrics.

A trial has two rows. In the view of one run, the job that the run claims fills it. In the view of the folder, a job of
another run may fill it, so that a partial run hides no result: the best job of the store for the trial's digest.

The queries are here, beside the code that reads their columns; `store` executes them. The rows of a run share most of
their texts, so each text is kept in memory once.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, replace
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from sweeper.model import result
from sweeper.model.model_facts import MODELS_SHAPE, NO_MODELS, Models, decode_models, describe_models
from sweeper.model.money import JobCost, to_usd
from sweeper.model.result import SAMPLING_METRIC, Result
from sweeper.model.search_columns import ROUND, SearchColumns
from sweeper.model.target_spec import EMBEDDED
from sweeper.store.database import Database
from sweeper.store.records import (
    ANY_MAPPING,
    FAILED,
    LOST,
    REJECTED,
    STATUS_OF_STATE,
    SUCCEEDED,
    ArtifactRef,
    TableLayout,
    TrialOutcome,
    parse_column,
    parse_columns,
)

_RESULT_STATES: Final = f"('{SUCCEEDED}', '{FAILED}', '{REJECTED}', '{LOST}')"
# The trials `t` of the run `r`, each with its job `j` in the view of the run. The parameter `run` is its id.
OF_RUN: Final = """
FROM runs r CROSS JOIN trials t ON t.run = r.trials_of
LEFT JOIN claims c ON c.run = r.claims_of AND c.digest = t.digest LEFT JOIN jobs j ON j.id = c.job
WHERE r.id = :run
"""
# The same in the view of the folder. A result of a real server wins over one of the embedded server, then a success
# over a failure, then the run's own claim, then the latest job. Without a result, the row is that of the run. An
# attempt that its own run repeated does not count as a result, nor what a run found to be of other model files.
OF_FOLDER: Final = f"""
FROM runs r CROSS JOIN trials t ON t.run = r.trials_of LEFT JOIN jobs j ON j.rowid = (
    SELECT k.rowid FROM jobs k LEFT JOIN claims c ON c.run = r.claims_of AND c.digest = t.digest AND c.job = k.id
    WHERE k.digest = t.digest AND (c.job IS NOT NULL OR k.state IN {_RESULT_STATES}
        AND NOT EXISTS (SELECT 1 FROM stale s WHERE s.job = k.id AND s.run <= r.id)
        AND EXISTS (SELECT 1 FROM claims d WHERE d.run = k.run AND d.digest = k.digest AND d.job = k.id))
    ORDER BY k.state NOT IN {_RESULT_STATES}, k.target = '{EMBEDDED}', k.state != '{SUCCEEDED}', c.job IS NULL,
        k.intended DESC, k.attempt DESC
    LIMIT 1)
WHERE r.id = :run
"""  # noqa: S608 - all parts are constants
_NOT_SUCCEEDED: Final = f"SELECT id, state FROM jobs WHERE state != '{SUCCEEDED}'"  # noqa: S608
_COUNT_CLAIMS: Final = "(SELECT count(*) FROM claims WHERE run = r.claims_of)"
# The view of the folder is then that of the run, which takes less time.
CLAIMS_ALL_JOBS: Final = f"SELECT {_COUNT_CLAIMS} = (SELECT count(*) FROM jobs) FROM runs r WHERE r.id = ?"  # noqa: S608
# The job of each row of a run; NULL without one. With as many claims as rows, SQLite need not look at the rows.
_CLAIMED: Final = f"""(
SELECT c.job FROM runs r JOIN claims c ON c.run = r.claims_of WHERE r.id = :run AND {_COUNT_CLAIMS} = r.trials UNION ALL
SELECT c.job FROM runs r CROSS JOIN trials t ON t.run = r.trials_of
LEFT JOIN claims c ON c.run = r.claims_of AND c.digest = t.digest WHERE r.id = :run AND {_COUNT_CLAIMS} != r.trials)
"""  # noqa: S608 - all parts are constants
# With a limit, SQLite makes a table of these jobs, which are few, before it looks at the claims.
COUNT_BY_STATE: Final = f"""
SELECT CASE WHEN c.job IS NULL THEN NULL ELSE coalesce(o.state, '{SUCCEEDED}') END, count(*)
FROM {_CLAIMED} c LEFT JOIN ({_NOT_SUCCEEDED} LIMIT -1) o ON o.id = c.job GROUP BY 1
"""  # noqa: S608 - all parts are constants
COUNT_REUSED: Final = f"""
SELECT count(*) FROM {_CLAIMED} c
LEFT JOIN (SELECT id FROM jobs WHERE run = :run OR state NOT IN (:succeeded, :failed, :rejected) LIMIT -1) o
ON o.id = c.job WHERE c.job IS NOT NULL AND o.id IS NULL
"""  # noqa: S608 - all parts are constants
# SQLite decides the first condition before it looks at the trials.
COUNT_WITHOUT_FILES: Final = f"""
SELECT count(*) {OF_RUN} AND j.state = :state
AND (SELECT count(*) FROM jobs) > (SELECT count(*) FROM ({_NOT_SUCCEEDED}))
    + (SELECT count(DISTINCT job) FROM artifacts WHERE job NOT IN (SELECT id FROM ({_NOT_SUCCEEDED})))
AND NOT EXISTS (SELECT 1 FROM artifacts a WHERE a.job = j.id)
"""  # noqa: S608 - all parts are constants
# The digests of the trials in a JSON list, the parameter `trials`. The rows of a view that have them are those trials,
# and all that share their jobs. With NULL instead of the list, it has all rows, and SELECT_FILES the files of all jobs.
_DIGESTS: Final = """
SELECT digest FROM trials WHERE run = (SELECT trials_of FROM runs WHERE id = :run)
AND idx IN (SELECT value FROM json_each(:trials))
"""
OF_TRIALS: Final = f"AND (:trials IS NULL OR t.digest IN ({_DIGESTS}))"
SELECT_FILES: Final = f"""
SELECT job, node, position, path, sha256 FROM artifacts
WHERE :trials IS NULL OR job IN (SELECT id FROM jobs WHERE digest IN ({_DIGESTS})) ORDER BY job, place
"""  # noqa: S608 - all parts are constants
NOT_CLAIMED: Final = """
AND NOT EXISTS (SELECT 1 FROM claims c WHERE c.run = r.claims_of AND c.digest = t.digest AND c.job = j.id)
AND j.id IS NOT NULL GROUP BY j.target ORDER BY j.target
"""
HAS_EQUAL_PIXELS: Final = """
SELECT (SELECT count(*) > count(DISTINCT m.value) FROM artifacts a JOIN metrics m ON m.sha256 = a.sha256
        WHERE m.metric = ? AND m.value LIKE '"%')
    OR (SELECT count(*) > count(DISTINCT digest) FROM trials
        WHERE run = (SELECT trials_of FROM runs ORDER BY id DESC LIMIT 1))
"""
_COLUMNS: Final = {"trials": "idx, digest, params, columns", "claims": "digest, job"}  # after `run`
_RUN_BEFORE: Final = "(SELECT max(id) FROM runs WHERE id < :run)"
HAS_LAYOUT_OF_RUN_BEFORE: Final = f"""
SELECT count(*) = 2 AND min(layout) = max(layout) FROM runs WHERE id IN (:run, {_RUN_BEFORE})
"""  # noqa: S608 - all parts are constants
_MODELS: Final = """
(SELECT m.facts FROM job_models q JOIN models m ON m.id = q.models WHERE q.job = j.id AND q.place = 0)"""
_JOB_CELLS: Final = (
    "id", "state", "target", "prompt_id", "attempt", "submitted", "started", "ended", "error_type", "error", "run",
)  # fmt: skip
_TRIAL_FIELDS: Final = {"trial", "digest", "columns", "params"}  # those of Result that need no job
_UNMEASURED: Final = object()
_SIMPLE: Final = {float, int, str}
_BATCH: Final = 256  # rows: the JSON of so many is parsed at once

# Some rows of the table, by the fields of Result: each has the values of all rows, and `metrics` those of each metric.
Batch = dict[str, Any]
_FIELDS: Final = tuple(field.name for field in fields(Result))
_get_fields: Final = attrgetter(*_FIELDS)


def add_rows(database: Database, table: str, run_id: int, rows: Iterable[tuple[Any, ...]]) -> tuple[int, bool]:
    """Give a run rows, in the order of their keys; return how many, and whether the run before has the same.

    If it has, and this run has none yet, it shares them, unless it is a search, whose rounds add more. `table`:
    `trials` or `claims`. Call inside `transaction`.
    """
    columns = _COLUMNS[table]
    shared = f"(SELECT {table}_of FROM runs WHERE id = {_RUN_BEFORE})"  # noqa: S608 - constants, here and below
    before = f"SELECT {columns} FROM {table} WHERE run = {shared} ORDER BY 1"  # noqa: S608
    known, new, count = database.query(before, {"run": run_id}), iter(rows), 0
    row, old = next(new, None), next(known, None)
    while row is not None and row == old:
        count, row, old = count + 1, next(new, None), next(known, None)
    known.close()
    is_same = row is old is None
    may_share = f"json_extract(layout, '$.search') IS NULL AND NOT EXISTS (SELECT 1 FROM {table} WHERE run = :run)"  # noqa: S608
    share = f"UPDATE runs SET {table}_of = {shared} WHERE id = :run AND {may_share}"  # noqa: S608
    if is_same and count and database.execute(share, {"run": run_id}).rowcount:
        return count, True
    own_rows(database, table, run_id)
    insert = f"INSERT {'OR REPLACE ' if table == 'claims' else ''}INTO {table}(run, {columns})"
    copied = f"{insert} SELECT :run, * FROM ({before} LIMIT :count)"  # noqa: S608
    database.execute(copied, {"run": run_id, "count": count})
    rest = ((run_id, *cells) for cells in chain(() if row is None else (row,), new))
    marks = ", ?" * len(columns.split(","))
    return count + max(0, database.executemany(f"{insert} VALUES (?{marks})", rest).rowcount), is_same


def own_rows(database: Database, table: str, run_id: int) -> None:
    """Give a run copies of the rows that it shares with another, if any, because it is about to change them."""
    shared = f"SELECT {table}_of FROM runs WHERE id = :run AND {table}_of != :run"  # noqa: S608 - constants, here and below
    copied = f"SELECT :run, {_COLUMNS[table]} FROM {table} WHERE run = ({shared}) ORDER BY 2"  # noqa: S608
    owned = f"UPDATE runs SET {table}_of = :run WHERE id = :run AND {table}_of != :run"  # noqa: S608
    database.execute(f"INSERT INTO {table} {copied}", {"run": run_id})
    database.execute(owned, {"run": run_id})


def find_fields(layout: TableLayout, columns: Collection[str] | None) -> frozenset[str]:
    """The fields of Result that these columns of the table need; None: all."""
    if columns is None:
        return frozenset(_FIELDS)
    slots = {*layout.slot_names} - {*layout.axis_columns}
    groups = {"columns": layout.axis_columns, "params": slots, "metrics": layout.metrics}
    found = {field for field, names in groups.items() if not set(columns).isdisjoint(names)}
    return frozenset({*found, *columns, *(["cost"] if "currency" in columns else [])} & {*_FIELDS})


def select_rows(needed: AbstractSet[str]) -> str:
    """The beginning of a query that `read_batches` reads. A view follows, and `ORDER BY t.idx`.

    If no cell is of a job, SQLite leaves out the joins of the view, which take most of the time.
    """
    texts = [f"t.{name}" if name in needed else "NULL" for name in ("columns", "params")]
    job = [f"j.{name}" if needed - _TRIAL_FIELDS else "NULL" for name in _JOB_CELLS]
    return f"SELECT t.idx, t.digest, {', '.join((*texts, *job, _MODELS if 'models' in needed else 'NULL'))}\n"


def read_batches(
    rows: Iterable[tuple[Any, ...]],
    needed: AbstractSet[str],
    cached: Mapping[str, Mapping[str, Any]],
    costs: MutableMapping[str, JobCost],
    *,
    files: Mapping[str, tuple[ArtifactRef, ...]],
    hashes: Mapping[str, tuple[str, ...]],
    folder: Path,
) -> Iterator[Batch]:
    """Batches from the rows of `select_rows` with a view. `folder`: the results folder.

    A batch has the `needed` fields of Result, and more; with `outputs` also what `build_outcomes` reads. `cached`:
    metric -> SHA-256, or for `sampling_s` the id of a job -> value. `costs`: job id -> cost; once a row has the cost of
    a job, it is set to 0. `files`: job id -> its files, needed for `outputs`; without them, `hashes` has their SHA-256.
    """
    models: dict[str | None, tuple[str | None, Models]] = {None: (None, NO_MODELS)}  # by their facts
    iterator = iter(rows)
    while part := list(islice(iterator, _BATCH)):
        index, digest, columns, params, *cells, facts = zip(*part, strict=True)
        batch: Batch = {"trial": index, "digest": digest}
        for name, texts in (("columns", columns), ("params", params)):
            if name in needed:
                batch[name] = parse_columns(texts, ANY_MAPPING, f"trials.{name}", folder)
        if needed - _TRIAL_FIELDS:
            jobs = dict(zip(_JOB_CELLS, cells, strict=True))
            batch |= _read_jobs(jobs, needed)
            if "outputs" in needed:
                batch["files"] = [files.get(job, ()) for job in jobs["id"]]
                batch["outputs"] = [tuple([file.path for file in of_row]) for of_row in batch["files"]]
                batch["sha256"] = [tuple([file.sha256 for file in of_row]) for of_row in batch["files"]]
            else:
                batch["sha256"] = [hashes.get(job, ()) for job in jobs["id"]]
            if "metrics" in needed:
                batch["metrics"] = _collect_metrics(jobs["id"], batch["sha256"], digest, cached)
            if "cost" in needed or "cost_kind" in needed:
                batch["cost"], batch["cost_kind"] = zip(*(_take_cost(job, costs) for job in jobs["id"]), strict=True)
        if "models" in needed:
            new = set(facts) - models.keys()
            known = {text: decode_models(parse_column(text, MODELS_SHAPE, "models.facts", folder)) for text in new}
            models |= {text: (describe_models(found), found) for text, found in known.items()}
            batch["models"], batch["model_facts"] = zip(*map(models.get, facts), strict=True)
        yield batch


def keep_trials(
    rows: Iterable[tuple[Any, ...]], trials: Collection[int], costs: MutableMapping[str, JobCost]
) -> Iterator[tuple[Any, ...]]:
    """The rows of these trials. A job's cost stays with the first trial that shares it, also if that is left out."""
    kept = set()
    for row in rows:
        job = row[4]
        if row[0] in trials:
            kept.add(job)
            yield row
        elif job in costs and job not in kept:
            costs[job] = costs[job]._replace(micros=0)


def _read_jobs(jobs: Mapping[str, Sequence[Any]], needed: AbstractSet[str]) -> Batch:
    """The fields of Result from the columns of the table `jobs`, all None for a row without a job; times in seconds."""
    batch: Batch = {name: jobs[name] for name in ("prompt_id", "error_type", "error", "run")}
    batch["status"] = [STATUS_OF_STATE.get(state, result.PENDING) for state in jobs["state"]]
    batch["target"] = [target and sys.intern(target) for target in jobs["target"]]
    batch["attempts"] = [number or 0 for number in jobs["attempt"]]
    for name, since, until in (("queued_s", "submitted", "started"), ("ran_s", "started", "ended")):
        if name in needed:
            times = zip(jobs[since], jobs[until], strict=True)
            # Never below zero, because the times may come from the clocks of two machines.
            batch[name] = [None if a is None or b is None else round(max(0.0, b - a), 6) for a, b in times]
    return batch


def build_outcomes(batches: Iterable[Batch]) -> Iterator[TrialOutcome]:
    """Outcomes from batches with all fields. They share their texts, because prompts are repeated in every row."""
    interned: dict[str, str] = {}
    for batch in batches:
        for cells in chain(batch["columns"], batch["params"]):
            cells |= {name: interned.setdefault(cell, cell) for name, cell in cells.items() if type(cell) is str}
        columns = batch["metrics"]
        found = zip(*columns.values(), strict=True) if columns else [()] * len(batch["trial"])
        metrics = [
            {name: cell for name, cell in zip(columns, cells, strict=True) if cell is not None} for cells in found
        ]
        batch |= {"metrics": metrics}
        rows = zip(*map(batch.get, _FIELDS), strict=True)
        for cells, run, files in zip(rows, batch["run"], batch["files"], strict=True):
            yield TrialOutcome(Result(*cells), run, files)


def batch_results(results: Iterable[Result]) -> Iterator[Batch]:
    """Batches with the fields of these results."""
    iterator = iter(results)
    while part := list(islice(iterator, _BATCH)):
        names = dict.fromkeys(name for row in part for name in row.metrics)
        metrics = {name: [row.metrics.get(name) for row in part] for name in names}
        yield {**dict(zip(_FIELDS, zip(*map(_get_fields, part), strict=True), strict=True)), "metrics": metrics}


def batch_outcomes(outcomes: Iterable[TrialOutcome]) -> Iterator[Batch]:
    """Batches of these rows, with their files."""
    iterator = iter(outcomes)
    while part := list(islice(iterator, _BATCH)):
        (batch,) = batch_results(outcome.result for outcome in part)
        yield {**batch, "files": [outcome.files for outcome in part]}


def add_search_columns(outcomes: Sequence[TrialOutcome], search: SearchColumns) -> Iterator[TrialOutcome]:
    """Yield all rows of a search with the columns `round` and `objective` among their metrics."""
    objectives = search.compute_objectives([outcome.result for outcome in outcomes])
    for outcome in outcomes:
        row, columns = outcome.result, dict(outcome.result.columns)
        found = dict(zip(search.objective_columns, objectives[search.get_point(row)], strict=True))
        cells = {ROUND: columns.pop(ROUND, None), **found}
        metrics = {**row.metrics, **{name: cell for name, cell in cells.items() if cell is not None}}
        yield replace(outcome, result=replace(row, columns=columns, metrics=metrics))


def _take_cost(job: str | None, costs: MutableMapping[str, JobCost]) -> tuple[float | None, str | None]:
    """The columns `cost` and `cost_kind` of a row. The next row of the job costs nothing."""
    cost = costs.get(job or "")
    if job is None or cost is None:
        return None, None
    costs[job] = cost._replace(micros=0)
    return to_usd(cost.micros), cost.kind


def _collect_metrics(
    jobs: Sequence[str | None],
    hashes: Sequence[Sequence[str]],
    digests: Sequence[str],
    cached: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[Any]]:
    """The cells of each metric; None where a row has no value."""
    firsts = [sha256[0] if len(sha256) == 1 else "" for sha256 in hashes]
    columns = {}
    for name, known in cached.items():
        cells: list[Any] = list(map(known.get, firsts))  # of most rows, which have one file
        if name == SAMPLING_METRIC:
            cells = [known.get(job or "") for job in jobs]
        elif not set(map(type, cells)) <= _SIMPLE:
            cells = [_combine_values(sha256, digest, known) for sha256, digest in zip(hashes, digests, strict=True)]
        columns[name] = cells
    return columns


def _combine_values(sha256: Sequence[str], digest: str, known: Mapping[str, Any]) -> float | int | str | None:
    """One metric of a row: the mean of its outputs' numbers, or their texts joined. None if some output has no value.

    A metric that reads the params is cached under `<sha256>:<digest>`. The cached value None means that the output is
    not a picture (but a film or a sound), and it is left out. If an output has no cached value, it was not measured or
    could not be, and the mean of the others would mislead.
    """
    cached = [known.get(sha, known.get(f"{sha}:{digest}", _UNMEASURED)) for sha in sha256]
    if _UNMEASURED in cached:
        return None
    values = [value for value in cached if value is not None]
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) < len(values):
        return " ".join(map(str, values))
    return sum(numbers) / len(numbers) if len(numbers) > 1 else next(iter(numbers), None)
