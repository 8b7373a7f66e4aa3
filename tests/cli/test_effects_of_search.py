"""`sweeper effects` on the results of a search: points that differ in several axes at once."""

from __future__ import annotations

import json
import re
from itertools import product

import numpy as np
import pytest

import sweeper
from sweeper.cli import main
from sweeper.model.search_columns import Objective, SearchColumns
from sweeper.store import Store
from sweeper.tables.effects import find_idle_axes
from tests.tables.written_results import write_results

SAMPLERS = ["euler", "heun", "lcm"]
SEARCH = SearchColumns((Objective("quality"),), ("cfg", "steps", "sampler"), ("prompt", "seed"))
TWO = SearchColumns((Objective("quality"), Objective("haste", maximize=False)), SEARCH.space, SEARCH.over)


def write_search(folder, points, search=SEARCH, *, failed=(), noise=0.2):
    """The best cfg is 6, `lcm` is worst, `steps` changes nothing but `haste`, and a prompt counts more than all."""
    rng = np.random.default_rng(5)
    chosen = [
        (round(rng.uniform(1, 12), 2), int(rng.integers(4, 40)), str(rng.choice(SAMPLERS))) for _ in range(points)
    ]
    rows = [
        {"cfg": cfg, "steps": steps, "sampler": sampler, "prompt": prompt, "seed": seed, "round": index // 8 + 1}
        for (index, (cfg, steps, sampler)), prompt, seed in product(enumerate(chosen), ("a fox", "a house"), (1, 2))
    ]
    metrics = {
        "quality": [
            -((row["cfg"] - 6) ** 2) - 8.0 * (row["sampler"] == "lcm") + 50.0 * (row["prompt"] == "a fox")
            + rng.normal(0, noise)
            for row in rows
        ],
        "haste": [3.0 * row["steps"] + rng.normal(0, noise) for row in rows],
    }  # fmt: skip
    return write_results(folder, rows, metrics, failed=failed, search=search)


@pytest.fixture(scope="module")
def search_results(tmp_path_factory):
    return write_search(tmp_path_factory.mktemp("search"), 40)


def run_effects(capsys, *arguments):
    code = main(["effects", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def find_pair(frame, *values):
    (row,) = frame[frame["value"].isin(values) & frame["other"].isin(values)].to_dict("records")
    return row


def read_idle(folder):
    with Store.open(folder, readonly=True) as store:
        return find_idle_axes(list(store.results()), store.layout())


def test_answer_says_where_the_best_values_are(search_results, capsys):
    code, out, _ = run_effects(capsys, search_results)
    assert code == 0
    assert "160 trials of 40 points succeeded; each number is the mean of a point over prompt (2) and seed (2)" in out
    quality, haste = out.split("\nhaste\n")
    assert "cfg: " in quality
    assert "; best near 6." in quality or "; best near 5." in quality
    assert "is higher than lcm, by " in quality
    assert "; worst lcm; " in quality
    assert "steps: hardly changes it; it explains at most " in quality
    assert "; highest at 39, the highest value tried; " in haste
    assert "cannot be judged" not in out
    assert "round" not in out
    assert "objective" not in out


def test_repeated_rows_of_the_objective_count_once(search_results):
    own, objective = (sweeper.effects(search_results, metrics=[name]) for name in ("quality", "objective"))
    for column in ("difference", "low", "high", "share"):
        assert objective[column].tolist() == pytest.approx(own[column].tolist())
    assert set(objective["pairs"]) == {40}


def test_dataframe_has_the_planted_differences(search_results):
    frame = sweeper.effects(search_results, metrics=["quality"], axes=["sampler"])
    row = find_pair(frame, "euler", "lcm")
    assert row["low"] <= -8 <= row["high"] if row["value"] == "lcm" else row["low"] <= 8 <= row["high"]
    assert row["differs"]


def test_json_has_the_trend_and_the_bound(search_results, capsys):
    answer = json.loads(run_effects(capsys, search_results, "--json")[1])
    assert answer["points"] == 40
    quality = answer["metrics"][0]
    assert quality["maximize"] is True
    effects = {effect["axis"]: effect for effect in quality["effects"]}
    assert effects["cfg"]["trend"]["word"] == "inside"
    assert effects["steps"]["idle"] is True
    assert effects["steps"]["whole_share"]["high"] <= 0.05
    assert effects["sampler"]["trend"] is None


def test_markdown_has_a_table_of_points(search_results, capsys, tmp_path):
    file = tmp_path / "effects.md"
    run_effects(capsys, search_results, "-o", str(file), "--metric", "quality")
    assert "| axis | value | against | points | difference | interval | differs |" in file.read_text()


def test_mistakes_in_the_query_are_explained(search_results, capsys):
    code, _, err = run_effects(capsys, search_results, "--metric", "round", "--axis", "prompt", "--over", "seed")
    assert code == 2
    assert "--metric: there is no metric 'round'; metrics: quality, haste, objective" in err
    assert "--axis: there is no axis 'prompt'; axes: cfg, steps, sampler" in err
    assert "--over: belongs to sweeps; the results of this search are means over prompt, seed; leave it out" in err


def test_too_few_points_are_counted(tmp_path, capsys):
    out = run_effects(capsys, write_search(tmp_path, 9))[1]
    assert "9 points are too few for 3 axes that differ at once; that takes at least 12" in out
    assert read_idle(tmp_path) == {}


def test_points_with_missing_trials_are_adjusted(tmp_path):
    """The failed trials are those of the prompt that counts 50: plain means of the rest would be far off."""
    folder = write_search(tmp_path, 40, failed=range(0, 160, 8))
    frame = sweeper.effects(folder, metrics=["quality"], axes=["sampler"])
    row = find_pair(frame, "euler", "lcm")
    assert row["low"] <= -8 <= row["high"] if row["value"] == "lcm" else row["low"] <= 8 <= row["high"]
    assert row["high"] - row["low"] < 1


def test_idle_axes_are_those_that_hardly_matter_for_any_objective(search_results, tmp_path):
    ((name, share),) = read_idle(search_results).items()
    assert name == "steps"
    assert 0 < share <= 0.05
    assert read_idle(write_search(tmp_path, 40, TWO)) == {}


def test_undecided_axis_is_not_called_idle(tmp_path, capsys):
    folder = write_search(tmp_path, 40, noise=40)
    assert read_idle(folder) == {}
    out = run_effects(capsys, folder, "--metric", "quality")[1]
    assert re.search(
        r"^  steps: \d+ is higher than \d+, by .* on these 2 prompts; it explains at most ", out, re.MULTILINE
    )
