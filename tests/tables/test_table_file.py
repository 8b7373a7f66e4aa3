"""`results.csv` shows the table of its folder after every run, although a run that changes nothing leaves it alone."""

from __future__ import annotations

import io
import os

import pytest

from sweeper.store import Store
from sweeper.store.records import TableLayout
from sweeper.store.votes import Vote
from sweeper.tables.export import TableFile, export_results
from tests.tables.written_results import make_grid, write_results

ROWS = make_grid(steps=[1, 2, 3], style=["a", 'é, "b"'])


@pytest.fixture
def folder(tmp_path):
    folder = write_results(tmp_path / "out", ROWS, {"glow": [1.5, 2, 3, 4, 5, None]})
    run_again(folder)
    return folder


def run_again(folder, rows=ROWS, metrics=("glow",), in_between=lambda store: None):
    """What a run does that finds nothing to submit. Returns whether it wrote the table."""
    path, columns = folder / "results.csv", tuple(rows[0])
    before = path.stat().st_ino if path.exists() else None
    with Store.open(folder) as store:
        jobs = {job.digest: job for job in store.jobs()}
        digests = {tuple(row.params.items()): row.digest for row in store.results(1)}
        table = TableFile(store)
        with store.transaction():
            layout = TableLayout("made", columns, columns, metrics)
            run = store.create_run(layout, file="made.yaml", targets=["embedded"], now=9.0)
            trials = [(index, digests[tuple(row.items())], row, row) for index, row in enumerate(rows)]
            is_same = store.add_trials(run, trials)
            is_same &= store.assign_jobs(run, [jobs[digest] for _, digest, _, _ in trials])
        table.is_same = is_same
        changes = store.change_count()
        in_between(store)
        table.update(has_changed=store.change_count() != changes)
    expected = io.BytesIO()
    export_results(folder, expected, "csv", run=None, trials=None, safe=False)
    assert path.read_bytes() == expected.getvalue()
    return path.stat().st_ino != before


def vote(folder):
    with Store.open(folder) as store:
        (left, right, *_) = ((row.digest, row.sha256[0]) for row in store.results())
        store.votes.add(Vote("v", "ana", "steps", *left, *right, 1.0, 2.0, "left"))


def edit(folder):
    path = folder / "results.csv"
    path.write_bytes(path.read_bytes().replace(b"1.5", b"9.5"))


def forget_a_column(folder):
    """As an earlier version of sweeper may have written the file."""
    path = folder / "results.csv"
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b",models", b",", 1))
    os.utime(path, ns=(time, time))


def measure(folder):
    with Store.open(folder) as store:
        store.cache_metrics([(next(store.results()).sha256[0], "glow", 7.25)])


def test_run_that_changes_nothing_leaves_the_table_alone(folder):
    assert [run_again(folder), run_again(folder)] == [False, False]


@pytest.mark.parametrize(
    "change", [edit, forget_a_column, vote, measure, lambda folder: (folder / "results.csv").unlink()]
)
def test_table_is_written_after_a_change_by_anybody(folder, change):
    change(folder)

    assert run_again(folder)
    assert not run_again(folder)


@pytest.mark.parametrize(
    ("rows", "metrics"),
    [(ROWS[:4], ("glow",)), ([*ROWS[:4], ROWS[5], ROWS[4]], ("glow",)), (ROWS[::-1], ("glow",)), (ROWS, ())],
)
def test_table_is_written_by_a_run_of_other_trials_or_columns(folder, rows, metrics):
    assert run_again(folder, rows, metrics)
    assert not run_again(folder, rows, metrics)
    assert run_again(folder)


@pytest.mark.parametrize("change", [measure, vote])
def test_what_another_process_writes_during_the_run_is_in_the_table(folder, change):
    assert run_again(folder, in_between=lambda _: change(folder))
    run_again(folder)


def test_what_the_run_measures_is_in_the_table(folder):
    def measure_more(store):
        store.cache_metrics([(next(store.results()).sha256[0], "glow", 8.5)])

    assert run_again(folder, in_between=measure_more)


def test_table_with_a_log_left_by_a_killed_process_is_written(folder):
    with Store.open(folder) as reader:  # as long as it is open, the log stays
        list(reader.runs())
        run_again(folder)
        assert run_again(folder)
