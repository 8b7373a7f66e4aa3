"""What is wrong with a text that is not JSON is said alike on each Python."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.model.bounded_json import parse_json
from sweeper.model.json_mistakes import InvalidJsonError

TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
).map(json.dumps)


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("", "the text is empty", 1, 1),
        (" \n", "the text is empty", 1, 1),
        ('{"a": [1, 2', "the text ends before all brackets and braces are closed", 1, 12),
        ('{"a": 1,}', "there is a comma after the last entry", 1, 8),
        ("[1,\n 2 ,\n ]", "there is a comma after the last entry", 2, 4),
        ("{} {}", "there is more text after the end of the value", 1, 4),
        ("{'a': 1}", "a text needs double quotes in place of '", 1, 2),
        ("{a: 1}", "the key a needs double quotes", 1, 2),
        ('{"a": 1, // x\n "b": 2}', "there is a comment, which JSON does not allow", 1, 10),
        ('{"a": "x\ny"}', "there is a line break or a control character inside a text; write \\n", 1, 9),
        ('{"a": "C:\\models"}', "there is an unknown escape \\m in a text; write \\\\ for a backslash", 1, 10),
        ('{"a": "x}', "the quote that opens here is not closed", 1, 7),
        ('{"a": 1 "b": 2}', 'a comma or a colon is missing before "', 1, 9),
        ("[1 2]", "a comma or a colon is missing before 2", 1, 4),
        ("[None]", "a value cannot begin with None", 1, 2),
        ('{"a" 1}', "a comma or a colon is missing before 1", 1, 6),
        ("[1:2]", ": does not belong here", 1, 3),
    ],
)
def test_each_mistake_is_named_with_its_place(text, message, line, column):
    with pytest.raises(InvalidJsonError) as caught:
        parse_json(text)
    assert caught.value.message.startswith(message)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize("text", ["[" * 101, "[" * 4000, "[" * 100_000, "[" * 101 + "]" * 101, '{"a":' * 4000])
def test_depth_is_refused_before_all_other_mistakes(text):
    with pytest.raises(ValueError, match="nested deeper than 100 levels"):
        parse_json(text)


@given(TEXTS, st.integers(0, 40), st.text("{}[],:\"'\\ x1\n#/", max_size=2))
def test_any_damage_is_explained_inside_the_text(text, place, damage):
    damaged = text[:place] + damage + text[place + 1 :]
    try:
        json.loads(damaged)
    except ValueError:
        with pytest.raises(InvalidJsonError) as caught:
            parse_json(damaged)
        lines = damaged.split("\n")
        assert 1 <= caught.value.line <= len(lines)
        assert 1 <= caught.value.column <= len(lines[caught.value.line - 1]) + 1
        assert "Expecting" not in str(caught.value)
