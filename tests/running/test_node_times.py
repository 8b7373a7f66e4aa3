from __future__ import annotations

from types import SimpleNamespace

import pytest

from sweeper.running.done_work import list_timed_jobs
from sweeper.running.run_context import NodeTimes
from sweeper.store.server_facts import BESIDES_NODES


def test_first_jobs_count_only_for_classes_that_later_ones_did_not_run():
    times = NodeTimes()
    times.add_job("gpu", [("Loader", 20.0), ("Sampler", 30.0)], (0.0, 51.0))
    times.add_job("gpu", [("Sampler", 31.0)], (1.0, 51.5))  # it began before the first one ended
    times.add_job("gpu", [("Sampler", 4.0)], (51.0, 55.5))
    times.add_job("gpu", [("Sampler", 6.0)], (56.0, 62.5))
    assert times.sum_up() == {"gpu": {"Loader": (1, 20.0), "Sampler": (2, 10.0), BESIDES_NODES: (2, 1.0)}}


def test_sums_of_workers_and_jobs_without_times_are_added():
    times = NodeTimes()
    times.add_job("gpu", [("Sampler", 3.0)], None)
    assert times.sum_up() == {"gpu": {"Sampler": (1, 3.0)}}
    for _ in range(2):
        times.add_sums("gpu", {"Sampler": (2, 8.0)})
    assert times.sum_up() == {"gpu": {"Sampler": (4, 16.0)}}


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([(0, 50), (50, 55), (55, 61)], [5, 6]),
        ([(0, 50), (1, 51)], [50, 50]),  # there is nothing else to go by
        ([(0, 50), (None, 60), (70, 69)], [0]),
        ([], []),
    ],
)
def test_first_job_of_a_run_says_little_about_the_others(spans, seconds):
    jobs = [SimpleNamespace(run=1, target="gpu", started=started, ended=ended) for started, ended in spans]
    assert [found for _, found in list_timed_jobs(jobs)] == seconds
