"""Pictures of a cluster's run at a URL: put there by the workers, measured and compared where they are."""

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
from sweeper.store.remote_artifacts import download_artifact
from tests.cluster.result_rows import raw_rows


def measured(out):
    return [(row.status, row.sha256, row.metrics, row.attempts) for row in raw_rows(out)]


def test_workers_put_pictures_there_and_measure_them_before(servers, cluster, experiment, executions, tmp_path):
    bucket = (tmp_path / "bucket").as_uri()
    plan = experiment(seed=list(range(12)), size=[64, 900], metrics=("brightness",), run={"out": bucket})
    alone = experiment(seed=list(range(12)), size=[64, 900], metrics=("brightness",))
    sweeper.run(alone, {"url": servers[0].url, "name": "fleet"}, tmp_path / "near")
    once = len(executions())

    run = run_on(plan, cluster.scheduler_address, out=tmp_path / "far")

    assert (run.succeeded, run.pictures) == (24, bucket)
    assert measured(tmp_path / "far") == measured(tmp_path / "near")
    assert len(executions()) - once == 24
    names = set()
    for row in raw_rows(tmp_path / "far"):
        (url,), (sha256,) = row.outputs, row.sha256
        names.add(url.rpartition("/")[2])
        assert hashlib.sha256((tmp_path / "bucket" / url.rpartition("/")[2]).read_bytes()).hexdigest() == sha256
    assert {path.name for path in (tmp_path / "bucket").iterdir()} == names, "whole files, and no others"
    assert not list((tmp_path / "far").rglob("*.png"))
    again = run_on(plan, cluster.scheduler_address, out=tmp_path / "far")
    assert (again.submitted, again.reused) == (0, 24)


def test_a_worker_that_cannot_reach_the_place_says_so(cluster, experiment, tmp_path):
    """A kind of URL that this process has a package for, and its workers have not."""
    from fsspec import register_implementation
    from fsspec.implementations.memory import MemoryFileSystem

    register_implementation("onlyhere", MemoryFileSystem, clobber=True)
    plan = experiment(seed=[1], run={"out": "onlyhere://bucket"})
    with pytest.raises(UnreachableError, match="0: onlyhere://bucket: Protocol not known: onlyhere"):
        run_on(plan, cluster.scheduler_address, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_check_on_the_cluster_is_the_same_as_here_and_fetches_nothing(cluster, experiment, tmp_path):
    plan = partial(experiment, seed=list(range(4)), run={"out": (tmp_path / "bucket").as_uri()})
    runner = partial(run_on, cluster=cluster.scheduler_address)
    asked = []

    def answer(questions):
        asked.extend(questions)
        return compare_on_cluster(cluster.scheduler_address, questions)

    runner(plan(), out=tmp_path / "first")
    sweeper.accept(tmp_path / "first", tmp_path / "base")
    check = partial(sweeper.check, baseline=tmp_path / "base", out=tmp_path / "now", runner=runner, answer=answer)
    assert check(plan()).ok
    assert asked == [], "equal bytes are seen by their hash"

    for path in (tmp_path / "base").glob("*.png"):
        _damage(path, pixels=path.name.startswith(min(one.name for one in (tmp_path / "base").glob("*.png"))))
    _accept_as_it_is(tmp_path / "base")
    found = check(plan())
    assert len(asked) == 4
    assert sorted((one.state, one.tier) for one in found) == [("changed", "beyond"), *[("same", "pixels")] * 3]
    assert not list((tmp_path / "now").rglob("*.png")), "only verdicts came back"
    here = sweeper.check(tmp_path / "now", tmp_path / "base")
    assert [(one.state, one.tier, one.reason, dict(one.metrics)) for one in here] == [
        (one.state, one.tier, one.reason, dict(one.metrics)) for one in found
    ]


def test_a_picture_that_is_gone_or_none_is_told(cluster, tmp_path):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    (bucket / "text.png").write_bytes(b"no picture")
    sha256 = hashlib.sha256(b"no picture").hexdigest()
    accepted = tmp_path / "a.png"
    from PIL import Image

    Image.new("RGB", (8, 8)).save(accepted)
    bounds = {"mae": parse_threshold("<= 1")}
    gone, broken = (
        CompareTask(tmp_path / name, sha256, (bucket / name).as_uri(), (accepted,), (None,), bounds)
        for name in ("gone.png", "text.png")
    )
    told = [str(one) for one in compare_on_cluster(cluster.scheduler_address, [gone, broken])]
    assert told[0] == f"{(bucket / 'gone.png').as_uri()} is gone"
    place = download_artifact(tmp_path, broken.url, sha256)
    here = str(compare_task(CompareTask(place, sha256, None, (accepted,), (None,), bounds)))
    assert told[1].partition("<")[0] == here.replace(str(place), broken.url).partition("<")[0]


def _damage(path: Path, *, pixels: bool) -> None:
    """The same picture in another file, or one with another pixel."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        if pixels:
            image.putpixel((0, 0), tuple(255 - value for value in image.getpixel((0, 0))))
        image.save(path, compress_level=0)


def _accept_as_it_is(folder: Path) -> None:
    """Write the manifest to tell of the files that are there."""
    import json

    from sweeper.images.compare import pixel_hash

    manifest = json.loads((folder / "manifest.json").read_text())
    for case in manifest["cases"]:
        for one in case["accepted"]:
            content = (folder / one["file"]).read_bytes()
            one["sha256"], one["size"] = hashlib.sha256(content).hexdigest(), len(content)
            one["pixels"] = pixel_hash(folder / one["file"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
