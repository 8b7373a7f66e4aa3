"""The plan of a search so far: a sequence of batches, to which each round adds one. Earlier trials keep their index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

from sweeper.model.experiment import Experiment
from sweeper.model.node_classes import NodeInfo
from sweeper.model.search_columns import ROUND, SearchColumns
from sweeper.model.search_spec import Search
from sweeper.model.trial import Trial
from sweeper.planning.compatibility import Compatibility
from sweeper.planning.plan import Plan
from sweeper.planning.searching.points import Point, SearchSpace


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points that are tried on the same combinations of `over`, by their indexes. `round` 0: done before the search."""

    round: int
    points: tuple[Point, ...]
    combinations: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of trials."""
        return len(self.points) * len(self.combinations)


def plan_space(experiment: Experiment, search: Search) -> Plan:
    """Return the product of all options of a search, which serves to check them and is too large to run.

    Raises ExperimentError if a rule fails.
    """
    return Plan(replace(experiment, blocks=(search.block,)))


def is_space(plan: Plan) -> bool:
    """Whether `plan_space` returned this plan."""
    search = plan.experiment.search
    return search is not None and plan.experiment.blocks == (search.block,)


class SearchPlan(Plan):
    """The trials of some batches, in their order. Raises ExperimentError without batches, or if a rule fails."""

    def __init__(self, space: SearchSpace, batches: Sequence[PointBatch]) -> None:
        self.space, self.batches = space, tuple(batches)
        blocks = tuple(space.make_block(batch.points, batch.combinations) for batch in batches)
        super().__init__(replace(space.experiment, blocks=blocks, search=None))

    def __iter__(self) -> Iterator[Trial]:
        yield from self._iter_batches(lambda index: self._parts[index].order)

    def written(self) -> Iterator[Trial]:
        """Yield the trials batch by batch, point by point."""
        yield from self._iter_batches(lambda index: self._parts[index].written)

    def _iter_batches(self, get_order: Callable[[int], tuple[int, ...]]) -> Iterator[Trial]:
        start = 0
        for index, (part, batch) in enumerate(zip(self._parts, self.batches, strict=True)):
            for trial in part.iter_trials(start, get_order(index)):
                yield replace(trial, columns={**trial.columns, ROUND: batch.round})
            start += part.count

    def iter_cells(self) -> Iterator[tuple[int, Point, int]]:
        """Yield the round, the point and the combination of each trial in written order."""
        for batch in self.batches:
            for point in batch.points:
                for combination in batch.combinations:
                    yield batch.round, point, combination

    def fit(self, nodes: NodeInfo) -> Compatibility:
        """Check the whole space against the node classes of a server, so that no later round fails; then the trials."""
        found = plan_space(self.space.experiment, self.space.search).fit(nodes)
        return found if found.problems else super().fit(nodes)

    @property
    def search_columns(self) -> SearchColumns:
        """What the table shows beside the trials."""
        search = self.space.search
        space = tuple(one.name for one in search.space)
        return SearchColumns(search.objectives, space, tuple(axis.name for axis in search.over), search.stop_early)

    @cached_property
    def axis_sizes(self) -> Mapping[str, int]:
        """The number of values of each axis in the whole space, so that files have like names in all rounds."""
        search = self.space.search
        sizes = {one.name: len(one.axis.options) for one in search.space}  # the two ends of a range
        return sizes | {axis.name: len(axis.options) for axis in search.over}

    @cached_property
    def value_order(self) -> Mapping[str, tuple[int, ...]]:
        """The first trial of each value of an axis column: numbers of a range go up, options are as written."""
        first_of: dict[str, dict[float, int]] = {}
        start = 0
        for batch in self.batches:
            width = len(batch.combinations)
            for number, point in enumerate(batch.points):
                for one, value in zip(self.space.axes, point, strict=True):
                    first_of.setdefault(one.name, {}).setdefault(value, start + number * width)
            for number, combination in enumerate(batch.combinations):
                for axis, option in zip(self.space.search.over, self.space.combinations[combination], strict=True):
                    first_of.setdefault(axis.name, {}).setdefault(option, start + number)
            start += batch.count
        orders = {name: tuple(firsts[value] for value in sorted(firsts)) for name, firsts in first_of.items()}
        changed = {name: order for name, order in orders.items() if list(order) != sorted(order)}
        return {column: changed[name] for column in self.axis_columns if (name := self._get_axis(column)) in changed}

    @cached_property
    def together(self) -> tuple[tuple[str, str], ...]:
        """The pairs of columns that show the same axis: its values, their labels, and groups of choices."""
        pairs = combinations(self.axis_columns, 2)
        return tuple((one, other) for one, other in pairs if self._get_axis(one) == self._get_axis(other))

    def _get_axis(self, column: str) -> str:
        names = self.experiment.axis_names
        return column if column in names else column.rpartition(".")[0]
