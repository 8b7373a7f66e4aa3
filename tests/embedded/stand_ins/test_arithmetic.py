"""Expressions that a workflow writes into a node, as stand-ins compute them."""

from __future__ import annotations

import pytest

from sweeper.embedded.stand_ins.output_values import compute


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a & -8", 512), ("round(a / 8) * 8", 512), ("max(a, b) // 2 + 1", 257), ("a if a > b else b", 513),
        ("2 ** 3 ** 2", 512), ("a and not b", False), ("sum(a, b, 1)", 517.5), ("-b", -3.5),
    ],
)  # fmt: skip
def test_arithmetic_over_named_numbers(expression, value):
    assert compute(expression, {"a": 513, "b": 3.5}) == value


@pytest.mark.parametrize(
    "expression",
    ["", "c", "a.real", "'x' * 9", "9 ** 9 ** 9", "1 / 0", "(lambda: 1)()", "__import__('os')", "[1]", "(" * 300,
     "-" * 400 + "1", "1" * 501, "max()", "a << 4"],
)  # fmt: skip
def test_anything_but_bounded_arithmetic_is_refused(expression):
    with pytest.raises(ValueError, match=r"arithmetic|number|levels|characters"):
        compute(expression, {"a": 513, "b": 3.5})
