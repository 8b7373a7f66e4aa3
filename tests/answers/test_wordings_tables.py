"""The answers about results folders keep their approved words: results, effects, costs, votes."""

from __future__ import annotations

from sweeper.model.search_columns import Objective
from sweeper.model.search_result import SearchedPoint
from sweeper.tables.aggregate import make_groups, make_pivot
from sweeper.tables.query_results import ResultsAnswer, RowTable
from sweeper.tables.searched_points import make_best_points
from tests.answers.approved import check_approved

ROWS = [
    {"trial": 0, "style": "in oil", "style.label": "oil", "steps": 4, "status": "succeeded", "ran_s": 1.23456789,
     "cost": 0.04, "sharpness": 344.7},
    {"trial": 1, "style": "in oil", "style.label": "oil", "steps": 4, "status": "succeeded", "ran_s": 1.5,
     "cost": 0.002, "sharpness": 340.25},
    {"trial": 2, "style": "in ink", "style.label": None, "steps": 8, "status": "failed", "ran_s": None,
     "cost": None, "sharpness": None},
]  # fmt: skip
TOP = SearchedPoint({"cfg": 5.51, "sampler": "heun"}, (344.7123456789, 2.5), 3, (12, 13, 14), 3)
NEXT = SearchedPoint({"cfg": 7.0, "sampler": "euler"}, (300.0, 1.5), 0, (3, 8), 1)
OBJECTIVES = (Objective("sharpness", True), Objective("ran_s", False))


def test_rows():
    check_approved("results_rows", ResultsAnswer(RowTable(ROWS, ["trial", "steps", "ran_s"], ("ran_s",))))


def test_rows_of_a_selection_that_matches_nothing():
    message = "--where: steps > 100 matches none of the 54 trials"
    check_approved("results_none", ResultsAnswer(RowTable([], ["trial", "steps"], ()), message))


def test_groups():
    groups = make_groups(ROWS, ["style", "steps"], ["cost_sum", "cost", "sharpness"])
    check_approved("results_groups", ResultsAnswer(groups))


def test_pivot():
    check_approved("results_pivot", ResultsAnswer(make_pivot(ROWS, "style", "steps", "sharpness")))


def test_best_points():
    one_aim = [SearchedPoint(point.values, point.objectives[:1], *(point.round, point.trials, point.succeeded))
               for point in (TOP, NEXT)]  # fmt: skip
    check_approved("results_best", ResultsAnswer(make_best_points(one_aim, OBJECTIVES[:1], 1)))
    check_approved("results_best_front", ResultsAnswer(make_best_points([TOP, NEXT], OBJECTIVES, 1)))
    check_approved("results_best_whole_front", ResultsAnswer(make_best_points([TOP], OBJECTIVES)))
    check_approved("results_best_unknown", ResultsAnswer(make_best_points([], OBJECTIVES, 1)))
