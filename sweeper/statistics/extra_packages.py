"""The packages of the extras `stats` and `search`. Each is imported when it is first needed."""

from __future__ import annotations

import importlib
import importlib.util
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
            'python -m pip install "comfy-sweeper[stats]"'
        ) from None


def require_search_packages(method: str) -> None:
    """Check that the packages of a method of `sweeper search` are installed, without importing them.

    Raises UsageError with the command that installs those that are missing.
    """
    missing = [name for name in ("optuna", "scipy") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"sweeper searches with {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            'installed; run: python -m pip install "comfy-sweeper[search]"'
        )
    if method == "gp" and importlib.util.find_spec("torch") is None:
        raise UsageError(
            "search.method: gp needs PyTorch, which is not installed; run: python -m pip install torch, or use "
            "`method: auto`, which needs only Optuna"
        )
