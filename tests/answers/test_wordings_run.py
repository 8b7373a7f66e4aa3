"""The approved words at the end of `sweeper run`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sweeper.model.money import Amount
from sweeper.model.result import Run
from sweeper.running.run_answer import RunAnswer, RunCost
from sweeper.tables.effect_axes import EqualPictures
from tests.answers.approved import check_approved

RUN = Run(3, Path("results/foxes"), 8, 6, 6, 0, 0, 0, 2, pictures="results/foxes/artifacts")
ANSWER = RunAnswer(run=RUN, report_command="sweeper report foxes.yaml")
COST = RunCost(run=Amount.exactly(0.25), kind="estimated", folder=Amount.exactly(0.5), budget=2.0)


def test_run():
    check_approved("run", ANSWER)
    rehearsal = replace(ANSWER, report=Path("report/index.html"), real_run="sweeper run a.yaml")
    check_approved("run_of_a_rehearsal", rehearsal)


def test_run_with_failures_costs_and_kept_rows():
    run = replace(RUN, failed=3, kept={"gpu-1": 2, "cloud": 1}, stopped_by="budget", error="no job fits")
    failures = ((2, "OutOfMemory", "no memory \x1b[2J left"), (1, "", "what | the server\nsaid"))
    check_approved("run_with_failures", replace(ANSWER, run=run, list_failures=lambda: failures, cost=COST))
    alone = replace(COST, kind=None, folder=COST.run, budget=None)
    check_approved("run_that_kept_a_row", replace(ANSWER, run=replace(RUN, kept={"cloud": 1}), cost=alone))


def test_run_with_equal_pictures():
    whole = EqualPictures("strength", 4, 4, 12)
    parts = EqualPictures("lora", 3, 3, 4, "strength_model", ("0",)), EqualPictures("lora", 2, 3, 4, "cfg", ("1", "2"))
    check_approved("run_with_equal_pictures", replace(ANSWER, equal_pictures=(whole, *parts)))
