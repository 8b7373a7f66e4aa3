from __future__ import annotations

import dataclasses
import sqlite3
import sys
from contextlib import closing
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import ResultsError
from sweeper.model.search_columns import SearchColumns
from sweeper.running.done_work import DoneRule
from sweeper.store import Store, records
from sweeper.store.database import make_uri
from sweeper.store.records import Artifact, JobEnd, JobRecord, TableLayout

LAYOUT = TableLayout("probe", ("seed",), ("text", "seed"), ("brightness",))


def job(job_id="j1", digest="d1", *, target="t", state=records.INTENT, intended=10.0):
    return JobRecord(job_id, 1, target, digest, "sent", 1, None, state, intended)


def record_run(store, digests=("d1", "d2"), layout=LAYOUT, params=None):
    with store.transaction():
        run = store.create_run(layout, file="x.yaml", targets=["t"], now=1.0)
        store.add_trials(
            run,
            [(n, digest, {"seed": n} if params is None else params, {"seed": n}) for n, digest in enumerate(digests)],
        )
    return run


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path) as store:
        yield store


def test_every_trial_has_a_row_before_the_first_submission(store):
    record_run(store)
    assert [(row.trial, row.status, row.attempts, row.outputs) for row in store.results()] == [
        (0, "pending", 0, ()),
        (1, "pending", 0, ()),
    ]
    assert store.layout() == LAYOUT
    (run,) = store.runs()
    assert (run.experiment, run.targets, run.trials, run.ended) == ("probe", ("t",), 2, None)


def test_a_finished_job_fills_the_rows_of_its_digest(store):
    record_run(store, ("d1", "d2", "d1"))
    store.record_intent(job())
    store.record_submitted("j1", "p1", 11.0)
    files = (
        Artifact("9", "images", 0, "artifacts/b.png", "s1", 5, "B"),
        Artifact("9", "images", 1, "artifacts/a.png", "s2", 6, "A"),
    )
    store.record_finished("j1", JobEnd(records.SUCCEEDED, started=12.0, ended=14.5, artifacts=files))
    first, other, twin = store.results()
    assert (first.status, first.prompt_id, first.target, first.queued_s, first.ran_s) == (
        "succeeded",
        "p1",
        "t",
        1.0,
        2.5,
    )
    assert first.outputs == twin.outputs == ("artifacts/b.png", "artifacts/a.png")
    assert first.sha256 == ("s1", "s2")
    assert other.status == "pending"
    assert store.count_by_status() == {"succeeded": 2, "failed": 0, "cancelled": 0, "pending": 1}
    assert store.artifacts("j1") == files
    done, waiting, _ = store.outcomes()
    assert (done.result, done.run) == (first, store.latest_run_id())
    assert [(file.node, file.position, file.path, file.sha256) for file in done.files] == [
        ("9", 0, "artifacts/b.png", "s1"),
        ("9", 1, "artifacts/a.png", "s2"),
    ]
    assert (waiting.result, waiting.run, waiting.files) == (other, None, ())


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (records.FAILED, "failed"),
        (records.REJECTED, "failed"),
        (records.LOST, "failed"),
        (records.CANCELLED, "cancelled"),
        (records.UNSENT, "pending"),
    ],
)
def test_each_job_state_maps_to_a_status(store, state, status):
    record_run(store)
    store.record_intent(job())
    store.record_finished("j1", JobEnd(state, error=("ValueError", "no")))
    row = next(store.results())
    assert (row.status, row.error_type, row.error) == (status, "ValueError", "no")


def test_results_default_to_the_latest_run(store):
    record_run(store, ("d1",))
    store.record_intent(job())
    store.record_finished("j1", JobEnd(records.SUCCEEDED))
    second = record_run(store, ("d1", "d2", "d3"))
    with store.transaction():
        store.assign_jobs(second, [job for job in DoneRule(("t",)).find(store).jobs.values() if job.digest == "d1"])
    assert [row.status for row in store.results()] == ["succeeded", "pending", "pending"]
    assert [row.status for row in store.results("1")] == ["succeeded"]
    assert store.count_reused(second) == 1
    assert store.count_submitted(second) == 0
    with pytest.raises(ResultsError, match="no run 7 here; there are: 1, 2"):
        next(store.results(7))


def test_current_job_is_a_success_then_an_open_job_then_the_latest(store):
    record_run(store)
    store.record_intent(job("j1", state=records.SUCCEEDED, intended=1.0))
    store.record_intent(job("j2", state=records.FAILED, intended=2.0))
    store.record_intent(job("j3", "d2", state=records.SUBMITTED, intended=3.0))
    store.record_intent(job("j4", "d2", state=records.LOST, intended=4.0))
    store.record_intent(job("j5", "d3", state=records.FAILED, intended=5.0))
    store.record_intent(job("j6", "d3", state=records.LOST, intended=6.0))
    store.record_intent(job("j7", "d4", target="elsewhere", state=records.SUCCEEDED))
    current = {"d1": "j1", "d2": "j3", "d3": "j6"}
    assert {digest: job.id for digest, job in DoneRule(("t",)).find(store).jobs.items()} == current | {"d4": "j7"}
    assert {digest: job.id for digest, job in DoneRule(("t",), per_target=True).find(store).jobs.items()} == current
    assert store.count_attempts("d1", ["t"]) == 2


def test_metrics_are_averaged_over_the_outputs_of_a_row(store):
    record_run(store, ("d1",))
    store.record_intent(job())
    files = [Artifact("9", "images", n, f"artifacts/{n}.png", f"s{n}", 1, "") for n in range(2)]
    store.record_finished("j1", JobEnd(records.SUCCEEDED, artifacts=files))
    store.cache_metrics([("s0", "brightness", 10.0)])
    assert next(store.results()).metrics == {}
    store.cache_metrics([("s1", "brightness", 20.0)])
    assert next(store.results()).metrics == {"brightness": 15.0}


def test_metric_needs_all_outputs_measured_and_skips_non_pictures(store):
    record_run(store, ("d1",))
    store.record_intent(job())
    names = ("a.png", "b.png", "film.mp4")
    files = [Artifact("9", "images", n, f"artifacts/{name}", f"s{n}", 1, "") for n, name in enumerate(names)]
    store.record_finished("j1", JobEnd(records.SUCCEEDED, artifacts=files))
    store.cache_metrics([("s0", "brightness", 10.0), ("s2", "brightness", None)])
    assert next(store.results()).metrics == {}  # b.png is not measured yet, or its measurement failed
    store.cache_metrics([("s1", "brightness", 20.0)])
    assert next(store.results()).metrics == {"brightness": 15.0}
    store.cache_metrics([("s0", "brightness", "dark"), ("s1", "brightness", "light")])
    assert next(store.results()).metrics == {"brightness": "dark light"}


def test_row_with_only_a_film_has_no_metric(store):
    record_run(store, ("d1",))
    store.record_intent(job())
    store.record_finished(
        "j1", JobEnd(records.SUCCEEDED, artifacts=[Artifact("9", "video", 0, "artifacts/film.mp4", "s0", 1, "")])
    )
    store.cache_metrics([("s0", "brightness", None)])
    assert next(store.results()).metrics == {}


@pytest.fixture(scope="module")
def one_store(tmp_path_factory):
    with Store.open(tmp_path_factory.mktemp("store")) as store:
        yield store


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_values_survive_a_round_trip(one_store, params):
    record_run(one_store, ("d1",), params=params)
    stored = next(one_store.results()).params
    assert stored == params
    assert repr(stored) == repr(params)  # True is not 1, and 7.0 is not 7


def test_half_a_surrogate_pair_becomes_a_question_mark(store):
    record_run(store)
    store.record_intent(job())
    store.record_submitted("j1", "p\ud800", 1.0)
    files = [Artifact("9\ud800", "images", 0, "artifacts/a.png", "s", 1, "\udfff.png")]
    store.record_finished("j1", JobEnd(records.FAILED, error=("E", "half a pair: \ud83d"), artifacts=files))
    assert next(store.results()).error == "half a pair: ?"


def test_readers_are_not_blocked_by_a_writer(tmp_path):
    with Store.open(tmp_path) as writer:
        record_run(writer)
        with Store.open(tmp_path, readonly=True) as reader, writer.transaction():
            writer.create_run(LAYOUT, file="", targets=[], now=2.0)
            assert reader.latest_run_id() == 1
        with (
            pytest.raises(ResultsError, match=r"read-?only|unsafe use"),
            Store.open(tmp_path, readonly=True) as reader,
        ):
            record_run(reader)


def test_failed_transaction_writes_nothing(store):
    with pytest.raises(RuntimeError), store.transaction():  # noqa: PT012 (what fails is the block)
        store.create_run(LAYOUT, file="", targets=[], now=2.0)
        raise RuntimeError
    assert store.runs() == ()


def test_store_in_a_read_only_folder_can_be_read(tmp_path):
    with Store.open(tmp_path) as store:
        record_run(store)
    (tmp_path / "sweeper.sqlite").chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        with Store.open(tmp_path, readonly=True) as store:
            assert len(list(store.results())) == 2
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/a b/é#?.sqlite"), "file:///a%20b/%C3%A9%23%3F.sqlite"),
        (PureWindowsPath("C:\\a b\\s.sqlite"), "file:///C:/a%20b/s.sqlite"),
        (PureWindowsPath(r"\\server\share\s.sqlite"), "file:////server/share/s.sqlite"),  # SQLite refuses a host
    ],
)
def test_uri_of_a_database_names_no_host(path, uri):
    assert make_uri(path) == uri


@pytest.mark.skipif(sys.platform == "win32", reason="a share of Windows would be asked")
def test_uri_of_a_share_is_a_path_for_sqlite(tmp_path):
    with Store.open(tmp_path) as store:
        record_run(store)
    share = PureWindowsPath(f"//{tmp_path.relative_to('/')}/sweeper.sqlite")  # two slashes: POSIX reads them as one
    assert make_uri(share).startswith("file:////")
    with closing(sqlite3.connect(f"{make_uri(share)}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_file_name_that_is_not_utf_8_is_refused_with_the_locale(store):
    with pytest.raises(ResultsError, match=r"a\\xff\.yaml: the system's locale cannot read this file name; rename"):
        store.create_run(LAYOUT, file="a\udcff.yaml", targets=[], now=1.0)


def test_facts_about_a_server_are_replaced(tmp_path):
    with Store.open(tmp_path) as store:
        run = record_run(store)
        store.servers.save_info(run, "t", {"comfyui": "0.3.64", "argv": ["--cpu"]})
        store.servers.save_info(run, "t", {"comfyui": "0.3.65"})
    with Store.open(tmp_path, readonly=True) as store:
        assert store.servers.load_info() == {(run, "t"): {"comfyui": "0.3.65"}}


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("version", [2, 9, 99])
def test_opening_reports_missing_empty_and_other_stores(tmp_path, version, readonly):
    with pytest.raises(ResultsError, match=r"no results here .*; create them with `sweeper run"):
        Store.open(tmp_path / "nowhere", readonly=True)
    with Store.open(tmp_path) as store, pytest.raises(ResultsError, match="no run is recorded"):
        store.latest_run_id()
    connection = sqlite3.connect(tmp_path / "sweeper.sqlite")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    message = f"has the store version {version}, but this sweeper reads only 1; use the sweeper that wrote it, or move"
    with pytest.raises(ResultsError, match=message):
        Store.open(tmp_path, readonly=readonly)


def make_database(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


FOREIGN_TABLE = "CREATE TABLE theirs(x)"
FOREIGN_FILES = {
    "text": ("its 39 bytes are not an SQLite database and begin with b'this is garbage,'",
             lambda path: path.write_bytes(b"this is garbage, not a database at all\n")),
    "another program's": (
        "an SQLite database with other tables (theirs)",
        lambda path: make_database(path, FOREIGN_TABLE),
    ),
    "another program's with a version": (
        "an SQLite database with other tables (theirs)",
        lambda path: make_database(path, FOREIGN_TABLE, "PRAGMA user_version = 99"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize(("content", "make"), FOREIGN_FILES.values(), ids=FOREIGN_FILES)
def test_foreign_file_is_described_and_left_unchanged(tmp_path, content, make, readonly):
    path = tmp_path / "sweeper.sqlite"
    make(path)
    before = path.read_bytes()
    with pytest.raises(ResultsError) as caught:
        Store.open(tmp_path, readonly=readonly)
    assert str(caught.value).startswith(f"{path}: not a sweeper store: {content}; restore a good copy, or move this")
    assert path.read_bytes() == before


def test_an_empty_file_that_a_killed_process_left_is_not_a_store(tmp_path):
    assert not Store.exists(tmp_path)
    (tmp_path / "sweeper.sqlite").touch()
    assert not Store.exists(tmp_path)
    (tmp_path / "artifacts").mkdir()  # so there were results, and opening it reports that they are lost
    assert Store.exists(tmp_path)
    (tmp_path / "artifacts").rmdir()
    (tmp_path / "sweeper.sqlite").write_bytes(b"not a database, and opening it says so")
    assert Store.exists(tmp_path)
    (tmp_path / "sweeper.sqlite").unlink()
    Store.open(tmp_path).close()
    assert Store.exists(tmp_path)


def test_reading_an_empty_file_is_an_error(tmp_path):
    (tmp_path / "sweeper.sqlite").touch()
    with pytest.raises(ResultsError, match="not a sweeper store: an empty file; restore"):
        Store.open(tmp_path, readonly=True)


def test_truncated_store_is_reported_as_damaged(tmp_path):
    with Store.open(tmp_path) as store:
        record_run(store)
    path = tmp_path / "sweeper.sqlite"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ResultsError, match=r"the sweeper store is damaged: .*; restore a good copy, or move"):
        Store.open(tmp_path, readonly=True)


@pytest.mark.parametrize("value", [LAYOUT, job(), Artifact("9", "images", 0, "p", "s", 1, "l")])
def test_records_are_frozen(value):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "x")


def test_experiment_path_resolves_from_any_folder_and_after_a_move(tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "experiments").mkdir(parents=True)
    (project / "experiments/e.yaml").write_text("name: e")
    monkeypatch.chdir(project)
    with Store.open(Path("results/e")) as store, store.transaction():
        store.create_run(TableLayout("e", (), ()), file="experiments/e.yaml", targets=["t"], now=1.0)
        store.create_run(TableLayout("e", (), ()), file="gone.yaml", targets=["t"], now=2.0)

    def files(results):
        with Store.open(results, readonly=True) as store:
            return [record.file for record in store.runs()]

    assert files("results/e") == [str(Path("experiments/e.yaml")), "gone.yaml"]
    monkeypatch.chdir(project / "results")
    assert files("e") == [str(project / "experiments/e.yaml"), "gone.yaml"]
    elsewhere = tmp_path / "other/a/b"  # the same relative path leads to another experiment from here
    elsewhere.mkdir(parents=True)
    (tmp_path / "other/experiments").mkdir()
    (tmp_path / "other/experiments/e.yaml").write_text("name: other")
    monkeypatch.chdir(elsewhere)
    assert files(project / "results/e") == [str(project / "experiments/e.yaml"), "gone.yaml"]
    monkeypatch.chdir(tmp_path)
    project.rename(tmp_path / "moved")
    assert files("moved/results/e") == [str(Path("moved/experiments/e.yaml")), "gone.yaml"]


@pytest.mark.parametrize(
    ("earlier", "own", "shown"),
    [
        (("cloud", records.SUCCEEDED), ("embedded", records.SUCCEEDED), "earlier"),
        (("cloud", records.FAILED), ("embedded", records.SUCCEEDED), "earlier"),
        (("embedded", records.SUCCEEDED), ("cloud", records.FAILED), "own"),
        (("cloud", records.SUCCEEDED), ("cloud", records.FAILED), "earlier"),
        (("cloud", records.SUCCEEDED), ("cloud", records.SUCCEEDED), "own"),
        (("cloud", records.SUCCEEDED), ("cloud", records.SUBMITTED), "earlier"),
        (("cloud", records.FAILED), ("cloud", records.CANCELLED), "earlier"),
        (("cloud", records.CANCELLED), ("embedded", records.SUBMITTED), "own"),
        (("cloud", records.SUBMITTED), None, None),
        (("cloud", records.LOST), None, "earlier"),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_the_folder_shows_the_best_result_of_all_runs(store, earlier, own, shown, alone):
    for run, (name, work) in enumerate((("earlier", earlier), ("own", own)), 1):
        with store.transaction():
            store.create_run(LAYOUT, file="x.yaml", targets=["t"], now=1.0, alone=alone and run == 2)
            store.add_trials(run, [(0, "d", {}, {"seed": 0})])
        if work is not None:
            store.record_intent(dataclasses.replace(job(name, "d", target=work[0]), run=run, prompt_id=name))
            store.record_finished(name, JobEnd(work[1]))
    claimed = "own" if own else None
    ((row,), (of_run,)) = store.results(), store.results(2)
    assert (row.prompt_id, of_run.prompt_id) == (claimed if alone else shown, claimed)
    assert [outcome.result for outcome in store.outcomes()] == [row]
    assert store.count_kept(2) == ({earlier[0]: 1} if row != of_run else {})


def test_an_attempt_that_its_run_repeated_is_no_result(store):
    record_run(store, ["d1"])
    store.record_intent(job("first", intended=1.0))
    store.record_finished("first", JobEnd(records.FAILED))
    store.record_intent(job("second", intended=2.0))
    record_run(store, ["d1"])
    ((row,), kept) = store.results(), store.count_kept(2)
    assert (row.status, kept) == ("pending", {})


def repeat_run(store):
    """A second run that begins with the trials and jobs of the first, as `run` does when nothing is left to do."""
    second = record_run(store)
    with store.transaction():
        assert store.assign_jobs(second, store.jobs())
    return second


def test_run_with_equal_trials_and_jobs_adds_no_rows(store, tmp_path):
    record_run(store)
    store.record_intent(job())
    store.record_finished("j1", JobEnd(records.SUCCEEDED))
    second = repeat_run(store)
    with closing(sqlite3.connect(tmp_path / "sweeper.sqlite")) as connection:
        counts = [connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in ("trials", "claims")]
    assert counts == [(2,), (1,)]
    assert [row.status for row in store.results(second)] == ["succeeded", "pending"]
    assert (store.count_by_status(second)["succeeded"], store.count_reused(second), store.count_reused(1)) == (1, 1, 0)


def test_job_of_a_run_that_shares_rows_changes_no_other_run(store):
    record_run(store)
    store.record_intent(job())
    store.record_finished("j1", JobEnd(records.FAILED))
    second = repeat_run(store)
    store.record_intent(dataclasses.replace(job("j2", intended=20.0), run=second))
    store.record_finished("j2", JobEnd(records.SUCCEEDED))
    assert [[row.status for row in store.results(run)] for run in (1, second)] == [
        ["failed", "pending"],
        ["succeeded", "pending"],
    ]
    assert [store.count_by_status(run)["succeeded"] for run in (1, second)] == [0, 1]


def test_search_shares_no_rows_because_it_adds_trials(store):
    layout = dataclasses.replace(LAYOUT, search=SearchColumns((), (), (), stop_early=False))
    first, second = record_run(store, layout=layout), record_run(store, layout=layout)
    with store.transaction():
        assert store.extend_run(first, layout) == 2
        store.add_trials(first, [(2, "d3", {"seed": 2}, {"seed": 2})])
    assert [sum(store.count_by_status(run).values()) for run in (first, second)] == [3, 2]
