"""Pictures at a URL: they stay there, the store and the table stay local, and every command can read them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import uuid4

import pytest

pytest.importorskip("fsspec", reason="the extra `s3` is not installed")

import fsspec

import sweeper
from sweeper.errors import ExperimentError, ResultsError, UsageError
from sweeper.reporting.write_report import write_report
from sweeper.running.run_events import Notice
from sweeper.store import Store
from sweeper.store.artifacts import ArtifactFolder, UnfinishedJob
from sweeper.store.remote_artifacts import RemoteFolder, allow_storage, download_artifact


@pytest.fixture
def bucket(request, tmp_path, monkeypatch):
    """A URL for pictures: in memory, in another folder, or on an S3 server."""
    kind = getattr(request, "param", "memory")
    if kind == "memory":
        yield f"memory://{tmp_path.name}"
    elif kind == "file":
        yield (tmp_path / "shared").as_uri()
    else:
        s3 = pytest.importorskip("s3fs", reason="the extra `s3` is not installed").S3FileSystem
        s3.clear_instance_cache()  # they remember the endpoint of another test's server
        moto = pytest.importorskip("moto.server", reason="moto is not installed")
        server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        fsspec.filesystem("s3", use_listings_cache=False).mkdir(name := f"pictures-{uuid4().hex}")
        yield f"s3://{name}/probe"
        server.stop()
        s3.clear_instance_cache()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files_at(url):
    fs, folder = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return {path.rpartition("/")[2]: fs.cat_file(path) for path in fs.ls(folder, detail=False)}


def rows(out):
    with Store.open(out, readonly=True) as store:
        return list(store.results())


# With one dialect, because all hand the same files to the store.
everywhere = pytest.mark.parametrize("bucket", ["memory", "file", "s3"], indirect=True)


@everywhere
@pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)
def test_pictures_go_to_the_url_and_the_table_has_their_urls(server, target, experiment, bucket):
    plan = experiment(seed=[1, 2], metrics=("brightness",))

    run = sweeper.run(plan, target, bucket)

    out = run.out
    assert (run.succeeded, out.parts[-3:], run.pictures) == (2, ("project", "results", "probe"), bucket)
    there = files_at(bucket)
    for row in rows(out):
        (url,), (sha256,) = row.outputs, row.sha256
        assert url.startswith(f"{bucket}/")
        assert hashlib.sha256(there[url.rpartition("/")[2]]).hexdigest() == sha256
        assert row.metrics["brightness"] >= 0
    assert len(there) == 2
    assert not list(out.rglob("*.png")), "nothing of them is left here"
    assert sweeper.results(out)["outputs"][0] == list(rows(out)[0].outputs)
    assert sweeper.results(out)["picture"][0] == rows(out)[0].outputs[0]
    again = sweeper.run(plan, target, bucket)
    assert (again.submitted, again.reused) == (0, 2)
    assert server.seen.submits == 2


@everywhere
@pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)
def test_the_page_downloads_pictures_once_and_shows_which_are_missing(server, target, experiment, bucket):
    out = sweeper.run(experiment(seed=[1, 2]), target, bucket).out
    report = write_report(out)
    assert (report.trial_count, report.missing_count) == (2, 0)
    shown = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (out / "report" / "files").iterdir()}
    assert shown == {sha256 for row in rows(out) for sha256 in row.sha256}
    fs, place = fsspec.core.url_to_fs(bucket)
    fs.rm(place, recursive=True)
    assert write_report(out).missing_count == 0, "they are here by now"
    for path in (out / "fetched").iterdir():
        path.unlink()
    assert write_report(out).missing_count == 2


@everywhere
@pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)
def test_a_deleted_remote_picture_is_restored_to_its_url(server, target, experiment, bucket):
    plan = experiment(seed=[1, 2])
    sweeper.run(plan, target, bucket)
    before = files_at(bucket)
    fs, place = fsspec.core.url_to_fs(bucket)
    fs.rm_file(f"{place}/{min(before)}")
    events = []

    run = sweeper.run(plan, target, bucket, progress=events.append)

    assert files_at(bucket) == before
    assert (run.submitted, run.reused) == (0, 2)
    messages = [event.message for event in events if isinstance(event, Notice)]
    assert messages == [f"1 file missing from {bucket}/ was downloaded again from probe-server, at no cost"]


def test_run_out_can_be_a_url_beside_any_results_folder(target, experiment, bucket, tmp_path):
    plan = experiment(seed=[1], run={"out": bucket})
    run = sweeper.run(plan, target, tmp_path / "here")
    assert (run.out, run.pictures) == (tmp_path / "here", bucket)
    assert len(files_at(bucket)) == 1


def test_remote_pictures_with_equal_bytes_are_not_downloaded_to_compare(target, experiment, bucket, tmp_path):
    plan = experiment(seed=[1, 2], run={"out": bucket})
    out = sweeper.run(plan, target).out
    sweeper.accept(out, tmp_path / "base")
    found = sweeper.check(plan, tmp_path / "base", target=target)
    assert found.ok
    assert [one.tier for one in found] == ["bytes", "bytes"]
    fetched = out.with_name("probe-check") / "fetched"
    assert not fetched.exists() or not list(fetched.iterdir())
    changed = sweeper.check(
        experiment(seed=[1, 2], text=["other"], run={"out": bucket}), tmp_path / "base", target=target
    )
    assert {one.state for one in changed} == {"missing", "new"}


def test_remote_leftovers_of_a_killed_run_are_removed(tmp_path, bucket):
    allow_storage(bucket)
    folder = RemoteFolder(tmp_path, bucket)
    with folder.open_incoming("0badcafe-1", 0) as file:
        file.write(b"half a run's")
        left = folder.save(file, "0001_seed-1_0badcafe.png")
    with folder.open_incoming("12345678-1", 0) as file:
        file.write(b"recorded")
        folder.save(file, "0002_seed-2_12345678.png")
    folder.remove_leftovers([UnfinishedJob("0badcafe-1", 0.0, "0001")])
    assert list(files_at(bucket)) == ["0002_seed-2_12345678.png"]
    assert download_artifact(tmp_path, left, "0" * 64) is None


@everywhere
def test_remote_files_are_never_overwritten_nor_stored_twice(tmp_path, bucket):
    allow_storage(bucket)
    folder = RemoteFolder(tmp_path, bucket)
    kept = []
    for content in (b"one", b"one", b"two"):
        with folder.open_incoming("job", 0) as file:
            file.write(content)
            kept.append(folder.save(file, "a-0badcafe.9-0.png"))
    first = f"{bucket}/a-0badcafe.9-0.png"
    assert kept == [first, first, f"{bucket}/a-0badcafe.9-0-2.png"]
    assert files_at(bucket) == {"a-0badcafe.9-0.png": b"one", "a-0badcafe.9-0-2.png": b"two"}


def test_content_that_differs_from_the_recorded_hash_is_refused(tmp_path, bucket):
    allow_storage(bucket)
    folder = RemoteFolder(tmp_path, bucket)
    with folder.open_incoming("job", 0) as file:
        file.write(b"one")
        url = folder.save(file, "a-0badcafe.9-0.png")
    with pytest.raises(ResultsError, match="the content is not the one on record"):
        download_artifact(tmp_path, url, "0" * 64)
    assert not list((tmp_path / "fetched").iterdir())
    assert isinstance(ArtifactFolder(tmp_path).local_path("artifacts/a.png"), Path)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://bucket/x", "nosuch://bucket/x: Protocol not known: nosuch; write a URL such as s3://bucket/folder"),
        ("s3://key:secret@bucket/x", "must not contain a password, a query or a fragment"),
        ("memory://x?versionId=3", "must not contain a password, a query or a fragment"),
    ],
)
def test_unusable_output_urls_are_refused_before_anything_is_sent(server, target, experiment, url, said):
    with pytest.raises(UsageError) as caught:
        sweeper.run(experiment(seed=[1]), target, url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert server.seen.submits == 0


def test_the_experiments_out_is_a_url(experiment):
    with pytest.raises(ExperimentError, match=r"s3://bucket/folder, without password, .*; a results folder is chosen"):
        experiment(seed=[1], run={"out": "pictures"})


@pytest.mark.parametrize("url", ["s3://key:hush@bucket/x", "s3://bucket/x?sig=hush", "s3://bucket/x#hush", "hush"])
def test_an_output_url_with_a_secret_is_refused_and_never_shown(tmp_path, url):
    (tmp_path / "t.json").write_text('{"1": {"class_type": "A", "inputs": {"seed": 1}}}')
    file = tmp_path / "e.yaml"
    file.write_text(f"template: t.json\nparams: {{}}\nrun: {{out: '{url}'}}\n")
    with pytest.raises(ExperimentError, match=r"e\.yaml:3: run\.out: found a text that is not shown here") as told:
        sweeper.load(file)
    assert "hush" not in str(told.value)


def test_no_file_is_downloaded_for_the_hash_of_its_pixels_alone(bucket, target, experiment, tmp_path):
    plain, measured = (experiment(seed=[1, 2], run={"out": bucket}, metrics=names) for names in ([], ["brightness"]))
    for plan, hashed in ((plain, 0), (measured, 2)):
        sweeper.run(plan, target, tmp_path / "out")
        with Store.open(tmp_path / "out", readonly=True) as store:
            assert len(store.load_pixel_hashes()) == hashed
