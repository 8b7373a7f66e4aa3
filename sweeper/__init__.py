"""sweeper: ask "what happens if I change this?" of any ComfyUI workflow, a thousand times, and keep every answer.

The public names, resolved when first used: pytest imports this module in every project where sweeper is installed, and
pandas alone takes a quarter of a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.errors import SweeperError as SweeperError
    from sweeper.experiment import Experiment as Experiment
    from sweeper.images import compare_images as compare_images
    from sweeper.loading import load as load
    from sweeper.loading import load_template as load_template
    from sweeper.planner import Plan as Plan
    from sweeper.planner import plan as plan
    from sweeper.regression.accepting import accept as accept
    from sweeper.regression.calibration import calibrate as calibrate
    from sweeper.regression.checking import check as check
    from sweeper.result import Result as Result
    from sweeper.result import Run as Run
    from sweeper.runner import run as run
    from sweeper.runner import run_async as run_async
    from sweeper.table import results as results
    from sweeper.template import Template as Template
    from sweeper.trial import Trial as Trial

_HOMES = {
    "Experiment": "sweeper.experiment",
    "Plan": "sweeper.planner",
    "Result": "sweeper.result",
    "Run": "sweeper.result",
    "SweeperError": "sweeper.errors",
    "Template": "sweeper.template",
    "Trial": "sweeper.trial",
    "accept": "sweeper.regression.accepting",
    "calibrate": "sweeper.regression.calibration",
    "check": "sweeper.regression.checking",
    "compare_images": "sweeper.images",
    "load": "sweeper.loading",
    "load_template": "sweeper.loading",
    "plan": "sweeper.planner",
    "results": "sweeper.table",
    "run": "sweeper.runner",
    "run_async": "sweeper.runner",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - one list serves both
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sweeper' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
