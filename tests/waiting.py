"""Waits with a bound: a test that waits for something that never comes fails instead of hanging."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, TypeVar

T = TypeVar("T")

SECONDS = 60.0  # far more than anything needs on a busy machine


def wait_until(condition: Callable[[], T], seconds: float = SECONDS) -> T:
    """Return the condition's first true value. Raises AssertionError if there is none in time."""
    end, pause = time.monotonic() + seconds, 0.002
    while not (value := condition()):
        assert time.monotonic() < end, f"did not happen within {seconds:g} s"
        time.sleep(pause)
        pause = min(1.2 * pause, 0.03)  # whoever waits for long does not look all the time
    return value


def check_at_once(check: Callable[..., object], cases: Iterable[tuple[Any, ...]]) -> None:
    """Call `check(*case)` for a few cases at once, because each waits for seconds. A failure names its case."""
    with ThreadPoolExecutor() as pool:
        started = [(case, pool.submit(check, *case)) for case in cases]
    for case, done in started:
        if (failure := done.exception()) is not None:
            failure.add_note(f"in the case {case}")
            raise failure


def read_line(stream: IO[str] | None, seconds: float = SECONDS) -> str:
    """The next line of a process's output; empty at its end. Raises AssertionError if none comes in time."""
    assert stream is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(seconds)
    assert lines, f"no line within {seconds:g} s"
    return lines[0]
