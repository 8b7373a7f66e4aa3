"""Pictures of a cluster's run at a URL: stored, measured and compared by the workers."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

import sweeper
from sweeper.cluster import run as run_on
from sweeper.cluster.remote_compare import compare_on_cluster
from sweeper.errors import UnreachableError
from sweeper.regression.match_files import CompareTask, compare_task
from sweeper.regression.thresholds import parse_threshold
from sweeper.store.remote_artifacts import allow_storage, download_artifact
from tests.cluster.result_rows import raw_rows


def read_measured_rows(out):
    return [(row.status, row.sha256, row.metrics, row.attempts) for row in raw_rows(out)]


def test_workers_store_pictures_at_the_url_and_measure_them(servers, cluster, experiment, executions, tmp_path):
    bucket = (tmp_path / "bucket").as_uri()
    plan = experiment(seed=list(range(12)), size=[64, 900], metrics=("brightness",), run={"out": bucket})
    local = experiment(seed=list(range(12)), size=[64, 900], metrics=("brightness",))
    sweeper.run(local, {"url": servers[0].url, "name": "fleet"}, tmp_path / "near")
    before = len(executions())

    run = run_on(plan, cluster.scheduler_address, out=tmp_path / "far")

    assert (run.succeeded, run.pictures) == (24, bucket)
    assert read_measured_rows(tmp_path / "far") == read_measured_rows(tmp_path / "near")
    assert len(executions()) - before == 24
    names = set()
    for row in raw_rows(tmp_path / "far"):
        (url,), (sha256,) = row.outputs, row.sha256
        names.add(url.rpartition("/")[2])
        assert hashlib.sha256((tmp_path / "bucket" / url.rpartition("/")[2]).read_bytes()).hexdigest() == sha256
    assert {path.name for path in (tmp_path / "bucket").iterdir()} == names, "complete files, and no others"
    assert not list((tmp_path / "far").rglob("*.png"))
    again = run_on(plan, cluster.scheduler_address, out=tmp_path / "far")
    assert (again.submitted, again.reused) == (0, 24)


def test_worker_without_access_to_the_url_reports_it(cluster, experiment, tmp_path):
    """This process has a package for the kind of URL, but its workers do not."""
    from fsspec import register_implementation
    from fsspec.implementations.memory import MemoryFileSystem

    register_implementation("onlyhere", MemoryFileSystem, clobber=True)
    plan = experiment(seed=[1], run={"out": "onlyhere://bucket"})
    with pytest.raises(UnreachableError, match="0: onlyhere://bucket: Protocol not known: onlyhere"):
        run_on(plan, cluster.scheduler_address, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_check_on_the_cluster_equals_a_local_check(cluster, experiment, tmp_path):
    plan = partial(experiment, seed=list(range(4)), run={"out": (tmp_path / "bucket").as_uri()})
    runner = partial(run_on, cluster=cluster.scheduler_address)
    compared = []

    def answer(questions):
        compared.extend(questions)
        return compare_on_cluster(cluster.scheduler_address, questions)

    runner(plan(), out=tmp_path / "first")
    sweeper.accept(tmp_path / "first", tmp_path / "base")
    check = partial(sweeper.check, baseline=tmp_path / "base", out=tmp_path / "now", runner=runner, answer=answer)
    assert check(plan()).ok
    assert compared == [], "the hash shows equal files"

    for path in (tmp_path / "base").glob("*.png"):
        _damage(path, pixels=path.name.startswith(min(one.name for one in (tmp_path / "base").glob("*.png"))))
    _update_manifest(tmp_path / "base")
    found = check(plan())
    assert len(compared) == 4
    assert sorted((one.state, one.tier) for one in found) == [("changed", "beyond"), *[("same", "pixels")] * 3]
    assert not list((tmp_path / "now").rglob("*.png")), "workers return results, not pictures"
    here = sweeper.check(tmp_path / "now", tmp_path / "base")
    assert [(one.state, one.tier, one.reason, dict(one.metrics)) for one in here] == [
        (one.state, one.tier, one.reason, dict(one.metrics)) for one in found
    ]


def test_missing_or_invalid_picture_is_reported(cluster, tmp_path):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    allow_storage(bucket.as_uri())
    (bucket / "text.png").write_bytes(b"no picture")
    sha256 = hashlib.sha256(b"no picture").hexdigest()
    accepted = tmp_path / "a.png"
    from PIL import Image

    Image.new("RGB", (8, 8)).save(accepted)
    thresholds = {"mae": parse_threshold("<= 1")}
    gone, broken = (
        CompareTask(tmp_path / name, sha256, (bucket / name).as_uri(), (accepted,), (None,), thresholds)
        for name in ("gone.png", "text.png")
    )
    messages = [str(error) for error in compare_on_cluster(cluster.scheduler_address, [gone, broken])]
    assert messages[0] == f"{(bucket / 'gone.png').as_uri()} is gone"
    path = download_artifact(tmp_path, broken.url, sha256)
    here = str(compare_task(CompareTask(path, sha256, None, (accepted,), (None,), thresholds)))
    assert messages[1].partition("<")[0] == here.replace(str(path), broken.url).partition("<")[0]


def _damage(path: Path, *, pixels: bool) -> None:
    """The same picture in another file, or one with another pixel."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        if pixels:
            image.putpixel((0, 0), tuple(255 - value for value in image.getpixel((0, 0))))
        image.save(path, compress_level=0)


def _update_manifest(folder: Path) -> None:
    """Let the manifest describe the current files."""
    import json

    from sweeper.images.compare import pixel_hash

    manifest = json.loads((folder / "manifest.json").read_text())
    for case in manifest["cases"]:
        for one in case["accepted"]:
            content = (folder / one["file"]).read_bytes()
            one["sha256"], one["size"] = hashlib.sha256(content).hexdigest(), len(content)
            one["pixels"] = pixel_hash(folder / one["file"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
