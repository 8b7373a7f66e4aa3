"""`sweeper results`, `runs` and `export`: on a terminal, as JSON, and as a file."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from sweeper.tables import dataframe

SEED = 2**64 - 1


def test_results_shows_axes_outcome_metrics_and_errors(sweeper, recorded):
    outcome = sweeper("results", recorded)

    assert outcome.code == 0
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["trial", "style", "seed", "status", "attempts", "ran_s", "brightness", "error_type", "error"]
    assert lines[1] == ["0", "oil", str(SEED), "succeeded", "1", "0.5", "127.5"]
    assert lines[2] == [
        "1",
        "ink",
        str(SEED - 1),
        "failed",
        "1",
        "0.5",
        "ExecutionError",
        *["node", "3", "(KSampler):", "out", "of", "ideas"],
    ]
    assert lines[4] == ["3", "oil", str(SEED - 3), "pending", "0"]


def test_results_json_has_every_column_with_its_type(sweeper, recorded):
    rows = sweeper("results", recorded, "--json").json

    assert [row["status"] for row in rows] == ["succeeded", "failed", "cancelled", "pending"]
    assert rows[0]["seed"] == SEED
    assert rows[0]["outputs"] == ["artifacts/a.png"]
    assert rows[0]["brightness"] == 127.5
    assert rows[3]["error"] is None
    assert list(rows[0])[:4] == ["trial", "style", "seed", "prompt"]


@pytest.mark.parametrize(
    ("options", "trials"),
    [
        (["--where", "style == 'oil'"], [0, 3]),
        (["--where", "brightness > 100"], [0]),  # a comparison with a missing value is false
        (["--sort", "style"], [1, 0, 3, 2]),
        (["--sort", "-trial"], [3, 2, 1, 0]),
        (["--sort", "-style", "--sort", "-trial"], [2, 3, 0, 1]),
        (["--sort", "brightness"], [0, 1, 2, 3]),
        (["--limit", "2"], [0, 1]),
        (["--where", "style == 'oil'", "--sort", "-trial", "--limit", "1"], [3]),
    ],
)
def test_results_can_be_filtered_sorted_and_limited(sweeper, recorded, options, trials):
    assert [row["trial"] for row in sweeper("results", recorded, "--json", *options).json] == trials


def test_columns_option_selects_and_orders(sweeper, recorded):
    assert sweeper("results", recorded, "--columns", "status, trial", "--limit", "1", "--json").json == [
        {"status": "succeeded", "trial": 0}
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "stlye == 1"], "--where: there is no column 'stlye'; did you mean 'style'?"),
        (["--where", "style ==="], "--where: 'style ===' is not Jinja2: '=' is out of place; to compare, write =="),
        (["--where", "seed >"], "--where: 'seed >' is not Jinja2: a value is missing before its end"),
        (["--where", "style / 2"], "--where: trial 0: `/` cannot go between a text and a number (with style = 'oil')"),
        (["--sort", "stlye"], "--sort: there is no column 'stlye'; did you mean 'style'?"),
        (["--columns", "trial,stats"], "--columns: there is no column 'stats'; did you mean 'status'?"),
        (["--run", "7"], "results/shop: no run 7 here"),
    ],
)
def test_wrong_option_exits_2_with_the_nearest_name(sweeper, recorded, options, message):
    outcome = sweeper("results", recorded, *options)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {message}")


def test_experiment_file_selects_its_default_folder(sweeper, recorded, write):
    experiment = write("name: shop\ntemplate: t.json\n")

    assert sweeper("results", experiment, "--json").json == sweeper("results", recorded, "--json").json


@pytest.mark.parametrize("command", [["results"], ["runs"], ["export", "-o", "x.csv"]])
def test_folder_without_results_exits_2(sweeper, write, command):
    experiment = write("name: other\ntemplate: t.json\n")
    Path("empty").mkdir()
    messages = {
        "nowhere": "error: nowhere: no such results folder, and no experiment file of that name\n",
        "empty": "error: empty: no results here",
        "t.json": "error: t.json: neither a results folder nor an experiment file (.yaml)\n",
        experiment: "error: shop.yaml: there are no results in results/other yet",
    }

    for results, message in messages.items():
        outcome = sweeper(*command, results)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(message)
    assert not Path("x.csv").exists()


@pytest.mark.parametrize("command", [["results"], ["report"], ["export", "-o", "x.csv"], ["compare", "results/shop"]])
def test_misspelt_results_folder_is_reported_with_the_nearest(sweeper, recorded, write, command):
    write("name: shop\ntemplate: t.json\n")
    no_such = "no such results folder, and no experiment file of that name; did you mean"

    for name, message in {
        Path("results/shpo"): f"{no_such} {recorded}?",
        Path("shop"): f"{no_such} {recorded}?",
        Path("shp.yml"): f"{no_such} shop.yaml?",
        Path("results"): f"no results here, but in folders of it: {recorded}",
    }.items():
        outcome = sweeper(*command, name)
        assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {name}: {message}\n")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("afile/x.csv", "afile/x.csv: afile is a file, and a folder is needed there"),
        ("results", "-o 'results': is a folder; name a file, such as results/table.csv, or - for stdout"),
        ("", "-o '': is empty; name a file, such as table.csv, or - for stdout"),
    ],
)
def test_unwritable_export_is_reported(sweeper, recorded, output, message):
    Path("afile").touch()

    outcome = sweeper("export", recorded, "-o", output)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.replace("\\", "/") == f"error: {message}\n"


def test_runs_lists_the_runs_of_a_folder(sweeper, recorded):
    (run,) = sweeper("runs", recorded, "--json").json

    assert run == {
        "run": 1, "experiment": "shop", "file": "shop.yaml", "targets": ["embedded"],
        "started": "1970-01-12T13:46:40+00:00", "ended": "1970-01-12T13:47:40+00:00", "stopped_by": None,
        "trials": 4, "succeeded": 1, "failed": 1, "cancelled": 1, "pending": 1, "search": False,
    }  # fmt: skip
    assert sweeper("runs", recorded).out.splitlines()[1].split()[:2] == ["1", "1970-01-12T13:46:40+00:00"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "md"])
def test_export_chooses_the_format_by_suffix(sweeper, recorded, suffix):
    outcome = sweeper("export", recorded, "-o", f"x.{suffix}")

    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"wrote 4 rows to x.{suffix}\n")
    path = Path(f"x.{suffix}")
    readers = {
        "csv": lambda: _read_seeds(path, ","),
        "tsv": lambda: _read_seeds(path, "\t"),
        "jsonl": lambda: [json.loads(line)["seed"] for line in path.read_text().splitlines()],
        "parquet": lambda: list(pd.read_parquet(path)["seed"]),
        "md": lambda: [int(line.split("|")[3]) for line in path.read_text().splitlines()[2:]],
    }
    assert readers[suffix]() == [SEED, SEED - 1, SEED - 2, SEED - 3]


def _read_seeds(path, delimiter):
    text = io.StringIO(path.read_bytes().decode(), newline="")
    return [int(row["seed"]) for row in csv.DictReader(text, delimiter=delimiter)]


def test_export_to_stdout_writes_the_bytes_of_the_file(sweeper, process, recorded):
    sweeper("export", recorded, "-o", "x.csv")

    outcome = process("export", recorded, "-o", "-", "--format", "csv")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.encode() == Path("x.csv").read_bytes()


def test_python_results_have_the_same_rows(recorded):
    frame = dataframe.results(recorded)

    assert frame["seed"].dtype == "uint64"
    assert frame["status"].tolist() == ["succeeded", "failed", "cancelled", "pending"]
    assert dataframe.results(recorded, run="1").equals(frame)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "x.xlsx"], "error: x.xlsx: unknown format '.xlsx'; use one of .csv, .tsv,"),
        (["-o", "-"], "error: -o -: stdout has no suffix; give --format, one of csv, tsv, jsonl, parquet, markdown"),
        (["-o", "x.csv", "--format", "cvs"], "error: unknown format 'cvs'; did you mean 'csv'?"),
        (["-o", "x.md", "--safe-csv"], "error: formulas can be escaped only in csv and tsv, not in markdown"),
    ],
)
def test_impossible_export_exits_2_and_writes_nothing(sweeper, recorded, options, message):
    outcome = sweeper("export", recorded, *options)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(message)
    assert not list(Path().glob("x.*"))


def test_export_json_lists_the_written_file(sweeper, recorded):
    outcome = sweeper("export", recorded, "-o", "x.csv", "--json")

    assert (outcome.json, outcome.err) == ({"written": ["x.csv"], "format": "csv", "rows": 4}, "")
    refused = sweeper("export", recorded, "-o", "-", "--format", "csv", "--json")
    assert (refused.code, refused.err) == (2, "error: --json and -o - both write to stdout; give one\n")


def test_export_makes_missing_folders(sweeper, recorded):
    assert sweeper("export", recorded, "-o", "new/folder/x.csv").code == 0
    assert [path.name for path in Path("new/folder").iterdir()] == ["x.csv"]


def test_safe_csv_escapes_formulas(sweeper, recorded):
    from sweeper.store import Store

    with Store.open(recorded) as store, store.transaction():
        store.add_trials(1, [(4, "4" * 64, {"prompt": "=1+1", "seed": 1}, {"style": "@x", "seed": 1})])

    plain = sweeper("export", recorded, "-o", "-", "--format", "csv").out.splitlines()[-1]
    safe = sweeper("export", recorded, "-o", "-", "--format", "csv", "--safe-csv").out.splitlines()[-1]

    assert plain.startswith("4,@x,1,=1+1,")
    assert safe.startswith("4,'@x,1,'=1+1,")
