"""`sweeper export --to`: the folder for Hugging Face, and what reads it where these libraries are installed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sweeper.cli import main
from sweeper.store import Store
from sweeper.store.records import FAILED, INTENT, SUCCEEDED, Artifact, JobEnd, JobRecord, TableLayout
from sweeper.tables.hf_dataset import build_column, build_texts, rename_columns
from tests import ROOT

SEED = 2**64 - 1
LARGEST = 2**63 - 1


def write_planted_results(folder, trials, metrics=(), target="http://gpu-1:8188"):
    """Results with these trials: (cells, suffixes of files, metrics). A trial without files failed."""
    names = tuple(trials[0][0])
    layout = TableLayout("planted", names, names, tuple(metrics))
    (folder / "artifacts").mkdir(parents=True)
    with Store.open(folder) as store:
        with store.transaction():
            run = store.create_run(layout, file="planted.yaml", targets=[target], now=1.0)
            store.add_trials(run, [(i, f"{i:064}", cells, cells) for i, (cells, *_) in enumerate(trials)])
        for index, (_, suffixes, values) in enumerate(trials):
            files = []
            for number, suffix in enumerate(suffixes):
                path = folder / f"artifacts/{index:04}_a-test_{number}{suffix}"
                Image.new("RGB", (8, 6), (index, number, 9)).save(path, "PNG")
                sha = hashlib.sha256(path.read_bytes()).hexdigest()
                files.append(Artifact("9", "output", number, f"artifacts/{path.name}", sha, 1, path.name))
            job = JobRecord(f"job{index}", run, target, f"{index:064}", "s", 1, None, INTENT, 1.0)
            store.record_intent(job)
            state, error = (SUCCEEDED, None) if files else (FAILED, ("ExecutionError", f"no model in {folder}"))
            store.record_finished(job.id, JobEnd(state, started=2.0, ended=2.5, error=error, artifacts=files))
            store.cache_metrics((f.sha256, name, value) for f in files for name, value in values.items())
        store.end_run(run, now=2.0, stopped_by=None)
    return folder


@pytest.fixture
def awkward_results(tmp_path, monkeypatch):
    """Two trials with a picture and one that failed; the names and values of the columns are awkward."""
    monkeypatch.chdir(tmp_path)
    trials = [
        (
            {"seed": SEED, "image": f"{tmp_path}/input/cat.png", "lora_file_name": "a.st", "mixed": 1},
            [".png"],
            {"m": 0.5},
        ),
        ({"seed": 1, "image": "dog.png", "lora_file_name": None, "mixed": "one"}, [".png"], {"m": 2.0}),
        ({"seed": 2, "image": "dog.png", "lora_file_name": None, "mixed": True}, [], {}),
    ]
    return write_planted_results(tmp_path / "results", trials, ["m", "empty"])


def export(capsys, *arguments):
    capsys.readouterr()
    code = main(["export", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def expected_rows():
    shared = {"status": "succeeded", "target": "http://gpu-1:8188", "attempts": 1, "ran_s": 0.5}
    cells = [
        {"trial": 0, "seed": str(SEED), "image_": "cat.png", "lora_file_name_": "a.st", "mixed": "1"},
        {"trial": 1, "seed": "1", "image_": "dog.png", "lora_file_name_": None, "mixed": "one"},
    ]
    pictures = [Path(f"results/artifacts/000{index}_a-test_0.png").read_bytes() for index in (0, 1)]
    return [
        {
            **row,
            "digest": f"{index:064}",
            **shared,
            "m": [0.5, 2.0][index],
            "sha256": hashlib.sha256(picture).hexdigest(),
        }
        for index, (row, picture) in enumerate(zip(cells, pictures, strict=True))
    ]


def test_hf_dataset_is_an_image_folder_with_typed_metadata(awkward_results, capsys):
    code, _, err = export(capsys, awkward_results, "--to", "hf-dataset", "out")
    assert (code, err.splitlines()) == (0, [
        "left out 1 trial that has no such file",
        "renamed columns that hf-dataset would not take as they are: image is image_, lora_file_name is "
        "lora_file_name_",
        "wrote numbers as texts, because they are too large for hf-dataset or beside texts: seed, mixed",
        "wrote 2 rows with their pictures to out",
    ])  # fmt: skip
    names = ["0000_a-test_0.png", "0001_a-test_0.png"]
    assert list_files(Path("out")) == [
        ".sweeper-export.json",
        "README.md",
        *(f"train/{name}" for name in names),
        "train/metadata.jsonl",
    ]
    lines = [json.loads(line) for line in Path("out/train/metadata.jsonl").read_text("utf-8").splitlines()]
    assert lines == [{"file_name": name, **row} for name, row in zip(names, expected_rows(), strict=True)]
    assert list(lines[0])[:5] == ["file_name", "trial", "seed", "image_", "lora_file_name_"]
    assert Path("out/README.md").read_text().startswith("---\nconfigs:\n")


def test_no_path_of_this_machine_is_in_the_files(awkward_results, capsys, tmp_path):
    assert export(capsys, awkward_results, "--to", "hf-dataset", "out")[0] == 0
    texts = [path.read_bytes() for path in Path("out").rglob("*") if path.is_file()]
    assert len(texts) >= 4
    assert not [text for text in texts if str(tmp_path).encode() in text]


def test_json_reports_what_was_written_and_selection_applies(awkward_results, capsys):
    code, out, err = export(capsys, awkward_results, "--to", "hf-dataset", "out", "--where", "seed == 1", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "written": ["out"], "format": "hf-dataset", "rows": 1, "renamed": {"image": "image_"},
        "notes": ["renamed columns that hf-dataset would not take as they are: image is image_"],
    }  # fmt: skip


def test_each_picture_of_a_trial_is_a_row(tmp_path, capsys):
    results = write_planted_results(
        tmp_path / "r", [({"seed": 1}, [".png", ".mp4", ".png"], {}), ({"seed": 2}, [".png"], {})]
    )
    _, _, err = export(capsys, results, "--to", "hf-dataset", tmp_path / "out")
    assert "left out other files: 1 .mp4\n" in err
    lines = [json.loads(line) for line in (tmp_path / "out/train/metadata.jsonl").read_text().splitlines()]
    assert [(line["trial"], line["output"], line["file_name"]) for line in lines] == [
        (0, 0, "0000_a-test_0.png"), (0, 1, "0000_a-test_2.png"), (1, 0, "0001_a-test_0.png"),
    ]  # fmt: skip


def test_films_are_exported_where_the_format_holds_them(tmp_path, capsys):
    results = write_planted_results(tmp_path / "r", [({"seed": 1}, [".mp4"], {})])
    assert export(capsys, results, "--to", "hf-dataset", tmp_path / "out")[0] == 0
    assert (tmp_path / "out/train/0000_a-test_0.mp4").is_file()
    results = write_planted_results(tmp_path / "t", [({"seed": 1}, [".txt"], {})])
    code, _, err = export(capsys, results, "--to", "hf-dataset", tmp_path / "other")
    assert (code, err.removeprefix(f"error: {results}: ")) == (
        2,
        "hf-dataset holds pictures or films or sounds, and no selected trial has any; left out other files: 1 .txt; "
        "left out 1 trial that has no such file\n",
    )
    assert not (tmp_path / "other").exists()


def test_later_export_replaces_its_own_files_only(awkward_results, capsys):
    assert export(capsys, awkward_results, "--to", "hf-dataset", "out")[0] == 0
    Path("out/README.md").write_text("my card")
    Path("out/train/notes.txt").write_text("mine")
    assert export(capsys, awkward_results, "--to", "hf-dataset", "out", "--limit", "1")[0] == 0
    assert list_files(Path("out")) == [
        ".sweeper-export.json", "README.md", "train/0000_a-test_0.png", "train/metadata.jsonl", "train/notes.txt",
    ]  # fmt: skip
    assert Path("out/README.md").read_text() == "my card"
    assert (awkward_results / "artifacts/0001_a-test_0.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "hf-datset", "x"], "--to hf-datset: unknown format; did you mean 'hf-dataset'?"),
        (["--to", "csv", "x"], "--to csv: unknown format; allowed: hf-dataset"),
        (["--to", "hf-dataset"], "--to hf-dataset: name the folder to write, such as -o my-hf-dataset"),
        (["--to", "hf-dataset", "-o", "-"], "--to hf-dataset: name the folder to write, such as -o my-hf-dataset"),
        (["--to", "hf-dataset", "x", "--format", "csv"],
         "--format and --safe-csv are for tables without pictures; leave them out, or leave out --to"),
        (["-o", "x", "y"], "-o x and y: both say what to write; give one"),
        ([], "name the file to write, such as -o table.csv, or -o - for stdout"),
        (["--to", "hf-dataset", "full"],
         "full: contains files that are not of an earlier export; write to a new folder, such as full-hf-dataset"),
        (["--to", "hf-dataset", "full/file"],
         "full/file: is a file, and a folder is needed there; write to a new folder, such as full/file-hf-dataset"),
        (["--to", "hf-dataset", "x", "--limit", "0"],
         "results: hf-dataset holds pictures or films or sounds, and no selected trial has any"),
    ],
)  # fmt: skip
def test_mistake_exits_2_and_writes_nothing(awkward_results, capsys, arguments, message):
    Path("full").mkdir()
    Path("full/file").touch()
    assert export(capsys, awkward_results, "--to", "hf-dataset", "hf")[0] == 0
    before = list_files(Path())
    code, out, err = export(capsys, "results", *arguments)
    assert (code, out, err) == (2, "", f"error: {message}\n")
    assert list_files(Path()) == before


@pytest.mark.parametrize("name", ["../secret", "elsewhere/secret", "/secret", "train/../../secret"])
def test_list_of_a_stranger_removes_no_other_file(awkward_results, capsys, tmp_path, name):
    (tmp_path / "secret").write_text("mine")
    Path("out").mkdir()
    Path("out/elsewhere").symlink_to(tmp_path)
    Path("out/.sweeper-export.json").write_text(json.dumps({"files": [name]}))
    code, _, err = export(capsys, awkward_results, "--to", "hf-dataset", "out")
    assert (code, (tmp_path / "secret").read_text()) == (2, "mine")
    assert "out/.sweeper-export.json: names files outside of the folder" in err


def test_folder_of_pictures_that_is_a_link_is_refused(awkward_results, capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    Path("out").mkdir()
    Path("out/.sweeper-export.json").write_text(json.dumps({"files": []}))
    Path("out/train").symlink_to(tmp_path / "mine")
    code, _, err = export(capsys, awkward_results, "--to", "hf-dataset", "out")
    assert (code, list((tmp_path / "mine").iterdir())) == (2, [])
    assert "out/train: is a link" in err


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ([1, None], [1, None]),
        ([1, 2.5], [1.0, 2.5]),
        ([0.5, float("inf"), float("nan")], [0.5, None, None]),
        ([True, False], [True, False]),
        ([True, 1], ["true", "1"]),
        ([LARGEST + 1, 1], [str(LARGEST + 1), "1"]),
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        ([[1, "é"], "a"], ['[1, "é"]', "a"]),
        (["/home/me/cat.png", "C:\\me\\cat.png", "/imagine a fox"], ["cat.png", "cat.png", "/imagine a fox"]),
        ([{"file": "/home/me/cat.png"}], ['{"file": "cat.png"}']),
        (["http://me:key@gpu:1/?token=x"], ["http://gpu:1/"]),
        (["half \ud83d"], ["half \ufffd"]),
    ],
)  # fmt: skip
def test_column_has_one_type_and_nothing_of_the_machine(cells, values):
    column = build_column(cells)
    assert (list(map(type, column)), column) == (list(map(type, values)), values)


def test_columns_without_a_value_are_left_out():
    assert build_column([None, float("nan")]) == []


def test_first_lines_of_a_large_hf_dataset_type_every_column():
    numbers = range(3000)
    late = [None] * 2000 + [0.5] * 1000
    columns = {"x": numbers, "prompt": ["a" * 400] * 3000, "m": late}
    texts = build_texts("large", [f"{number}.png" for number in numbers], columns)
    lines = [json.loads(line) for line in texts["train/metadata.jsonl"].splitlines()]
    assert [line["x"] for line in lines] == [0, 2000, *range(1, 2000), *range(2001, 3000)]
    assert [(line["file_name"], line["m"]) for line in lines[:3]] == [
        ("0.png", None),
        ("2000.png", 0.5),
        ("1.png", None),
    ]


def test_column_names_are_ones_that_no_tool_uses_itself():
    names = ["image", "image_", "file_name", "my_file_names", "_id", "style.label", "style_label", "metadata", "steps"]
    assert list(rename_columns(names).items()) == [
        ("image_", "image_"), ("style_label", "style_label"), ("steps", "steps"), ("image", "image__"),
        ("file_name", "file_name_"), ("my_file_names", "my_file_names_"), ("_id", "id_"),
        ("style.label", "style_label_"), ("metadata", "metadata_"),
    ]  # fmt: skip


# --- the real libraries


# FiftyOne keeps samples in MongoDB. Without one, mongomock takes its place; only the writing is tested.
CONNECT = """
import mongoengine, mongomock
import fiftyone.core.odm.database as database
mongoengine.connect("fiftyone", mongo_client_class=mongomock.MongoClient)
database._client = mongoengine.get_connection()
database._connect = lambda: None
"""
SNIPPETS = re.findall(
    r"^```py\n(.*?)^```$", (ROOT / "sweeper/tables/README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The export of the documentation."""
    folder = tmp_path_factory.mktemp("exported")
    cells = [
        {"prompt": "a test chart, validation", "seed": SEED, "when": "2026-01-01"},
        {"prompt": "灯台", "seed": 1, "when": "soon"},
    ]
    results = write_planted_results(
        folder / "r", [(row, [".png"], {"sharpness": 0.25 + i}) for i, row in enumerate(cells)], ["sharpness"]
    )
    assert main(["export", str(results), "--to", "hf-dataset", "-o", f"{folder}/quickstart-hf"]) == 0
    return folder


def run_python(folder, code):
    environ = {
        **os.environ,
        "HOME": str(folder),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "HF_HUB_OFFLINE": "1",
    }
    environ |= {"FIFTYONE_DO_NOT_TRACK": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=110, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def require(*libraries):
    """Skip the test without these libraries, which the extra `test` lacks: they are large, and slow to resolve."""
    for name in libraries:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


def test_the_page_shows_how_each_tool_loads_an_export():
    assert [snippet.split()[1].strip(",") for snippet in SNIPPETS] == ["datasets", "fiftyone", "wandb"]


def test_datasets_loads_the_pictures_and_columns(exported):
    require("datasets")
    more = "print(pictures.features['seed'], [row['seed'] for row in pictures], pictures.column_names[:3])"
    assert run_python(exported, SNIPPETS[0] + more) == [
        "2 (8, 6) a test chart, validation 0.25",
        f"Value('string') ['{SEED}', '1'] ['image', 'trial', 'prompt']",
    ]


def test_fiftyone_imports_the_samples_and_fields(exported):
    require("fiftyone", "mongomock")
    more = """
for sample in dataset._sample_collection.find():
    print(sample["filepath"].rpartition("/")[2], sample["prompt"], sample["sharpness"])
"""
    assert run_python(exported, CONNECT + SNIPPETS[1] + more)[-3:] == [
        "2 fiftyone.core.fields.FloatField",
        "0000_a-test_0.png a test chart, validation 0.25",
        "0001_a-test_0.png 灯台 1.25",
    ]


def test_wandb_logs_a_table_with_the_pictures(exported):
    require("wandb")
    more = """
print(table.columns[:2], table.data[0][0].image.size, table.get_column("sharpness"))
"""
    assert run_python(exported, SNIPPETS[2] + more) == ["['image', 'trial'] (8, 6) [0.25, 1.25]"]
