"""Keeping a server busy: what may happen while a job runs, and what must happen before it is sent."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

import sweeper
from sweeper.comfy.client import ComfyClient
from sweeper.running.run_events import JobSubmitted, TrialDone
from sweeper.running.stop_control import StopControl
from sweeper.store import Store, records
from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.database import Database

MANY = list(range(24))  # jobs of a few milliseconds: after the first, others are prepared before there is room for them


@pytest.fixture
def one_slot(target):
    return {**target, "concurrency": 1}


def test_the_next_job_is_sent_while_files_are_still_downloading(one_slot, experiment, tmp_path, monkeypatch):
    second = threading.Event()
    in_time = []
    keep = ArtifactFolder.save

    def slowly(*arguments):
        in_time.append(second.wait(60))
        return keep(*arguments)

    def watch(event):
        submitted.update([type(event) is JobSubmitted])
        if submitted[True] == 2:
            second.set()

    submitted = Counter()
    monkeypatch.setattr(ArtifactFolder, "save", slowly)
    run = sweeper.run(experiment(seed=[1, 2]), one_slot, tmp_path / "out", progress=watch)
    assert (run.succeeded, in_time) == (2, [True, True])


def test_no_job_is_sent_before_its_intent_is_on_the_disk(server, target, experiment, tmp_path, monkeypatch):
    committed, durable, early = set(), set(), []
    intend, sync, submit = Store.record_intent, Database.sync, ComfyClient.submit

    def intending(store, job, **how):
        intend(store, job, **how)
        committed.add(job.id)

    def syncing(store):
        covered = set(committed)
        sync(store)
        durable.update(covered)

    async def submitting(client, submission):
        early.extend({submission.job_id} - durable)
        return await submit(client, submission)

    monkeypatch.setattr(Store, "record_intent", intending)
    monkeypatch.setattr(Database, "sync", syncing)
    monkeypatch.setattr(ComfyClient, "submit", submitting)
    run = sweeper.run(experiment(seed=MANY), target, tmp_path / "out")
    assert (run.succeeded, early) == (len(MANY), [])
    assert server.seen.submits == len(committed) == len(MANY)


def test_a_stopped_run_leaves_no_intents_of_unsent_jobs(server, target, experiment, tmp_path):
    control, done = StopControl(), Counter()

    def watch(event):
        done.update([type(event)])
        if type(event) is TrialDone and done[TrialDone] == 10:
            control.stop()

    plan = experiment(seed=MANY)
    run = sweeper.run(plan, target, tmp_path / "out", progress=watch, control=control)
    assert run.stopped_by == "interrupt"
    assert run.pending == len(MANY) - server.seen.submits > 0
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert not {job.state for job in store.jobs()} & set(records.OPEN_STATES)
    again = sweeper.run(plan, target, tmp_path / "out")
    assert (again.succeeded, again.submitted) == (len(MANY), run.pending)
    assert set(server.seen.executions.values()) == {1}
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert {row.attempts for row in store.results()} == {1}  # what was only prepared does not count


def test_a_full_queue_accepts_prepared_jobs_later_and_each_once(server, target, experiment, tmp_path):
    done = Counter()

    def watch(event):
        done.update([type(event)])
        if type(event) is TrialDone and done[TrialDone] == 10:
            server.faults.queue_full_times = 5

    run = sweeper.run(experiment(seed=MANY), target, tmp_path / "out", progress=watch)
    assert run.succeeded == len(MANY)
    assert server.seen.submits == len(MANY) + 5
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert Counter(job.state for job in store.jobs()) == {records.SUCCEEDED: len(MANY)}
