"""Stop a run: first drain it, then cancel it; from a signal, another thread, or because too many trials failed.

Also run a coroutine from synchronous code, cancel one when a condition comes first, and unpack exception groups.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")

_SECONDS_BETWEEN_REFRESHES: Final = 0.2
_AT_ONCE: Final = 8  # targets that are asked for something large


def run_sync(
    make_coroutine: Callable[[], Coroutine[Any, Any, T]],
    *,
    refresh: Callable[[], None] = lambda: None,
    interrupt: Callable[[], None] | None = None,
) -> T:
    """Run the coroutine that `make_coroutine` returns to its end, and return or raise what it returns or raises.

    Uses a thread of its own if this thread already runs an event loop, as in a notebook. While this thread then waits,
    it calls `refresh` again and again, and `interrupt` at each KeyboardInterrupt. Without `interrupt`, it raises that.
    """
    if not _is_loop_running():
        return _run_coroutine(make_coroutine())
    thread = ThreadPoolExecutor(1, "sweeper-run")
    future = thread.submit(lambda: _run_coroutine(make_coroutine()))
    thread.shutdown(wait=False)
    while True:
        try:
            while not wait((future,), _SECONDS_BETWEEN_REFRESHES).done:
                refresh()
            if future.exception() is None:
                refresh()
            return future.result()
        except KeyboardInterrupt:
            if interrupt is None or future.done():
                raise
            interrupt()


def _is_loop_running() -> bool:
    # A function of its own: errors of code that ran inside the `except` block would show this RuntimeError as context.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
        return runner.run(coroutine)


def _find_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's event loop if the extra `fast` is installed; None selects asyncio's."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


async def cancel_when(condition: Awaitable[Any], coroutine: Awaitable[T]) -> T | None:
    """Run `coroutine`, and cancel it if `condition` returns first.

    Returns or raises what `coroutine` returns or raises; returns None if it was cancelled.
    """
    task, watcher = asyncio.ensure_future(coroutine), asyncio.ensure_future(condition)
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def wait_at_most(seconds: float | None, awaited: Awaitable[object]) -> None:
    """Wait for something, but no longer than so many seconds; None: without a limit."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await awaited


async def run_for_all(function: Callable[[Item], Coroutine[Any, Any, T]], items: Iterable[Item]) -> list[T]:
    """Call a function for all items, a few at once, because each may hold a large answer of a server in memory.

    Returns what it returns for them, in their order. Raises the first error, and cancels the other calls.
    """
    semaphore = asyncio.Semaphore(_AT_ONCE)

    async def run(item: Item) -> T:
        async with semaphore:
            return await function(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(item)) for item in items]
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    return [task.result() for task in tasks]


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception in a tree of exception groups; the others follow from it."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


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


def call_on_stop_signals(function: Callable[[], None]) -> None:
    """Let each of `list_stop_signals` call a function in the running event loop. Only for the main thread."""
    loop = asyncio.get_running_loop()
    for number in list_stop_signals():
        try:
            loop.add_signal_handler(number, function)
        except NotImplementedError:  # on Windows, where a plain handler runs between two steps of the loop
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(function))


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
    call_on_stop_signals(lambda: control.stop_with(INTERRUPT))
    try:
        yield
        for _ in range(_STEPS_OF_A_SIGNAL):
            await asyncio.sleep(0)
    finally:
        for number in numbers:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, handlers[number] or signal.SIG_DFL)
