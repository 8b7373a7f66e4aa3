"""The answers about results folders keep their approved words: results, effects, costs, votes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sweeper.model.money import ESTIMATED, MEASURED, PRICED, Amount, Charge
from sweeper.model.search_columns import SearchedPoint
from sweeper.store.job_charges import JobCharge
from sweeper.tables.aggregate import RowTable, make_groups, make_pivot
from sweeper.tables.charge_rows import ChargeRow, ChargeSum, FolderCosts, ValueCharges
from sweeper.tables.query_results import ResultsAnswer
from sweeper.tables.searched_points import BestPoints
from tests.answers.approved import check_approved

ROWS = [
    {"trial": 0, "style": "in oil", "style.label": "oil", "steps": 4, "status": "succeeded", "ran_s": 1.23456789,
     "cost": 0.04, "sharpness": 344.7},
    {"trial": 1, "style": "in oil", "style.label": "oil", "steps": 4, "status": "succeeded", "ran_s": 1.5,
     "cost": 0.002, "sharpness": 340.25},
    {"trial": 2, "style": "in ink", "style.label": None, "steps": 8, "status": "failed", "ran_s": None,
     "cost": None, "sharpness": None},
]  # fmt: skip
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
TOP = SearchedPoint({"cfg": 5.51, "sampler": "heun"}, {"sharpness": 344.7123456789, "ran_s": 2.5}, 3, (12, 13, 14), 3)
ROW = ChargeRow(Path("foxes"), JobCharge(Charge("7", "FluxProNode", Amount.exactly(0.1), PRICED), "a1", 1, "cloud",
                "d" * 64, "succeeded", 1_700_000_000.0), 0, {}, is_kept=True)  # fmt: skip


def test_rows():
    check_approved("results_rows", ResultsAnswer(RowTable(ROWS, ["trial", "steps", "ran_s"], ("ran_s",))))


def test_rows_of_a_selection_that_matches_nothing():
    message = "--where: steps > 100 matches none of the 54 trials"
    check_approved("results_none", ResultsAnswer(RowTable([], ["trial", "steps"], ()), message))


def test_groups():
    groups = make_groups(COLUMNS, ["style", "steps"], ["cost_sum", "cost", "sharpness"])
    check_approved("results_groups", ResultsAnswer(groups))


def test_pivot():
    check_approved("results_pivot", ResultsAnswer(make_pivot(COLUMNS, "style", "steps", "sharpness")))


def test_best_points():
    check_approved("results_best", ResultsAnswer(BestPoints([replace(TOP, objectives={"sharpness": 344.7123456789})])))
    check_approved("results_best_front", ResultsAnswer(BestPoints([TOP], 2)))
    check_approved("results_best_whole_front", ResultsAnswer(BestPoints([TOP])))
    check_approved("results_best_unknown", ResultsAnswer(BestPoints([])))


def amount(low, high=None):
    return Amount.between(low, low if high is None else high)


def charge(jobs, low, high=None, *, kinds=(PRICED,), open_jobs=0):
    sums = {kind: amount(low, high) for kind in kinds}
    open_sum = amount(0.5) if open_jobs else amount(0)
    return ChargeSum(jobs, open_jobs, amount(low, high), amount(low), amount(0.1), open_sum, kinds[-1], sums)


def test_costs():
    total = charge(6, 0.682, 0.702, kinds=(MEASURED, PRICED, ESTIMATED), open_jobs=1)
    groups = {
        "folder": [ValueCharges("foxes", charge(5, 0.68)), ValueCharges("owls", charge(1, 0.002))],
        "class": [ValueCharges("FluxProNode", charge(5, 0.67, 0.69)), ValueCharges(None, charge(2, 0.012))],
        "prompt": [ValueCharges(value, charge(1, 0.1)) for value in
                   (None, "a fox in the snow, watercolor, with many words", *range(20))],
    }  # fmt: skip
    folders = (Path("foxes"), Path("owls"))
    check_approved("costs", FolderCosts(folders, "USD", total, total.kinds, groups, [ROW]))
    nothing = ChargeSum(0, 0, *[amount(0)] * 4, None, {})
    check_approved("costs_without_prices", FolderCosts(folders, "USD", nothing, {}, {}, []))
    kept = ChargeSum(1, 0, amount(0.1), amount(0.1), amount(0), amount(0), PRICED, {PRICED: amount(0.1)})
    check_approved("costs_of_results_alone", FolderCosts(folders[:1], "USD", kept, kept.kinds, {}, [ROW]))
