"""Wakes the event streams of the live view when something has changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class ChangeNotifier:
    """Wakes its subscribers in the server's event loop. Any thread may call `notify`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscribers: set[asyncio.Event] = set()
        self.closed = False

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the subscribers in this event loop."""
        self._loop = loop

    def notify(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._set_events)

    def _set_events(self) -> None:
        for event in self._subscribers:
            event.set()

    def close(self) -> None:
        """Wake the subscribers for the last time, so that they stop."""
        self.closed = True
        self.notify()

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[asyncio.Event]:
        """An event that is set on every change; the caller clears it."""
        event = asyncio.Event()
        self._subscribers.add(event)
        try:
            yield event
        finally:
            self._subscribers.discard(event)
