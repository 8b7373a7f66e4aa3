from __future__ import annotations

import pytest

from sweeper.comfy.job_listener import StepTimes


@pytest.mark.parametrize(
    ("reports", "seconds"),
    [
        ([(1, 4, 50.0), (2, 4, 51.0), (3, 4, 52.0), (4, 4, 53.0)], 4.0),  # loading took the 49 s before the first
        ([(0, 4, 0.0), (1, 4, 50.0), (4, 4, 53.0)], 4.0),  # a report of no step says nothing
        ([(1, 4, 50.0), (3, 4, 52.0)], 4.0),  # the last event was lost
        ([(1, 4, 50.0), (4, 4, 53.0), (4, 4, 59.0)], 4.0),  # the end is reported again
        ([(1, 2, 9.0), (2, 2, 10.0), (1, 2, 20.0), (2, 2, 23.0)], 2.0 + 6.0),  # two tiles
        ([(1, 2, 9.0), (2, 2, 10.0), (1, 4, 20.0), (4, 4, 23.0)], 2.0 + 4.0),  # a second sampling with more steps
        ([(1, 1, 9.0)], None),
        ([(1, 2, 9.0), (2, 2, 10.0), (1, 1, 20.0)], None),
        ([(5, 4, 9.0), (-1, 4, 10.0)], 0.0),
        ([], 0.0),
    ],
)
def test_time_from_first_to_last_report_stands_for_all_steps(reports, seconds):
    times = StepTimes()
    for report in reports:
        times.add(*report)
    assert times.compute_seconds() == seconds
