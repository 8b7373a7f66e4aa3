"""Tables: their columns, the exact types of the DataFrame, and every export format read back."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.errors import ResultsError, UsageError
from sweeper.model.result import OUTCOME_COLUMNS, Result
from sweeper.model.selection import Selection
from sweeper.store import Store
from sweeper.store.row_queries import batch_results
from sweeper.tables import dataframe, export
from sweeper.tables.query_results import ResultsQuery, query_results
from tests.tables.written_results import write_results

SEED = 2**64 - 1
TEXT = str(pd.Series(["a"]).dtype)
REMEDY = (
    "use one of .csv, .tsv, .jsonl, .ndjson, .parquet, .md, .markdown, "
    "or give the format: csv, tsv, jsonl, parquet, markdown"
)


@dataclass(frozen=True)
class Layout:
    axis_columns: tuple[str, ...] = ()
    slot_names: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()


def make_rows(values):
    layout = Layout(slot_names=("x",))
    results = [Result(i, {}, {"x": value}, "d" * 64) for i, value in enumerate(values)]
    return results, layout


def build_frame(results, layout):
    return dataframe.build_frame(batch_results(results), layout)


def export_bytes(rows, kind, **options):
    results, layout = rows
    buffer = io.BytesIO()
    export.export_batches(batch_results(results), layout, buffer, kind, **options)
    return buffer.getvalue()


def shop_results():
    layout = Layout(("style", "style.label", "seed"), ("prompt", "seed", "steps"), ("brightness",))
    done = Result(
        0, {"style": "in oil", "style.label": "oil", "seed": SEED},
        {"prompt": "a fox, in oil", "seed": SEED, "steps": 4},
        "a" * 64, "succeeded", ("artifacts/x.png",), ("b" * 64,), "embedded", "id-1", 1, 0.5, 0.25, 0.04, "priced",
        metrics={"brightness": 127.5},
    )  # fmt: skip
    failed = Result(
        1, {"style": "", "style.label": "none", "seed": 7}, {"prompt": "a fox,\n", "seed": 7, "steps": 4},
        "c" * 64, "failed", target="embedded", prompt_id="id-2", attempts=2, error_type="ExecutionError",
        error='node 3: "no"',
    )  # fmt: skip
    return [done, failed], layout


def test_columns_are_trial_axes_slots_outcome_metrics():
    results, layout = shop_results()

    frame = build_frame(results, layout)

    assert tuple(frame.columns) == (
        "trial", "style", "style.label", "seed", "prompt", "steps", *OUTCOME_COLUMNS, "brightness",
    )  # fmt: skip


def test_empty_frame_has_every_column_and_type():
    _, layout = shop_results()

    frame = build_frame([], layout)

    assert tuple(frame.columns) == export.column_names(layout)
    assert frame["trial"].dtype == "int64"
    assert frame["ran_s"].dtype == frame["cost"].dtype == "float64"


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, -2], "int64"),
        ([1, None], "Int64"),
        ([0, SEED], "uint64"),
        ([None, SEED], "UInt64"),
        ([-1, SEED], "object"),
        ([0, 2**70], "object"),
        ([1, 2.5], "object"),
        ([True, False], "bool"),
        ([True, None], "boolean"),
        ([1.5, None], "float64"),
        ([1, "one"], "object"),
        ([None, None], "object"),
    ],
)
def test_column_has_the_narrowest_exact_type(values, dtype):
    frame = build_frame(*make_rows(values))

    assert str(frame["x"].dtype) == dtype
    read = [None if pd.isna(value) else value for value in frame["x"].tolist()]
    assert read == values
    assert [type(value) for value in read] == [type(value) for value in values]


def test_lists_and_mappings_are_json_text_in_the_frame():
    frame = build_frame(*make_rows([[1, "é"], {"a": None}, 3]))

    assert frame["x"].tolist() == ['[1, "é"]', '{"a": null}', 3]


def test_half_a_surrogate_pair_becomes_a_replacement_character():
    frame = build_frame(*make_rows(["cut \ud83d"]))

    assert frame["x"].tolist() == ["cut \ufffd"]


def test_streamed_csv_replaces_surrogates_too(tmp_path):
    layout = Layout(slot_names=("x",))

    export.export_batches(batch_results([Result(0, {}, {"x": "cut \ud83d"}, "d" * 64)]), layout, tmp_path / "x.csv")

    assert "0,cut \ufffd," in (tmp_path / "x.csv").read_text(encoding="utf-8")


def test_parquet_replaces_surrogates_in_a_column_of_mixed_types():
    rows = make_rows(["cut \ud83d", 3])

    assert pd.read_parquet(io.BytesIO(export_bytes(rows, "parquet")))["x"].tolist() == ['"cut \ufffd"', "3"]


def test_csv_quotes_a_column_that_has_marks_in_one_part_only():
    rows = make_rows(["plain"] * 9000 + ['a "mark"', ""])

    cells = [line.split(",")[1] for line in export_bytes(rows, "csv").decode().split("\r\n")[1:-1]]
    assert cells == ["plain"] * 9000 + ['"a ""mark"""', '""']


def test_csv_distinguishes_missing_from_empty_and_follows_rfc_4180():
    results, layout = shop_results()

    lines = export_bytes((results, layout), "csv").decode("utf-8")

    assert lines == (
        "trial,style,style.label,seed,prompt,steps,digest,status,outputs,sha256,target,prompt_id,attempts,queued_s,"
        "ran_s,cost,cost_kind,currency,models,error_type,error,brightness\r\n"
        f'0,in oil,oil,18446744073709551615,"a fox, in oil",4,{"a" * 64},succeeded,"[""artifacts/x.png""]",'
        f'"[""{"b" * 64}""]",embedded,id-1,1,0.5,0.25,0.04,priced,USD,,,,127.5\r\n'
        f'1,"",none,7,"a fox,\n",4,{"c" * 64},failed,[],[],embedded,id-2,2,,,,,,,ExecutionError,"node 3: ""no""",\r\n'
    )


def test_a_file_has_what_a_stream_has_and_nothing_is_left_beside_it(tmp_path):
    results, layout = shop_results()
    path = tmp_path / "results.csv"

    export.export_batches(batch_results(results * 9000), layout, path)

    assert path.read_bytes() == export_bytes((results * 9000, layout), "csv")
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.csv"]


def test_tsv_ends_lines_in_lf_and_quotes_tabs():
    rows = make_rows(["a\tb", "plain, text"])

    lines = export_bytes(rows, "tsv").decode("utf-8").split("\n")

    assert lines[1].startswith('0\t"a\tb"\t')
    assert lines[2].startswith("1\tplain, text\t")


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "+1", "-x", "@SUM(A1)", "\tx", "\rx", "\nx", "\0x", " =1", "\ufeff=1", "\xa0\u200b\ufeff @x",
        "\v-1", "\u3000+1", "\u202e=1", "\uff1d1", "\uff0b1", "\uff0d1", " \uff20x", "\ufe661",
    ],
)  # fmt: skip
def test_formulas_are_escaped_only_on_request(text):
    rows = make_rows([text])

    plain = list(csv.reader(io.StringIO(export_bytes(rows, "csv").decode(), newline="")))
    safe = list(csv.reader(io.StringIO(export_bytes(rows, "csv", safe=True).decode(), newline="")))

    assert plain[1][1] == text
    assert safe[1][1] == "'" + text


@pytest.mark.parametrize("text", ["a = b", " a-b", "'=1", "1-2", "\u2026", "油\uff1d風", " ", ""])
def test_other_texts_are_exported_as_they_are(text):
    rows = make_rows([text])

    safe = list(csv.reader(io.StringIO(export_bytes(rows, "csv", safe=True).decode(), newline="")))

    assert safe[1][1] == text


def test_negative_numbers_are_not_escaped():
    rows = make_rows([-5, -0.5, "x"])

    read = list(csv.reader(io.StringIO(export_bytes(rows, "csv", safe=True).decode(), newline="")))

    assert [row[1] for row in read[1:]] == ["-5", "-0.5", "x"]


def test_json_lines_hold_lists_as_lists_and_missing_as_null():
    results, layout = shop_results()

    rows = [json.loads(line) for line in export_bytes((results, layout), "jsonl").splitlines()]

    assert rows[0]["outputs"] == ["artifacts/x.png"]
    assert rows[0]["seed"] == SEED
    assert rows[1]["sha256"] == []
    assert rows[1]["brightness"] is None
    assert rows[1]["prompt"] == "a fox,\n"


def test_parquet_keeps_seeds_texts_booleans_and_missing_values(tmp_path):
    layout = Layout(slot_names=("seed", "maybe", "flag", "text", "mixed"))
    params = [
        {"seed": SEED, "maybe": None, "flag": True, "text": "", "mixed": 1},
        {"seed": 0, "maybe": SEED, "flag": False, "text": None, "mixed": "one"},
    ]
    results = [Result(i, {}, row, "d" * 64) for i, row in enumerate(params)]

    export.export_batches(batch_results(results), layout, tmp_path / "x.parquet", "parquet")
    back = pd.read_parquet(tmp_path / "x.parquet")

    assert back["seed"].tolist() == [SEED, 0]
    assert back["maybe"].tolist() == [pd.NA, SEED]
    assert back["flag"].tolist() == [True, False]
    assert back["text"].iloc[0] == ""
    assert back["text"].isna().tolist() == [False, True]
    assert back["mixed"].tolist() == ["1", '"one"']


@pytest.mark.parametrize(
    ("first", "last", "dtype"),
    [
        (1, None, "Int64"),
        (1, SEED, "uint64"),
        (-1, SEED, "object"),
        (None, 2.5, "float64"),
        (1, 2.5, "object"),
        (True, 1, "object"),
        ("a", None, TEXT),
        ("\u00fc", [1], TEXT),
        (True, None, "boolean"),
    ],
)
def test_column_whose_parts_differ_has_the_type_of_all(first, last, dtype):
    values = [first] * 5000 + [last] * 5000
    results, layout = make_rows(values)
    known = [to_cell(value) for value in values]

    frame = build_frame(results, layout)
    read = pd.read_parquet(io.BytesIO(export_bytes((results, layout), "parquet")))

    assert str(frame["x"].dtype) == dtype
    assert [None if pd.isna(cell) else cell for cell in frame["x"].tolist()] == known
    is_mixed = {type(value) for value in known} - {type(None)} in ({int, float}, {bool, int}) or -1 in known
    as_text = [json.dumps(value) for value in known] if is_mixed else known
    assert [None if pd.isna(cell) else cell for cell in read["x"].tolist()] == as_text


@pytest.mark.parametrize(("trials", "cells"), [({0, 2}, ["1", "3"]), (set(), [])])
def test_selection_does_not_change_the_type_of_a_parquet_column(tmp_path, trials, cells):
    results, layout = make_rows([1, "one", 3])

    count = export.export_batches(batch_results(results), layout, tmp_path / "x.parquet", "parquet", trials=trials)

    read = pd.read_parquet(tmp_path / "x.parquet")["x"]
    assert (count, read.tolist(), str(read.dtype)) == (len(cells), cells, TEXT)


def test_markdown_has_one_escaped_line_per_row():
    rows = make_rows(["a|b\nc *d*", None])

    lines = export_bytes(rows, "markdown").decode("utf-8").splitlines()

    starts = ["| trial | x | digest |", "| --- | --- | --- |", r"| 0 | a\|b<br>c \*d\* | ddd", "| 1 |  | ddd"]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


@pytest.mark.parametrize(
    ("name", "format_name", "message"),
    [
        (
            "x.xlsx", None,
            f"x.xlsx: unknown format '.xlsx'; {REMEDY}",
        ),
        (
            "x", None,
            f"x: the file name has no suffix, so the format is unknown; {REMEDY}",
        ),
        ("x", "jsonline", "unknown format 'jsonline'; did you mean 'jsonl'?"),
        ("x", "xml", "unknown format 'xml'; allowed: csv, tsv, jsonl, parquet, markdown"),
    ],
)  # fmt: skip
def test_unknown_format_is_refused_with_the_list(name, format_name, message):
    with pytest.raises(UsageError) as caught:
        export.choose_format(name, format_name)

    assert str(caught.value) == message


def test_safe_is_refused_for_other_formats():
    rows = make_rows([1])

    with pytest.raises(UsageError, match="only in csv and tsv, not in jsonl"):
        export_bytes(rows, "jsonl", safe=True)


def test_failed_export_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("old")

    def fail_halfway():
        yield Result(0, {}, {}, "d" * 64)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        export.export_batches(batch_results(fail_halfway()), Layout(), path)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_is_a_results_error(tmp_path):
    with pytest.raises(ResultsError, match="no such results folder"):
        dataframe.results(tmp_path / "nowhere")


cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), SEED),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8")),
)
columns = st.one_of(st.lists(cells, min_size=1), *[
    st.lists(st.one_of(st.none(), kind), min_size=1)
    for kind in (st.booleans(), st.integers(0, SEED), st.floats(allow_nan=False), st.text('a,"\r\n\t =é'))
])  # fmt: skip


@given(columns)
def test_every_csv_cell_survives_a_round_trip(values):
    rows = make_rows(values)

    # The csv module cannot distinguish an empty from a missing field, so the test counts the quotes in the raw text.
    text = export_bytes(rows, "csv").decode("utf-8")
    fields = [row[1] for row in csv.reader(io.StringIO(text, newline=""), strict=True)][1:]

    assert len(fields) == len(values)
    for field, value in zip(fields, values, strict=True):
        if isinstance(value, bool):
            assert field == str(value).lower()
        elif isinstance(value, (int, float)):
            assert type(value)(field) == value
        else:
            assert field == (value or "")
    assert text.count('"",') >= values.count("")


@given(columns)
def test_json_lines_keep_value_and_type(values):
    rows = make_rows([value for value in values if value not in (float("inf"), float("-inf"))] or [None])
    read = [json.loads(line)["x"] for line in export_bytes(rows, "jsonl").splitlines()]
    sent = [value for value in values if value not in (float("inf"), float("-inf"))] or [None]

    assert [(type(value), value) for value in read] == [(type(value), value) for value in sent]


kept_apart = st.sampled_from(
    [1, 1.0, True, "1", 0, False, None, "", "é\U0001f98a", [1], [1.5, "1"], {"a": 1}, SEED, 2.5]
)


def to_cell(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def key_of(value):
    return "number" if type(value) in (int, float) else type(value), to_cell(value)


@settings(deadline=None, max_examples=15)
@given(
    rows=st.lists(st.fixed_dictionaries({"a": kept_apart, "b": kept_apart}), min_size=1, max_size=20), data=st.data()
)
def test_groups_filters_and_frames_equal_a_plain_loop_over_results(tmp_path_factory, rows, data):
    rows = [row | {"seed": index} for index, row in enumerate(rows)]
    numbers = data.draw(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=len(rows), max_size=len(rows)))
    failed = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    folder = write_results(tmp_path_factory.mktemp("made"), rows, {"glow": numbers}, failed=failed)
    with Store.open(folder, readonly=True) as store:
        results = list(store.results())
    groups = {}
    for result in results:
        key = key_of(result.params["a"]), key_of(result.params["b"])
        groups.setdefault(key, []).append(result)
    bright = [result for result in results if result.metrics.get("glow", 0) > 0]

    by = query_results(folder, ResultsQuery(by=["a", "b"])).found.rows
    where = Selection(where="glow > 0")
    selected = query_results(folder, ResultsQuery(where, columns=["trial", "a"])).found.rows
    frame = dataframe.results(folder)

    assert [(key_of(row["a"]), key_of(row["b"])) for row in by] == [(kind_of(a), kind_of(b)) for a, b in groups]
    for row, members in zip(by, groups.values(), strict=True):
        glows = [member.metrics["glow"] for member in members if "glow" in member.metrics]
        assert row["trials"] == len(members)
        assert row["succeeded"] == sum(member.status == "succeeded" for member in members)
        assert (row["glow"].n if row.get("glow") else 0) == len(glows)
        assert not glows or row["glow"].mean == pytest.approx(sum(glows) / len(glows), abs=1e-3)
    expected = [{"trial": row.trial, "a": to_cell(row.params["a"])} for row in bright]
    assert list(map(repr, selected)) == list(map(repr, expected))
    assert [type(cell) for cell in frame["seed"].tolist()] == [int] * len(rows)
    assert [None if pd.isna(cell) else cell for cell in frame["a"].tolist()] == [to_cell(row["a"]) for row in rows]


def kind_of(key):
    """The key of a cell: a list is a text there."""
    kind, cell = key
    return (str if kind in (list, dict) else kind), cell
