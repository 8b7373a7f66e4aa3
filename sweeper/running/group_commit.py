"""Waiting for the disk off the event loop, once for everybody who comes while it is busy.

What is brought to the disk, and when somebody must wait for it, is for others to say.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_GATHER_SECONDS: Final = 0.003  # seconds in which more may come to wait for the same sync: each costs the loop a little


class GroupCommit:
    """`sync()` brings all that was written so far to the disk; it is called in one thread only.

    A thread of its own, which goes on by itself as long as somebody waits: in a shared pool an intent would wait for
    its turn behind a dozen files, and on a busy event loop every step back to it costs milliseconds, several a job.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._thread = ThreadPoolExecutor(1, "sweeper-sync")
        self._lock = threading.Lock()
        self._waiters: list[asyncio.Future[None]] = []
        self._busy = False

    async def flush(self) -> None:
        """Return when all that was written before this call is on the disk. Raises what `sync` raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiters.append(done)
            idle, self._busy = not self._busy, True
        if idle:
            self._thread.submit(self._run, loop)
        await done

    def close(self) -> None:
        """Nobody waits any more; to be called before the loop ends."""
        self._thread.shutdown()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                # Whoever comes from now on may have written after the sync began, and waits for the next.
                waiting, self._waiters = self._waiters, []
                if not waiting:
                    self._busy = False
                    return
            error: Exception | None = None
            try:
                self._sync()
            except Exception as found:  # noqa: BLE001 (it is those who wait that it must reach)
                error = found
            loop.call_soon_threadsafe(_resolve_waiters, waiting, error)
            if len(waiting) > 1:  # with one job at a time nobody else would come, and that one would wait
                time.sleep(_GATHER_SECONDS)


def _resolve_waiters(waiters: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    for done in waiters:
        if done.done():  # cancelled meanwhile
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
