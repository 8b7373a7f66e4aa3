"""Pictures of a cluster's run at a URL: stored and measured by the workers."""

from __future__ import annotations

import hashlib
from functools import partial

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

import sweeper
from sweeper.errors import UnreachableError
from sweeper.store import Store
from tests.cluster.result_rows import raw_rows, run_on


def read_measured_rows(out):
    return [(row.status, row.sha256, row.metrics, row.attempts) for row in raw_rows(out)]


def test_workers_store_pictures_at_the_url_and_measure_them(servers, cluster, experiment, executions, tmp_path):
    bucket = (tmp_path / "bucket").as_uri()
    plan = experiment(seed=list(range(6)), size=[64, 300], metrics=("brightness",), run={"out": bucket})
    local = experiment(seed=list(range(6)), size=[64, 300], metrics=("brightness",))
    sweeper.run(local, {"url": servers[0].url, "name": "fleet"}, tmp_path / "near")
    before = len(executions())

    run = run_on(plan, cluster.scheduler_address, out=tmp_path / "far")

    assert (run.succeeded, run.pictures) == (12, bucket)
    assert read_measured_rows(tmp_path / "far") == read_measured_rows(tmp_path / "near")
    assert len(executions()) - before == 12
    with Store.open(tmp_path / "far", readonly=True) as far, Store.open(tmp_path / "near", readonly=True) as near:
        assert far.load_pixel_hashes() == near.load_pixel_hashes() != {}
    names = set()
    for row in raw_rows(tmp_path / "far"):
        (url,), (sha256,) = row.outputs, row.sha256
        names.add(url.rpartition("/")[2])
        assert hashlib.sha256((tmp_path / "bucket" / url.rpartition("/")[2]).read_bytes()).hexdigest() == sha256
    assert {path.name for path in (tmp_path / "bucket").iterdir()} == names, "complete files, and no others"
    assert not list((tmp_path / "far").rglob("*.png"))
    again = run_on(plan, cluster.scheduler_address, out=tmp_path / "far")
    assert (again.submitted, again.reused) == (0, 12)


def test_worker_without_access_to_the_url_reports_it(cluster, experiment, tmp_path):
    """This process has a package for the kind of URL, but its workers do not."""
    from fsspec import register_implementation
    from fsspec.implementations.memory import MemoryFileSystem

    register_implementation("onlyhere", MemoryFileSystem, clobber=True)
    plan = experiment(seed=[1], run={"out": "onlyhere://bucket"})
    with pytest.raises(UnreachableError, match=r"\d: onlyhere://bucket: Protocol not known: onlyhere"):
        run_on(plan, cluster.scheduler_address, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_check_on_the_cluster_knows_equal_files_by_their_hash(cluster, experiment, tmp_path):
    plan = partial(experiment, seed=list(range(4)), run={"out": (tmp_path / "bucket").as_uri()})
    runner = partial(run_on, cluster=cluster.scheduler_address)
    runner(plan(), out=tmp_path / "first")
    sweeper.accept(tmp_path / "first", tmp_path / "base")
    assert sweeper.check(plan(), baseline=tmp_path / "base", out=tmp_path / "now", runner=runner).ok
    assert not list((tmp_path / "now").rglob("*.png"))
