"""The approved words of `sweeper search`."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeper.model.axis_values import Option
from sweeper.model.experiment import Axis, NumberRange, Search, SpaceAxis
from sweeper.model.money import Amount
from sweeper.model.search_columns import Objective, SearchedPoint
from sweeper.running.confirm_best import ConfirmAnswer, ConfirmedPoint, FreshMean
from sweeper.running.run_answer import PreviewAnswer, SearchAnswer, SearchPreview, SearchResult
from sweeper.tables.searched_points import BestPoints
from tests.answers.approved import check_approved
from tests.answers.test_wordings_run import COST, RUN


def make_axis(name, *values):
    return Axis(name, tuple(map(Option, values)), (name,))


SPACE = (
    SpaceAxis(make_axis("cfg", 1.0, 9.0), NumberRange(1.0, 9.0)),
    SpaceAxis(make_axis("steps", 1, 50), NumberRange(1, 50, is_integer=True, is_log=True)),
    SpaceAxis(make_axis("prompt", "a \x1b[2J fox", "a hare")),
)
SEARCH = Search((Objective("sharpness"),), SPACE, trials=48, patience=20)
BOTH = replace(SEARCH, objectives=(Objective("sharpness"), Objective("cost", maximize=False)), stop_early=True,
               over=(make_axis("seed", 1, 2, 3), make_axis("size", 64)))  # fmt: skip
POINT = SearchedPoint({"cfg": 5.51, "steps": 20, "prompt": "a fox"}, {"sharpness": 344.71234567}, 2, (4, 5, 6), 3)
BEST = BestPoints([POINT, replace(POINT, objectives={"sharpness": 1.0}, trials=(1, 9))])
RESULT = SearchResult(RUN, "trials", 6, 24, 48, search=SEARCH)
ANSWER = SearchAnswer(result=RESULT, best=BEST, idle_axes={}, cost=None, report=None,
                      report_command="sweeper report foxes.yaml",
                      confirm_command="sweeper search foxes.yaml --confirm")  # fmt: skip
SHORT = replace(ANSWER, result=replace(RESULT, run=None), best=replace(BEST, points=()))
NEXT = SearchPreview(SimpleNamespace(search=SEARCH, points=()), (), 0, 0, None, None, batch=4, votes_needed=0)
PREVIEW = PreviewAnswer(
    preview=NEXT, name="foxes", out="results/foxes", targets=("embedded",), asked=0, trials=48, left=48,
    best=BestPoints([]), points=(dict(POINT.values),), round_jobs=4, round_cost=None,
    cost=None, warnings=(), template="templates/txt2img.json", round_price="", budget=None,
)  # fmt: skip


def test_search():
    check_approved("search", ANSWER)
    front = BestPoints([replace(POINT, objectives={"sharpness": 344.7, "cost": 0.25})])
    rehearsed = replace(ANSWER, best=front, report=Path("report/index.html"), cost=COST,
                        idle_axes={"steps": 0.012, "prompt": 0.04}, real_run="sweeper search foxes.yaml")  # fmt: skip
    check_approved("search_of_a_front", rehearsed)
    waiting = replace(RESULT, ended_by="votes", votes_needed=20)
    check_approved("search_that_waits", replace(ANSWER, result=waiting))
    nothing = SearchResult(None, "votes", 0, 0, 0, votes_needed=1, search=SEARCH)
    check_approved("search_without_a_run", replace(SHORT, result=nothing))


@pytest.mark.parametrize("ended_by", ["until", "exhausted", "budget", "interrupt", "max_failures"])
def test_search_that_ended(ended_by):
    check_approved(f"search_ended_by_{ended_by}", replace(SHORT, result=replace(SHORT.result, ended_by=ended_by)))


def test_search_that_ended_before_its_limit():
    check_approved("search_with_trials_left", replace(SHORT, result=replace(SHORT.result, trials=47)))
    failed = replace(SHORT.result, ended_by="failing", error="no trial of the first points succeeded")
    check_approved("search_ended_early", replace(SHORT, result=failed))


def test_confirmation():
    mean = FreshMean(331.2345, 318.3, 344.1)
    point = ConfirmedPoint(POINT.values, {"sharpness": mean}, 4, 8, 8)
    answer = ConfirmAnswer(run=RUN, points=(point,), over={"prompt": 2}, scope=" and these 2 prompts",
                           report_command="sweeper report results/foxes-confirm")  # fmt: skip
    check_approved("search_confirmed", answer)
    front = {"sharpness": replace(mean, low=None, high=None), "cost": None}
    lost = replace(RUN, succeeded=1, failed=1, cancelled=2, pending=4)
    points = (point, replace(point, objectives=front, seeds=1, succeeded=1))
    check_approved("search_confirmed_in_part", replace(answer, run=lost, points=points, over={}, scope="", cost=COST))


def test_preview():
    check_approved("preview", PREVIEW)
    state = SimpleNamespace(search=BOTH, points=range(6))
    goes_on = replace(
        PREVIEW, preview=replace(NEXT, state=state, unmeasured=3, unfinished=2), targets=(), asked=12, best=BEST,
        points=(), cost=Amount.exactly(16), round_price="8.00 USD for the jobs on the target", budget=Decimal(20),
        warnings=("not checked against gpu-1 (no key)",),
    )  # fmt: skip
    check_approved("preview_that_goes_on", goes_on)
    ended = replace(PREVIEW, preview=replace(NEXT, ended_by="trials"), points=(), cost=Amount.exactly(1))
    check_approved("preview_that_ended", ended)
    waits = replace(NEXT, ended_by="votes", votes_needed=20)
    check_approved("preview_that_waits", replace(PREVIEW, preview=waits, points=()))
