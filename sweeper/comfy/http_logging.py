"""Keep keys and signed URLs out of logs, at every level that an application enables.

httpx logs the URL of each request (INFO), and httpcore the headers of each response (DEBUG), in which a redirect has a
signed URL and a server may repeat a key. sweeper drops their records of its own requests, and logs each request itself,
without query and redacted. Records of the application's other requests stay as they are.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

_LOGGERS: Final = (
    "httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks",
)  # fmt: skip
_is_ours: ContextVar[bool] = ContextVar("sweeper_request", default=False)
log: Final = logging.getLogger("sweeper.comfy.http")


def _is_not_ours(_record: logging.LogRecord) -> bool:
    return not _is_ours.get()


@contextlib.contextmanager
def mute_libraries() -> Iterator[None]:
    """Drop what httpx and httpcore log inside this block."""
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


for _name in _LOGGERS:  # a logger's own filters drop a record before any handler sees it, also those of its parents
    logging.getLogger(_name).addFilter(_is_not_ours)
