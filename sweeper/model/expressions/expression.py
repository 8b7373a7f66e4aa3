"""A compiled expression, and the error that all of this package raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_SOURCE: Final = 20_000  # characters of Jinja2 in one text
RAW_START: Final = "{% raw %}"  # between these, a text is not Jinja2
RAW_END: Final = "{% endraw %}"


class ExpressionError(Exception):
    """A text or expression is not valid, uses something forbidden, or fails on its values. The message is for users."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled text or expression.

    `names` are the names that it reads, `defaults` the constants of `{{ name | default(constant) }}` by name.
    `is_text`: the result is always a text. `sole_name` is the name whose unchanged value is the result, as in
    `{{ name }}` and `{{ name | default(constant) }}`; else None.
    """

    text: str
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    is_text: bool
    sole_name: str | None
    _evaluate: Callable[[Mapping[str, Any]], Any]

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Return the JSON value for these values of the names. Raises ExpressionError."""
        return self._evaluate(values)
