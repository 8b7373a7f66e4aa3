"""What a notebook shows of a plan, a run and a search, without scripts and with every text escaped."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html import unescape

import pytest

import sweeper
from sweeper.model.money import Amount
from tests import ROOT

PROMPT = "<script>alert(1)</script>"
EXPERIMENT = f"""
template: {ROOT / "templates/txt2img.json"}
params: {{width: 64, height: 64, steps: 1}}
metrics: [brightness]
sweep:
  grid: {{prompt: ["{PROMPT}"], seed: {{from: 1, to: 30, step: 1}}}}
  exclude: [{{seed: 3}}]
  where: seed < 28
search:
  maximize: brightness
  trials: 4
  space: {{cfg: {{from: 1.0, to: 9.0}}}}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("values") / "mine.yaml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(file):
    return sweeper.run(file, target="embedded")


def read_text(markup: str) -> str:
    assert not re.search(r"<script|\son\w+=", markup)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", re.sub("</?b>", "", markup))).split())


def test_a_plan_shows_its_axes_values_and_filters(file):
    plan = sweeper.plan(sweeper.load(file))
    text = read_text(plan._repr_html_())
    assert text.startswith("mine: 26 trials of ")
    assert f"prompt 1 {PROMPT} seed 30 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | ... (30)" in text
    assert "product 30 = 1 x 30 excluded 1 by exclude[0] {seed: 3} 3 by where seed < 28" in text
    assert repr(plan) == "<Plan of mine: 26 trials; prompt 1, seed 30>"


def test_a_run_shows_counts_folder_and_24_thumbnails_at_most(run):
    markup = run._repr_html_()
    text = read_text(markup)
    counts = "trials submitted reused succeeded failed cancelled pending 26 26 0 26 0 0 0"
    places = f"pictures {run.pictures} table {run.out / 'results.csv'}"
    assert text == f"Run 1 {counts} {places} the first 24 pictures; sweeper.show(run) shows all"
    assert markup.count('src="data:image/webp;base64,') == 24
    assert len(markup) < 150_000


def test_a_run_shows_its_costs_and_why_it_ended(run):
    costs = {"cost": Amount.exactly(1.5), "spent": Amount.exactly(4), "budget": 5_000_000}
    stopped = replace(run, failed=2, reused=3, stopped_by="budget", error="<b>no</b> job fits", **costs)
    text = read_text(stopped._repr_html_())
    assert "1.50 USD in this run, 4.00 USD in this folder of a budget of 5.00 USD" in text
    assert "⚠ <b>no</b> job fits" in text


def test_a_run_whose_folder_is_gone_shows_its_counts(run, tmp_path):
    markup = replace(run, out=tmp_path / "gone", failed=3, spent=Amount.exactly(4))._repr_html_()
    assert "26 26 0 26 3 0 0" in read_text(markup)
    assert "<img" not in markup


def test_a_search_shows_its_best_points_with_a_picture_each(file, tmp_path):
    result = sweeper.search(file, "embedded", tmp_path / "search")
    markup = result._repr_html_()
    text = read_text(markup)
    assert text.startswith("Search 4 trials of 4 points in ")
    assert "brightness cfg" in text
    assert f"{result.best[0].values['cfg']}" in text
    assert markup.count("<img") == len(result.best) == 4
    shutil.rmtree(tmp_path / "search")
    assert "that is the limit" in read_text(result._repr_html_())
