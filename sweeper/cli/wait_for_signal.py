"""Wait for Ctrl-C or SIGTERM, in commands that run until the user stops them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweeper.running.stop_control import list_stop_signals


@contextmanager
def catch_stop_signals() -> Iterator[Callable[[], None]]:
    """Yield a function that blocks until Ctrl-C or SIGTERM arrives, or returns at once if one already did.

    Works only in the main thread. Enter it before printing an address, because a program that reads the address may
    send the signal right away.
    """
    stopped = threading.Event()

    def wait() -> None:
        while not stopped.wait(1.0):  # on Windows, a wait without a timeout blocks Ctrl-C
            pass

    previous = {number: signal.signal(number, lambda *_: stopped.set()) for number in list_stop_signals()}
    try:
        yield wait
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def call_on_stop_signals(function: Callable[[], None]) -> None:
    """Call a function in the running event loop when Ctrl-C or SIGTERM arrives."""
    loop = asyncio.get_running_loop()
    for number in list_stop_signals():
        try:
            loop.add_signal_handler(number, function)
        except NotImplementedError:  # on Windows, where a plain handler runs between two steps of the loop
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(function))
