"""Every mistake is reported at once: no stage hides the mistakes that a later one finds."""

from __future__ import annotations

from pathlib import Path

import pytest

BARE = """\
slots:
  prompt: {at: "6.text", schema: {type: string, minLength: 1}}
  seed: {at: "3.seed", default: 1}
  steps: {at: "3.steps"}
  sampler: {at: "3.sampler_name"}
  cfg: {at: "3.cfg", default: 1000}
"""


@pytest.fixture
def bare(write):
    """Like `write`, but the slots have no schemas, so that the node classes set the limits."""

    def make(text):
        name = write(text)
        Path("t.slots.yaml").write_text(BARE)
        return name

    return make


def list_keys(outcome):
    assert outcome.code == 2
    return [line.removeprefix("error: ").split(": ")[1] for line in outcome.err.splitlines()]


@pytest.mark.parametrize("command", ["plan", "validate", "run", "check", "calibrate"])
def test_refused_values_are_reported_beside_an_unknown_key(sweeper, bare, command):
    text = """\
template: t.json
x: 1
sweep:
  grid: {prompt: [1], sampler: [eulr], seed: [-4], steps: [8.5, 4], stpes: [1]}
"""
    assert list_keys(sweeper(command, bare(text))) == [
        "x", "sweep.grid.prompt[0]", "sweep.grid.sampler[0]", "sweep.grid.seed[0]", "sweep.grid.steps[0]",
        "sweep.grid.stpes", "slots.cfg.default",
    ]  # fmt: skip
    assert not Path("results").exists()


@pytest.mark.parametrize("command", ["plan", "validate"])
def test_failing_condition_and_other_mistakes_are_all_reported(sweeper, bare, command):
    text = """\
template: t.json
x: 1
params: {steps: 4}
sweep:
  grid:
    prompt: [a fox]
    format: [{label: odd, set: {sampler: eulr}}]
  include: [{seed: -3}]
  where: steps < prompt
"""
    assert list_keys(sweeper(command, bare(text))) == [
        "x", "sweep.grid.format[0].set.sampler", "sweep.include[0].seed", "sweep.where", "slots.cfg.default",
    ]  # fmt: skip


def test_misspelt_params_key_causes_no_further_mistakes(sweeper, bare):
    text = "template: t.json\nparms: {prompt: a fox, sampler: euler}\nparams: {steps: 4}\n"
    assert list_keys(sweeper("validate", bare(text))) == ["parms", "slots.cfg.default"]


def test_unknown_target_is_reported_once_beside_other_mistakes(sweeper, bare):
    text = "template: t.json\ntarget: clod\nparams: {prompt: a fox, steps: 4, sampler: euler, seed: 1, cfg: 2}\n"
    assert list_keys(sweeper("validate", bare(text + "sweep: {where: steps < prompt}\n"))) == ["target", "sweep.where"]


def test_bad_threshold_does_not_hide_an_unknown_measure(sweeper, write):
    text = """\
template: t.json
sweep: {grid: {seed: [1], x: 3}}
checks: {psnr: high, ssmi: ">= 0.9", overrides: [{where: x > 1, ssim: "> 0.5"}]}
"""
    assert list_keys(sweeper("validate", write(text)))[1:] == ["checks.psnr", "checks.ssmi"]
