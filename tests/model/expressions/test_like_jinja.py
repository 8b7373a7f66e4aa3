"""Common Jinja2 texts give the results of Jinja2 itself, and any text gives a value or an error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.model.expressions import ExpressionError, compile_expression, compile_text
from tests.planning import reference_planner

USUAL = {"s": "a red  fox", "n": 3, "f": 0.25, "xs": ["oil", "ink", "Ink"], "ns": [4, 8, 15], "d": {"a": 1, "b": "x"}}


@pytest.mark.parametrize(
    "text",
    [
        "{{ s }}, {{ xs[0] }}",
        "{{ s ~ ', ' ~ xs[1] ~ n }}",
        "{{ 'x' ~ [n, s] ~ none ~ f }}",
        "{{ s + ', ' + xs[1] }}",
        "{{ s | upper }}",
        "{{ s | title }}",
        "{{ s | capitalize }} {{ s | lower }}",
        "{{ '  a ' | trim }}",
        "{{ 'xxay' | trim('xy') }}",
        "{{ s | replace('red', 'blue') }}",
        "{{ s | replace('', '-', 3) }}",
        "{{ s | replace('e', '') | wordcount }}",
        "{{ d.c | default('none') }}",
        "{{ '' | default('e', true) }}",
        "{{ xs | join(', ') }}",
        "{{ ns | join('x') }}",
        "{{ [d, d] | join('|', attribute='b') }}",
        "{{ s | join('.') }}",
        "{{ xs | first }}{{ xs | last }}{{ xs | length }}",
        "{{ xs | sort | join(';') }}",
        "{{ xs | unique | join(';') }}",
        "{{ ns | max - ns | min }}",
        "{{ xs | reverse | join }}",
        "{{ (n / 7) | round(2) }}",
        "{{ 2.5 | round(0, 'ceil') }}",
        "{{ 1234 | round(-2) }}",
        "{{ '12' | int + 1 }}",
        "{{ 'ff' | int(base=16) }}",
        "{{ 'x' | int(7) }}",
        "{{ '4.2' | float }}",
        "{{ -n | abs }}",
        "{{ n | string ~ 1 }}",
        "{{ s | truncate(6, true, '') }}",
        "{{ 'x'.upper() }}{{ 'A b'.lower() }}",
        "{{ 'a, b,c'.split(',') }}",
        "{{ ' a '.strip() }}",
        "{{ s.startswith('a') }}",
        "{{ s.replace('red', 'blue', 1) }}",
        "{{ ', '.join(xs) }}",
        "{{ 'in/a.png'.rsplit('/', 1)[1].removesuffix('.png') }}",
        "{{ s.split() | length }}",
        "{{ s.find('fox') }}",
        "{{ s[2:5] }}{{ xs[1:] }}{{ s[::-1] }}",
        "{{ xs[-1] }} {{ d['a'] }} {{ d.b }}",
        "{{ d.get('z', 5) }}",
        "{{ 'yes' if n > 2 and 'fox' in s else 'no' }}",
        "{{ 'a' if n in ns }}",
        "{{ n not in [3, 4] }}",
        "{{ 1 < n <= 3 }}",
        "{{ n is integer }} {{ s is string }} {{ d.q is defined }} {{ n is in ns }}",
        "{{ n * 2 + 1 - n // 2 }} {{ n ** 2 }} {{ 7 % n }} {{ n / 2 }}",
        "{{ -n }} {{ +n }} {{ not n }}",
        "{{ 'ab' * n }}",
        "{{ [0] * 3 }} {{ xs + ['x'] }} {{ (1, 2) }} {{ {'a': [n]} }}",
        "{{ n * f }} {{ n + f }} {{ 2 ** -1 }}",
        "{% if n == 3 %}a{% elif n == 4 %}b{% else %}c{% endif %}",
        "{%- if n -%} {{- s -}} {%- endif -%} ",
        "{# why #}{{ n }}{# c #}!",
    ],
)
def test_common_texts_give_the_result_of_jinja(text):
    """The dot makes a text of a lone expression too, because Jinja2 itself only renders texts."""
    assert compile_text("." + text).evaluate(USUAL) == reference_planner.JINJA.from_string("." + text).render(USUAL)


@pytest.mark.parametrize("text", ["n > 2", "-n + 5", "s ~ n", "'fox' in s and n in ns", "xs | sort | list", "-f"])
def test_bare_expressions_give_the_result_of_jinja(text):
    assert compile_expression(text).evaluate(USUAL) == reference_planner.JINJA.compile_expression(text)(USUAL)


@pytest.mark.parametrize(
    ("text", "defaults"),
    [
        ("{{ n | default(4) }}", {"n": 4}),
        ("{{ n | d(-4.5) }}", {"n": -4.5}),
        ("{{ n | default([1, -2]) }}", {"n": [1, -2]}),
        ("{{ n | default(default_value='x') }}", {"n": "x"}),
        ("{{ n | default(s) }}", {}),
        ("{{ n | default(1 + 1) }}", {}),
        ("{{ n | default(1) }}{{ n | default(2) }}{{ s | default }}", {"n": 1}),
    ],
)
def test_constant_defaults_are_found(text, defaults):
    assert compile_text(text).defaults == defaults


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{{ b }}{{ a }}{{ b }}", ("b", "a")),
        ("{{ range }}", ("range",)),
        ("{{ result }}", ("result",)),
        ("{{ s ~ (t | default(u)) }}", ("s", "t", "u")),
        ("{{ loop }}", ("loop",)),
    ],
)
def test_names_exclude_those_that_the_text_defines(text, names):
    expression = compile_text(text)
    assert expression.names == names
    if text == "{{ " + names[0] + " }}":
        assert expression.evaluate({names[0]: 7}) == 7


WORDS = """
n s xs d f 'a' 2 0 -1 1e308 none true [ ] { } ( ) , : . | ~ + - * ** / // % == < in is not if else and or upper int
round join replace first split items format range loop self default {{ }} {% %} {# #} for endfor
"""
FRAMES = ["{{{{ {} }}}}", "{{% if xs %}}{{{{ {} }}}}{{% endif %}}", "{}"]


@settings(max_examples=120)
@given(st.lists(st.sampled_from(WORDS.split()), max_size=14).map(" ".join), st.sampled_from(FRAMES))
def test_any_text_gives_a_json_value_or_an_expression_error(parts, frame):
    text = frame.format(parts)
    try:
        value = compile_text(text).evaluate(USUAL | {"self": 1, "range": 2, "loop": 3, "split": 4})
    except ExpressionError as error:
        assert len(str(error)) < 400  # noqa: PT017 - either way is right
    else:
        json.dumps(value, allow_nan=False)
