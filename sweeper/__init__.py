"""sweeper: ask "what happens if I change this?" of any ComfyUI workflow, a thousand times, and keep every answer.

Each public name is imported at its first use, because pytest imports this module in every project where sweeper is
installed, and pandas alone takes a quarter of a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sweeper.model.html_display import HtmlDisplay as _HtmlDisplay

if TYPE_CHECKING:
    __version__: str

    from sweeper.errors import SweeperError as SweeperError
    from sweeper.images.compare import compare_images as compare_images
    from sweeper.loading.load import load as load
    from sweeper.loading.load import load_template as load_template
    from sweeper.model.experiment import Experiment as Experiment
    from sweeper.model.result import Result as Result
    from sweeper.model.result import Run as Run
    from sweeper.model.template import Template as Template
    from sweeper.model.trial import Trial as Trial
    from sweeper.planning.plan import Plan as Plan
    from sweeper.regression.accept import accept as accept
    from sweeper.regression.calibrate import calibrate as calibrate
    from sweeper.regression.check import check as check
    from sweeper.reporting.notebook import show as show
    from sweeper.running.prepare import plan as plan
    from sweeper.running.run import run as run
    from sweeper.running.run import run_async as run_async
    from sweeper.running.search_rounds import search as search
    from sweeper.tables.dataframe import results as results
    from sweeper.tables.effects import effects as effects

# public name -> the module that defines it
_MODULES = {
    "Experiment": "sweeper.model.experiment",
    "Plan": "sweeper.planning.plan",
    "Result": "sweeper.model.result",
    "Run": "sweeper.model.result",
    "SweeperError": "sweeper.errors",
    "Template": "sweeper.model.template",
    "Trial": "sweeper.model.trial",
    "accept": "sweeper.regression.accept",
    "calibrate": "sweeper.regression.calibrate",
    "check": "sweeper.regression.check",
    "compare_images": "sweeper.images.compare",
    "effects": "sweeper.tables.effects",
    "load": "sweeper.loading.load",
    "load_template": "sweeper.loading.load",
    "plan": "sweeper.running.prepare",
    "results": "sweeper.tables.dataframe",
    "run": "sweeper.running.run",
    "run_async": "sweeper.running.run",
    "search": "sweeper.running.search_rounds",
    "show": "sweeper.reporting.notebook",
}

__all__ = sorted(_MODULES)  # noqa: PLE0605 - ruff wants a literal; sorting the table keeps it the only list of names


def __getattr__(name: str) -> Any:
    if name == "__version__":  # importlib.metadata takes 20 ms to import
        distribution = importlib.import_module("sweeper.errors").DISTRIBUTION
        return importlib.import_module("importlib.metadata").version(distribution)
    if name not in _MODULES:
        raise AttributeError(f"module 'sweeper' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def _to_html(value: object) -> str:
    text: str = importlib.import_module("sweeper.reporting.notebook").to_html(value)
    return text


_HtmlDisplay.to_html = _to_html


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
