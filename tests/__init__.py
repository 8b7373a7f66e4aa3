"""The test suite. Its folders mirror those of `sweeper`; it is imported as `tests` from the repository's root."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
