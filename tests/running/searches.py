"""Experiments with a search over the probe nodes, and what a results folder says about such a search."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import sweeper
from sweeper.model.result import Result
from sweeper.store import Store
from sweeper.store.records import LOST, OPEN_STATES, UNSENT
from tests.running.conftest import TEMPLATE

SLOTS = {"seed": {"default": 0, "schema": {"type": "integer"}}, "text": {"default": "a fox"}}
SEARCH = {
    "maximize": "brightness",
    "trials": 8,
    "batch": 2,
    "space": {"seed": {"from": 0, "to": 999}},
    "over": {"text": ["a fox", "a house"]},
}


def write_search(folder: Path, *, template: Any = TEMPLATE, body: Any = None, **search: Any) -> sweeper.Experiment:
    """Write an experiment with `SEARCH` and these changes, of which None leaves a key out. `body`: other sections."""
    folder.mkdir(exist_ok=True)
    (folder / "template.json").write_text(json.dumps(template))
    (folder / "template.slots.yaml").write_text(json.dumps({"slots": SLOTS}))
    section = {key: value for key, value in {**SEARCH, **search}.items() if value is not None}
    file = folder / "experiment.yaml"
    file.write_text(json.dumps({"name": "probe", "template": "template.json", "search": section, **(body or {})}))
    return sweeper.load(file)


def load_rows(out: Path) -> list[Result]:
    """The table of a results folder."""
    with Store.open(out, readonly=True) as store:
        return list(store.results())


def describe_rows(out: Path) -> list[tuple[Any, ...]]:
    """The table without what differs from one machine and hour to the next."""
    return [
        (row.trial, dict(row.columns), dict(row.params), row.digest, row.status, dict(row.metrics), row.sha256)
        for row in load_rows(out)
    ]


def find_broken_promises(out: Path, *, has_other_rows: bool = False) -> list[str]:
    """Messages for the invariants of a search that do not hold: each trial one row, and none sent twice.

    `has_other_rows`: whether other runs have done what is not of the search.
    """
    with Store.open(out, readonly=True) as store:
        rows, jobs = list(store.results()), list(store.jobs())
    found = [f"digest {digest[:8]} has {n} rows" for digest, n in Counter(row.digest for row in rows).items() if n > 1]
    sent = Counter(job.digest for job in jobs if job.state not in (UNSENT, LOST))
    found += [f"digest {digest[:8]} was sent {n} times" for digest, n in sent.items() if n > 1]
    lost = set() if has_other_rows else sent.keys() - {row.digest for row in rows}
    found += [f"digest {digest[:8]} has a job, but no row" for digest in lost]
    if [row.trial for row in rows] != list(range(len(rows))):
        found.append(f"rows of trials {[row.trial for row in rows]}")
    return found + [f"job {job.id} is still {job.state}" for job in jobs if job.state in OPEN_STATES]
