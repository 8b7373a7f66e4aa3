"""Numbers: finite, whole where an integer is asked for, decimal where they were written so; and the quick check."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweeper
from sweeper.errors import ExperimentError
from sweeper.model.slot_values import SlotSchema, ValueRefusedError, normalise_json
from sweeper.schemas import convert_whole_floats, make_validator
from tests.experiment_files import planned, write

GRAPH = {"1": {"class_type": "A", "inputs": {"x": 0, "n": 0, "p": "", "w": 512}}}
SLOTS = {"x": {"at": "1.x", "schema": {"type": "number"}}, "n": {"at": "1.n", "schema": {"type": "integer"}},
         "p": {"at": "1.p", "schema": {"type": "string"}}, "w": {"at": "1.w"}}  # fmt: skip


def test_whole_floats_in_run_are_integers(tmp_path):
    run = {"retries": 2.0, "concurrency": 1.0, "max_trials": 5.0, "max_failures": 2.0}
    settings = planned(tmp_path, {"run": run}, GRAPH, SLOTS).experiment.run
    found = (settings.retries, settings.concurrency, settings.max_trials, settings.max_failures)
    assert [type(number) for number in found] == [int] * 4  # a float in max_failures would be a share


def test_a_sample_size_written_as_a_whole_float_is_that_size(tmp_path):
    plan = planned(tmp_path, {"sweep": {"grid": {"n": [1, 2, 3]}, "sample": {"n": 2.0}}}, GRAPH, SLOTS)
    assert len(plan) == 2


@pytest.mark.parametrize("written", [".nan", ".inf", "1e999"])
@pytest.mark.parametrize("place", ["sweep: {grid: {v: [VALUE]}}", "params: {v: VALUE}"])
def test_no_variable_may_be_infinite_or_no_number(tmp_path, written, place):
    text = "name: e\ntemplate: t.json\nderive: {p: 'x {{ v }}'}\n" + place.replace("VALUE", written)
    with pytest.raises(ExperimentError, match="a finite number is needed"):
        sweeper.load(write(tmp_path, text, GRAPH, SLOTS))


def test_a_negative_nought_of_a_variable_is_nought(tmp_path):
    experiment = {"derive": {"p": "x {{ v }}"}, "sweep": {"grid": {"v": [-0.0]}}}
    (trial,) = planned(tmp_path, experiment, GRAPH, SLOTS)
    assert math.copysign(1, trial.axes["v"]) == 1
    assert trial.params["p"] == "x 0.0"


def test_a_multiple_of_a_tenth_is_one_in_decimal_arithmetic(tmp_path):
    slots = {"x": {"at": "1.x", "schema": {"type": "number", "multipleOf": 0.1}}}
    plan = planned(tmp_path, {"sweep": {"grid": {"x": {"from": 0.1, "to": 0.9, "step": 0.1}}}}, GRAPH, slots)
    assert [trial.params["x"] for trial in plan.written()] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.integers(-(10**20), 10**20)
    | st.sampled_from([0.0, -0.0, 0.1, 0.3, 0.5, 1.0, 3.0, 7.5, 1e22, -2.0])
    | st.text("a1. ", max_size=4)
)
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text("ab", max_size=1), SCALARS, max_size=2)
TYPES = st.sampled_from(["integer", "number", "string", "boolean", "null", "array", "object"])
BOUNDS = st.integers(-5, 10) | st.sampled_from([0.1, 0.5, 2.5, 1e21])
KEYWORDS = {
    "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
    "enum": st.lists(JSON, max_size=4),
    "const": JSON,
    "minimum": BOUNDS,
    "maximum": BOUNDS,
    "exclusiveMinimum": BOUNDS,
    "exclusiveMaximum": BOUNDS,
    "multipleOf": st.sampled_from([1, 2, 8, 0.1, 0.5, 0.25]),
    "minLength": st.integers(0, 3),
    "maxLength": st.integers(0, 3),
    "pattern": st.sampled_from(["^a", "1$"]),
    "items": st.just({"type": "integer"}),
    "description": st.just("said to the reader"),
}
# Few keywords at a time: many together refuse everything, and no mistake of one of them would show.
SCHEMAS = st.sets(st.sampled_from(sorted(KEYWORDS)), min_size=1, max_size=2).flatmap(
    lambda keys: st.fixed_dictionaries({key: KEYWORDS[key] for key in sorted(keys)})
)
USUAL = [None, True, False, 0, 1, 1.0, 3, -2.0, 0.3, 7.5, "", "a", "1", "a1", "aaa", 10**20, 1e22, [], [1.5], {}]
TYPE_NAMES = ["integer", "number", "string", "boolean", "null", "array", "object"]
PLAIN = [{"type": kind} for kind in TYPE_NAMES] + [{"type": [kind, "null"]} for kind in TYPE_NAMES[:4]]
PLAIN += [{key: bound} for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") for bound in (1, 7.5)]
PLAIN += [{"multipleOf": 0.1}, {"multipleOf": 3}, {"minLength": 1}, {"maxLength": 1}, {"pattern": "1$"}]
PLAIN += [{"const": one} for one in USUAL] + [{"enum": [one, "b"]} for one in USUAL] + [{"items": {"type": "integer"}}]


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, st.lists(JSON, max_size=4))
def test_the_quick_check_of_a_value_agrees_with_json_schema(schema, values):
    members = [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]
    agrees(schema, [*values, *members, *USUAL])


@pytest.mark.parametrize("schema", PLAIN, ids=json.dumps)
def test_each_keyword_alone_is_read_as_json_schema_reads_it(schema):
    agrees(schema, USUAL)


def agrees(schema, values):
    normalise, validator = SlotSchema(schema).normalise, make_validator(schema)
    for value in values:
        try:
            found = normalise(value)
        except ValueRefusedError as error:
            assert not validator.is_valid(value)
            assert str(error)  # noqa: PT017 - either way is right
        else:
            assert validator.is_valid(value)
            assert validator.is_valid(found)
            assert found == value
            assert isinstance(found, bool) == isinstance(value, bool)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**6), 10**6), st.integers(1, 2000), st.integers(0, 6))
def test_a_multiple_is_what_it_is_on_paper(times, units, places):
    factor = float(f"{units}e-{places}")
    normalise = SlotSchema({"multipleOf": factor}).normalise
    assert normalise(float(f"{times * units}e-{places}")) == times * units / 10**places
    if units > 1:
        with pytest.raises(ValueRefusedError, match="but a multiple of"):
            normalise(float(f"{times * units + 1}e-{places}"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1, {"a": [math.nan]}], {"a": math.inf}])
def test_no_part_of_a_value_may_be_infinite_or_no_number(value):
    with pytest.raises(ValueRefusedError, match="a finite number is needed"):
        normalise_json(value)


def test_a_negative_nought_deep_inside_a_value_is_nought():
    assert json.dumps(normalise_json({"a": [-0.0, {"b": -0.0}], "c": "-0.0", "d": True})) == (
        '{"a": [0.0, {"b": 0.0}], "c": "-0.0", "d": true}'
    )


def test_a_whole_float_is_an_integer_only_where_an_integer_is_asked_for():
    experiment = {
        "params": {"x": 3.0},
        "sweep": [{"grid": {"x": {"from": 1.0, "to": 3.0, "count": 3.0}, "n": {"seeds": 2.0}, "w": [4.0]},
                   "sample": {"n": 2.0, "seed": 1.0}}],
        "run": {"timeout": 60.0, "retries": 2.0, "max_failures": 2.0, "concurrency": 1.5},
    }  # fmt: skip
    wanted = {
        "params": {"x": 3.0},
        "sweep": [{"grid": {"x": {"from": 1.0, "to": 3.0, "count": 3}, "n": {"seeds": 2}, "w": [4.0]},
                   "sample": {"n": 2, "seed": 1}}],
        "run": {"timeout": 60.0, "retries": 2, "max_failures": 2, "concurrency": 1.5},
    }  # fmt: skip
    assert repr(convert_whole_floats("experiment", experiment)) == repr(wanted)
    assert experiment["run"]["retries"] == 2.0


@pytest.mark.parametrize(
    ("text", "like", "wanted"),
    [
        ("8", 512, 8), ("8.0", 512, 8), ("8.5", 512, 8.5), ("8", 7.5, 8.0), ("1e3", 1, 1000), ("0x10", 1, 16),
        ("true", False, True), ("8", "a fox", "8"), ("8", None, "8"), ("many", 512, "many"), ("true", 1, "true"),
        ("1e999", 1.5, "1e999"), ("9" * 400, 1.5, int("9" * 400)), ("8", True, "8"),
    ],
)  # fmt: skip
def test_a_text_of_a_slot_without_a_schema_goes_by_the_slots_default(text, like, wanted):
    found = SlotSchema(None).parse_text(text, like=like)
    assert (found, type(found)) == (wanted, type(wanted))


def test_a_schema_says_more_about_a_text_than_a_default_does():
    assert SlotSchema({"type": "string"}).parse_text("8", like=512) == "8"
    assert SlotSchema({"enum": ["4", 8]}).parse_text("4") == "4"
    assert SlotSchema({"enum": ["4", 8]}).parse_text("8") == 8
    assert SlotSchema({"const": 8}).parse_text("8") == 8


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "http://127.0.0.1:9/x.json"}, r"refers to 'http://127\.0\.0\.1:9/x\.json', which is not in it"),
        ({"$ref": "#/$defs/a"}, r"refers to '/\$defs/a', which is not in it"),
        ({"$ref": "#"}, "refers to itself without end"),
    ],
)
def test_a_schema_that_refers_to_nothing_here_is_told_and_nothing_is_fetched(schema, said):
    with pytest.raises(ValueRefusedError, match=said):
        SlotSchema(schema).normalise(4)


def test_a_schema_may_refer_to_a_part_of_itself():
    schema = {"$defs": {"side": {"type": "integer", "multipleOf": 8}}, "$ref": "#/$defs/side"}
    assert SlotSchema(schema).normalise(512) == 512
    with pytest.raises(ValueRefusedError, match="found 513, but a multiple of 8 is needed"):
        SlotSchema(schema).normalise(513)
