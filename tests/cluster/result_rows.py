"""Run on a cluster, and read what is equal in two runs of one plan: all but ids, times, and the job id in a name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from sweeper.cluster import bind_session
from sweeper.model.result import Result, Run
from sweeper.running.run import run
from sweeper.store import Store


def run_on(experiment: Any, cluster: str, *, resources: dict[str, float] | None = None, **rest: Any) -> Run:
    """`sweeper.run` on the workers of a cluster."""
    return run(experiment, session=bind_session(cluster, resources or {}), **rest)


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The rows of the latest run. Checks the hashes of their files."""
    rows = []
    with Store.open(out, readonly=True) as store:
        for row in store.results():
            for path, digest in zip(row.outputs, row.sha256, strict=True):
                assert hashlib.sha256((out / path).read_bytes()).hexdigest() == digest
            rows.append(
                {
                    "trial": row.trial, "columns": row.columns, "params": row.params, "digest": row.digest,
                    "status": row.status, "sha256": row.sha256, "target": row.target, "attempts": row.attempts,
                    "error_type": row.error_type, "error": row.error, "metrics": row.metrics,
                    "outputs": [re.sub(r"-[0-9a-f]{8}(\.[^/]*)$", r"\1", path) for path in row.outputs],
                }
            )  # fmt: skip
    return rows


def raw_rows(out: Path) -> list[Result]:
    """The rows of the latest run, as the store returns them."""
    with Store.open(out, readonly=True) as store:
        return list(store.results())
