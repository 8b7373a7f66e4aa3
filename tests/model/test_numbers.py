"""Numbers are finite, integers where the schema demands it, and exact in decimal. The quick check is correct."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweeper
from sweeper.errors import ExperimentError
from sweeper.model.slot_values import SlotSchema, ValueRefusedError, normalise_json
from sweeper.schemas import make_validator
from sweeper.schemas.values import InvalidSchemaError
from tests.experiment_files import make_plan, write

GRAPH = {"1": {"class_type": "A", "inputs": {"x": 0, "n": 0, "p": "", "w": 512}}}
SLOTS = {"x": {"at": "1.x", "schema": {"type": "number"}}, "n": {"at": "1.n", "schema": {"type": "integer"}},
         "p": {"at": "1.p", "schema": {"type": "string"}}, "w": {"at": "1.w"}}  # fmt: skip


def test_whole_floats_in_run_become_integers(tmp_path):
    run = {"retries": 2.0, "concurrency": 1.0, "max_trials": 5.0, "max_failures": 2.0}
    settings = make_plan(tmp_path, {"run": run}, GRAPH, SLOTS).experiment.run
    numbers = (settings.retries, settings.concurrency, settings.max_trials, settings.max_failures)
    assert [type(number) for number in numbers] == [int] * 4  # a float in max_failures would be a share


def test_a_whole_float_is_a_valid_sample_size(tmp_path):
    plan = make_plan(tmp_path, {"sweep": {"grid": {"n": [1, 2, 3]}, "sample": {"n": 2.0}}}, GRAPH, SLOTS)
    assert len(plan) == 2


@pytest.mark.parametrize("written", [".nan", ".inf", "1e999"])
@pytest.mark.parametrize("definition", ["sweep: {grid: {v: [VALUE]}}", "params: {v: VALUE}"])
def test_variables_must_be_finite(tmp_path, written, definition):
    text = "name: e\ntemplate: t.json\nderive: {p: 'x {{ v }}'}\n" + definition.replace("VALUE", written)
    with pytest.raises(ExperimentError, match="a finite number is needed"):
        sweeper.load(write(tmp_path, text, GRAPH, SLOTS))


def test_negative_zero_of_a_variable_becomes_zero(tmp_path):
    experiment = {"derive": {"p": "x {{ v }}"}, "sweep": {"grid": {"v": [-0.0]}}}
    (trial,) = make_plan(tmp_path, experiment, GRAPH, SLOTS)
    assert math.copysign(1, trial.axes["v"]) == 1
    assert trial.params["p"] == "x 0.0"


def test_multiples_of_a_tenth_are_checked_in_decimal(tmp_path):
    slots = {"x": {"at": "1.x", "schema": {"type": "number", "multipleOf": 0.1}}}
    plan = make_plan(tmp_path, {"sweep": {"grid": {"x": {"from": 0.1, "to": 0.9, "step": 0.1}}}}, GRAPH, slots)
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
    "description": st.just("for the reader"),
}
# Few keywords at a time, because many together refuse everything and hide a mistake in one of them.
SCHEMAS = st.sets(st.sampled_from(sorted(KEYWORDS)), min_size=1, max_size=2).flatmap(
    lambda keys: st.fixed_dictionaries({key: KEYWORDS[key] for key in sorted(keys)})
)
USUAL = [None, True, False, 0, 1, 1.0, 3, -2.0, 0.3, 7.5, "", "a", "1", "a1", "aaa", 10**20, 1e22, [], [1.5], {}]
TYPE_NAMES = ["integer", "number", "string", "boolean", "null", "array", "object"]
PLAIN = [{"type": kind} for kind in TYPE_NAMES] + [{"type": [kind, "null"]} for kind in TYPE_NAMES[:4]]
PLAIN += [{key: bound} for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") for bound in (1, 7.5)]
PLAIN += [{"multipleOf": 0.1}, {"multipleOf": 3}, {"minLength": 1}, {"maxLength": 1}, {"pattern": "1$"}]
PLAIN += [{"const": one} for one in USUAL] + [{"enum": [one, "b"]} for one in USUAL] + [{"items": {"type": "integer"}}]


@settings(max_examples=110)
@given(SCHEMAS, st.lists(JSON, max_size=4))
def test_the_quick_check_agrees_with_jsonschema(schema, values):
    members = [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]
    assert_agreement(schema, [*values, *members, *USUAL])


@pytest.mark.parametrize("schema", PLAIN, ids=json.dumps)
def test_each_keyword_alone_agrees_with_jsonschema(schema):
    assert_agreement(schema, USUAL)


def assert_agreement(schema, values):
    normalise, validator = SlotSchema(schema).normalise, make_validator(schema)
    for value in values:
        try:
            result = normalise(value)
        except ValueRefusedError as error:
            assert validator.list_reasons(value)
            assert str(error)  # noqa: PT017 - either way is right
        else:
            assert not validator.list_reasons(value)
            assert not validator.list_reasons(result)
            assert result == value
            assert isinstance(result, bool) == isinstance(value, bool)


@settings(max_examples=110)
@given(st.integers(-(10**6), 10**6), st.integers(1, 2000), st.integers(0, 6))
def test_any_decimal_multiple_is_recognised(times, units, decimals):
    factor = float(f"{units}e-{decimals}")
    normalise = SlotSchema({"multipleOf": factor}).normalise
    assert normalise(float(f"{times * units}e-{decimals}")) == times * units / 10**decimals
    if units > 1:
        with pytest.raises(ValueRefusedError, match="but a multiple of"):
            normalise(float(f"{times * units + 1}e-{decimals}"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1, {"a": [math.nan]}], {"a": math.inf}])
def test_all_parts_of_a_value_must_be_finite(value):
    with pytest.raises(ValueRefusedError, match="a finite number is needed"):
        normalise_json(value)


def test_negative_zero_inside_a_value_becomes_zero():
    assert json.dumps(normalise_json({"a": [-0.0, {"b": -0.0}], "c": "-0.0", "d": True})) == (
        '{"a": [0.0, {"b": 0.0}], "c": "-0.0", "d": true}'
    )


def test_the_schema_has_precedence_over_the_default_for_texts():
    assert SlotSchema({"type": "string"}).parse_text("8", like=512) == "8"
    assert SlotSchema({"enum": ["4", 8]}).parse_text("4") == "4"
    assert SlotSchema({"enum": ["4", 8]}).parse_text("8") == 8
    assert SlotSchema({"const": 8}).parse_text("8") == 8


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/x.json"},
        {"$defs": {"side": {"multipleOf": 8}}, "anyOf": [{"$ref": "#/$defs/side"}]},
        {"properties": {"enum": {"$dynamicRef": "#"}}},
    ],
)
def test_a_schema_with_a_reference_is_refused_and_never_fetched(schema):
    with pytest.raises(InvalidSchemaError, match="is not allowed in the schema of a slot"):
        SlotSchema(schema)


def test_values_of_an_enum_are_no_keywords():
    assert SlotSchema({"enum": [{"$ref": 1, "pattern": "("}]}).allows({"$ref": 1, "pattern": "("})


def test_a_deep_schema_is_checked():
    schema = {"type": "integer"}
    for _ in range(58):
        schema = {"allOf": [schema]}
    assert SlotSchema(schema).allows(4)
    assert not SlotSchema(schema).allows("4")
