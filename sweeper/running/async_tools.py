"""Run a coroutine from synchronous code, and wait for one thing unless another comes first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def finished(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the coroutine that `make` gives returns or raises; in a thread of its own where a loop runs here already."""
    if not _in_a_loop():
        return _complete(make())
    outcome: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(_complete(make()))
        except BaseException as error:  # noqa: BLE001 (carried over to the caller's thread)
            errors.append(error)

    thread = threading.Thread(target=work, name="sweeper-run")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


def _in_a_loop() -> bool:
    """Asked here, since work that began in the `except` block would have every error of its own told below this one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _complete(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=_own_loop()) as runner:
        return runner.run(work)


def _own_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The one of uvloop where that is installed (the extra `fast`); None: asyncio's."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - an extra, and none for Windows
    except ImportError:
        return None
    return new_event_loop


async def before(end: Coroutine[Any, Any, Any], work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives or raises; None, and it is cancelled, where `end` comes first."""
    doing, ending = asyncio.ensure_future(work), asyncio.ensure_future(end)
    try:
        await asyncio.wait((doing, ending), return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        ending.cancel()
        await asyncio.gather(doing, ending, return_exceptions=True)
