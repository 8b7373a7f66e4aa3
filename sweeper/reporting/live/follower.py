"""Follows a results folder while a run writes to it: the page's current data, and what changed since.

The store is only read; SQLite's data version shows whether another process wrote to it. Changes are numbered, so that a
page that lost its connection can ask for what it missed. Nothing here knows HTTP.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from sweeper.errors import InputError, ResultsError, UsageError
from sweeper.model.experiment import Experiment
from sweeper.model.result import PENDING, Result
from sweeper.planning.plan import Plan
from sweeper.planning.searching.search_plan import make_search_columns
from sweeper.regression.accept import plan_acceptance
from sweeper.regression.cases import find_run_record
from sweeper.reporting import contents
from sweeper.reporting.check_findings import CheckFunction, LiveCheck
from sweeper.reporting.dataset import (
    TrialTable,
    build_dataset,
    build_row_outcome,
    list_file_origins,
    tabulate,
    transpose_files,
)
from sweeper.reporting.page_answers import Answers, encode_answers, find_answers
from sweeper.reporting.thumbnails import THUMBS_FOLDER, Sprites, Thumbnails
from sweeper.running.folder_lock import is_locked
from sweeper.store import FILE_NAME, Store
from sweeper.store.containment import refuse_links
from sweeper.store.live_folder import LiveFolder, TrialProgress
from sweeper.store.records import RunRecord, TableLayout, TrialOutcome
from sweeper.store.row_queries import batch_outcomes
from sweeper.store.votes import Mark
from sweeper.tables.results_folder import is_check_folder

_MIN_INTERVAL_SECONDS: Final = 0.25  # seconds between two reads, at least
_REST_FACTOR: Final = 4  # the pause is also this many times the last read, because a run in this process needs CPU time
_HEARTBEAT_SECONDS: Final = 4.0  # between two signs to the run that somebody is watching


@dataclass
class _RunState:
    """A run as it was last read. `last_changes` has the number of the last change of a row, by its index."""

    layout: TableLayout
    record: RunRecord | None
    outcomes: list[TrialOutcome]
    last_changes: dict[int, int] = field(default_factory=dict)
    artifacts: dict[str, contents.LocatedFile] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    # Of the pictures that existed when the run was first read.
    sprites: Sprites = field(default_factory=lambda: Sprites((), {}))

    @property
    def rows(self) -> list[Result]:
        return [outcome.result for outcome in self.outcomes]

    @property
    def trials(self) -> list[tuple[int, str]]:
        """What identifies the rows: if it changes, the page has to reload."""
        return [(row.trial, row.digest) for row in self.rows]

    def tabulate(self) -> TrialTable:
        return tabulate(batch_outcomes(self.outcomes), self.layout)


class Follower:
    """Reads a folder's latest run (or `run`) in a thread of its own and calls `notify` after every change.

    `experiment`: its plan is shown as long as no run is recorded; None requires a run.
    `check`: compares trials with the baseline, if there is one.
    Raises ResultsError or InputError if there is nothing to show.
    """

    def __init__(
        self,
        results: Path,
        notify: Callable[[], None],
        *,
        run: str | None = None,
        experiment: Experiment | None = None,
        check: CheckFunction | None = None,
    ) -> None:
        self.results = results
        self.live_folder = LiveFolder(results)
        self._notify = notify
        self._run = run
        self._experiment = experiment
        self._lock = threading.Lock()
        self._accepting = threading.Lock()  # one acceptance after the other
        self._stop = threading.Event()
        self._cleanup = ExitStack()
        self.thumbs = Thumbnails(self._choose_thumbs_folder())
        self._change_number = 0
        self._generation = 0  # grows when the page has to reload
        self._running: dict[int, TrialProgress | None] = {}
        self.files: dict[str, Path] = {}  # the artifacts of the run, by name
        self._problem: str | None = None
        self._version: int | None = None
        self._store: Store | None = None
        self._check = LiveCheck(check, self._lock, self._apply_check)
        self._marks: dict[str, Any] = {}
        self._answers: Answers = {}
        self._updated = {"answers": 0, "marks": 0, "gone": 0}  # the number of the last change of each
        try:
            self._state = self._read_initial()
        except BaseException:
            self._cleanup.close()
            raise
        self._thread = threading.Thread(target=self._follow, name="sweeper-view", daemon=True)

    def start(self) -> None:
        self.live_folder.announce_viewer()
        self._thread.start()
        self._check.start()
        if self._state.record is not None:
            with self._lock:
                self._check.request(None)

    def stop(self) -> None:
        self._stop.set()
        self._check.stop()
        self._thread.join()
        self.live_folder.remove_viewer()
        self._cleanup.close()

    def _choose_thumbs_folder(self) -> Path:
        """The report's folder, so that thumbnails are made once; a temporary one if the results are read-only."""
        folder = self.results / "report"
        try:
            refuse_links(folder, folder / THUMBS_FOLDER)
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except (OSError, ResultsError):
            # On Windows, a visitor may still have one of them open.
            folder_for_now = tempfile.TemporaryDirectory(prefix="sweeper-view-", ignore_cleanup_errors=True)
            return Path(self._cleanup.enter_context(folder_for_now))

    # --- for the server, from any thread; also `files`, `thumbs` and `live_folder`

    def store_marks(self, marks: Sequence[Mark]) -> None:
        """Write marks into the folder. Raises ResultsError if that is not possible, or nothing has run yet.

        Raises UsageError, and writes none, if the folder does not know a trial: else a visitor could fill the disk.
        """
        with Store.open(self.results) as store, store.transaction():
            if store.marks.find_unknown(marks):
                raise UsageError("the folder has no such trial")
            store.marks.add(marks)

    def accept(self, trial: int, seen: Sequence[str]) -> None:
        """Accept the changed and new pictures of a trial, as `sweeper accept` does.

        `seen`: what a person saw of it, namely the paths of the accepted files on the page, and the SHA-256 of each
        file of the trial. Raises UsageError, and writes nothing, if something else is there by now; SweeperError as
        `plan_acceptance` and `AcceptPlan.apply` do.
        """
        if not self.has_trial(trial):
            raise UsageError("the page has no such trial")
        with self._accepting:
            with self._lock:
                cases = self._check.list_acceptable(trial)
            acceptance = plan_acceptance(self.results, cases=cases, run=self._run)
            accepted = self._check.list_accepted(trial)  # after the plan read the baseline: `apply` finds later changes
            rows = (row for row in acceptance.run_cases.rows if row.result.trial == trial)
            if sorted(seen) != sorted([*accepted, *(output.sha256 for row in rows for output in row.outputs)]):
                raise UsageError("this trial or its accepted file has changed since the page showed it; look again")
            if not acceptance.writes:
                raise UsageError("this trial has nothing to accept")
            acceptance.apply()
        with self._lock:
            self._check.request([trial])

    def has_trial(self, trial: int) -> bool:
        """Whether the page shows this trial."""
        return any(outcome.result.trial == trial for outcome in self._state.outcomes)

    def find_trial(self, trial: int) -> tuple[RunRecord, list[str] | None, Result]:
        """The run, the options of the command that goes on with it, and the row of a trial. Raises UsageError."""
        with self._lock:
            state = self._state
        row = next((row for row in state.rows if row.trial == trial), None)
        if row is None or state.record is None:
            raise UsageError("the page has no such trial, or nothing has run yet; load it again")
        return state.record, state.info["asked"]["options"], row

    def find_accepted(self, name: str) -> Path | None:
        """The accepted file with this name, or None."""
        with self._lock:
            return self._check.find_file(name)

    def build_data(self) -> dict[str, Any]:
        """Build all of the page's data, including the number of the last change."""
        with self._lock:
            state, table = self._state, self._state.tabulate()
            check, accepted = self._check.build_data(table.facts["trial"], len(state.artifacts))
            is_review = is_check_folder(self.results, table.layout.experiment)
            entries = contents.iter_file_entries(state.artifacts, self.thumbs.known, state.sprites.indices)
            data = build_dataset(table)
            return {
                **data,
                "answers": encode_answers(self._answers, data["columns"]),
                "files": transpose_files(chain(entries, accepted)),
                "outputs": contents.number_outputs(table.facts["outputs"], state.artifacts),
                "sprites": state.sprites.as_data(),
                **({"check": {**check, "is_review": is_review}} if check else {}),
                **state.info,
                "marks": self._marks,
                "live": self._build_live_state(),
            }

    def get_changes(self, number: int, generation: int) -> dict[str, Any] | None:
        """The changes after change `number`; None if the page has to reload."""
        with self._lock:
            if generation != self._generation:
                return None
            changes = self._state.last_changes.items()
            rows = [self._build_row_update(index) for index, changed in changes if changed > number]
            updated = {name for name, changed in self._updated.items() if changed > number}
            found = self._check.build_missing_cases() if "gone" in updated else {}
            if "marks" in updated:
                found["marks"] = self._marks
            if "answers" in updated:
                found["answers"] = encode_answers(self._answers, build_dataset(self._state.tabulate())["columns"])
            return {"rows": rows, **found, **self._build_live_state()}

    def _build_live_state(self) -> dict[str, Any]:
        record = self._state.record
        running = {
            str(trial): None
            if progress is None
            else [progress.node, progress.value, progress.maximum, progress.preview]
            for trial, progress in self._running.items()
        }
        return {
            "number": self._change_number,
            "generation": self._generation,
            "running": self._is_running(),
            "ended": None if record is None else record.ended,
            "stopped_by": None if record is None else record.stopped_by,
            "flight": running,
            "problem": self._problem or self._check.problem,
            **self._estimate_end(),
            "about": {name: self._state.info[name] for name in ("run", "targets", "asked", "spending", "equal")},
        }

    def _estimate_end(self) -> dict[str, Any]:
        """How many trials have ended (`done`), and the seconds until all have, at the pace of this run (`left_s`).

        Nobody knows how many trials a search will ask for, or how long jobs of other sizes take (`sizes_differ`).
        """
        outcomes, record = self._state.outcomes, self._state.record
        ended = [outcome.run for outcome in outcomes if outcome.result.status != PENDING]
        left, seconds, layout = len(outcomes) - len(ended), None, self._state.layout
        if record is not None and left and layout.search is None and not layout.sizes_differ and self._is_running():
            own = ended.count(record.id)
            seconds = round((time.time() - record.started) / own * left) if own else None
        return {"done": len(ended), "left_s": seconds, "sizes_differ": layout.sizes_differ}

    def _build_row_update(self, index: int) -> dict[str, Any]:
        outcome = self._state.outcomes[index]
        row = outcome.result
        artifacts = {name: self._state.artifacts[name] for name in row.outputs}
        entries = list(contents.iter_file_entries(artifacts, self.thumbs.known, {}))
        files = {"row": index, "files": entries, "places": list_file_origins(outcome.files)}
        return {**files, **self._check.build_row(row.trial), **build_row_outcome(row, self._state.layout)}

    def _apply_check(self, trials: set[int], is_full: bool) -> None:
        """Note what a check changed; called from its thread, which holds the lock."""
        self._change_number += 1
        if is_full:
            self._updated["gone"] = self._change_number
        for index, row in enumerate(self._state.rows):
            if row.trial in trials:
                self._state.last_changes[index] = self._change_number
        self._notify()

    # --- the thread

    def _follow(self) -> None:
        announced, duration = float("-inf"), 0.0
        while not self._stop.wait(max(_MIN_INTERVAL_SECONDS, _REST_FACTOR * duration)):
            start = time.monotonic()
            # This makes the folder if there is none yet, but not again after somebody deleted it.
            if start - announced >= _HEARTBEAT_SECONDS and (self._state.record is None or Store.exists(self.results)):
                announced = start
                self.live_folder.announce_viewer()
            try:
                changed, problem = self._refresh(), None
            except (ResultsError, InputError) as error:
                changed, problem = False, str(error)
            duration = time.monotonic() - start
            if changed or problem != self._problem:
                with self._lock:
                    self._problem = problem
                    self._change_number += 1
                self._notify()
        if self._store is not None:
            self._store.close()

    def _refresh(self) -> bool:
        """Read what changed; return whether the page has to show it."""
        changed = False
        if self._store is None and (self.results / FILE_NAME).is_file():
            self._store = Store.open(self.results, readonly=True)
        if self._store is not None:
            version = self._store.data_version()
            if version != self._version:
                changed = self._read_changes(self._store)
                self._version = version
        running = self._find_running(self.live_folder.read_progress())
        if running != self._running:
            with self._lock:
                self._running = running
            changed = True
        return changed

    def _find_running(self, progress: Mapping[int, TrialProgress]) -> dict[int, TrialProgress | None]:
        """The trials that a server has, with their progress; also those whose row still shows an earlier result."""
        record = self._state.record
        if record is None or not self._is_running():
            return {}
        return {
            row.trial: progress.get(row.trial)
            for outcome in self._state.outcomes
            for row in (outcome.result,)
            if (row.status == PENDING and row.prompt_id is not None)
            or (row.trial in progress and (row.status == PENDING or outcome.run != record.id))
        }

    def _is_running(self) -> bool:
        """Whether the run is going on. A killed run has no end recorded, but nobody locks its folder."""
        record = self._state.record
        return record is not None and record.ended is None and is_locked(self.results)

    def _read_initial(self) -> _RunState:
        if (self.results / FILE_NAME).is_file():
            with Store.open(self.results, readonly=True) as store:
                if store.runs() or self._experiment is None:
                    return self._complete_state(store, self._read_state(store))
        if self._experiment is None:
            raise ResultsError(
                f"{self.results}: no results here ({FILE_NAME} is missing); run the experiment with `sweeper run` first"
            )
        return _make_planned_state(self._experiment, self.results)

    def _read_state(self, store: Store) -> _RunState:
        record = find_run_record(store, self._run)
        outcomes = list(store.outcomes(record.id, of_folder=self._run is None))
        return _RunState(store.layout(record.id), record, outcomes)

    def _complete_state(self, store: Store, state: _RunState, known: _RunState | None = None) -> _RunState:
        """Make the thumbnails of a run, and what the page says of it. If it has grown, `known` is its former state."""
        made = self._add_files(state, state.rows, with_sprites=known is None)
        state.sprites = made if known is None else known.sprites
        assert state.record is not None
        state.info = contents.describe_run(state.record, self.results, state.tabulate(), store)
        self._marks = contents.encode_marks(store.marks.load())
        self._answers = self._find_answers(state.record)
        return state

    def _find_answers(self, record: RunRecord) -> Answers:
        """The answers of a run that has ended; those of one that goes on would change with each trial."""
        return {} if record.ended is None else find_answers(self.results, self._run)

    def _read_changes(self, store: Store) -> bool:
        marks = contents.encode_marks(store.marks.load())
        has_new_marks = marks != self._marks
        if has_new_marks:
            with self._lock:
                self._marks, self._updated["marks"] = marks, self._change_number + 1
        if not store.runs():
            return has_new_marks
        read, before = self._read_state(store), self._state
        layout, record, rows = read.layout, read.record, read.rows
        assert record is not None
        # A plan does not know the titles of nodes and the sizes of jobs, which no column of the page needs.
        known = replace(before.layout, titles=layout.titles, sizes_differ=layout.sizes_differ)
        if layout != known or read.trials != before.trials:
            has_grown = layout.search is not None and before.record is not None and before.record.id == record.id
            state = self._complete_state(store, read, before if has_grown else None)
            with self._lock:
                self._state = state
                self._generation += 1
                self._check.request(None)
            return True
        state = replace(before, layout=layout, record=record, outcomes=read.outcomes)
        changed = [index for index, (old, new) in enumerate(zip(before.rows, rows, strict=True)) if old != new]
        if before.record is None or before.record.id != record.id:
            state.info = contents.describe_run(record, self.results, state.tabulate(), store)
        else:
            state.info = before.info | {
                "spending": contents.describe_spending(store, map(attrgetter(*contents.SPENT), rows)),
                "equal": contents.describe_equal_pictures(store, rows, layout),
            }
        if changed:
            self._add_files(state, [rows[index] for index in changed])
        answers = self._answers if record == before.record else self._find_answers(record)
        with self._lock:
            if answers != self._answers:
                self._answers, self._updated["answers"] = answers, self._change_number + 1
            for index in changed:
                state.last_changes[index] = self._change_number + 1
            self._state = state
            self._check.request(None if before.record is None else [rows[index].trial for index in changed])
        return bool(changed) or has_new_marks or record != before.record or state.info != before.info

    def _add_files(self, state: _RunState, rows: Sequence[Result], *, with_sprites: bool = False) -> Sprites:
        """Register the files of these rows and make their thumbnails before a page hears of them."""
        recorded = {name: sha for row in rows for name, sha in zip(row.outputs, row.sha256, strict=True)}
        artifacts = contents.collect_artifacts(recorded, self.results)
        count = len(artifacts) if with_sprites else 0
        sprites = self.thumbs.make(lambda: contents.list_pictures(artifacts.values()), count)
        with self._lock:
            state.artifacts.update(artifacts)
            paths = (Path(artifact.path) for artifact in artifacts.values() if artifact.size is not None)
            self.files.update({path.name: path for path in paths})
        return sprites


def _make_planned_state(experiment: Experiment, results: Path) -> _RunState:
    """Make the state of an experiment that has not run here: all trials are pending. A search has none yet."""
    rows: list[Result] = []
    if experiment.search is not None and not experiment.blocks:
        search = make_search_columns(experiment.search)
        layout = TableLayout(experiment.name, (), (), (*experiment.metric_columns, *search.columns), search=search)
    else:
        planned = Plan(experiment)
        layout = TableLayout(
            experiment.name, planned.axis_columns, planned.slot_names, experiment.metric_columns, planned.value_order,
            planned.together, extras=planned.extras)  # fmt: skip
        rows = [Result(t.index, t.columns, t.params, t.digest) for t in planned.written()]
    file, overrides = str(experiment.file), experiment.overrides
    record = RunRecord(0, experiment.name, file, (), len(rows), 0.0, None, None, overrides)
    outcomes = [TrialOutcome(row, None, ()) for row in rows]
    info = contents.describe_run(record, results, tabulate(batch_outcomes(outcomes), layout), None)
    return _RunState(layout, None, outcomes, info=info)
