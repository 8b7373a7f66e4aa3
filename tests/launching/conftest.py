"""Fixtures of the runner's tests that these tests use too."""

from tests.running.conftest import runners

__all__ = ["runners"]
