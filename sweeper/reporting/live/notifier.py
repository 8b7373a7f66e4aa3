"""Tell everybody who waits in the server's event loop that something has changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class ChangeNotifier:
    """Rings in the server's event loop when something has changed; may be rung from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscribers: set[asyncio.Event] = set()
        self.closed = False

    def bind(self) -> None:
        """Belong to the running loop."""
        self._loop = asyncio.get_running_loop()

    def notify(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._set_events)

    def _set_events(self) -> None:
        for ring in self._subscribers:
            ring.set()

    def close(self) -> None:
        """Let everybody who listens leave."""
        self.closed = True
        self.notify()

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[asyncio.Event]:
        ring = asyncio.Event()
        self._subscribers.add(ring)
        try:
            yield ring
        finally:
            self._subscribers.discard(ring)
