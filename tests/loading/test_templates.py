"""Edge cases of templates, files and bundles, and messages with a helpful hint."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

import sweeper
from sweeper.errors import ExperimentError, InputError, TemplateError
from tests.experiment_files import make_plan, rows, write
from tests.planning import reference_planner
from tests.planning.random_experiments import PHASES, experiments


@settings(max_examples=35, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(experiments(nested=True))
def test_the_plan_agrees_with_the_reference_for_nested_strings(drawn):
    experiment, graph, slots, files = drawn
    with tempfile.TemporaryDirectory() as folder:
        loaded = sweeper.load(write(folder, experiment, graph, slots, files))
        expected = reference_planner.expand(experiment, graph, slots, Path(folder))
    if expected:
        plan = sweeper.plan(loaded)
        assert [(row.index, row.params, row.axes, row.digest) for row in expected] == rows(plan)
        assert [reference_planner.compute_digest(plan.workflow(trial)) for trial in plan.written()] == [
            row.digest for row in expected
        ]


def test_jinja_inside_a_list_adds_no_input(tmp_path):
    graph = {"1": {"class_type": "A", "inputs": {"deep": {"list": [0, "{{ colour }}"]}}}}
    plan = make_plan(tmp_path, {"params": {"colour": "red"}}, graph, {})
    assert plan.workflow(next(iter(plan))) == {"1": {"class_type": "A", "inputs": {"deep": {"list": [0, "red"]}}}}


def test_a_slot_at_an_input_with_jinja_is_refused(tmp_path):
    graph = {"1": {"class_type": "A", "inputs": {"deep": {"k": "{{ b }}"}}}}
    with pytest.raises(InputError, match=r"1\.deep is already written by"):
        make_plan(tmp_path, {"params": {"a": 1}}, graph, {"a": {"at": "1.deep"}, "b": {"default": "q"}})


@pytest.mark.parametrize("depth", [300, 600, 900])
def test_a_deeply_nested_workflow_plans_or_is_refused(tmp_path, depth):
    text = '{"1": {"class_type": "A", "inputs": {"x": ' + "[" * depth + "]" * depth + "}}}"
    try:
        plan = make_plan(tmp_path, {}, text, {})
    except ExperimentError as error:
        assert "t.json" in str(error)  # noqa: PT017 - either way is right
    else:
        assert len(plan) == 1


def test_a_number_in_a_workflow_too_large_for_a_float_is_refused(tmp_path):
    text = '{"1": {"class_type": "A", "inputs": {"x":\n 1e999}}}'
    with pytest.raises(ExperimentError, match=r"t\.json:2: .*1\.inputs\.x: .*finite"):
        make_plan(tmp_path, {}, text, {})


GRAPH = {"1": {"class_type": "A", "inputs": {"p": "x", "w": 512}}}
SLOTS = {"p": {"at": "1.p"}, "w": {"at": "1.w"}}
PARTIAL = {"format": [{"label": "a", "set": {"style": "oil"}}, {"label": "b", "set": {"w": 64}}]}


@pytest.mark.parametrize(
    "experiment",
    [{"derive": {"p": "{{ style }}, x"}, "sweep": {"grid": PARTIAL}},
     {"sweep": {"grid": PARTIAL, "where": "style != 'ink'"}}],
)  # fmt: skip
def test_a_variable_that_only_some_bundles_set_is_an_error(tmp_path, experiment):
    with pytest.raises(ExperimentError, match="style"):
        make_plan(tmp_path, experiment, GRAPH, SLOTS)


def test_a_variable_that_some_bundles_set_falls_back_to_params(tmp_path):
    both = [{"grid": PARTIAL}, {"grid": {"w": [8]}}]
    plan = make_plan(
        tmp_path, {"params": {"style": "ink"}, "derive": {"p": "{{ style }}"}, "sweep": both}, GRAPH, SLOTS
    )
    assert [trial.params["p"] for trial in plan.written()] == ["oil", "ink", "ink"]


FILE_GRAPH = {"1": {"class_type": "LoadImage", "inputs": {"image": "server.png"}}}
FILE_SLOTS = {"image": {"at": "1.image", "kind": "file"}}


def test_a_derived_file_is_hashed_and_listed_by_the_plan(tmp_path):
    experiment = {"derive": {"image": "{{ n }}.png"}, "sweep": {"grid": {"n": ["a", "b"]}}}
    plan = make_plan(tmp_path, experiment, FILE_GRAPH, FILE_SLOTS, {"a.png": b"1", "b.png": b"1"})
    one, two = plan.written()
    assert one.digest == two.digest
    assert [file.sha256 for file in plan.files(one)] == [hashlib.sha256(b"1").hexdigest()]


def test_a_missing_derived_file_is_an_error(tmp_path):
    experiment = {"derive": {"image": "{{ n }}.png"}, "sweep": {"grid": {"n": ["a", "gone"]}}}
    with pytest.raises(ExperimentError, match=r"there is no file 'gone\.png'"):
        make_plan(tmp_path, experiment, FILE_GRAPH, FILE_SLOTS, {"a.png": b"1"})


def test_a_missing_default_file_is_allowed_if_it_is_not_used(tmp_path):
    slots = {"image": {"at": "1.image", "kind": "file", "default": "gone.png"}}
    plan = make_plan(tmp_path, {"params": {"image": "a.png"}}, FILE_GRAPH, slots, {"a.png": b"1"})
    assert next(iter(plan)).params["image"] == "a.png"


def test_the_default_of_a_file_slot_must_be_a_file_name(tmp_path):
    slots = {"image": {"at": "1.image", "kind": "file", "default": 3}}
    with pytest.raises(ExperimentError, match="a file slot takes the name of a file"):
        make_plan(tmp_path, {}, FILE_GRAPH, slots)


def test_an_invalid_slot_name_is_reported_at_its_line(tmp_path):
    (tmp_path / "t.json").write_text('{"1": {"class_type": "A", "inputs": {"p": 1}}}')
    (tmp_path / "t.slots.yaml").write_text('slots:\n  "my p": {at: 1.p}\n')
    with pytest.raises(TemplateError) as caught:
        sweeper.load_template(tmp_path / "t.json")
    assert [problem.line for problem in caught.value.problems] == [2]


@pytest.mark.parametrize(
    ("experiment", "wanted"),
    [
        ({"sweep": {"grid": {"w": [4]}, "exclude": [{"w": "4"}]}}, "did you mean '4'"),
        ({"derive": {"p": "{{ style }}"}, "sweep": [{"grid": {"style": ["a"]}}, {"grid": {"w": [1]}}]},
         "is neither a slot nor a variable"),
    ],
)  # fmt: skip
def test_messages_give_the_right_hint(tmp_path, experiment, wanted):
    with pytest.raises(ExperimentError) as caught:
        make_plan(tmp_path, experiment, GRAPH, SLOTS)
    assert wanted not in str(caught.value)


@pytest.mark.parametrize("pattern", [{"run": {"max_failures": "110%"}}, {"checks": {"ssim": "high"}}, {"name": "a/b"}])
def test_allowed_patterns_are_described_in_words(tmp_path, pattern):
    with pytest.raises(ExperimentError) as caught:
        make_plan(tmp_path, pattern, GRAPH, SLOTS)
    assert "^" not in str(caught.value)


def test_a_misspelt_variable_gives_the_nearest_param(tmp_path):
    experiment = {"params": {"subject": "fox"}, "derive": {"p": "{{ subjct }}"}}
    with pytest.raises(ExperimentError, match=r"'subjct' .* did you mean 'subject'"):
        make_plan(tmp_path, experiment, GRAPH, SLOTS)


@pytest.mark.parametrize(
    "form",
    [{"from": 1, "to": 9, "count": 0}, {"seeds": 0}, [{"label": "few", "valeu": 4}], [{"label": None, "value": 10}]],
)
def test_one_mistake_in_a_form_is_one_message(tmp_path, form):
    with pytest.raises(ExperimentError) as caught:
        make_plan(tmp_path, {"sweep": {"grid": {"w": form}}}, GRAPH, SLOTS)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        ({"w": [{"label": "tall", "set": {"p": "y"}}]}, "the label would be written where the slot's value belongs"),
        ({"w": [{"label": "tall", "set": {"w": 64}}]}, "the table has one column for the label and the value"),
        ({"p": [{"label": "a", "value": "b"}], "p.label": [{"label": "c", "set": {"w": 64}}]}, "two columns of a name"),
        ({"p": {"choices": "{a|b}"}, "p.1": [{"label": "c", "set": {"w": 64}}]}, "two columns of a name"),
        ({"": [{"label": "c", "set": {"w": 64}}]}, "a column without a name"),
    ],
)
def test_a_bundle_may_not_have_the_name_of_a_slot_or_column(tmp_path, grid, why):
    try:
        make_plan(tmp_path, {"sweep": {"grid": grid}}, GRAPH, SLOTS)
    except ExperimentError:
        return
    pytest.fail(why)


def test_labels_are_never_written_into_a_workflow(tmp_path):
    grid = {"w": [{"label": "tall", "set": {"p": "y"}}]}
    try:
        plan = make_plan(
            tmp_path, {"sweep": {"grid": grid}}, GRAPH, {**SLOTS, "w": {"at": "1.w", "schema": {"type": "integer"}}}
        )
    except ExperimentError:
        return
    assert plan.workflow(next(iter(plan)))["1"]["inputs"]["w"] == 512


def test_a_name_may_not_end_with_a_line_feed(tmp_path):
    # `$` in Python's re also matches before a final line feed: the results folder would be named "e\n".
    with pytest.raises(ExperimentError, match="name: found"):
        make_plan(tmp_path, {"name": "e\n"}, GRAPH, SLOTS)


def test_a_target_without_a_url_is_refused_at_load(tmp_path):
    with pytest.raises(ExperimentError, match=r"target: the key 'url' is missing"):
        make_plan(tmp_path, {"target": {"name": "x"}}, GRAPH, SLOTS)
