"""The answer of `sweeper run`: what has become of its trials, and where to look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sweeper.answers.parts import Fact, Facts, Line, Part, Table, Warn
from sweeper.answers.render import IF_GIVEN, INLINE, NOT_IN_JSON
from sweeper.errors import SweeperError
from sweeper.model.charges import AT_LEAST
from sweeper.model.money import CURRENCY, NOTHING, Amount, to_usd
from sweeper.model.result import FAILED, MAX_COMPARED, Run
from sweeper.store import Store
from sweeper.wording import join_command

if TYPE_CHECKING:
    from sweeper.tables.equal_pictures import EqualPictures

_MAX_ERROR_TYPES: Final = 5
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """What the jobs of a run cost, and those of all runs of its folder, of a budget in US dollars, if there is one.

    A job that has not ended counts as the most that it may cost. `kind` is the least sure kind of charge.
    """

    currency: str = CURRENCY
    run: Amount
    kind: str | None
    folder: Amount
    budget: float | None

    def __str__(self) -> str:
        text = f"{self.run} in this run" + (f" ({self.kind})" if self.kind else "")
        if self.folder != self.run or self.budget is not None:
            text += f", {self.folder} in this folder"
        return text if self.budget is None else f"{text} of a budget of {Amount.exactly(self.budget)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAnswer:
    """A run (see `Run`), its cost, None without costs and without a budget, and the page of its folder, if written.

    `real_run`: the command of the run that this one rehearsed. `equal_pictures`: what changed no picture.
    """

    run: Run = field(metadata=INLINE)
    cost: RunCost | None = None
    report: Path | None = None
    real_run: str | None = field(default=None, metadata=IF_GIVEN)
    equal_pictures: Sequence[EqualPictures] | None = field(default=None, metadata=IF_GIVEN)
    report_command: str = field(default="", metadata=NOT_IN_JSON)  # makes the page
    # The most common failures: number of trials, error type, and the message of one of them.
    list_failures: Callable[[], Sequence[tuple[int, str, str]]] = field(default=tuple, metadata=NOT_IN_JSON)

    def parts(self) -> Iterator[Part]:
        """The counts, the most common failures, and where the results are."""
        run = self.run
        names = ("trials", "submitted", "reused", "succeeded", "failed", "cancelled", "pending")
        yield Table(names, [[getattr(run, name) for name in names]])
        failures = self.list_failures() if run.failed else ()
        if failures:
            yield Table(("failed", "error_type", "error"), failures)
            yield Line("Add --retry-failed to submit these again.")
        if run.kept:
            count = sum(run.kept.values())
            rows = "1 row of results.csv is" if count == 1 else f"{count} rows of results.csv are"
            command = join_command(["sweeper", "results", str(run.out), "--run", str(run.run_id)])
            yield Line(f"{rows} from earlier runs on {' and '.join(run.kept)}; `{command}` shows this run alone")
        yield Facts([Fact("pictures", run.pictures), *list_run_facts(run, self.cost, self.report, self.report_command)])
        yield from (Warn(str(found)) for found in self.equal_pictures or ())
        if self.real_run is not None:
            yield Line(f"This was a rehearsal on sweeper's own server. The real run is: {self.real_run}")


def list_run_facts(run: Run, cost: RunCost | None, report: Path | None, report_command: str) -> Iterator[Fact]:
    """Where the table of a run is, what it cost, and its page, or the command that makes it."""
    yield Fact("table", str(run.out / "results.csv"))
    if cost is not None:
        yield Fact("cost", str(cost))
    page = f"{report} (up to date)" if report else report_command
    if page:
        yield Fact("report", page)


def answer_run(run: Run, **shown: Any) -> RunAnswer:
    """Answer what has become of a run. `shown`: other fields of the answer."""
    # What sweeper's own server draws in a rehearsal says little about the real server.
    equal = None if shown.get("real_run") or run.trials > MAX_COMPARED else _read(run, _load_equal_pictures)
    return RunAnswer(
        run=run, cost=load_run_cost(run), list_failures=lambda: _list_failures(run), equal_pictures=equal, **shown
    )


def _load_equal_pictures(store: Store) -> Sequence[EqualPictures] | None:
    if not store.has_equal_pixels():
        return None
    from sweeper.tables.equal_pictures import find_equal_pictures

    return find_equal_pictures(list(store.results()), store.layout(), store.load_pixel_hashes()) or None


def load_run_cost(run: Run) -> RunCost | None:
    """What a run cost; None for a run without costs and without a budget."""
    if run.spent == NOTHING and run.budget is None:
        return None
    cost = _read(run, lambda store: store.charges.load_whole_cost(run.run_id))
    return RunCost(
        run=run.cost,
        kind=None if cost is None else cost.kind.removesuffix(AT_LEAST),
        folder=run.spent,
        budget=None if run.budget is None else to_usd(run.budget),
    )


def _list_failures(run: Run) -> list[tuple[int, str, str]]:
    messages: dict[str, list[str]] = {}
    for row in _read(run, lambda store: list(store.results(run.run_id))) or ():
        if row.status == FAILED:
            messages.setdefault(row.error_type or "", []).append(row.error or "")
    counted = sorted(((len(found), kind, found[0]) for kind, found in messages.items()), key=lambda row: -row[0])
    return counted[:_MAX_ERROR_TYPES]


def _read(run: Run, read: Callable[[Store], _T]) -> _T | None:
    """What the folder of a run has; None if it cannot be read any more, as that of an old notebook."""
    try:
        with Store.open(run.out, readonly=True) as store:
            return read(store)
    except (SweeperError, OSError):
        return None
