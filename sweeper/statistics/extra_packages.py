"""The packages of the extra `stats`. Each is imported when it is first needed."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from sweeper.errors import UsageError


@cache
def load_stats_package(name: str) -> Any:
    """A module of scipy or another package of the extra `stats`, such as `scipy.special`.

    Raises UsageError with the command that installs the extra if the package is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UsageError(
            f"sweeper computes statistics with {package}, which is not installed; run: "
            "python -m pip install 'comfy-sweeper[stats]'"
        ) from None
