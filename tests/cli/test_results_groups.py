"""`sweeper results --by` and `--pivot`: means and deviations that can be checked by hand, and wrong options."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.store import Store
from sweeper.store.records import Artifact, JobEnd, JobRecord, TableLayout
from sweeper.tables.aggregate import format_spread, group_rows, make_pivot, summarize

# style, steps, seed -> sharpness; None: the trial failed
MEASURED = {
    ("oil", 4, 1): 10.0, ("oil", 4, 2): 14.0, ("oil", 8, 1): 1.0, ("oil", 8, 2): None,
    ("ink", 4, 1): 5.0, ("ink", 4, 2): 5.0, ("ink", 8, 1): 1234.5, ("ink", 8, 2): 1251.5,
}  # fmt: skip


COLUMNS = (
    "trial, style, style.label, steps, seed, digest, status, outputs, sha256, target, prompt_id, attempts, "
    "... (10 more)"
)

NO_NUMBERS = "'kind' holds no numbers, and a mean needs some; measured: ran_s, sharpness"


@pytest.fixture
def shop():
    """A results folder made without a server: three axes (one with labels), a numeric metric and a text metric."""
    out = Path("results/shop")
    layout = TableLayout("shop", ("style", "style.label", "steps", "seed"), ("steps", "seed"), ("sharpness", "kind"))
    with Store.open(out) as store:
        with store.transaction():
            run = store.create_run(layout, file="shop.yaml", targets=["embedded"], now=1.0)
            rows = []
            for index, (style, steps, seed) in enumerate(MEASURED):
                columns = {"style": f"in {style}", "style.label": style, "steps": steps, "seed": seed}
                rows.append((index, f"{index}" * 64, {"steps": steps, "seed": seed}, columns))
            store.add_trials(run, rows)
        for index, value in enumerate(MEASURED.values()):
            store.record_intent(
                JobRecord(f"job{index}", run, "embedded", f"{index}" * 64, "s" * 64, 1, f"p{index}", "intent", 1.0)
            )
            sha256, done = f"{index}f" * 32, value is not None
            files = [Artifact("9", "images", 0, f"artifacts/{index}.png", sha256, 10, "a.png")] if done else []
            store.record_finished(f"job{index}", JobEnd("succeeded" if done else "failed", artifacts=files))
            if done:
                store.cache_metrics([(sha256, "sharpness", value), (sha256, "kind", "a fox")])
    return out


def split_lines(outcome):
    assert (outcome.code, outcome.err) == (0, "")
    return [line.split("  ") for line in outcome.out.splitlines()]


def split_cells(outcome):
    """The cells of a table, without the sentence that may follow it."""
    lines = [[cell.strip() for cell in line if cell.strip()] for line in split_lines(outcome)]
    return lines[: lines.index([])] if [] in lines[2:] else lines


def test_by_an_axis_shows_means_and_deviations_with_labels(sweeper, shop):
    assert split_cells(sweeper("results", shop, "--by", "style")) == [
        ["style", "trials", "succeeded", "sharpness"],
        ["oil", "4", "3", "8.3 ± 6.7"],
        ["ink", "4", "4", "620 ± 710"],
    ]


def test_by_says_what_a_spread_is_and_who_judges_differences(sweeper, shop):
    note = "mean ± standard deviation of the trials; `sweeper effects` judges the differences"
    assert sweeper("results", shop, "--by", "style").out.splitlines()[-2:] == ["", note]
    assert "±" not in sweeper("results", shop, "--by", "style,steps,seed").out


def test_by_two_axes_sorted_by_a_mean(sweeper, shop):
    assert split_cells(sweeper("results", shop, "--by", "style,steps", "--sort", "-sharpness", "--limit", "3"))[1:] == [
        ["ink", "8", "2", "2", "1243 ± 12"],
        ["oil", "4", "2", "2", "12.0 ± 2.8"],
        ["ink", "4", "2", "2", "5"],
    ]


def test_mean_beyond_a_million_keeps_its_whole_part():
    assert format_spread(summarize([1234567.25])) == "1234567"
    assert format_spread(summarize([1234567.0, 1234567.0 + 1e-7])) == "1234567 ± 7.1e-08"


def test_group_column_appears_once_even_if_requested_twice(sweeper, shop):
    assert split_cells(sweeper("results", shop, "--by", "steps", "--columns", "steps,sharpness"))[:2] == [
        ["steps", "trials", "succeeded", "sharpness"],
        ["4", "4", "4", "8.5 ± 4.4"],
    ]
    groups = sweeper("results", shop, "--by", "style", "--columns", "style,sharpness", "--json").json
    assert [row["style"] for row in groups] == ["in oil", "in ink"]


def test_by_json_has_the_whole_summary(sweeper, shop):
    groups = sweeper("results", shop, "--by", "steps", "--where", "style == 'in oil'", "--json").json
    assert groups[0] == {
        "steps": 4, "trials": 2, "succeeded": 2,
        "sharpness": {"n": 2, "mean": 12.0, "sd": pytest.approx(8**0.5), "least": 10.0, "greatest": 14.0},
    }  # fmt: skip
    assert groups[1]["trials"] == 2
    assert groups[1]["sharpness"] == {"n": 1, "mean": 1.0, "sd": None, "least": 1.0, "greatest": 1.0}


def test_any_column_can_be_grouped_by(sweeper, shop):
    groups = sweeper("results", shop, "--by", "status", "--columns", "seed", "--json").json
    assert [(row["status"], row["seed"]["n"]) for row in groups] == [("succeeded", 7), ("failed", 1)]


def test_pivot_has_x_across_and_y_down(sweeper, shop):
    assert split_cells(sweeper("results", shop, "--pivot", "steps, style, sharpness"))[2:] == [
        ["style \\ steps", "4", "8"],
        ["oil", "12.0 ± 2.8", "1"],
        ["ink", "5", "1243 ± 12"],
    ]


def test_pivot_json_has_null_for_empty_cells(sweeper, shop):
    pivot = sweeper("results", shop, "--pivot", "seed,steps,sharpness", "--where", "style == 'in oil'", "--json").json
    assert (pivot["x"], pivot["y"], pivot["column"], pivot["across"]) == ("seed", "steps", "sharpness", [1, 2])
    assert [(row["value"], [cell and cell["mean"] for cell in row["cells"]]) for row in pivot["rows"]] == [
        (4, [10.0, 14.0]),
        (8, [1.0, None]),
    ]


def test_text_metric_is_shown_but_has_no_mean(sweeper, shop):
    assert [row["kind"] for row in sweeper("results", shop, "--json").json].count("a fox") == 7
    assert "kind" not in sweeper("results", shop, "--by", "style").out


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (
            ["--by", "stlye", "--columns", "kind,shrpness", "--where", "stes > 1"],
            [
                "--by: there is no column 'stlye'; did you mean 'style'?",
                f"--columns: {NO_NUMBERS}",
                "--columns: there is no column 'shrpness'; did you mean 'sharpness'?",
                "--where: there is no column 'stes'; did you mean 'steps'?",
            ],
        ),
        (["--by", "style", "--sort", "zz"], ["--sort: there is no column 'zz'; columns: style, sharpness, trials, "
                                             "succeeded"]),
        (["--by", "style,style"], ["--by: 'style' is listed 2 times; list it once"]),
        (
            ["--pivot", "steps,seed"],
            ["--pivot: has 2 names but needs three: X,Y,METRIC, such as steps,seed,sharpness"],
        ),
        (["--pivot", ""], ["--pivot: has 0 names but needs three: X,Y,METRIC, such as steps,seed,sharpness"]),
        (
            ["--by", "", "--columns", ",", "--sort", ""],
            [
                f"--by: names no column; columns: {COLUMNS}",
                f"--columns: names no column; columns: {COLUMNS}",
                f"--sort: there is no column ''; columns: {COLUMNS}",
            ],
        ),
        (
            ["--pivot", "steps,seed,kind", "--by", "style", "--sort", "x", "--limit", "1"],
            [
                "--limit: a pivot table is always shown whole",
                f"--pivot: {NO_NUMBERS}",
                "--pivot: cannot be combined with --by; give one",
                "--sort: a pivot table keeps the order of the sweep",
            ],
        ),
    ],
)  # fmt: skip
def test_every_wrong_option_is_reported_at_once(sweeper, shop, options, messages):
    outcome = sweeper("results", shop, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines() == [f"error: {message}" for message in messages]


numbers = st.floats(-1e6, 1e6) | st.integers(-(2**40), 2**40)
values = st.one_of(numbers, st.none(), st.booleans(), st.text(max_size=3))


@given(st.lists(values))
def test_summary_ignores_values_that_are_not_numbers(mixed):
    numbers_only = [value for value in mixed if type(value) in (int, float)]
    summary = summarize(mixed)
    assert (summary is None) == (not numbers_only)
    if summary is not None:
        assert summary.n == len(numbers_only)
        assert summary.mean == pytest.approx(statistics.mean(numbers_only), rel=1e-9, abs=1e-6)
        assert (summary.least, summary.greatest) == (min(numbers_only), max(numbers_only))
        if summary.n > 1:
            assert summary.sd == pytest.approx(statistics.stdev(numbers_only), rel=1e-6, abs=1e-4)


mixed_values = st.one_of(
    values, st.sampled_from([1, 1.0, True, "1", 0, False, "", "é\U0001f98a", -0.0, 2**64 - 1, float("nan")])
)


def key_of(value):
    """What keeps values apart: their type, but for numbers of equal size."""
    kind = "number" if type(value) in (int, float) else type(value)
    return kind, value


@settings(deadline=None)  # the first example also imports modules
@given(st.lists(st.fixed_dictionaries({"x": mixed_values, "y": mixed_values, "m": numbers | st.none()}), min_size=1))
def test_groups_and_pivots_equal_a_plain_loop_over_rows(rows):
    table = {name: [row[name] for row in rows] for name in rows[0]}
    expected = {}
    for index, row in enumerate(rows):
        expected.setdefault((key_of(row["x"]), key_of(row["y"])), []).append(index)

    groups = group_rows(table, ["x", "y"])
    pivot = make_pivot(table, "x", "y", "m")

    assert [group.rows for group in groups] == list(expected.values())
    cells = [cell for row in pivot.rows for cell in row.cells if cell is not None]
    sums = [summarize(rows[index]["m"] for index in indexes) for indexes in expected.values()]
    assert sorted(map(repr, cells)) == sorted(repr(found) for found in sums if found is not None)


def test_1_true_and_the_text_1_are_three_values():
    groups = group_rows({"x": [1, True, "1", 1.0, None]}, ["x"])
    assert [group.values[0] for group in groups] == [1, True, "1", None]
    assert [group.rows for group in groups] == [[0, 3], [1], [2], [4]]
