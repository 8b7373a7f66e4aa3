"""Group commit: one fsync, off the event loop, for all coroutines that wait for the disk at the same time.

What is written, and who has to wait for it, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_GATHER_SECONDS: Final = 0.003  # time for more waiters to join the next sync, since each sync costs the loop a little


class GroupCommit:
    """Runs `sync()`, which flushes all earlier writes to the disk, in one thread for many waiters.

    The thread is its own, because in a shared pool an intent would wait behind a dozen files. It loops as long as there
    are waiters, because each return to a busy event loop costs milliseconds, several times per job.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._thread = ThreadPoolExecutor(1, "sweeper-sync")
        self._lock = threading.Lock()
        self._waiters: list[asyncio.Future[None]] = []
        self._busy = False

    async def flush(self) -> None:
        """Wait until everything written before this call is on the disk. Raises what `sync` raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiters.append(done)
            idle, self._busy = not self._busy, True
        if idle:
            self._thread.submit(self._run, loop)
        await done

    def close(self) -> None:
        """End the thread. Call it when nothing waits any more, and before the event loop closes."""
        self._thread.shutdown()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                # Later waiters may write after the sync has begun, so they wait for the next one.
                waiters, self._waiters = self._waiters, []
                if not waiters:
                    self._busy = False
                    return
            error: Exception | None = None
            try:
                self._sync()
            except Exception as sync_error:  # noqa: BLE001 (raised again in every waiter)
                error = sync_error
            loop.call_soon_threadsafe(_resolve_waiters, waiters, error)
            if len(waiters) > 1:  # with one job at a time there are no more waiters to gather
                time.sleep(_GATHER_SECONDS)


def _resolve_waiters(waiters: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    for done in waiters:
        if done.done():  # cancelled meanwhile
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
