"""Stopping a run: once to drain, twice to cancel; from a signal, from another thread, or because too much failed."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from sweeper.running.async_tools import cancel_when

T = TypeVar("T")

INTERRUPT: Final = "interrupt"
MAX_FAILURES: Final = "max_failures"
REFUSED: Final = "refused"
UNREACHABLE: Final = "unreachable"
UNWRITABLE: Final = "unwritable"  # the results folder takes no more


class StopControl:
    """The brake of one run; `stop` may be called from any thread, before the run too."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.cancelling = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscribers: list[Callable[[], None]] = []

    @property
    def stopping(self) -> bool:
        return self.reason is not None

    def stop(self) -> None:
        """First call: submit nothing more, wait for what is in flight. Second call: cancel that too."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.stop_with, INTERRUPT)
        else:
            self.stop_with(INTERRUPT)

    def stop_with(self, reason: str) -> None:
        """Drain for that reason; an interrupt while draining cancels. To be called in the run's own loop."""
        if self.stopping and reason == INTERRUPT:
            self.cancelling = True
        # Too many failures is what happened first; Ctrl-C afterwards is still the last word on how it ended.
        if self.reason is None or reason == INTERRUPT:
            self.reason = reason
        for notify in list(self._subscribers):
            notify()

    def drain(self, reason: str) -> None:
        """Drain, if nobody said so before: told by several, this cancels nothing. In the run's own loop, as `halt`."""
        if not self.stopping:
            self.stop_with(reason)

    async def run_unless_stopped(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """What `work` gives or raises; None, and it is cancelled, once the run is asked to stop."""
        stopped = asyncio.Event()
        with self.subscribe(stopped.set):
            if self.stopping:
                stopped.set()
            return await cancel_when(stopped.wait(), coroutine)

    @contextmanager
    def subscribe(self, notify: Callable[[], None]) -> Iterator[None]:
        """Call `notify` in the running loop at every change."""
        outer, self._loop = self._loop, asyncio.get_running_loop()
        self._subscribers.append(notify)
        try:
            yield
        finally:
            self._subscribers.remove(notify)
            self._loop = outer


@contextmanager
def stop_on_signals(control: StopControl) -> Iterator[None]:
    """Let Ctrl-C (and SIGTERM) stop the run; only in the main thread, where alone signals may be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    handlers = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        try:
            loop.add_signal_handler(number, control.stop_with, INTERRUPT)
        except NotImplementedError:  # Windows' loop has none; a plain handler runs between two steps of it
            signal.signal(number, lambda *_: control.stop())
    try:
        yield
    finally:
        for number in numbers:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, handlers[number] or signal.SIG_DFL)
