"""A search whose rounds run on a cluster: the same rows as on one machine, also if it goes on elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

import sweeper
from sweeper.cluster import bind_session
from sweeper.model.result import Result
from sweeper.store import Store


def load_cells(out):
    with Store.open(out, readonly=True) as store:
        rows: list[Result] = list(store.results())
    return [(row.trial, dict(row.params), row.digest, dict(row.metrics)) for row in rows]


def test_search_on_a_cluster_has_the_rows_of_a_local_one(servers, cluster, experiment, executions, tmp_path):
    file = Path(experiment(seed=[0]).file)
    search = {
        "maximize": "brightness", "trials": 12, "batch": 3,
        "space": {"seed": {"from": 0, "to": 9999}}, "over": {"size": [32, 48]},
    }  # fmt: skip
    body = {key: value for key, value in json.loads(file.read_text()).items() if key != "sweep"}
    file.write_text(json.dumps({**body, "search": search}))
    session = bind_session(cluster.scheduler_address, {})
    searched = sweeper.load(file)
    sweeper.search(searched, {"url": servers[0].url, "name": "fleet"}, tmp_path / "local")
    before = len(executions())
    file.write_text(json.dumps({**body, "search": {**search, "trials": 8}}))
    first = sweeper.search(sweeper.load(file), out=tmp_path / "out", session=session)
    assert (first.ended_by, first.trials, len(executions()) - before) == ("trials", 8, 8)
    result = sweeper.search(searched, out=tmp_path / "out", session=session)
    assert (result.ended_by, result.run.succeeded, len(executions()) - before) == ("trials", 12, 12)
    found, expected = load_cells(tmp_path / "out"), load_cells(tmp_path / "local")
    assert found[:6] == expected[:6]  # the first call ended in the middle of the second round
    assert len({digest for _, _, digest, _ in found}) == len(found) == 12
