"""Each answer keeps its approved words, in every form in which it is shown."""

from __future__ import annotations

from sweeper.tables.results_folder import ListedRun, RunList
from tests.answers.approved import check_approved


def test_runs():
    first = ListedRun(1, "foxes", "foxes.yaml", ("gpu-1", "gpu-2"), "2026-01-02T03:04:05+00:00", None, None,
                      54, 40, 4, 0, 10, search=False)  # fmt: skip
    second = ListedRun(2, "foxes", "foxes.yaml", ("embedded",), "2026-01-03T03:04:05+00:00",
                       "2026-01-03T04:04:05+00:00", "interrupt", 8, 8, 0, 0, 0, search=True)  # fmt: skip
    check_approved("runs", RunList((first, second)))
