"""Serve a page of sweeper to browsers: who may see it, and the thread and socket behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SHARED_PAGE: Final = Path(__file__).parent / "page"  # files that several pages use
