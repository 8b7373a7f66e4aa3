"""The events of a run: frozen values passed to its `progress` callback; the counts that a display makes of them; and
the files that a viewer in another process reads.

An observer cannot influence the run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from sweeper.model.money import CURRENCY, NOTHING, Amount, TargetPrice, format_usd
from sweeper.model.result import FAILED, SUCCEEDED, Run
from sweeper.model.search_columns import SearchedPoint
from sweeper.planning.pricing import LearntTimes, price_time
from sweeper.store.live_folder import LiveFolder, TrialProgress
from sweeper.wording import count_things


class Event:
    """What every event derives from."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """The run is recorded in the store.

    Of its `trials` rows, this run may change `todo`, and `reused` show results of earlier runs that are not repeated,
    `failed` of them failures. `where` or `limit` leave out the others. `sizes_differ`: see `TableLayout`.
    """

    run_id: int
    out: Path
    trials: int
    todo: int
    reused: int
    targets: tuple[str, ...]
    failed: int = 0
    sizes_differ: bool = False


@dataclass(frozen=True, slots=True)
class ClusterReady(Event):
    """A Dask cluster responded. `address` is its scheduler's, `dashboard` a URL (empty: there is none).

    `workers`: the number of usable workers now.
    """

    address: str
    dashboard: str
    workers: int


@dataclass(frozen=True, slots=True)
class TargetStarting(Event):
    """sweeper started a target's ComfyUI `seconds` ago, and waits for its answer. `line`: the last of its log."""

    target: str
    seconds: float
    line: str


@dataclass(frozen=True, slots=True)
class TargetReady(Event):
    """A target responded. `version` is empty if unknown; `concurrency` is the maximum of jobs in flight.

    `group`: the list of targets by whose name the user chose it.
    """

    target: str
    dialect: str
    version: str
    concurrency: int
    group: str | None = None


@dataclass(frozen=True, slots=True)
class TargetDown(Event):
    """A target does not respond or refuses us. `final`: it gets no more work in this run.

    Otherwise the run retries it while other targets have work, and for `patience` seconds if none can continue.
    """

    target: str
    reason: str
    final: bool
    patience: float | None = None


@dataclass(frozen=True, slots=True)
class TargetUp(Event):
    """A target responds again after it was down for `seconds`."""

    target: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WaitingForTarget(Event):
    """The run can do nothing but wait for a target that is down, and gives it up in `seconds`.

    `seconds` None: the run waits no longer, because another target can continue.
    """

    target: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class JobSubmitted(Event):
    """The server accepted a job. `found`: an earlier submission was found on the server, so nothing was sent now."""

    target: str
    trial: int
    prompt_id: str
    attempt: int
    found: bool = False


@dataclass(frozen=True, slots=True)
class JobQueued(Event):
    """A poll showed why a job waits on the server.

    `reason`: the server's word, empty when the job waits no longer. `position`: its place in the queue, if known.
    """

    target: str
    trial: int
    prompt_id: str
    reason: str
    position: int | None


@dataclass(frozen=True, slots=True)
class JobProgress(Event):
    """A node of a job is at step `value` of `maximum` (0 of 0: it has just started)."""

    target: str
    trial: int
    prompt_id: str
    node: str
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class JobPreview(Event):
    """The server sent a preview of a job in progress: `image` holds the bytes of a JPEG or PNG."""

    target: str
    trial: int
    prompt_id: str
    node: str
    image: bytes


@dataclass(frozen=True, slots=True)
class TrialDone(Event):
    """The result row of a trial is final for this run. `seconds`: the execution time, None if unknown."""

    trial: int
    status: str
    target: str
    outputs: tuple[str, ...] = ()
    error_type: str | None = None
    error: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class CostChanged(Event):
    """What all jobs of the results folder cost, after one more ended. One that has not ended counts at most.

    `budget`: the most that they may cost, in micro-dollars; None without a limit.
    """

    spent: Amount
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """A trial will be submitted again after `wait` seconds."""

    target: str
    trial: int
    attempt: int
    wait: float
    reason: str


@dataclass(frozen=True, slots=True)
class TargetBusy(Event):
    """A target's queue is full; the run retries after `seconds`, with at most `limit` jobs in flight."""

    target: str
    seconds: float
    limit: int
    reason: str


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """The run submits nothing more and waits for `in_flight` jobs. `reason`: a constant of `stop_control`."""

    in_flight: int
    reason: str


@dataclass(frozen=True, slots=True)
class Cancelling(Event):
    """The run cancels its `in_flight` jobs."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """A warning that stops nothing, such as a picture that could not be measured."""

    message: str


@dataclass(frozen=True, slots=True)
class JudgeAsked(Event):
    """From now on, the judge of a metric is asked about up to `pictures` pictures, each `repeats` times or more."""

    metric: str
    model: str
    host: str
    pictures: int
    repeats: int


@dataclass(frozen=True, slots=True)
class RoundPlanned(Event):
    """A search asks for `points` points with `trials` trials; with 0 points, for more trials of earlier points.

    `asked`: the trials that it has asked for before, of at most `limit` (None: no limit). `best`: the best point so
    far, None if there is none yet.
    """

    number: int
    points: int
    trials: int
    asked: int
    limit: int | None
    best: SearchedPoint | None


@dataclass(frozen=True, slots=True)
class RunEnded(Event):
    """The run has ended and its table is written."""

    run: Run


class RunCounts:
    """The counts of a run, for a terminal or a notebook. A trial is under way until its files are downloaded.

    `rates` are the prices of its targets, to forecast what the time of the other jobs costs.
    """

    def __init__(self, rates: Sequence[TargetPrice] = ()) -> None:
        self._rates = rates
        self._seconds: list[float] = []  # of each job that succeeded
        self.cost: CostChanged | None = None  # the latest
        self.runs = 0
        self.todo = 0
        self.sizes_differ = False
        self.statuses: Counter[str] = Counter()
        self.in_flight: set[int] = set()
        self.waiting: dict[int, JobQueued] = {}  # the latest of each trial whose job waits on its server
        self.awaited: dict[str, float] = {}  # by target for which the run can only wait: the seconds left
        self._grouped: dict[str, TargetReady] = {}  # by name, the targets of groups that have responded
        self._ended_on: Counter[tuple[str, str]] = Counter()  # by group and status

    def count(self, event: Event) -> None:
        match event:
            case RunStarted():  # also starts a second run, such as that of `check --attribute`
                self.todo, self.sizes_differ = event.todo, event.sizes_differ
                self.runs += 1
                self.statuses.clear()
                self.in_flight.clear()
                self.waiting.clear()
                self.awaited.clear()
                self._ended_on.clear()
            case TargetReady() | TargetUp() | TargetDown() | WaitingForTarget():
                self._count_target(event)
            case Draining():
                self.awaited.clear()
            case CostChanged():
                self.cost = event
            case JobSubmitted():
                self.in_flight.add(event.trial)
            case JobQueued() if event.reason:
                self.waiting[event.trial] = event
            case JobQueued() | JobProgress():
                self.waiting.pop(event.trial, None)
            case Retrying():
                self._end_job(event.trial)
            case TrialDone():
                self._end_trial(event)

    def _count_target(self, event: TargetReady | TargetUp | TargetDown | WaitingForTarget) -> None:
        if isinstance(event, WaitingForTarget) and event.seconds is not None:
            self.awaited[event.target] = event.seconds
        elif not isinstance(event, TargetReady):
            self.awaited.pop(event.target, None)
        elif event.group is not None:
            self._grouped[event.target] = event

    def _end_trial(self, event: TrialDone) -> None:
        self._end_job(event.trial)
        self.statuses[event.status] += 1
        if (target := self._grouped.get(event.target)) is not None:
            self._ended_on[target.group or "", event.status] += 1
        if event.status == SUCCEEDED and event.seconds is not None:
            self._seconds.append(event.seconds)

    def _end_job(self, trial: int) -> None:
        self.in_flight.discard(trial)
        self.waiting.pop(trial, None)

    @property
    def done(self) -> int:
        """Trials that ended. Trials that share one job count separately."""
        return sum(self.statuses.values())

    @property
    def total(self) -> int:
        return max(self.todo, self.done + len(self.in_flight))

    @property
    def queued(self) -> int:
        return self.total - self.done - len(self.in_flight)

    def describe_groups(self) -> list[str]:
        """A line for each group: its targets that have responded, and how its trials ended."""
        groups: dict[str, list[TargetReady]] = {}
        for target in self._grouped.values():
            groups.setdefault(target.group or "", []).append(target)
        lines = []
        for group, targets in groups.items():
            counts = [f"{count} {status}" for (on, status), count in sorted(self._ended_on.items()) if on == group]
            jobs = f"{sum(target.concurrency for target in targets)} at a time"
            lines.append(f"{group}: {count_things(len(targets), 'target')}, {', '.join(counts) or jobs}")
        return lines

    def describe_waiting(self) -> str:
        """Why jobs wait on their servers: ` (1 waiting there: concurrency limit, position 3)`; empty if none does."""
        reasons = Counter(event.reason for event in self.waiting.values())
        positions = [event.position for event in self.waiting.values() if event.position is not None]
        texts = [f"{count} waiting there: {reason.replace('_', ' ')}" for reason, count in sorted(reasons.items())]
        first = f", position {min(positions)}" if positions else ""
        return f" ({'; '.join(texts)}{first})" if texts else ""

    def describe_awaited(self) -> str:
        """For which targets the run waits, and how long it still does; empty if it can go on."""
        if not self.awaited:
            return ""
        targets = " and ".join(self.awaited)
        return f"waiting only for {targets}, {max(self.awaited.values()):.0f} s left"

    def describe_cost(self) -> str:
        """What the jobs that have not ended cost on the targets: `; 4.30-6.10 USD of GPU left`; empty at first."""
        left = self.total - self.done
        if not self._rates or not left:
            return ""
        if not any(rate.per_second for rate in self._rates):
            return f"; {price_time(self._rates, left, None)} of jobs left"
        if self.sizes_differ:
            return "; cost of GPU left unknown, because the jobs differ in size"
        seconds = LearntTimes(jobs=self._seconds).estimate_seconds(left)
        return f"; {price_time(self._rates, left, seconds)} of GPU left" if seconds is not None else ""

    def describe_spent(self) -> str:
        """What the results folder has cost: `; 12.10 of 20.00 USD spent`; empty if nothing in it costs anything."""
        if self.cost is None or self.cost.spent == NOTHING:
            return ""
        spent, budget = self.cost.spent, self.cost.budget
        if budget is None or spent.high is None:
            return f"; {spent} spent"
        return f"; {format_usd(spent.high)} of {format_usd(budget)} {CURRENCY} spent"

    def __str__(self) -> str:
        awaited = self.describe_awaited()
        return (
            f"{self.statuses[SUCCEEDED]} done, {self.statuses[FAILED]} failed, "
            f"{len(self.in_flight)} under way{self.describe_waiting()}, {self.queued} queued"
            f"{self.describe_cost()}{self.describe_spent()}{awaited and f'; {awaited}'}"
        )


_VIEWER_CHECK_INTERVAL: Final = 1.0  # seconds between two checks whether there is a viewer
_WRITE_INTERVAL: Final = 0.25  # seconds: people see no more than a few pictures a second


@dataclass(slots=True)
class LiveFeed:
    """Called with each event of a run, which it passes on to `forward`; writes those in flight for a viewer.

    A viewer needs only the latest step and preview of each trial, so most of them are never written.
    `clock` (monotonic) and `now` (since 1970) return seconds.
    """

    folder: LiveFolder
    forward: Callable[[Event], None]
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    _progress: dict[int, TrialProgress] = field(default_factory=dict)
    _preview_written_at: dict[int, float] = field(default_factory=dict)  # by trial, on `clock`
    _last_write: float = float("-inf")
    _last_viewer_check: float = float("-inf")
    _viewer_seen: bool = False

    def __call__(self, event: Event) -> None:
        match event:
            case JobSubmitted():
                self._update(event.trial, TrialProgress("", 0.0, 0.0))
            case JobProgress():
                previous = self._progress.get(event.trial)
                previews = previous.preview if previous is not None else 0
                self._update(event.trial, TrialProgress(event.node, event.value, event.maximum, previews))
            case JobPreview():
                self._write_preview(event)
            case TrialDone() | Retrying():
                if self._progress.pop(event.trial, None) is not None and self.has_viewer():
                    self.folder.remove_preview(event.trial)
                self._preview_written_at.pop(event.trial, None)
                self._write_progress()
            case RunStarted() | RunEnded():
                self.folder.clear()
            case _:
                pass
        self.forward(event)

    def _update(self, trial: int, progress: TrialProgress) -> None:
        self._progress[trial] = progress
        self._write_progress()

    def _write_preview(self, event: JobPreview) -> None:
        clock = self.clock()
        if not self.has_viewer() or clock - self._preview_written_at.get(event.trial, float("-inf")) < _WRITE_INTERVAL:
            return
        self._preview_written_at[event.trial] = clock
        self.folder.write_preview(event.trial, event.image)
        previous = self._progress.get(event.trial, TrialProgress(event.node, 0.0, 0.0))
        self._update(event.trial, replace(previous, preview=previous.preview + 1))

    def _write_progress(self) -> None:
        clock = self.clock()
        if clock - self._last_write >= _WRITE_INTERVAL and self.has_viewer():
            self._last_write = clock
            self.folder.write_progress(self._progress)

    def has_viewer(self) -> bool:
        clock = self.clock()
        if clock - self._last_viewer_check >= _VIEWER_CHECK_INTERVAL:
            self._last_viewer_check = clock
            self._viewer_seen = self.folder.has_viewer(self.now())
        return self._viewer_seen
