"""Waiting for one thing unless another comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


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
