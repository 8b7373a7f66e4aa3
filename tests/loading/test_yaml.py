"""YAML 1.2, core schema: values that YAML 1.1 would change keep their meaning."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweeper
from tests.experiment_files import make_plan, write

GRAPH = {"1": {"class_type": "A", "inputs": {"v": None}}}
SLOTS = {"v": {"at": "1.v"}}


def read(folder, written):
    """The value that a template's slot gets from `params: {v: ...}`."""
    text = f"name: e\ntemplate: t.json\nparams:\n  v: {written}\n"
    (trial,) = sweeper.plan(sweeper.load(write(folder, text, GRAPH, SLOTS)))
    return trial.params["v"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("16:9", "16:9"), ("1:30:00", "1:30:00"), ("no", "no"), ("off", "off"), ("on", "on"), ("Yes", "Yes"),
        ("y", "y"), ("1e-3", 0.001), ("1e3", 1000.0), ("1E+2", 100.0), (".5", 0.5), ("5.", 5.0), ("-1.5", -1.5),
        ("0o17", 15), ("017", 17), ("0x1F", 31), ("0b11", "0b11"), ("1_000", "1_000"), ("+7", 7), ("-7", -7),
        ("2026-11-24", "2026-11-24"), ("2026-11-24T10:00:00Z", "2026-11-24T10:00:00Z"), ("12:30", "12:30"),
        ("true", True), ("True", True), ("FALSE", False), ("tRUE", "tRUE"), ("null", None), ("~", None), ("", None),
        ("Null", None), ("nUll", "nUll"), ('"7"', "7"), ("'7'", "7"), ('"true"', "true"), ("'null'", "null"),
        ("!!str 7", "7"), ("! 7", "7"), ("18446744073709551615", 2**64 - 1),
        ("a # b", "a"), ("a#b", "a#b"), ('"a\\nb"', "a\nb"), ('"\\u00e9"', "é"), ("<<", "<<"), ("=", "="),
        ("|\n    16:9\n    no", "16:9\nno\n"), (">-\n    a\n    b", "a b"), ("{a: [1, no]}", {"a": [1, "no"]}),
        ("[1, 'x', {}]", [1, "x", {}]), (".", "."), ("1.2.3", "1.2.3"), ("1e", "1e"), ("e1", "e1"), ("+", "+"),
    ],
)  # fmt: skip
def test_a_scalar_is_read_by_the_core_schema(tmp_path, written, value):
    result = read(tmp_path, written)
    assert (result, type(result)) == (value, type(value))


def test_keys_are_texts_even_if_they_look_like_numbers(tmp_path):
    text = 'name: e\ntemplate: t.json\nparams:\n  v: {on: 1, 16:9: 2, 7: 3, null: 4, "": 5}\n'
    (trial,) = sweeper.plan(sweeper.load(write(tmp_path, text.replace("16:9", '"16:9"'), GRAPH, SLOTS)))
    assert trial.params["v"] == {"on": 1, "16:9": 2, "7": 3, "null": 4, "": 5}


def test_merges_and_aliases_work_and_own_keys_win(tmp_path):
    text = """
name: e
template: t.json
params:
  v:
    one: &one {a: 1, b: 1}
    two: &two {b: 2, c: 2}
    both: {<<: [*one, *two], c: 3}
    late: {c: 4, <<: *one, b: 5}
    quoted: {"<<": 1}
    twice: [*one, *one]
"""
    (trial,) = sweeper.plan(sweeper.load(write(tmp_path, text, GRAPH, SLOTS)))
    value = trial.params["v"]
    assert value["both"] == {"a": 1, "b": 1, "c": 3}
    assert value["late"] == {"a": 1, "b": 5, "c": 4}
    assert value["quoted"] == {"<<": 1}
    assert value["twice"] == [{"a": 1, "b": 1}] * 2


def test_a_sweep_may_be_merged_from_an_anchor(tmp_path):
    text = """
name: e
template: t.json
sweep:
  - &first
    grid: {v: [1, 2]}
  - <<: *first
    where: v > 1
"""
    plan = sweeper.plan(sweeper.load(write(tmp_path, text, GRAPH, SLOTS)))
    assert [trial.params["v"] for trial in plan.written()] == [1, 2, 2]


def test_windows_line_ends_and_a_bom_have_no_effect(tmp_path):
    text = "name: e\ntemplate: t.json\nparams:\n  v: |\n    a\n    b\n"
    unix = sweeper.plan(sweeper.load(write(tmp_path, text, GRAPH, SLOTS)))
    windows = ("\ufeff" + text).replace("\n", "\r\n")
    json_with_bom = "\ufeff" + json.dumps(GRAPH, indent=1).replace("\n", "\r\n")
    other = sweeper.plan(sweeper.load(write(tmp_path, windows, json_with_bom, SLOTS)))
    assert [trial.digest for trial in unix] == [trial.digest for trial in other]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_characters="\x7f\ufeff",
                            exclude_categories=["Cc", "Cs"])),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text("ab1:", max_size=3), below, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=50)
@given(JSON)
def test_json_is_valid_yaml(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("json")
    (trial,) = make_plan(folder, {"params": {"v": value}}, GRAPH, SLOTS)
    assert trial.params["v"] == value
