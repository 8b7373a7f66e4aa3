"""Expressions of servers: what is allowed, and that none of them hangs or exhausts this process."""

from __future__ import annotations

import sys
import time

import pytest

from sweeper.model.node_classes import price_badge
from sweeper.model.node_classes.price_badge import JsonataError, JsonataExpression

REPEATED = {
    "text": ('"xxxxxxxxxx"', "$a & $a"),
    "number": ("9999999", "$a * $a"),
    "list": ("[1, 2]", "[$a, $a]"),
    "mapping": ('{"a": 1}', '{"a": $a, "b": $a}'),
}
HOSTILE = [
    "[1..10000000]",
    '$pad("a", 1000000000)',
    '($p := $pad; $p("a", 1000000000))',
    '$eval("[1..100]")',
    "**",
    "$now()",
    "($f := function($n){$f($n + 1)}; $f(0))",
    "($f := function($n){$f($n) + 1}; $f(0))",
    "($y := function($f){function($x){$f($f)($x)}}; $y($y)(1))",
    "($a := [0,1,2,3,4,5,6,7,8,9]; $a.$a.$a.$a.$a.$a.$a.$a)",
    "(" * 3000 + "1" + ")" * 3000,
    "[" * 900 + "]" * 900,
    "-" * 9000 + "1",
    "1" + "+1" * 4500,
    "1" * 20_000,
    "$power(10, 1e9)",
    "$round(1.5, 1000000000)",
    '$number("0x' + "f" * 9000 + '")',
    "$join([" + '"aaaa",' * 200 + '"a"], "' + "b" * 5000 + '")',
    "1 / 0",
    "{",
    "",
    *(f"($a := {start}; " + f"$a := {step}; " * 100 + "$string($a))" for start, step in REPEATED.values()),
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:30])
def test_a_hostile_expression_ends_soon_with_a_reason(text):
    start = time.process_time()
    with pytest.raises(JsonataError, match=r"^(it|all) "):
        JsonataExpression(text).evaluate({"widgets": {}})
    assert time.process_time() - start < 10  # each takes at most a second; alone, several would never end


def test_a_pattern_that_backtracks_for_ever_is_matched_in_linear_time():
    expression = JsonataExpression("$contains(widgets.text, /^(a+)+$/)")
    assert expression.evaluate({"widgets": {"text": "a" * 5000 + "!"}}) is False


def test_the_steps_of_all_evaluations_together_are_bounded(monkeypatch):
    monkeypatch.setattr(price_badge, "_MAX_TOTAL_STEPS", 2_000)
    expression = JsonataExpression("[1,2,3,4,5,6,7,8,9].($ * 2)")
    results = [_evaluate(expression) for _ in range(100)]
    assert results[0] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert results[-1] == "all its evaluations take more than 2,000 steps"


def _evaluate(expression):
    try:
        return expression.evaluate({})
    except JsonataError as error:
        return str(error)


def test_the_usual_expressions_of_partner_nodes_work():
    text = """(
        $rates := {"480p": 0.05, "720p": 0.1};
        $rate := $lookup($rates, $substringBefore(widgets.size, ":"));
        $cost := function($n) { $round($rate * $n, 2) };
        widgets.size in ["480p: 1", "720p: 1"] and inputs.image.connected = false
          ? {"type": "usd", "usd": $cost($number(widgets.duration))}
          : {"type": "usd", "usd": widgets.none = null ? [1, 2][0] : 3}
    )"""
    expression = JsonataExpression(text)
    widgets = {"size": "720p: 1", "duration": "5", "none": None}

    assert expression.evaluate({"widgets": widgets, "inputs": {"image": {"connected": False}}})["usd"] == 0.5
    assert expression.evaluate({"widgets": widgets, "inputs": {"image": {"connected": True}}})["usd"] == 1
    assert sys.getrecursionlimit() < 10_000  # which the engine sets when it is imported
