"""`sweeper effects` and `sweeper.effects`: the right answer in words, tables and JSON, also for difficult sweeps."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

import sweeper
from sweeper.cli import main
from tests.tables.written_results import make_grid, write_results

SAMPLER_EFFECTS = {"euler": 0.0, "heun": 2.0, "lcm": -1.5}


def plant(rows, rng, noise=0.5):
    """A metric that rises with cfg and depends on the sampler, the prompt and the seed."""
    prompts = {row["prompt"]: rng.normal(0, 4) for row in rows}
    seeds = {row["seed"]: rng.normal(0, 2) for row in rows}
    return [
        2.0 * row["cfg"] + SAMPLER_EFFECTS[row["sampler"]] + prompts[row["prompt"]] + seeds[row["seed"]]
        + rng.normal(0, noise)
        for row in rows
    ]  # fmt: skip


@pytest.fixture(scope="module")
def confounded_sweep(tmp_path_factory):
    """240 trials of which sampler lcm ran only with high cfg, so that its raw mean is best though it is worst."""
    prompts = [f"a picture of number {number}" for number in range(6)]
    rows = make_grid(sampler=list(SAMPLER_EFFECTS), cfg=[3, 5, 7, 9], prompt=prompts, seed=[11, 22, 33, 44])
    rows = [row for row in rows if row["sampler"] != "lcm" or row["cfg"] > 6]
    rng = np.random.default_rng(7)
    metrics = {"quality": plant(rows, rng), "unrelated": list(rng.normal(0, 1, len(rows)))}
    return write_results(
        tmp_path_factory.mktemp("confounded_sweep"), rows, metrics, ran_s=[row["cfg"] / 2 for row in rows]
    )


def run_effects(capsys, *arguments):
    code = main(["effects", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_planted_confound_does_not_mislead(confounded_sweep, capsys):
    code, out, _ = run_effects(capsys, confounded_sweep, "--metric", "quality")
    assert code == 0
    assert "240 trials succeeded; differences are over prompt (6) and seed (4)" in out
    assert "note: sampler lcm ran only with cfg 7, 9" in out
    assert "cfg: rises with it, by " in out
    assert "; 9 is higher than 3 in 48 of 48 pairs, by " in out
    assert " on these 6 prompts; for other prompts: 1" in out
    assert "highest 9, lowest 3" in out
    assert "heun is higher than lcm in 48 of 48 pairs" in out
    assert "highest heun, lowest lcm" in out
    frame = sweeper.results(confounded_sweep)
    assert frame.groupby("sampler")["quality"].mean().idxmax() == "lcm"


def test_differences_are_the_planted_ones(confounded_sweep):
    frame = sweeper.effects(confounded_sweep, metrics=["quality"], axes=["sampler"])
    pair = frame[(frame["value"] == "heun") & (frame["other"] == "lcm")].iloc[0]
    assert pair["low"] < 3.5 < pair["high"]
    assert pair["high"] - pair["low"] < 1
    assert (pair["differs"], pair["higher"], pair["pairs"]) == (True, 48, 48)
    assert pair["other_low"] < 3.5 < pair["other_high"]
    assert set(frame["axis"]) == {"sampler"}


def test_metric_of_noise_shows_no_difference(confounded_sweep, capsys):
    _, out, _ = run_effects(capsys, confounded_sweep, "--metric", "unrelated")
    assert "of the variance; " not in out
    assert ") on these 6 prompts; no two of its 3 values are told apart; with 4 more seeds, differences above 0." in out


def test_seconds_are_a_metric_too(confounded_sweep, capsys):
    _, out, _ = run_effects(capsys, confounded_sweep, "--metric", "ran_s")
    assert "cfg: rises with it, by 0.5 for 1 more; 9 is higher than 3 in 48 of 48 pairs, by 3 on these 6 prompts" in out


def test_json_has_every_pair_and_share(confounded_sweep, capsys):
    code, out, _ = run_effects(capsys, confounded_sweep, "--metric", "quality", "--json")
    (metric,) = json.loads(out)["metrics"]
    assert code == 0
    assert [effect["axis"] for effect in metric["effects"]] == ["cfg", "sampler"]
    assert len(metric["effects"][0]["comparisons"]) == 6
    assert metric["effects"][0]["highest"] == ["9"]
    assert sum(share["share"] for share in metric["shares"]) + metric["rest"] == pytest.approx(1, abs=0.1)


def test_shares_of_a_complete_sweep_add_up_to_all_of_it(tmp_path, capsys):
    rows = make_grid(cfg=[3, 5, 7], prompt=["a fox", "an owl", "a hill"], seed=[1, 2, 3])
    rng = np.random.default_rng(3)
    of_pairs = {(row["prompt"], row["seed"]): rng.normal(0, 3) for row in rows}
    quality = [of_pairs[row["prompt"], row["seed"]] + rng.normal() for row in rows]
    _, out, _ = run_effects(capsys, write_results(tmp_path, rows, {"quality": quality}), "--json")
    (metric,) = json.loads(out)["metrics"]
    assert ["prompt", "seed"] in [share["axes"] for share in metric["shares"]]
    assert sum(share["share"] for share in metric["shares"]) + metric["rest"] == pytest.approx(1)


def test_markdown_goes_to_a_file(confounded_sweep, capsys, tmp_path):
    file = tmp_path / "answer.md"
    code, out, err = run_effects(capsys, confounded_sweep, "--metric", "quality", "-o", file)
    text = file.read_text("utf-8")
    assert (code, out) == (0, "")
    assert f"wrote {file}" in err
    assert "### quality\n\n- cfg: rises" in text
    assert "| axis | value | against | higher in | difference | interval | other prompts | differs |\n| --- |" in text


def test_every_wrong_option_is_reported_at_once(confounded_sweep, capsys):
    arguments = ["--metric", "qualty", "--axis", "samplr", "--over", "sed", "--where", "stps > 3"]
    code, _, err = run_effects(capsys, confounded_sweep, *arguments)
    assert code == 2
    assert "--metric: there is no metric 'qualty'; did you mean 'quality'?" in err
    assert "--axis: there is no axis 'samplr'; did you mean 'sampler'?" in err
    assert "--over: there is no axis 'sed'; did you mean 'seed'?" in err
    assert "--where: " in err
    code, _, err = run_effects(capsys, confounded_sweep, "--axis", "cfg", "--over", "cfg,seed")
    assert code == 2
    assert "--over: 'cfg' is also in --axis" in err


def test_where_selects_trials_and_says_if_none(confounded_sweep, capsys):
    _, out, _ = run_effects(capsys, confounded_sweep, "--metric", "quality", "--where", "cfg == 9")
    assert "72 trials succeeded" in out
    assert "cfg" not in out
    _, out, _ = run_effects(capsys, confounded_sweep, "--metric", "quality", "--where", "cfg == 4")
    assert "--where: cfg == 4 matches none of the 240 trials" in out
    assert "quality" not in out


def test_few_seeds_say_what_was_seen_and_what_more_would_tell(tmp_path, capsys):
    rows = make_grid(steps=[4, 8], seed=[1, 2, 3])
    _, out, _ = run_effects(capsys, write_results(tmp_path, rows, {"m": [0, 0, 0, 0.5, 1, 1.5]}))
    # The t-test of three differences with mean 1 and standard deviation 0.5, and the margin of six of them
    assert "8 is higher than 4 in 3 of 3 pairs; with 3 seeds that may still be chance: 1.0 (-0.2 to 2.2)" in out
    assert "with 3 more seeds, differences above 0.52 would be told apart" in out


@pytest.mark.parametrize(
    ("rows", "metrics", "expected"),
    [
        (make_grid(cfg=[1, 2], seed=[1, 2]), {"m": ["yes", "no"] * 2}, "m\n  holds no numbers, but for example 'yes'"),
        (make_grid(cfg=[1, 2], seed=[1, 2]), {"m": [0.5] * 4}, "m\n  is 0.5 in all 4 trials, so nothing changes it"),
        (make_grid(cfg=[1, 2], seed=[1, 2]), {"m": [None, None, 1.0, None]}, "m\n  only one trial has a number"),
        (make_grid(cfg=[1], seed=[1, 2]), {"m": [1.0, 2.0]}, "m\n  there is no axis to compare"),
        (make_grid(cfg=[1, 2]), {"m": [1.0, 2.0]}, "cfg: 2 is higher than 1 in 1 of 1 pairs, by 1; run more seeds"),
        (
            [{"cfg": 1, "steps": 4, "seed": 1}, {"cfg": 2, "steps": 8, "seed": 1}, {"cfg": 3, "steps": 8, "seed": 1}],
            {"m": [1.0, 2.0, 4.0]},
            "each value of cfg ran with one value of steps, so what steps changes cannot be separated from cfg",
        ),
        (make_grid(cfg=list(range(31)), seed=[1, 2]), {"m": list(range(62))}, "cfg has 31 values, too many"),
    ],
)  # fmt: skip
def test_each_hindrance_has_a_line(rows, metrics, expected, tmp_path, capsys):
    code, out, _ = run_effects(capsys, write_results(tmp_path, rows, metrics), "--metric", "m")
    assert code == 0
    assert expected in out
    assert "nan" not in out.lower()
    assert main(["effects", str(tmp_path), "--metric", "m", "--json"]) == 0


def test_axes_that_vary_together_are_one(tmp_path, capsys):
    rows = [
        {"width": width, "height": width * 2, "style": style, "style.label": style[:3], "seed": seed}
        for width in (64, 96, 128)
        for style in ("oil painting", "ink drawing")
        for seed in range(5)
    ]
    rng = np.random.default_rng(1)
    values = [row["width"] / 10 + rng.normal(0, 0.2) for row in rows]
    folder = write_results(tmp_path, rows, {"m": values}, together=[("width", "height"), ("style", "style.label")])
    _, out, _ = run_effects(capsys, folder, "--axis", "height")
    assert "note: width, height vary together, so they are one axis" in out
    assert "width + height: 128 x 256 is higher than 64 x 128 in 10 of 10 pairs, by " in out
    assert "highest 128 x 256, lowest 64 x 128; width and height cannot be separated; " in out
    assert set(sweeper.effects(folder, axes=["style"])["value"]) == {"oil"}


def test_failed_trials_leave_the_matched_ones(tmp_path):
    rows = make_grid(sampler=["a", "b"], prompt=["p one", "p two", "p three"], seed=list(range(6)))
    rng = np.random.default_rng(2)
    values = [10.0 * (row["sampler"] == "a") + 100 * row["seed"] + rng.normal(0, 1) for row in rows]
    folder = write_results(tmp_path, rows, {"m": values}, failed=[0, 1, 2, 20, 30])
    (row,) = sweeper.effects(folder).to_dict("records")
    assert row["pairs"] == 18 - 4  # trials 2 and 20 are a pair
    assert row["low"] < 10 < row["high"]


def test_calibration_shows_the_noise_of_the_server(tmp_path):
    rng = np.random.default_rng(4)
    rows = make_grid(cfg=[1, 2], seed=[1, 2, 3])
    folder = write_results(tmp_path / "made", rows, {"m": [float(row["cfg"]) for row in rows]})
    repeats = make_grid(cfg=[1, 2], seed=[1, 2, 3], sweeper_repeat=list(range(10)))
    write_results(tmp_path / "made-calibrate", repeats, {"m": [row["cfg"] + rng.normal(0, 3) for row in repeats]})
    assert main(["effects", str(folder), "-o", str(tmp_path / "answer.txt")]) == 0
    noise = (tmp_path / "answer.txt").read_text("utf-8").partition("the server's own noise is ")[2].partition(",")[0]
    assert float(noise) == pytest.approx(3, rel=0.25)


def test_requested_axis_with_one_value_is_named(tmp_path, capsys):
    rows = make_grid(steps=[8], cfg=[1, 2], seed=[1, 2, 3])
    folder = write_results(tmp_path, rows, {"m": [1.0, 1.1, 1.2, 4, 4.1, 4.3]})
    _, out, _ = run_effects(capsys, folder, "--axis", "steps,cfg")
    assert "note: steps has one value, so there is nothing to compare" in out
    assert "cfg: 2 is higher than 1 in 3 of 3 pairs, by 3.03 (2.89 to 3.18); " in out


def test_unmeasured_sweep_is_judged_by_its_seconds(tmp_path, capsys):
    rows = make_grid(steps=[2, 4], seed=[1, 2, 3])
    folder = write_results(tmp_path, rows, {}, ran_s=[2, 2.1, 2.2, 4, 4.2, 4.1])
    _, out, _ = run_effects(capsys, folder)
    assert "ran_s\n  steps: 4 is higher than 2 in 3 of 3 pairs, by " in out


def test_many_values_may_rise_before_any_two_are_told_apart(tmp_path, capsys):
    rng = random.Random(0)
    rows = make_grid(steps=[4, 8, 12, 16, 20, 24], seed=[11, 22, 33])
    numbers = [row["steps"] / 8 + rng.gauss(0, 0.8) for row in rows]
    folder = write_results(tmp_path / "results", rows, {"quality": numbers})
    code, out, _ = run_effects(capsys, folder, "--json")
    (effect,) = json.loads(out)["metrics"][0]["effects"]
    assert (code, effect["differs"], any(pair["differs"] for pair in effect["comparisons"])) == (0, True, False)
    assert 0 < effect["slope"][0] < 1 / 8 < effect["slope"][1]
    assert "  steps: rises with it, by 0.0" in run_effects(capsys, folder)[1]


def test_more_prompts_than_two_are_asked_about_others(tmp_path, capsys):
    rng = np.random.default_rng(8)
    rows = make_grid(cfg=[3, 9], prompt=["a fox", "an owl", "a hill"], seed=[1, 2, 3])
    own = {"a fox": 2.0, "an owl": 9.0, "a hill": 16.0}
    numbers = [(row["cfg"] == 9) * own[row["prompt"]] + rng.normal(0, 0.5) for row in rows]
    _, out, _ = run_effects(capsys, write_results(tmp_path / "three", rows, {"m": numbers}))
    assert "cfg: 9 is higher than 3 in 9 of 9 pairs, by 9." in out
    assert "on these 3 prompts; for other prompts: -" in out
    assert "too few prompts to say" in out
    two = [index for index, row in enumerate(rows) if row["prompt"] != "a hill"]
    folder = write_results(tmp_path / "two", [rows[index] for index in two], {"m": [numbers[index] for index in two]})
    _, out, _ = run_effects(capsys, folder)
    assert "note: prompt has 2 values, so what is said holds for these alone" in out
    assert "for other prompts" not in out
    assert set(sweeper.effects(folder)["other_low"].isna()) == {True}


def test_values_with_seeds_of_their_own_are_compared(tmp_path, capsys):
    rng = np.random.default_rng(9)
    rows = [
        {"sampler": sampler, "prompt": prompt, "seed": seed}
        for sampler, seeds in (("euler", range(4)), ("heun", range(3, 7)))
        for prompt in ("a fox", "an owl")
        for seed in seeds
    ]
    numbers = [10.0 * (row["sampler"] == "heun") + 5 * (row["prompt"] == "a fox") + rng.normal() for row in rows]
    _, out, _ = run_effects(capsys, write_results(tmp_path, rows, {"m": numbers}))
    assert "note: each value of sampler has seeds of its own, so the means of its seeds are compared" in out
    assert "sampler: heun is higher than euler in 16 of 16 pairs, by " in out


def test_prompts_that_go_with_a_sampler_are_no_replicate(tmp_path, capsys):
    pairs = [("euler", "a fox"), ("heun", "an owl"), ("lcm", "a hill")]
    rows = [{"sampler": sampler, "prompt": prompt, "seed": seed} for sampler, prompt in pairs for seed in range(4)]
    rng = np.random.default_rng(9)
    numbers = [10.0 * (row["sampler"] == "heun") + rng.normal() for row in rows]
    folder = write_results(tmp_path, rows, {"m": numbers}, together=[("sampler", "prompt")])
    _, out, _ = run_effects(capsys, folder)
    assert "differences are over seed (4)" in out
    assert "sampler + prompt: heun, an owl is higher than " in out
    assert "sampler and prompt cannot be separated" in out


def test_values_with_one_mean_are_equal_on_average(tmp_path, capsys):
    folder = write_results(tmp_path, make_grid(cfg=[3, 9], seed=[1, 2]), {"m": [0, 1, 1, 0]})
    assert "cfg: 3 and 9 are equal on average: 0 (-13 to 13); with 2 more seeds" in run_effects(capsys, folder)[1]
