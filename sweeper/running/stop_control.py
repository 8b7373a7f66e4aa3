"""Stop a run: first drain it, then cancel it; from a signal, another thread, or because too many trials failed."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, TypeVar

from sweeper.running.async_tools import cancel_when

T = TypeVar("T")

INTERRUPT: Final = "interrupt"
MAX_FAILURES: Final = "max_failures"
REFUSED: Final = "refused"
UNREACHABLE: Final = "unreachable"
BUDGET: Final = "budget"  # no target may submit another job within the budget
UNWRITABLE: Final = "unwritable"  # the results folder can no longer be written

# Steps of an event loop in which a signal that has arrived is read, handled and reported, and one more.
_STEPS_OF_A_SIGNAL: Final = 4


class StopControl:
    """Stops one run. `stop` may be called from any thread, also before the run begins; the other methods may not.

    `reason`: why the run stops, one of the words above; None while it goes on.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.cancelling = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscribers: list[Callable[[], None]] = []

    @property
    def stopping(self) -> bool:
        return self.reason is not None

    def stop(self) -> None:
        """First call: submit nothing more and wait for the jobs in flight. Second call: cancel them."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.stop_with, INTERRUPT)
        else:
            self.stop_with(INTERRUPT)

    def stop_with(self, reason: str) -> None:
        """Drain for this reason; an interrupt while draining cancels. Call it in the run's event loop."""
        if self.stopping and reason == INTERRUPT:
            self.cancelling = True
        # The first reason counts, but Ctrl-C overrides it: then the user decided how the run ended.
        if self.reason is None or reason == INTERRUPT:
            self.reason = reason
        for notify in list(self._subscribers):
            notify()

    def drain(self, reason: str) -> None:
        """Drain unless the run stops already, so that several callers do not cancel it. Call it in the run's loop."""
        if not self.stopping:
            self.stop_with(reason)

    async def run_unless_stopped(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """Run `coroutine`, but cancel it and return None as soon as the run stops."""
        stopped = asyncio.Event()
        with self.subscribe(stopped.set):
            if self.stopping:
                stopped.set()
            return await cancel_when(stopped.wait(), coroutine)

    @contextmanager
    def subscribe(self, notify: Callable[[], None]) -> Iterator[None]:
        """Call `notify` in the running event loop whenever `reason` or `cancelling` may have changed."""
        outer, self._loop = self._loop, asyncio.get_running_loop()
        self._subscribers.append(notify)
        try:
            yield
        finally:
            self._subscribers.remove(notify)
            self._loop = outer


def list_stop_signals() -> list[signal.Signals]:
    """Ctrl-C and SIGTERM; on Windows also Ctrl-Break, the only one that a program can send to its child there."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return [number for name in names if (number := getattr(signal, name, None)) is not None]


@asynccontextmanager
async def stop_on_signals(control: StopControl) -> AsyncIterator[None]:
    """Let `list_stop_signals` stop the run. Does nothing outside the main thread, where Python allows no handlers.

    No signal is lost. If the handler so far has a `count`, these signals came before, and the exception that it raised
    was ignored, or the process would have ended. Signals that arrived since the last step of the loop, such as while a
    run wrote its table, have reached `control` at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = list_stop_signals()
    handlers = {number: signal.getsignal(number) for number in numbers}
    for _ in range(sum(getattr(handler, "count", 0) for handler in handlers.values())):
        control.stop_with(INTERRUPT)
    for number in numbers:
        try:
            loop.add_signal_handler(number, control.stop_with, INTERRUPT)
        except NotImplementedError:  # on Windows, where a plain handler runs between two steps of the loop
            signal.signal(number, lambda *_: control.stop())
    try:
        yield
        for _ in range(_STEPS_OF_A_SIGNAL):
            await asyncio.sleep(0)
    finally:
        for number in numbers:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, handlers[number] or signal.SIG_DFL)
