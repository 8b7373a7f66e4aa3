"""The one error of expressions. It stands alone, so that every part of the package can raise it."""

from __future__ import annotations


class ExpressionError(Exception):
    """A text or expression does not parse, is forbidden, or failed on these values. The message is for the user."""
