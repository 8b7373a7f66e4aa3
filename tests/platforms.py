"""Marks for tests that not every system can run; `conftest.py` skips what only shows while a test runs."""

from __future__ import annotations

import sys

import pytest

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process instead of sending a signal")
needs_scripts = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not start a script of sh")
needs_memory_limit = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
