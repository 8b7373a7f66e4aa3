"""The forms of axis values: exact ranges, choices, seeds, lines and columns, files."""

from __future__ import annotations

import math
import tempfile
import unicodedata
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweeper
from sweeper.errors import ExperimentError
from tests.experiment_files import make_plan, node, write
from tests.planning import reference_planner

QUICK = settings(max_examples=35)
# Slots that accept any value, so that only the form matters.
GRAPH = {"1": {"class_type": "A", "inputs": {"x": 0, "n": 0, "p": ""}}}
SLOTS = {"x": {"at": "1.x"}, "n": {"at": "1.n", "schema": {"type": "integer"}}, "p": {"at": "1.p"}}


def values(form, axis="x", name="e", files=None):
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(folder, {"name": name, "sweep": {"grid": {axis: form}}}, GRAPH, SLOTS, files)
        return [trial.axes[axis] for trial in plan.written()]


DECIMALS = st.tuples(st.integers(-500, 500), st.integers(0, 4)).map(lambda pair: pair[0] / 10 ** pair[1])


@QUICK
@given(DECIMALS, DECIMALS, st.integers(1, 300), st.integers(0, 3))
def test_a_stepped_range_has_every_step_up_to_its_end(first, last, tenths, decimals):
    step = tenths / 10**decimals
    if (
        abs(reference_planner.to_fraction(last) - reference_planner.to_fraction(first))
        / reference_planner.to_fraction(step)
        > 2000
    ):
        return
    form = {"from": first, "to": last, "step": -step if last < first else step}
    numbers = values(form)
    assert numbers == reference_planner.expand_range(form)
    assert [repr(value) for value in numbers] == [repr(float(value)) for value in numbers]  # -0.0 would show
    end, exact = reference_planner.to_fraction(last), [reference_planner.to_fraction(value) for value in numbers]
    assert all(value <= end if first <= last else value >= end for value in exact)
    assert abs(end - exact[-1]) < reference_planner.to_fraction(step)


@QUICK
@given(st.integers(-(10**20), 10**20), st.integers(1, 10**9), st.integers(0, 30), st.booleans())
def test_large_integers_stay_exact(first, step, steps, down):
    step = -step if down else step
    numbers = values({"from": first, "to": first + step * steps, "step": step})
    assert numbers == [first + step * index for index in range(steps + 1)]
    assert {type(value) for value in numbers} == {int}


@QUICK
@given(DECIMALS, DECIMALS, st.integers(1, 12))
def test_a_counted_range_has_exact_ends_and_even_gaps(first, last, count):
    numbers = values({"from": first, "to": last, "count": count})
    if first == last or count == 1:
        assert numbers == [float(first) + 0.0]
        return
    assert len(numbers) == count
    assert (numbers[0], numbers[-1]) == (float(first), float(last))
    assert numbers == reference_planner.expand_range({"from": first, "to": last, "count": count})
    assert all(type(value) is float for value in numbers)


@QUICK
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(2, 9))
def test_a_log_range_has_a_constant_ratio(first, last, count):
    numbers = values({"from": first, "to": last, "count": count, "scale": "log"})
    if first == last:
        assert numbers == [float(first)]
        return
    assert (numbers[0], numbers[-1]) == (float(first), float(last))
    for index, value in enumerate(numbers):
        expected = first * (last / first) ** (index / (count - 1))
        assert math.isclose(value, expected, rel_tol=1e-10)
        assert value == float(f"{value:.11e}")


def test_ranges_are_exact_where_floats_are_not():
    assert values({"from": 0.1, "to": 0.3, "step": 0.1}) == [0.1, 0.2, 0.3]
    assert values({"from": 0, "to": 1, "step": 0.1})[-3:] == [0.8, 0.9, 1.0]
    assert values({"from": 1, "to": 0, "step": -0.25}) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert values({"from": 1, "to": 10, "step": 4}) == [1, 5, 9]
    assert values({"from": 5, "to": 5, "step": -3}) == [5]
    assert values({"from": 1e-7, "to": 3e-7, "step": 1e-7}) == [1e-7, 2e-7, 3e-7]
    assert values({"from": 1, "to": 2, "count": 4}) == [1.0, 1.33333333333, 1.66666666667, 2.0]
    assert values({"from": 1000, "to": 1, "count": 4, "scale": "log"}) == [1000.0, 100.0, 10.0, 1.0]


def test_a_counted_range_gives_integers_to_an_integer_slot():
    numbers = values({"from": 1, "to": 9, "count": 5}, axis="n")
    assert numbers == [1, 3, 5, 7, 9]
    assert {type(value) for value in numbers} == {int}
    assert values({"from": 1, "to": 10000, "count": 5, "scale": "log"}, axis="n") == [1, 10, 100, 1000, 10000]


def test_a_range_of_whole_floats_gives_integers_to_an_integer_slot():
    numbers = values({"from": 1.0, "to": 3.0, "step": 1}, axis="n")
    assert (numbers, {type(value) for value in numbers}) == ([1, 2, 3], {int})


PLAIN = st.text(alphabet="ab {}|\\é", max_size=6)


def escape(text):
    return "".join("\\" + letter if letter in "{}|\\" else letter for letter in text)


@QUICK
@given(st.lists(PLAIN, min_size=1, max_size=3), st.lists(st.lists(PLAIN, min_size=1, max_size=3), max_size=2))
def test_choices_expand_to_the_written_texts(texts, groups):
    groups = groups[: len(texts) - 1]
    written = escape(texts[0])
    wanted = [texts[0]]
    for text, group in zip(texts[1:], groups, strict=False):
        written += "{" + "|".join(escape(choice.strip()) for choice in group) + "}" + escape(text)
        wanted = [head + choice.strip() + text for head in wanted for choice in group]
    if not written:
        return
    assert values({"choices": written}, axis="p") == wanted == reference_planner.expand_choices(written)


TREES = st.recursive(
    st.text(alphabet="ab ", max_size=2),
    lambda below: st.lists(below, min_size=1, max_size=3).map(lambda parts: "{" + "|".join(parts) + "}x"),
    max_leaves=8,
)


@QUICK
@given(st.lists(TREES, min_size=1, max_size=2).map("".join).filter(bool))
def test_nested_choices_agree_with_a_simple_expansion(written):
    assert values({"choices": written}, axis="p") == reference_planner.expand_choices(written)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("a {red|blue} fox in {snow|rain}", ["a red fox in snow", "a red fox in rain",
                                             "a blue fox in snow", "a blue fox in rain"]),
        ("a { red |blue } fox", ["a red fox", "a blue fox"]),
        ("fox{|, oil}", ["fox", "fox, oil"]),
        ("{a {b|c}|d}", ["a b", "a c", "d"]),
        (r"\{a\} | b", ["{a} | b"]),
    ],
)  # fmt: skip
def test_examples_of_choices(written, wanted):
    assert values({"choices": written}, axis="p") == wanted


def test_each_outer_group_of_choices_has_a_column(tmp_path):
    form = {"choices": "a {red {old|young}|blue} {fox|owl}"}
    plan = make_plan(tmp_path, {"sweep": {"grid": {"p": form}}}, GRAPH, SLOTS)
    assert plan.axis_columns == ("p", "p.1", "p.2")
    assert [tuple(trial.columns.values()) for trial in plan.written()] == [
        ("a red old fox", "red old", "fox"), ("a red old owl", "red old", "owl"),
        ("a red young fox", "red young", "fox"), ("a red young owl", "red young", "owl"),
        ("a blue fox", "blue", "fox"), ("a blue owl", "blue", "owl"),
    ]  # fmt: skip


@QUICK
@given(st.integers(1, 20), st.integers(1, 20), st.text(alphabet="abc-", min_size=1).filter(lambda n: n[0] != "-"))
def test_seeds_are_distinct_and_extend_shorter_lists(few, many, name):
    few, many = sorted((few, many))
    longer = values({"seeds": many}, axis="n", name=name)
    assert values({"seeds": few}, axis="n", name=name) == longer[:few]
    assert longer == reference_planner.make_seeds(many, name, "n")
    assert len(set(longer)) == many
    assert all(0 <= seed < 2**32 for seed in longer)


def test_seeds_never_change():
    assert values({"seeds": 3}, axis="n", name="quickstart") == SEEDS
    assert values({"seeds": 3, "key": "quickstart"}, axis="n", name="other") == SEEDS
    assert values({"seeds": 3}, axis="x", name="quickstart") != SEEDS
    assert values({"seeds": 3}, axis="n", name="other") != SEEDS


SEEDS = [3241792502, 1392575802, 3672708880]


def test_lines_ignore_bom_crlf_and_blanks_and_keep_spaces_and_braces():
    text = "\ufeff a fox \r\n\r\n   \r\n{{ subject }}, {a|b}\r\n# no comment"
    assert values({"lines": "l.txt"}, axis="p", files={"l.txt": text}) == [" a fox ", "{{ subject }}, {a|b}",
                                                                          "# no comment"]  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "text", "wanted"),
    [
        ({"type": "integer"}, "7", 7), ({"type": "integer"}, " 18446744073709551615 ", 2**64 - 1),
        ({"type": "integer"}, "7.0", 7), ({"type": "number"}, "7", 7.0), ({"type": "number"}, "1e-3", 0.001),
        ({"type": "boolean"}, "true", True), ({"type": "boolean"}, "False", False),
        ({"type": "string"}, "7", "7"), ({"type": "string"}, " true", " true"),
        ({"enum": ["euler", "heun"]}, "heun", "heun"), ({"enum": [4, 8]}, "8", 8),
    ],
)  # fmt: skip
def test_a_cell_is_converted_to_the_type_of_the_slot(tmp_path, schema, text, wanted):
    slots = {"x": {"at": "1.x", "schema": schema, "default": wanted}}
    files = {"t.csv": f'n,x\n1,"{text}"\n', "l.txt": text + "\n"}
    for form in ({"csv": "t.csv", "column": "x"}, {"lines": "l.txt"}):
        plan = make_plan(tmp_path, {"sweep": {"grid": {"x": form}}}, GRAPH, slots, files)
        (trial,) = plan
        assert (trial.params["x"], type(trial.params["x"])) == (wanted, type(wanted))


def test_a_tsv_cell_may_begin_with_a_quote():
    files = {"p.tsv": 'Prompt\tNote\n"Fly" on a wall, again\tx\n42\t\n'}
    assert values({"csv": "p.tsv", "column": "Prompt"}, axis="p", files=files) == ['"Fly" on a wall, again', "42"]


def test_a_csv_cell_may_contain_commas_quotes_and_lines():
    text = '\ufeffa,b\r\n1,"a ""red"", \r\nold fox"\r\n2,plain\r\n'
    cells = values({"csv": "t.csv", "column": "b"}, axis="p", files={"t.csv": text})
    assert [value.replace("\r\n", "\n") for value in cells] == ['a "red", \nold fox', "plain"]


@pytest.mark.parametrize(("stored", "pattern"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_pattern_finds_composed_and_decomposed_letters(tmp_path, stored, pattern):
    name, wanted = (unicodedata.normalize(form, "café-1.png") for form in (stored, pattern))
    graph, slots = {"1": {"class_type": "L", "inputs": {"image": "x"}}}, {"image": {"at": "1.image", "kind": "file"}}
    axis = {"files": wanted.replace("1", "*")}
    plan = make_plan(tmp_path, {"sweep": {"grid": {"image": axis}}}, graph, slots, {name: b"1"})
    assert [trial.params["image"] for trial in plan.written()] == [name]  # as the disk has it


def test_files_are_sorted_and_relative_to_the_experiment(tmp_path):
    files = {"in/b.png": b"1", "in/a.png": b"2", "in/c.txt": b"3", "in/deep/d.png": b"4"}
    graph, slots = {"1": {"class_type": "L", "inputs": {"image": "x"}}}, {"image": {"at": "1.image", "kind": "file"}}
    plan = make_plan(tmp_path, {"sweep": {"grid": {"image": {"files": "in/*.png"}}}}, graph, slots, files)
    assert [trial.params["image"] for trial in plan.written()] == ["in/a.png", "in/b.png"]
    plan = make_plan(tmp_path, {"sweep": {"grid": {"image": {"files": "**/*.png"}}}}, graph, slots, files)
    assert [trial.params["image"] for trial in plan.written()] == ["in/a.png", "in/b.png", "in/deep/d.png"]


def test_the_reference_range_is_exact():
    assert reference_planner.to_fraction(0.1) == Fraction(1, 10)
    assert reference_planner.expand_range({"from": 0, "to": 1, "step": 0.3}) == [0.0, 0.3, 0.6, 0.9]


def test_a_whole_float_is_a_valid_count():
    assert values({"from": 1, "to": 3, "count": 3.0}) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("step", [1, 1e-9])
def test_a_range_of_astronomic_length_is_refused(step):
    with pytest.raises(ExperimentError, match=r"has more than 1,000,000 values"):
        values({"from": 0, "to": 10**100, "step": step})


def test_integers_longer_than_sixty_digits_stay_exact():
    first = 10**70
    assert values({"from": first, "to": first + 2, "step": 1}, axis="n") == [first, first + 1, first + 2]


def test_a_counted_range_of_large_integers_is_exact():
    first = 1_000_000_000_001
    assert values({"from": first, "to": first + 2, "count": 3}, axis="n") == [first, first + 1, first + 2]
    assert values({"from": 0, "to": 2**64 - 1, "count": 2}, axis="n") == [0, 2**64 - 1]


@pytest.mark.parametrize("text", ["{" * 5000, "{" * 3000 + "a" + "}" * 3000])
def test_deeply_nested_choices_are_refused(text):
    with pytest.raises(ExperimentError, match=r"e\.yaml:1: sweep\.grid\.p: "):
        values({"choices": text}, axis="p")


def test_a_line_ends_only_at_a_line_feed():
    # Prompts copied from web pages contain U+2028, U+0085 and form feeds; a text editor shows one line.
    text = "a\u2028b\n c\x85d\ne\x0cf\x1cg\n"
    lines = values({"lines": "l.txt"}, axis="p", files={"l.txt": text})
    assert lines == ["a\u2028b", " c\x85d", "e\x0cf\x1cg"]


@pytest.mark.parametrize("cell", ["1_0", "\uff11\uff12"])
def test_numbers_in_text_files_follow_yaml(cell):
    with pytest.raises(ExperimentError, match="but an integer is needed"):
        values({"lines": "l.txt"}, axis="n", files={"l.txt": cell + "\n"})


def test_yaml_numbers_are_numbers_in_text_files():
    assert values({"lines": "l.txt"}, axis="n", files={"l.txt": "+7\n8.0\n1e3\n"}) == [7, 8, 1000]


@pytest.mark.parametrize("form", [{"lines": "a\0b"}, {"csv": "a\0b", "column": "c"}, {"files": "a\0*"}])
def test_a_file_name_with_a_nul_is_refused(tmp_path, form):
    text = write(tmp_path, {}, GRAPH, SLOTS)
    inside = ", ".join(f'{key}: "{name}"'.replace("\0", "\\0") for key, name in form.items())
    text.write_text(f"name: e\ntemplate: t.json\nsweep: {{grid: {{p: {{{inside}}}}}}}\n")
    with pytest.raises(ExperimentError, match=r"e\.yaml:3: sweep\.grid\.p: "):
        sweeper.load(text)


def test_whole_points_of_a_log_range_are_exact():
    root = 1_234_567_890_123
    assert values({"from": 1, "to": root**2, "count": 3, "scale": "log"}, axis="n") == [1, root, root**2]
    assert values({"from": 1e-40, "to": 1e-20, "count": 3, "scale": "log"}) == [1e-40, 1e-30, 1e-20]


def test_a_range_beyond_the_largest_float_is_refused():
    with pytest.raises(ExperimentError, match=r"goes beyond the largest number"):
        values({"from": 0, "to": 10**400, "count": 2})


def test_a_stepped_range_of_extreme_numbers_is_exact():
    assert values({"from": 5e-324, "to": 1.5e-323, "step": 5e-324}) == [5e-324, 1e-323, 1.5e-323]
    assert values({"from": -1.5e308, "to": 1.5e308, "step": 1e308}) == [-1.5e308, -5e307, 5e307, 1.5e308]


def test_line_ends_do_not_depend_on_the_system():
    lines = values({"lines": "l.txt"}, axis="p", files={"l.txt": "a\rb\r\nc\r\n"})
    assert lines == ["a\rb", "c"]


def test_choices_may_be_nested_32_levels_deep():
    assert values({"choices": "{" * 32 + "a|b" + "}" * 32}, axis="p") == ["a", "b"]


def test_a_replacement_changes_the_text_of_the_slot_and_labels_it(tmp_path):
    experiment = {"sweep": {"grid": {"p": {"replace": "fox", "with": ["fox", "wolf", 7]}}}}
    plan = make_plan(tmp_path, experiment, {"1": node("A", p="a fox, one fox")}, {"p": {"at": "1.p"}})
    assert [(trial.axes["p"], trial.params["p"]) for trial in plan.written()] == [
        ("fox", "a fox, one fox"), ("wolf", "a wolf, one wolf"), ("7", "a 7, one 7"),
    ]  # fmt: skip


def test_a_replacement_searches_the_text_in_params_if_there_is_one(tmp_path):
    grid = {"p": {"replace": "owl", "with": ["owl", "cat"]}, "n": [1, 2]}
    experiment = {"params": {"p": "an owl"}, "sweep": {"grid": grid, "exclude": [{"p": "cat", "n": 1}]}}
    write(tmp_path, {"name": "e", "template": "t.json", **experiment}, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(tmp_path / "e.yaml"))
    assert [trial.params["p"] for trial in plan.written()] == ["an owl", "an owl", "an cat"]


@pytest.mark.parametrize(
    ("given", "texts"), [("cat", ["an cat"]), (["cat", "owl"], ["an cat", "an owl"]), ("a dog", ["a dog"])]
)
def test_an_override_chooses_a_replacement_or_gives_the_whole_text(tmp_path, given, texts):
    experiment = {"sweep": {"grid": {"p": {"replace": "owl", "with": ["owl", "cat"]}}}, "params": {"p": "an owl"}}
    file = write(tmp_path, {"name": "e", "template": "t.json", **experiment}, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"p": given}))
    assert [trial.params["p"] for trial in plan.written()] == texts
