"""Jinja2 in experiments: types are kept, the sandbox is tight, and costly texts are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.errors import ExperimentError
from sweeper.model.expressions import ExpressionError, compile_expression
from tests.experiment_files import make_plan
from tests.planning import reference_planner

GRAPH = {"1": {"class_type": "A", "inputs": {"v": None, "s": "ab", "n": 3, "f": 0.5}}}
SLOTS = {name: {"at": f"1.{name}"} for name in GRAPH["1"]["inputs"]}
FILTERS = "; filters: "


def derive(folder, text):
    (trial,) = make_plan(folder, {"derive": {"v": text}}, GRAPH, SLOTS)
    return trial.params["v"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ n }}", 3), ("{{n}}", 3), ("{{ n }} ", "3 "), ("{{ n }}\n", "3\n"), ("{{ n }}{{ n }}", "33"),
        ("{{ n / 2 }}", 1.5), ("{{ n // 2 }}", 1), ("{{ n ** 2 }}", 9), ("{{ n % 2 }}", 1), ("{{ n > 2 }}", True),
        ("{{ none }}", None), ("{{ [n, s] }}", [3, "ab"]), ("{{ {'a': n} }}", {"a": 3}), ("{{ (n, n) }}", [3, 3]),
        ("{{ s ~ n }}", "ab3"), ("{{ s | upper }}", "AB"), ("{{ 'x' if n > 2 else 'y' }}", "x"),
        ("{% if n > 2 %}many{% endif %}", "many"),
        ("{{- n -}}", 3), ("a {{- n -}} b", "a3b"), ("{% raw %}{{ n }}{% endraw %}", "{{ n }}"), ("{{ '{{' }}", "{{"),
        ("{{ s[0] }}", "a"), ("{{ s.upper() }}", "AB"), ("{{ f | round(0) | int }}", 0), ("plain", "plain"),
        ("{ n }", "{ n }"), ("", ""), ("{{ missing | default('d') }}{{ s }}", "dab"),
        ("{{ n | pad(6) }}", "000003"), ("{{ (-n) | pad(3) }}.{{ f | pad(6) }}{{ '12' | pad(1) }}", "-03.0000.512"),
    ],
)  # fmt: skip
def test_a_lone_expression_keeps_its_type(tmp_path, text, value):
    if "missing" in text:  # a default does not define a name, and an undefined name is an error
        with pytest.raises(ExperimentError, match="'missing' is neither a slot nor a variable"):
            derive(tmp_path, text)
        return
    result = derive(tmp_path, text)
    assert (result, type(result)) == (value, type(value))


@settings(max_examples=35)
@given(st.recursive(
    st.sampled_from(["n", "f", "2", "0.25", "7"]),
    lambda below: st.tuples(below, st.sampled_from(["+", "-", "*", "==", "<", "and", "or"]), below).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
    max_leaves=6,
))  # fmt: skip
def test_arithmetic_follows_jinja(tmp_path_factory, text):
    result = derive(tmp_path_factory.mktemp("sums"), "{{ " + text + " }}")
    expected = reference_planner.JINJA.compile_expression(text)(n=3, f=0.5)
    assert json.dumps(result) == json.dumps(
        expected + 0.0 if isinstance(expected, float) else expected
    )  # no -0.0 in a slot


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ s.__class__ }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ ''['__class__'] }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ s.__init__.__globals__ }}", "access to attribute '__init__' of 'str' object is unsafe."),
        ("{{ [].append(1) }}", "access to attribute 'append' of 'list' object is unsafe."),
        ("{{ {}.update({'a': 1}) }}", "access to attribute 'update' of 'dict' object is unsafe."),
        ("{{ n.to_bytes(9) }}", "access to attribute 'to_bytes' of 'int' object is unsafe."),
        ("{{ n.zfill(9) }}", "`zfill` is not allowed here; `epoch | pad(6)` writes leading zeros"),
        ("{{ s.zfill(9) }}", "`zfill` is not allowed here; `epoch | pad(6)` writes leading zeros"),
        ("{{ '%06d' | format(n) }}",
         "uses the filter 'format', which is not known here; `epoch | pad(6)` writes leading zeros"),
        ("{{ n | pad(1000) }}", "`pad` takes a number and a width of at most 100, as in `epoch | pad(6)`"),
        ("{{ n | pad }}", "`pad` takes a number and a width of at most 100, as in `epoch | pad(6)`"),
        ("{{ [n] | pad(6) }}", "`pad` takes a number and a width of at most 100, as in `epoch | pad(6)`"),
        ("{{ s.ljust(9) }}", "access to attribute 'ljust' of 'str' object is unsafe."),
        ("{{ s | attr('__class__') }}", "uses the filter 'attr', which is not known here" + FILTERS),
        ("{{ [1] | random }}", "uses the filter 'random', which is not known here" + FILTERS),
        ("{{ [[1], [2]] | sum(start=[]) }}", "uses the filter 'sum', which is not known here" + FILTERS),
        ("{{ s | center(9) }}", "uses the filter 'center', which is not known here" + FILTERS),
        ("{% import 'os' as o %}", "contains a Jinja2 import, which is not allowed here"),
        ("{% from 'os' import path %}", "contains a Jinja2 fromimport, which is not allowed here"),
        ("{% include '/etc/passwd' %}", "contains a Jinja2 include, which is not allowed here"),
        ("{% extends 'x' %}", "contains a Jinja2 extends, which is not allowed here"),
        ("{% block b %}{% endblock %}", "contains a Jinja2 block, which is not allowed here"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "contains a Jinja2 macro, which is not allowed here"),
        ("{% set x = 1 %}{{ x }}", "contains a Jinja2 assign, which is not allowed here"),
        ("{% for a in s %}x{% endfor %}", "contains a Jinja2 for, which is not allowed here"),
        ("{{ range(1000000000) | list }}", "'range' is neither a slot nor a variable; known: f, n, s, v"),
        ("{{ 9 ** (9 ** 9) }}", "`**` gives a number too large to compute here"),
        ("{{ 9 ** 9 ** 9 ** 9 ** 9 }}", "`**` gives a number too large to compute here"),
        ("{{ 's' * 1000000000 }}", "`*` repeats a text or list too often"),
        ("{{ 1000000000 * [1] }}", "`*` repeats a text or list too often"),
        ("{{ '%999999999d' % 1 }}",
         "`%` on a text is not allowed here; ~ joins texts, and `epoch | pad(6)` writes leading zeros"),
        ("{{ (['s' * 9999] * 101) | join }}", "takes too much work: more than 1,000,000 characters and steps"),
        ("{{ s ~ s.upper }}", "gives a builtin_function_or_method, which is not a JSON value"),
        ("{{ n() }}", "a number cannot be called as a function"),
        ("{{ [n.no] ~ s }}", "a number has nothing that is called 'no'"),
        ("{{ s - 1 }}", "`-` cannot go between a text and a number"),
        ("{{ ({'a': 1}.keys() - ['b']) | first }}",
         "`-` cannot go between dict_keys and a list"),
        ("{{ n is stringg }}", "uses the test 'stringg', which is not known here; did you mean 'string'?"),
        ("{{ self }}", "reads 'self', which Jinja2 reserves; give the slot another name"),
        ("{{ \ufb01 }}", "reads '\ufb01', whose letters have more than one form; write it with plain ones"),
        ("{{ '\\ud800' }}", "contains half of a character (a lone surrogate), which cannot be saved in a file"),
        ("{{ dict(a=1, a=2) }}", "is not Jinja2: keyword argument repeated: a"),
        ("{% with a = 1 %}{{ a }}{% endwith %}", "contains a Jinja2 with, which is not allowed here"),
        ("{% filter upper %}a{% endfilter %}", "contains a Jinja2 filterblock, which is not allowed here"),
        ("{% autoescape true %}{{ s }}{% endautoescape %}", "contains a Jinja2 scope, which is not allowed here"),
        ("{{ " + "[n, n], " * 1000 + " }}", "has too many parts; longer computations belong in a program"),
        ("{{ 1 / 0 }}", "divides by zero"),
        ("{{ 1 % 0 }}", "divides by zero"),
        ("{{ s > 1 }}", "`>` compares a text with a number; only two numbers, or two texts, have an order"),
        ("{{ s + 1 }}", "`+` cannot go between a text and a number; ~ joins texts"),
        ("{{ s * 1.5 }}", "`*` repeats a text or a list a whole number of times, not by a number"),
        ("{{ -s }}", "`-` cannot go before a text"),
        ("{{ 's' in n }}", "a number has no items to go through"),
        ("{{ none.x ~ 1 }}", "nothing has no attribute 'x'"),
        ("{{ 1e308 * 10 }}", "gives inf, but a finite number is needed"),
        ("{{ s.upper }}", "gives a builtin_function_or_method, which is not a JSON value"),
        ("{{ range }}", "'range' is neither a slot nor a variable; known: f, n, s, v"),
        ("{{ n.nothing }}", "a number has nothing that is called 'nothing'"),
        ("{{ [1][5] }}", "a list has no element 5"),
        ("{{ " + "(" * 5000 + "n" + ")" * 5000 + " }}", "is nested too deeply"),
        ("{{ " + "[" * 400 + "n" + "]" * 400 + " }}", "is nested too deeply"),
        ("{{ '" + "x" * 30_000 + "' }}", "has more than 20,000 characters"),
    ],
)  # fmt: skip
def test_forbidden_or_costly_texts_are_refused(tmp_path, text, expected):
    with pytest.raises(ExperimentError) as caught:
        derive(tmp_path, text)
    (problem,) = caught.value.problems
    message = problem.message.partition(" (with ")[0]
    if expected.endswith(FILTERS):  # and then those that are most like the name
        message = message[: len(expected)]
    assert (problem.line, problem.key, message) == (1, "derive.v", expected)


def test_a_long_text_is_allowed_only_without_jinja2(tmp_path):
    assert derive(tmp_path, "{% raw %}{{ s }}" + "a fox " * 100_000 + "{% endraw %}") == "{{ s }}" + "a fox " * 100_000
    for text in ("{{ s }} " * 3_000, "{{ s }}" + "a" * 30_000, "{% raw %}" + "a fox " * 200_000 + "{% endraw %}"):
        with pytest.raises(ExperimentError, match="has more than"):
            derive(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty, and a value is needed"),
        ("n >", "a value is missing before its end"),
        ("n is", "a name is missing before its end"),
        ("(n > 4", "a ')' is missing before its end"),
        ("n = 4", "'=' is out of place; to compare, write == or !="),
        ("n 4", "a number is out of place"),
        ("n && s", "'&' at character 3 is out of place; write `and`"),
        ("s == 'a", "the text that begins with ' at character 6 has no closing '"),
        ("{{ n }} > 4", "write the expression without '{{' and '}}' here"),
    ],
)
def test_syntax_errors_are_explained_in_the_words_of_the_user(text, expected):
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    assert str(caught.value) == f"is not Jinja2: {expected}"


@pytest.mark.parametrize("value", ["{{ 9 ** 9 }}", "{% macro %}", "{{ s.__class__ }}", "a }} b {{ c", "{% raw %}"])
def test_jinja_in_values_is_never_rendered(tmp_path, value):
    graph = {"1": {"class_type": "A", "inputs": {"v": "{{ s }}!", "w": "{{ s }}"}}}
    plan = make_plan(tmp_path, {"sweep": {"grid": {"s": [value]}}}, graph, {})
    (trial,) = plan
    assert plan.workflow(trial)["1"]["inputs"] == {"v": value + "!", "w": value}


def test_a_failure_message_cuts_long_values(tmp_path):
    experiment = {"params": {"s": "x" * 500}, "derive": {"v": "{{ s / 2 }}"}}
    with pytest.raises(ExperimentError) as caught:
        make_plan(tmp_path, experiment, GRAPH, SLOTS)
    assert len(str(caught.value)) < 300


def test_a_failing_text_gives_only_a_few_examples(tmp_path):
    experiment = {"sweep": {"grid": {"n": {"from": 1, "to": 1000, "step": 1}}}, "derive": {"v": "{{ n / 0 }}"}}
    with pytest.raises(ExperimentError) as caught:
        make_plan(tmp_path, experiment, GRAPH, SLOTS)
    assert 1 <= len(caught.value.problems) <= 5
