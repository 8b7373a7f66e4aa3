"""Every mistake in every file is told at once: no stage hides what a later one would have found."""

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
    """As `write`, beside a template whose slots leave their limits to the node classes."""

    def make(text):
        name = write(text)
        Path("t.slots.yaml").write_text(BARE)
        return name

    return make


def keys(outcome):
    assert outcome.code == 2
    return [line.removeprefix("error: ").split(": ")[1] for line in outcome.err.splitlines()]


@pytest.mark.parametrize("command", ["plan", "validate", "run"])
def test_values_that_a_server_refuses_are_told_beside_an_unknown_key(sweeper, bare, command):
    text = """\
template: t.json
x: 1
sweep:
  grid: {prompt: [1], sampler: [eulr], seed: [-4], steps: [8.5, 4], stpes: [1]}
"""
    assert keys(sweeper(command, bare(text))) == [
        "x", "sweep.grid.prompt[0]", "sweep.grid.sampler[0]", "sweep.grid.seed[0]", "sweep.grid.steps[0]",
        "sweep.grid.stpes", "slots.cfg.default",
    ]  # fmt: skip
    assert not Path("results").exists()


@pytest.mark.parametrize("command", ["plan", "validate"])
def test_a_condition_that_fails_hides_no_value_and_is_hidden_by_no_key(sweeper, bare, command):
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
    assert keys(sweeper(command, bare(text))) == [
        "x", "sweep.grid.format[0].set.sampler", "sweep.include[0].seed", "sweep.where", "slots.cfg.default",
    ]  # fmt: skip


def test_a_mistyped_name_of_a_fixed_value_brings_no_mistake_of_its_own(sweeper, bare):
    text = "template: t.json\nparms: {prompt: a fox, sampler: euler}\nparams: {steps: 4}\n"
    assert keys(sweeper("validate", bare(text))) == ["parms", "slots.cfg.default"]


def test_a_target_that_is_none_hides_nothing_and_is_told_once(sweeper, bare):
    text = "template: t.json\ntarget: clod\nparams: {prompt: a fox, steps: 4, sampler: euler, seed: 1, cfg: 2}\n"
    assert keys(sweeper("validate", bare(text + "sweep: {where: steps < prompt}\n"))) == ["target", "sweep.where"]


def test_a_bad_bound_hides_no_unknown_measure(sweeper, write):
    text = """\
template: t.json
sweep: {grid: {seed: [1], x: 3}}
checks: {psnr: high, ssmi: ">= 0.9", overrides: [{where: x > 1, ssim: "> 0.5"}]}
"""
    assert keys(sweeper("validate", write(text)))[1:] == ["checks.psnr", "checks.ssmi"]
