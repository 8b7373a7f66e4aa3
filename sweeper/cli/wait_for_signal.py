"""Wait for Ctrl-C or SIGTERM, in commands that run until the user stops them.

Every command imports this file first, so it imports nothing heavy.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def catch_stop_signals() -> Iterator[Callable[..., bool]]:
    """Yield a function that blocks until Ctrl-C or SIGTERM arrives, or returns at once if one already did.

    It takes a function that says whether the wait is over for another reason. Returns whether a signal arrived.

    Works only in the main thread. Enter it before printing an address, because a program that reads the address may
    send the signal right away.
    """
    from sweeper.running.stop_control import list_stop_signals  # noqa: PLC0415 (it imports asyncio)

    stopped = threading.Event()

    def wait(is_over: Callable[[], bool] = lambda: False) -> bool:
        while not stopped.wait(1.0) and not is_over():  # on Windows, a wait without a timeout blocks Ctrl-C
            pass
        return stopped.is_set()

    previous = {number: signal.signal(number, lambda *_: stopped.set()) for number in list_stop_signals()}
    try:
        yield wait
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _InterruptHandler:
    """Raises KeyboardInterrupt, as Python's own handler of Ctrl-C does, and counts the signals for `stop_on_signals`.

    The exception alone may be lost: Python ignores it in a callback, such as that of importlib for each new module.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1
        raise KeyboardInterrupt


@contextmanager
def count_interrupts() -> Iterator[None]:
    """Handle Ctrl-C by an `_InterruptHandler`, unless the process ignores it or handles it otherwise."""
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _InterruptHandler())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
