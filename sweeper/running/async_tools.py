"""Run a coroutine from synchronous code, wait for one thing unless another comes first, unpack exception groups."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_sync(make_coroutine: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the coroutine that `make` gives returns or raises; in a thread of its own where a loop runs here already."""
    if not _is_loop_running():
        return _run_coroutine(make_coroutine())
    outcome: list[T] = []
    errors: list[BaseException] = []

    def run_in_thread() -> None:
        try:
            outcome.append(_run_coroutine(make_coroutine()))
        except BaseException as error:  # noqa: BLE001 (carried over to the caller's thread)
            errors.append(error)

    thread = threading.Thread(target=run_in_thread, name="sweeper-run")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


def _is_loop_running() -> bool:
    """Asked here, since work that began in the `except` block would have every error of its own told below this one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
        return runner.run(coroutine)


def _find_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The one of uvloop where that is installed (the extra `fast`); None: asyncio's."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


async def cancel_when(condition: Coroutine[Any, Any, Any], coroutine: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives or raises; None, and it is cancelled, where `end` comes first."""
    doing, ending = asyncio.ensure_future(coroutine), asyncio.ensure_future(condition)
    try:
        await asyncio.wait((doing, ending), return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        ending.cancel()
        await asyncio.gather(doing, ending, return_exceptions=True)


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception in a tree of exception groups; the others follow from it."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
