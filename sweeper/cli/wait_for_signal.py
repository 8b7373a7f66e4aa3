"""Wait for Ctrl-C or SIGTERM, in commands that run until the user stops them; and send it to a process of ours."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sweeper.running.stop_control import list_stop_signals

# What asks a process that we started to stop, and the `creationflags` with which it must start. Windows sends Ctrl-C
# only to all processes of a console, and Ctrl-Break to one group.
if sys.platform == "win32":
    INTERRUPT: Final = signal.CTRL_BREAK_EVENT
    CREATION_FLAGS: Final = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    INTERRUPT: Final = signal.SIGINT
    CREATION_FLAGS: Final = 0


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
