"""Damaged stores: bits that flipped and files that were cut. Nothing is submitted again, and every error is ours."""

from __future__ import annotations

import random
import shutil
from contextlib import closing

import pytest

import sweeper
from sweeper.errors import ResultsError
from sweeper.running.done_work import DoneRule
from sweeper.store import FILE_NAME, Store
from sweeper.store.damage import find_damage
from sweeper.store.database import connect
from sweeper.store.records import Artifact, JobEnd, JobRecord, TableLayout
from tests.experiment_files import write

DAMAGED = 150  # copies of the store, half of them with one flipped bit, half of them cut


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A results folder with 40 finished jobs."""
    out = tmp_path_factory.mktemp("whole")
    layout = TableLayout("e", ("seed",), ("seed",))
    with Store.open(out) as store, store.transaction():
        run = store.create_run(layout, file="e.yaml", targets=["t"], now=1.0)
        trials = [(index, f"{index:064x}", {"seed": index}, {"seed": index}) for index in range(40)]
        store.add_trials(run, trials)
        for index, digest, *_ in trials:
            job = f"job-{index:08d}"
            store.record_intent(JobRecord(job, run, "t", digest, digest, 1, None, "intent", 2.0))
            store.record_submitted(job, f"prompt-{index:08d}", 3.0)
            artifact = Artifact("9", "images", 0, f"artifacts/{index}.png", f"{index:064x}", 10, "a.png")
            store.record_finished(job, JobEnd("succeeded", started=4, ended=5.5, artifacts=[artifact]))
    (out / "artifacts").mkdir()
    return out


def read_everything(out, *, readonly):
    """The digests that count as done: what decides whether a job is sent again."""
    with Store.open(out, readonly=readonly) as store:
        list(store.results())
        list(store.outcomes())
        store.runs()
        jobs = DoneRule(("t",)).find(store).jobs
        return {digest for digest, job in jobs.items() if job.state == "succeeded" and store.artifacts(job.id)}


@pytest.mark.parametrize("readonly", [True, False])
def test_damaged_log_of_a_killed_run_loses_only_what_stood_in_it(whole, tmp_path, readonly):
    live = tmp_path / "live"
    shutil.copytree(whole, live)
    with Store.open(live) as store:
        for index in range(40, 60):
            digest = f"{index:064x}"
            store.record_intent(JobRecord(f"job-{index}", 1, "t", digest, digest, 1, None, "intent", 2.0))
        content, log = (live / FILE_NAME).read_bytes(), (live / f"{FILE_NAME}-wal").read_bytes()
    draw, refused = random.Random(7), 0
    for number in range(40):
        damaged, position = bytearray(log), draw.randrange(len(log))
        damaged[position] ^= 1 << draw.randrange(8)
        out = tmp_path / str(number)
        out.mkdir()
        (out / FILE_NAME).write_bytes(content)
        (out / f"{FILE_NAME}-wal").write_bytes(damaged if number % 2 else log[:position])
        try:
            assert read_everything(out, readonly=readonly) == {f"{index:064x}" for index in range(40)}
        except ResultsError:
            refused += 1
    assert refused < 40


@pytest.mark.parametrize("readonly", [True, False])
def test_damaged_store_is_refused_or_has_lost_nothing(whole, tmp_path, readonly):
    content = (whole / FILE_NAME).read_bytes()
    assert not (whole / f"{FILE_NAME}-wal").exists()
    expected = {f"{index:064x}" for index in range(40)}
    draw = random.Random(7)
    refused = 0
    for number in range(DAMAGED):
        damaged = bytearray(content)
        if number % 2:
            position = draw.randrange(len(content))
            damaged[position] ^= 1 << draw.randrange(8)
        else:
            del damaged[draw.randrange(len(content)) :]
        out = tmp_path / str(number)
        (out / "artifacts").mkdir(parents=True)
        (out / FILE_NAME).write_bytes(damaged)
        try:
            assert read_everything(out, readonly=readonly) == expected, number
        except ResultsError as error:
            refused += FILE_NAME in str(error)
    assert refused > DAMAGED // 2


@pytest.mark.parametrize(
    "change",
    [
        b"%064x" % 7, b"prompt-00000007", b"job-00000007", b"artifacts/7.png", b"succeeded",
    ],
)  # fmt: skip
def test_flipped_bit_in_a_text_is_refused_with_what_to_do(whole, tmp_path, change):
    content = (whole / FILE_NAME).read_bytes()
    position = content.index(change) + len(change) - 1
    (tmp_path / FILE_NAME).write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    with pytest.raises(ResultsError, match=r"the sweeper store is damaged: .*; restore a good copy, or move"):
        Store.open(tmp_path)


def test_emptied_store_beside_results_is_refused(whole, tmp_path):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / FILE_NAME).touch()
    with pytest.raises(ResultsError, match="it is empty, but artifacts beside it is from an earlier run"):
        Store.open(tmp_path)


def test_changed_checksum_is_refused(tmp_path):
    with Store.open(tmp_path) as store, store.transaction():
        store.create_run(TableLayout("e", (), ()), file="e.yaml", targets=[], now=5.0)
    with closing(connect(tmp_path / FILE_NAME, readonly=False)) as database:
        database.execute("UPDATE checksums SET value = value + 1 WHERE name = 'runs'")
    with pytest.raises(ResultsError, match="1 rows of the table 'runs' are not as sweeper wrote them"):
        Store.open(tmp_path)


@pytest.mark.parametrize("column", ["trials_of", "claims_of"])
def test_store_that_names_a_missing_run_is_refused_and_not_empty(whole, tmp_path, column):
    shutil.copy(whole / FILE_NAME, tmp_path)
    with closing(connect(tmp_path / FILE_NAME, readonly=False)) as database:
        database.execute(f"UPDATE runs SET {column} = 7")
    with pytest.raises(ResultsError, match="names a run that is gone; restore a good copy"):
        sweeper.results(tmp_path)


def test_damaged_store_sends_nothing_again(whole, tmp_path):
    """Through the public door: one flipped bit in a digest, and `sweeper.run` refuses before it submits."""
    experiment = write(tmp_path, {"template": "t.json", "target": "http://127.0.0.1:1"})
    shutil.copytree(whole, tmp_path / "out")
    content = bytearray((tmp_path / "out" / FILE_NAME).read_bytes())
    content[content.index(b"%064x" % 7) + 63] ^= 1
    (tmp_path / "out" / FILE_NAME).write_bytes(content)
    with pytest.raises(ResultsError, match="damaged"):
        sweeper.run(experiment, out=tmp_path / "out")
    assert (tmp_path / "out" / FILE_NAME).read_bytes() == content


def test_large_store_is_checked_once_and_again_when_a_bit_flips(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeper.store.checked_stores.MIN_SIZE", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checks = []
    monkeypatch.setattr(
        "sweeper.store.database.find_damage", lambda *given: checks.append(given) or find_damage(*given)
    )
    shutil.copytree(whole, tmp_path / "out")
    for readonly in (True, True, False, True):
        Store.open(tmp_path / "out", readonly=readonly).close()
    with Store.open(tmp_path / "out") as store:  # what is written soon after a check needs no other
        store.create_run(TableLayout("e", (), ()), file="e.yaml", targets=[], now=5.0)
    Store.open(tmp_path / "out", readonly=True).close()
    assert len(checks) == 1
    monkeypatch.setattr("sweeper.store.database._CHECKED_SECONDS", 0.0)
    with Store.open(tmp_path / "out") as store:
        store.create_run(TableLayout("e", (), ()), file="e.yaml", targets=[], now=6.0)
    Store.open(tmp_path / "out", readonly=True).close()
    assert len(checks) == 2
    content = bytearray((tmp_path / "out" / FILE_NAME).read_bytes())
    content[content.index(b"%064x" % 7) + 63] ^= 1
    (tmp_path / "out" / FILE_NAME).write_bytes(content)
    for _ in range(2):
        with pytest.raises(ResultsError, match="damaged"):
            Store.open(tmp_path / "out", readonly=True)
    with Store.open(tmp_path / "out2") as store:  # the log counts too
        Store.open(tmp_path / "out2", readonly=True).close()
        checked = len(checks)
        with store.transaction():
            store.create_run(TableLayout("e", (), ()), file="e.yaml", targets=[], now=5.0)
        Store.open(tmp_path / "out2", readonly=True).close()
    assert len(checks) == checked + 1
