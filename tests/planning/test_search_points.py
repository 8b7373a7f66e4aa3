"""The points of a search's space, their trials, and the plans that grow by a round: properties over random spaces."""

from __future__ import annotations

import json
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.loading.load import load
from sweeper.model.result import Result
from sweeper.planning.searching.search_plan import PointBatch, SearchPlan, SearchSpace
from sweeper.planning.searching.search_state import SearchState, group_points
from tests.experiment_files import make_plan
from tests.planning.random_experiments import PHASES
from tests.planning.random_searches import make_space, searches, vectors

FEW = settings(max_examples=25, phases=PHASES)


def draw_points(data, space, count=4):
    """Different points of a space, each with a combination that `where` allows."""
    points = list(dict.fromkeys(space.from_vector(vector) for vector in data.draw(vectors(space, count))))
    return [point for point, keys in zip(points, space.find_allowed(points), strict=True) if keys]


def describe(plan):
    """The trials of a plan, without empty cells: a column of labels appears with the first label."""
    return [
        (trial.index, dict(trial.params), {name: cell for name, cell in trial.columns.items() if cell is not None},
         trial.digest)
        for trial in plan.written()
    ]  # fmt: skip


@FEW
@given(searches(), st.data())
def test_vectors_become_points_of_the_space(space, data):
    points = draw_points(data, space)
    for point in points:
        for one, value in zip(space.axes, point, strict=True):
            numbers = one.numbers
            inside = value in range(len(one.axis.options)) if numbers is None else numbers.low <= value <= numbers.high
            assert inside, (one.name, value)
            assert numbers is None or not numbers.is_integer or isinstance(value, int)
        assert space.measure_distance(point, point) == 0
    if space.size is not None:
        everything = list(space.list_points())
        assert set(points) <= set(everything)
        assert len(set(everything)) == len(everything) == space.size
    assert sorted(space.combinations) == sorted(set(space.combinations))


@FEW
@given(searches(), st.data())
def test_rows_give_back_their_points_and_combinations(space, data):
    points = draw_points(data, space)
    state = SearchState(space)
    batches = state.make_round(points)
    allowed = dict(zip(points, space.find_allowed(points), strict=True))
    cells = [(batch.round, point, key) for batch in batches for point in batch.points for key in batch.combinations]
    assert sorted(cells) == sorted((1, point, key) for point in points for key in allowed[point])
    if not points:
        return
    plan = SearchPlan(space, batches)
    for (_, point, combination), trial in zip(plan.iter_cells(), plan.written(), strict=True):
        assert space.read_cell(trial.params, trial.columns) == (point, combination)
        assert trial.columns["round"] == 1
    narrow = SearchSpace(space.experiment, space.search)  # nothing is kept in the space
    assert describe(SearchPlan(narrow, batches)) == describe(plan)


@settings(max_examples=10, phases=PHASES)
@given(searches(), st.data())
def test_trials_have_the_digests_of_an_ordinary_plan(space, data):
    batches = SearchState(space).make_round(draw_points(data, space, 2))
    if not batches:
        return
    for trial in list(SearchPlan(space, batches).written())[:3]:
        with tempfile.TemporaryDirectory() as folder:
            (same,) = make_plan(folder, {"params": dict(trial.params)}).written()
        assert same.digest == trial.digest


@FEW
@given(searches(), st.data())
def test_a_round_that_is_added_changes_no_earlier_trial(space, data):
    first, second = draw_points(data, space), draw_points(data, space)
    state = SearchState(space)
    batches = state.make_round(first)
    later = [*batches, *state.make_round([point for point in second if point not in first])]
    if batches:
        before, after = describe(SearchPlan(space, batches)), describe(SearchPlan(space, later))
        assert after[: len(before)] == before
        assert [row[0] for row in after] == list(range(len(after)))
        assert sorted(trial.index for trial in SearchPlan(space, later)) == list(range(len(after)))


CELLS = st.lists(st.tuples(st.integers(0, 3), st.tuples(st.integers(0, 4)), st.integers(0, 3)), max_size=20)


@given(CELLS)
def test_grouped_points_have_each_cell_once(cells):
    batches = group_points(cells)
    found = [(batch.round, point, key) for batch in batches for point in batch.points for key in batch.combinations]
    assert sorted({cell[1:] for cell in cells}) == sorted(cell[1:] for cell in found)
    assert [batch.round for batch in batches] == sorted(batch.round for batch in batches)
    for number, point, _ in found:
        asked = [other for other, same, _ in cells if same == point and other]
        assert number == min(asked, default=0)
    assert group_points(found) == batches


def test_patience_counts_alike_after_points_were_grouped_anew(tmp_path):
    space = {"cfg": {"from": 1, "to": 12}}
    search = {"maximize": "brightness", "trials": 60, "space": space, "over": {"seed": [1, 2]}, "stop_early": True}
    space = make_space(tmp_path, {"name": "e", "template": "t.json", "search": search})
    first, best, later = [(float(value),) for value in (2, 3, 4)]
    grown = [PointBatch(1, (first, best, later), (0,)), PointBatch(1, (first, best), (1,))]
    scores = {first: 1.0, best: 9.0, later: 2.0}
    stale = []
    for batches in (grown, group_points([cell for batch in grown for cell in SearchPlan(space, [batch]).iter_cells()])):
        plan = SearchPlan(space, batches)
        rows = [
            Result(
                trial.index,
                trial.columns,
                trial.params,
                trial.digest,
                "succeeded",
                metrics={"brightness": scores[point]},
            )
            for (_, point, _), trial in zip(plan.iter_cells(), plan.written(), strict=True)
        ]
        stale.append(SearchState(space, plan, rows).count_stale())
    assert stale == [1, 1]


def test_a_range_needs_no_step_where_the_slot_takes_a_number_or_nothing(tmp_path):
    graph = {"1": {"class_type": "A", "inputs": {"x": 1.5}}}
    (tmp_path / "t.json").write_text(json.dumps(graph))
    schema = {"anyOf": [{"type": "number", "minimum": 1, "maximum": 20}, {"type": "null"}]}
    (tmp_path / "t.slots.yaml").write_text(json.dumps({"slots": {"x": {"at": "1.x", "schema": schema}}}))
    search = {"maximize": "brightness", "trials": 4, "space": {"x": {"from": 1, "to": 20}}}
    (tmp_path / "e.yaml").write_text(json.dumps({"template": "t.json", "search": search}))
    assert load(tmp_path / "e.yaml").search is not None
