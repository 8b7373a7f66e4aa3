"""A plugin of pytest that records how long each test takes, for `python -m tests.mutation cover`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Write the seconds of one test, with its fixtures, to a file of this process."""
    start = time.monotonic()
    result = yield
    name = f"times.{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.jsonl"
    with (Path(os.environ["SWEEPER_TIMES"]) / name).open("a", encoding="utf-8") as file:
        file.write(json.dumps([item.nodeid, round(time.monotonic() - start, 3)]) + "\n")
    return result
