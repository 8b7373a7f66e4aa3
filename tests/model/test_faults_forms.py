"""Forms of values and settings, at their edges."""

from __future__ import annotations

import math

import pytest
from writing import planned, write

import sweeper
from sweeper.errors import ExperimentError

GRAPH = {"1": {"class_type": "A", "inputs": {"x": 0, "n": 0, "p": "", "w": 512}}}
SLOTS = {"x": {"at": "1.x", "schema": {"type": "number"}}, "n": {"at": "1.n", "schema": {"type": "integer"}},
         "p": {"at": "1.p", "schema": {"type": "string"}}, "w": {"at": "1.w"}}  # fmt: skip


def values(folder, form, axis="x", **more):
    plan = planned(folder, {"sweep": {"grid": {axis: form}}}, GRAPH, SLOTS, **more)
    return [trial.axes[axis] for trial in plan.written()]


def test_a_count_written_as_a_whole_float_is_that_count(tmp_path):
    assert values(tmp_path, {"from": 1, "to": 3, "count": 3.0}) == [1.0, 2.0, 3.0]


def test_a_sample_size_written_as_a_whole_float_is_that_size(tmp_path):
    plan = planned(tmp_path, {"sweep": {"grid": {"n": [1, 2, 3]}, "sample": {"n": 2.0}}}, GRAPH, SLOTS)
    assert len(plan) == 2


def test_whole_floats_in_run_are_integers(tmp_path):
    run = {"retries": 2.0, "concurrency": 1.0, "max_trials": 5.0, "max_failures": 2.0}
    settings = planned(tmp_path, {"run": run}, GRAPH, SLOTS).experiment.run
    found = (settings.retries, settings.concurrency, settings.max_trials, settings.max_failures)
    assert [type(number) for number in found] == [int] * 4  # a float in max_failures would be a share


@pytest.mark.parametrize("step", [1, 1e-9])
def test_a_range_of_astronomic_length_is_refused_in_words(tmp_path, step):
    with pytest.raises(ExperimentError, match=r"has more than 1,000,000 values"):
        values(tmp_path, {"from": 0, "to": 10**100, "step": step})


def test_integers_longer_than_sixty_digits_stay_exact(tmp_path):
    first = 10**70
    assert values(tmp_path, {"from": first, "to": first + 2, "step": 1}, axis="n") == [first, first + 1, first + 2]


def test_a_counted_range_of_integers_is_exact_beyond_twelve_digits(tmp_path):
    first = 1_000_000_000_001
    assert values(tmp_path, {"from": first, "to": first + 2, "count": 3}, axis="n") == [first, first + 1, first + 2]
    assert values(tmp_path, {"from": 0, "to": 2**64 - 1, "count": 2}, axis="n") == [0, 2**64 - 1]


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


@pytest.mark.parametrize("text", ["{" * 5000, "{" * 3000 + "a" + "}" * 3000])
def test_choices_nested_without_end_are_refused_in_words(tmp_path, text):
    with pytest.raises(ExperimentError, match=r"e\.yaml:1: sweep\.grid\.p: "):
        values(tmp_path, {"choices": text}, axis="p")


def test_a_line_of_a_file_ends_at_a_line_feed_only(tmp_path):
    # Prompts pasted out of web pages hold U+2028, U+0085 and form feeds; a text editor shows one line.
    text = "a\u2028b\n c\x85d\ne\x0cf\x1cg\n"
    found = values(tmp_path, {"lines": "l.txt"}, axis="p", files={"l.txt": text})
    assert found == ["a\u2028b", " c\x85d", "e\x0cf\x1cg"]


@pytest.mark.parametrize("cell", ["1_0", "\uff11\uff12"])
def test_a_number_in_a_text_is_written_as_yaml_writes_it(tmp_path, cell):
    with pytest.raises(ExperimentError, match="but an integer is needed"):
        values(tmp_path, {"lines": "l.txt"}, axis="n", files={"l.txt": cell + "\n"})


def test_a_number_of_yaml_is_a_number_in_a_text_too(tmp_path):
    assert values(tmp_path, {"lines": "l.txt"}, axis="n", files={"l.txt": "+7\n8.0\n1e3\n"}) == [7, 8, 1000]


@pytest.mark.parametrize("form", [{"lines": "a\0b"}, {"csv": "a\0b", "column": "c"}, {"files": "a\0*"}])
def test_a_file_name_with_a_nul_is_refused_in_words(tmp_path, form):
    text = write(tmp_path, {}, GRAPH, SLOTS)
    inside = ", ".join(f'{key}: "{name}"'.replace("\0", "\\0") for key, name in form.items())
    text.write_text(f"name: e\ntemplate: t.json\nsweep: {{grid: {{p: {{{inside}}}}}}}\n")
    with pytest.raises(ExperimentError, match=r"e\.yaml:3: sweep\.grid\.p: "):
        sweeper.load(text)


@pytest.mark.parametrize("name", ["a" * 300 + ".json", "t.json/t.json"])
def test_a_template_name_that_no_disk_takes_is_refused_in_words(tmp_path, name):
    with pytest.raises(ExperimentError, match=r"e\.yaml:1: template: "):
        planned(tmp_path, {"template": name}, GRAPH, SLOTS)


def test_a_multiple_of_a_tenth_is_one_in_decimal_arithmetic(tmp_path):
    slots = {"x": {"at": "1.x", "schema": {"type": "number", "multipleOf": 0.1}}}
    plan = planned(tmp_path, {"sweep": {"grid": {"x": {"from": 0.1, "to": 0.9, "step": 0.1}}}}, GRAPH, slots)
    assert [trial.params["x"] for trial in plan.written()] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def test_a_numeric_label_may_be_excluded_as_it_was_written(tmp_path):
    grid = {"n": [{"label": 4, "value": 10}, {"label": 5, "value": 20}]}
    plan = planned(tmp_path, {"sweep": {"grid": grid, "exclude": [{"n": 4}]}}, GRAPH, SLOTS)
    assert [trial.params["n"] for trial in plan.written()] == [20]


def test_exclude_tells_true_from_one_inside_a_list_too(tmp_path):
    grid = {"w": [[1], [True]]}
    plan = planned(tmp_path, {"sweep": {"grid": grid, "exclude": [{"w": [True]}]}}, GRAPH, SLOTS)
    assert [repr(trial.params["w"]) for trial in plan.written()] == ["[1]"]


def test_a_sample_does_not_move_when_another_block_is_added(tmp_path):
    block = {"grid": {"n": list(range(20))}, "sample": {"n": 5}}
    alone = planned(tmp_path, {"sweep": [block]}, GRAPH, SLOTS)
    before = [trial.params["n"] for trial in alone.written()]
    both = planned(tmp_path, {"params": {"p": "a"}, "sweep": [block, {"grid": {"x": [1]}}]}, GRAPH, SLOTS)
    assert [trial.params["n"] for trial in both.written()][:5] == before


def test_fixing_a_name_leaves_an_exclude_row_about_its_other_values_without_effect(tmp_path):
    sweep = {"grid": {"n": [4, 8], "x": [1, 2]}, "exclude": [{"n": 4, "x": 1}]}
    file = write(tmp_path, {"name": "e", "template": "t.json", "sweep": sweep}, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"n": 8}))
    assert [(trial.params["n"], trial.params["x"]) for trial in plan.written()] == [(8, 1.0), (8, 2.0)]


def test_fixing_an_axis_of_labels_or_bundles_means_the_one_of_that_label(tmp_path):
    grid = {"size": [{"label": "small", "set": {"w": 64}}, {"label": "large", "set": {"w": 512}}],
            "n": [{"label": "few", "value": 4}, {"label": "many", "value": 40}]}  # fmt: skip
    file = write(tmp_path, {"name": "e", "template": "t.json", "sweep": {"grid": grid}}, GRAPH, SLOTS)
    (trial,) = sweeper.plan(sweeper.load(file, overrides={"size": "large", "n": "few"}))
    assert (trial.params["w"], trial.params["n"], dict(trial.axes)) == (512, 4, {"size": "large", "n": "few"})


def test_fixing_a_derived_slot_does_not_make_the_axes_behind_it_a_mistake(tmp_path):
    experiment = {"name": "e", "template": "t.json", "derive": {"p": "a {{ v }}"}, "sweep": {"grid": {"v": ["x", "y"]}}}
    file = write(tmp_path, experiment, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"p": "said"}))
    assert {trial.params["p"] for trial in plan} == {"said"}
