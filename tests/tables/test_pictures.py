"""`sweeper.results` knows where the pictures are, and a notebook shows them."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import sweeper
from sweeper.tables.dataframe import ResultsFrame

TEMPLATES = Path(__file__).parents[2] / "templates"
PROMPTS = ["<script>fox</script>", "灯台の夕暮れ、海の上の長い橋と小さな船と古い家"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "mine.yaml").write_text(
        f"template: {TEMPLATES / 'txt2img.json'}\nparams: {{width: 64, height: 64, steps: 1}}\n"
        f"sweep: {{grid: {{prompt: ['{PROMPTS[0]}', {PROMPTS[1]}], seed: [1, 2]}}}}\n",
        encoding="utf-8",
    )
    return sweeper.run(folder / "mine.yaml", target="embedded")


def test_pictures_are_named_by_trial_and_values(run):
    assert sorted(path.name for path in (run.out / "artifacts").iterdir()) == [
        "0000_seed-1_prompt-script-fox-script.png",
        "0001_seed-2_prompt-script-fox-script.png",
        "0002_seed-1_灯台の夕暮れ-海の上の長い橋と小さな船と.png",
        "0003_seed-2_灯台の夕暮れ-海の上の長い橋と小さな船と.png",
    ]


def test_results_has_the_absolute_path_of_each_picture(run, monkeypatch):
    monkeypatch.chdir(run.out.parent)
    frame = sweeper.results(run.out.name)
    assert isinstance(frame, pd.DataFrame)
    assert [Path(path).is_absolute() and Path(path).is_file() for path in frame["picture"]] == [True] * 4
    with (run.out / "results.csv").open(encoding="utf-8", newline="") as file:
        assert [*next(csv.reader(file)), "picture"] == list(frame.columns)


def test_a_notebook_shows_thumbnails_and_no_foreign_html(run):
    frame = sweeper.results(run.out)
    text = frame._repr_html_()
    first = '<img src="data:image/webp;base64,[^"]+" title="/[^"]+0000_seed-1_prompt-script-fox'
    assert len(re.findall(first, text)) == 1
    assert text.count("<img") == 4
    assert "<script>" not in text
    chosen = frame[frame["seed"] == 2].sort_values("trial", ascending=False)
    assert isinstance(chosen, ResultsFrame)
    titles = re.findall(r'title="[^"]*/(\d+)_', chosen._repr_html_())
    assert titles == ["0003", "0001"]
    assert "<img" not in frame.drop(columns="picture")._repr_html_()


def test_a_picture_that_is_gone_or_elsewhere_is_text(run):
    frame = sweeper.results(run.out).head(2)
    frame["picture"] = ["s3://bucket/a<b>.png", str(run.out / "gone.png")]
    text = frame._repr_html_()
    assert "<img" not in text
    assert "s3://bucket/a&lt;b&gt;.png" in text
    assert "gone.png" in text


def test_report_and_baseline_take_names_in_any_script(run, tmp_path):
    shutil.copytree(run.out, tmp_path / "results")
    from sweeper.reporting.write_report import write_report

    report = write_report(tmp_path / "results")
    assert report.missing_count == 0
    assert (report.page.parent / "files" / "0003_seed-2_灯台の夕暮れ-海の上の長い橋と小さな船と.png").is_file()
