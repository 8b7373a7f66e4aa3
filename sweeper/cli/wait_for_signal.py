"""What a command that serves waits for: Ctrl-C, or SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def catch_stop_signals() -> Iterator[Callable[[], None]]:
    """Gives what blocks until either signal has come, also one that came before. Only in the main thread.

    To be entered before an address is printed: whoever reads it may stop us at once.
    """
    asked = threading.Event()

    def wait() -> None:
        while not asked.wait(1.0):  # a wait without end would keep Windows from seeing Ctrl-C
            pass

    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
