"""Tell everybody who waits in the server's event loop that something has changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Bell:
    """Rings in the server's event loop when something has changed; may be rung from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rings: set[asyncio.Event] = set()
        self.over = False

    def hang(self) -> None:
        """Belong to the running loop."""
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        for ring in self._rings:
            ring.set()

    def end(self) -> None:
        """Let everybody who listens leave."""
        self.over = True
        self.ring()

    @contextlib.contextmanager
    def heard(self) -> Iterator[asyncio.Event]:
        ring = asyncio.Event()
        self._rings.add(ring)
        try:
            yield ring
        finally:
            self._rings.discard(ring)
