"""Functions of node modules that are imported when they are first called, NumPy and Pillow with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from sweeper.embedded.nodes.base import Context, NodeOutput


@dataclass(frozen=True, slots=True)
class Deferred:
    """A function of `sweeper.embedded.nodes.<module>`."""

    module: str
    function: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _find_function(self.module, self.function)[0](*args, **kwargs)


@dataclass(frozen=True, slots=True)
class NodeFunction:
    """Runs the nodes of a class by a function of `sweeper.embedded.nodes.<module>`.

    The function takes the inputs by name, and before them the context if its first parameter has that name. Where one
    function runs a family of classes, `variant` says which, as its first argument otherwise. It returns a `NodeOutput`,
    a tuple of the outputs, or the only output.
    """

    module: str
    function: str
    variant: str = ""

    def __call__(self, context: Context, /, **inputs: Any) -> NodeOutput:
        function, takes_context = _find_function(self.module, self.function)
        first = (context,) if takes_context else (self.variant,) if self.variant else ()
        result = function(*first, **inputs)
        if isinstance(result, NodeOutput):
            return result
        return NodeOutput(result if isinstance(result, tuple) else (result,))


@lru_cache(maxsize=512)
def _find_function(module: str, name: str) -> tuple[Callable[..., Any], bool]:
    """The function, and whether its first parameter is the context."""
    function: Callable[..., Any] = getattr(import_module(f"sweeper.embedded.nodes.{module}"), name)
    return function, next(iter(inspect.signature(function).parameters), "") == "context"
