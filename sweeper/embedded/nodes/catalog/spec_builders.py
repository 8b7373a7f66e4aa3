"""`Deferred`: a function of a node module that is imported when it is first called."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Deferred:
    """A function of `sweeper.embedded.nodes.<module>`, imported when it is first called (NumPy and Pillow with it)."""

    module: str
    function: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(f"sweeper.embedded.nodes.{self.module}"), self.function)(*args, **kwargs)
