"""Run a coroutine from synchronous code, cancel one when a condition comes first, and unpack exception groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeVar

T = TypeVar("T")

_SECONDS_BETWEEN_REFRESHES: Final = 0.2


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
            return _wait_for_result(future, refresh)
        except KeyboardInterrupt:
            if interrupt is None or future.done():
                raise
            interrupt()


def _wait_for_result(future: Future[T], refresh: Callable[[], None]) -> T:
    while not wait((future,), _SECONDS_BETWEEN_REFRESHES).done:
        refresh()
    if future.exception() is None:
        refresh()
    return future.result()


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


async def cancel_when(condition: Coroutine[Any, Any, Any], coroutine: Coroutine[Any, Any, T]) -> T | None:
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


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception in a tree of exception groups; the others follow from it."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
