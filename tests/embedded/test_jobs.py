"""The job queue: failures of its journal, its memory, and its order."""

from __future__ import annotations

import logging
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.embedded.jobs import CANCELLED, SUCCESS, JobQueue, JournalError, ServerJob, pack_graph
from sweeper.embedded.service import ServerSettings
from tests.embedded.probes import chain, waiting


class BrokenJournal:
    """A journal whose disk is full after `good` writes."""

    def __init__(self, good):
        self.good = good

    def save(self, job):
        self.good -= 1
        if self.good < 0:
            raise JournalError("disk full")

    def forget(self, ids):
        raise AssertionError("not asked for")


def job(name="a", number=0.0, seed=0):
    return ServerJob(name, number, pack_graph(chain(seed=seed)), {}, ("9",))


def queue(**options):
    return JobQueue(1, lambda remaining: None, **({"keep_cancelled": True} | options))


def test_job_that_cannot_be_stored_is_not_queued():
    jobs = queue(journal=BrokenJournal(0))
    with pytest.raises(JournalError):
        jobs.put(job())
    assert (jobs.remaining, jobs.find("a")) == (0, None)


def test_state_that_cannot_be_stored_is_logged(caplog):
    jobs = queue(journal=BrokenJournal(1))
    jobs.put(job())
    with caplog.at_level(logging.ERROR):
        taken = jobs.take()
        jobs.finish(taken, SUCCESS)
    assert jobs.find("a").state == SUCCESS
    assert [record.getMessage() for record in caplog.records] == [
        "job a: its state preparing is not on disk",
        "job a: its state success is not on disk",
    ]


def test_ended_job_keeps_its_graph_compressed():
    jobs = queue()
    for name in ("a", "b"):
        jobs.put(job(name))
    jobs.finish(jobs.take(), SUCCESS)
    assert jobs.find("a").graph == chain()
    assert sys.getsizeof(jobs.find("a").packed_graph) < 400


def test_closing_wakes_waiting_workers():
    jobs = queue()
    results = []
    waiter = threading.Thread(target=lambda: results.append(jobs.take()))
    waiter.start()
    jobs.close()
    waiter.join(60)
    assert results == [None]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-3, 3)), max_size=12), st.sets(st.sampled_from("abc")))
def test_jobs_run_by_number_then_id_then_arrival(put, deleted):
    jobs = queue()
    for index, (name, number) in enumerate(put):
        jobs.put(job(name, number, seed=index))
    cancelled = jobs.delete(sorted(deleted))
    expected = [(number, name, index) for index, (name, number) in enumerate(put)]
    for name in cancelled:
        expected.remove(next(entry for entry in expected if entry[1] == name))
    taken = []
    while jobs.snapshot()[1]:
        taken_job = jobs.take()
        taken.append((taken_job.number, taken_job.id, taken_job.graph["3"]["inputs"]["seed"]))
        jobs.finish(taken_job, SUCCESS)
    if len({name for name, _ in put}) == len(put):
        assert taken == sorted(expected)
    assert [entry[:2] for entry in taken] == sorted(entry[:2] for entry in taken)
    assert len(taken) == len(put) - len(cancelled)
    assert set(cancelled) == deleted & {name for name, _ in put}
    for name in deleted & {name for name, _ in put} - {entry[1] for entry in taken}:
        assert jobs.find(name).state == CANCELLED


def test_cloud_queues_a_hundred_jobs():
    assert ServerSettings("cloud").queue_bound == 100


@pytest.mark.parametrize(("dialect", "name"), [("cloud", "CLOUD_QUEUE_BOUND"), ("comfyui", "COMFYUI_QUEUE_BOUND")])
def test_full_queue_refuses_a_job_and_takes_the_next_after_one_ran(serve, gate, monkeypatch, dialect, name):
    bound = 4
    monkeypatch.setattr(f"sweeper.embedded.service.{name}", bound)
    client = serve(dialect)
    client.submit(waiting())
    assert gate.entered.wait(60)
    jobs = [client.submit(chain(seed=seed)) for seed in range(bound)]

    answer = client.http.post("/api/prompt", json={"prompt": chain()})

    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "QUEUE_LIMIT")
    assert answer.headers["retry-after"] == "1"
    assert client.server.seen.accepted == bound + 1
    gate.opened.set()
    client.wait_for_end(jobs[0])
    client.run(chain(seed=bound))
