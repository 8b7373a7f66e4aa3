"""Follows a results folder while a run writes to it: the page's current data, and what changed since.

The store is only read; SQLite's data version shows whether another process wrote to it. Changes are numbered, so that a
page that lost its connection can ask for what it missed. Nothing here knows HTTP.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sweeper.errors import InputError, ResultsError, UsageError
from sweeper.model.experiment import Experiment
from sweeper.model.result import PENDING, Result
from sweeper.model.search_columns import SearchColumns
from sweeper.planning.plan import plan
from sweeper.reporting.check_findings import CheckFindings
from sweeper.reporting.contents import (
    build_file_entries,
    collect_artifacts,
    describe_run,
    describe_spending,
    encode_marks,
    find_run_record,
    load_uploaded_inputs,
)
from sweeper.reporting.dataset import build_dataset, build_row_outcome, encode_file_origins, list_file_origins
from sweeper.reporting.live.check_follower import CheckFunction, CheckState, CheckThread
from sweeper.reporting.sprites import Sprites, make_sprites
from sweeper.reporting.thumbnails import THUMBS_FOLDER, Thumbnails, select_pictures
from sweeper.running.folder_lock import is_locked
from sweeper.store import FILE_NAME, Store
from sweeper.store.containment import refuse_links
from sweeper.store.live_folder import LiveFolder, TrialProgress
from sweeper.store.records import RunRecord, TableLayout
from sweeper.store.trial_marks import Mark

_MIN_INTERVAL_SECONDS: Final = 0.25  # seconds between two reads, at least
_REST_FACTOR: Final = 4  # the pause is also this many times the last read, because a run in this process needs CPU time
_HEARTBEAT_SECONDS: Final = 4.0  # between two signs to the run that somebody is watching


@dataclass
class _RunState:
    """A run as it was last read.

    `file_origins[i]` belongs to the files of row i; `last_changes[i]` is the number of the last change of row i, and
    `row_runs[i]` the run whose result it shows.
    """

    layout: TableLayout
    record: RunRecord | None
    rows: list[Result]
    file_origins: list[list[Any]]
    last_changes: list[int]
    row_runs: list[int | None]
    artifacts: dict[str, tuple[Path | None, str]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    # Of the pictures that existed when the run was first read.
    sprites: Sprites = field(default_factory=lambda: Sprites((), {}))


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
        self._stop = threading.Event()
        self._temp_folder: tempfile.TemporaryDirectory[str] | None = None
        self._thumbs = Thumbnails(self._choose_thumbs_folder())
        self._change_number = 0
        self._generation = 0  # grows when the page has to reload
        self._running: dict[int, TrialProgress | None] = {}
        self._files: dict[str, Path] = {}
        self._problem: str | None = None
        self._version: int | None = None
        self._store: Store | None = None
        self._check_state = None if check is None else CheckState(CheckFindings(Path(), (), ()))
        self._check_thread = None if check is None else CheckThread(check, self._apply_check)
        self._check_problem: str | None = None
        self._marks: dict[str, Any] = {}
        self._marks_number = 0  # number of the change that last updated the marks
        self._full_check_number = 0  # number of the change that last updated the missing cases
        try:
            self._state = self._read_initial()
        except BaseException:
            self._clean_up()
            raise
        self._thread = threading.Thread(target=self._follow, name="sweeper-view", daemon=True)

    def start(self) -> None:
        self.live_folder.announce_viewer()
        self._thread.start()
        if self._check_thread is not None:
            self._check_thread.start()
            if self._state.record is not None:
                self._check_thread.request(self._generation, None)

    def stop(self) -> None:
        self._stop.set()
        if self._check_thread is not None:
            self._check_thread.stop()
        self._thread.join()
        self.live_folder.remove_viewer()
        self._clean_up()

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
            self._temp_folder = tempfile.TemporaryDirectory(prefix="sweeper-view-", ignore_cleanup_errors=True)
            return Path(self._temp_folder.name)

    def _clean_up(self) -> None:
        if self._temp_folder is not None:
            self._temp_folder.cleanup()

    # --- for the server, from any thread

    @property
    def thumbs(self) -> Path:
        """The folder that holds the folder of thumbnails."""
        return self._thumbs.report

    def store_marks(self, marks: Sequence[Mark]) -> None:
        """Write marks into the folder. Raises ResultsError if that is not possible, or nothing has run yet.

        Raises UsageError, and writes none, if the folder does not know a trial: else a visitor could fill the disk.
        """
        with Store.open(self.results) as store, store.transaction():
            if store.marks.find_unknown(marks):
                raise UsageError("the folder has no such trial")
            store.marks.add(marks)

    def find_artifact(self, name: str) -> Path | None:
        """The artifact of the run with this name, or None for any other name."""
        return self._files.get(name)

    def has_trial(self, trial: int) -> bool:
        """Whether the page shows this trial."""
        return any(row.trial == trial for row in self._state.rows)

    def find_accepted(self, name: str) -> Path | None:
        """The accepted file with this name, or None."""
        with self._lock:
            return None if self._check_state is None else self._check_state.find_file(name)

    def build_data(self) -> dict[str, Any]:
        """Build all of the page's data, including the number of the last change."""
        with self._lock:
            state = self._state
            data = build_dataset(state.rows, state.layout) | {"places": encode_file_origins(state.file_origins)}
            thumbs = self._thumbs.get_known(sha for _, sha in state.artifacts.values())
            data["files"], data["outputs"] = build_file_entries(
                state.rows, state.artifacts, thumbs, state.sprites.indices
            )
            data["sprites"] = state.sprites.as_data()
            if self._check_state is not None:
                data["check"] = self._check_state.build_data(state.rows, data["files"])
            return data | state.info | {"marks": self._marks, "live": self._build_live_state()}

    def get_changes(self, number: int, generation: int) -> dict[str, Any] | None:
        """The changes after change `number`; None if the page has to reload."""
        with self._lock:
            if generation != self._generation:
                return None
            state = self._state
            rows = [
                self._build_row_update(index) for index, changed in enumerate(state.last_changes) if changed > number
            ]
            check = (
                {"gone": self._check_state.list_missing_cases()}
                if self._check_state is not None and self._full_check_number > number
                else {}
            )
            marks = {"marks": self._marks} if self._marks_number > number else {}
            return {"rows": rows, **check, **marks, **self._build_live_state()}

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
            "problem": self._problem or self._check_problem,
            **self._estimate_end(),
            "about": {name: self._state.info[name] for name in ("run", "targets", "asked", "spending")},
        }

    def _estimate_end(self) -> dict[str, Any]:
        """How many trials have ended (`done`), and the seconds until all have, at the pace of this run (`left_s`).

        Nobody knows how many trials a search will ask for.
        """
        rows, record = self._state.rows, self._state.record
        left = sum(row.status == PENDING for row in rows)
        seconds = None
        if record is not None and left and self._state.layout.search is None and self._is_running():
            own = sum(
                run == record.id and row.status != PENDING for row, run in zip(rows, self._state.row_runs, strict=True)
            )
            seconds = round((time.time() - record.started) / own * left) if own else None
        return {"done": len(rows) - left, "left_s": seconds}

    def _build_row_update(self, index: int) -> dict[str, Any]:
        row = self._state.rows[index]
        artifacts = {name: self._state.artifacts[name] for name in row.outputs}
        entries, _ = build_file_entries([row], artifacts, self._thumbs.get_known(row.sha256))
        check = {} if self._check_state is None else {"check": self._check_state.build_row(row.trial)}
        files = {"row": index, "files": entries, "places": self._state.file_origins[index]}
        return {**files, **check, **build_row_outcome(row, self._state.layout)}

    def _apply_check(self, generation: int, checked: CheckFindings | None, is_full: bool, problem: str | None) -> None:
        """Apply the findings of a check; called from its thread."""
        with self._lock:
            if generation != self._generation or self._check_state is None:
                return
            trials = set() if checked is None else self._check_state.merge(checked, is_full=is_full)
            self._check_problem = problem
            self._change_number += 1
            if is_full and checked is not None:
                self._full_check_number = self._change_number
            for index, row in enumerate(self._state.rows):
                if row.trial in trials:
                    self._state.last_changes[index] = self._change_number
        self._notify()

    # --- the thread

    def _follow(self) -> None:
        announced, duration = float("-inf"), 0.0
        while not self._stop.wait(max(_MIN_INTERVAL_SECONDS, _REST_FACTOR * duration)):
            start = time.monotonic()
            if start - announced >= _HEARTBEAT_SECONDS:
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
            for row, run in zip(self._state.rows, self._state.row_runs, strict=True)
            if (row.status == PENDING and row.prompt_id is not None)
            or (row.trial in progress and (row.status == PENDING or run != record.id))
        }

    def _is_running(self) -> bool:
        """Whether the run is going on. A killed run has no end recorded, but nobody locks its folder."""
        record = self._state.record
        return record is not None and record.ended is None and is_locked(self.results)

    def _read_initial(self) -> _RunState:
        if (self.results / FILE_NAME).is_file():
            with Store.open(self.results, readonly=True) as store:
                if store.runs() or self._experiment is None:
                    return self._load_state(store)
        if self._experiment is None:
            raise ResultsError(
                f"{self.results}: no results here ({FILE_NAME} is missing); run the experiment with `sweeper run` first"
            )
        return _make_planned_state(self._experiment, self.results)

    def _load_state(self, store: Store, known: _RunState | None = None) -> _RunState:
        """Load the current state of the run, and make its thumbnails. If it has grown, `known` is its former state."""
        record = find_run_record(store, self._run)
        rows, origins, runs = _load_rows(store, record.id, of_folder=self._run is None)
        state = _RunState(store.layout(record.id), record, rows, origins, [0] * len(rows), runs)
        self._add_files(state, range(len(rows)))
        if known is not None:
            state.sprites = known.sprites
        else:
            thumbs = self._thumbs.get_known(sha for _, sha in state.artifacts.values())
            state.sprites = make_sprites(self._thumbs.report, list(thumbs), self._thumbs.sprites)
        self._thumbs.sprites.clear()
        state.info = self._describe_run(store, state)
        self._marks = encode_marks(store.marks.load())
        return state

    def _describe_run(self, store: Store, state: _RunState) -> dict[str, Any]:
        assert state.record is not None
        first_started = store.runs()[0].started
        info = describe_run(
            state.record,
            self.results,
            state.rows,
            state.layout,
            load_uploaded_inputs(store, state.rows),
            first_started=first_started,
        )
        return info | {"spending": describe_spending(store, state.rows)}

    def _read_marks(self, store: Store) -> bool:
        """Read the marks; return whether there are new ones."""
        marks = encode_marks(store.marks.load())
        if marks == self._marks:
            return False
        with self._lock:
            self._marks, self._marks_number = marks, self._change_number + 1
        return True

    def _read_changes(self, store: Store) -> bool:
        has_new_marks = self._read_marks(store)
        if not store.runs():
            return has_new_marks
        record = find_run_record(store, self._run)
        layout = store.layout(record.id)
        rows, origins, runs = _load_rows(store, record.id, of_folder=self._run is None)
        before = self._state
        if not _is_same_plan(before, layout, rows):
            has_grown = layout.search is not None and before.record is not None and before.record.id == record.id
            state = self._load_state(store, before if has_grown else None)
            with self._lock:
                self._state = state
                self._generation += 1
                if self._check_state is not None:
                    self._check_state.findings.clear()
            if self._check_thread is not None:
                self._check_thread.request(self._generation, None)
            return True
        changed = [index for index, (old, new) in enumerate(zip(before.rows, rows, strict=True)) if old != new]
        state = replace(before, layout=layout, record=record, rows=rows, file_origins=origins, row_runs=runs)
        if before.record is None or before.record.id != record.id:
            state.info = self._describe_run(store, state)
        else:
            state.info = before.info | {"spending": describe_spending(store, rows)}
        if changed:
            self._add_files(state, changed)
        with self._lock:
            for index in changed:
                state.last_changes[index] = self._change_number + 1
            self._state = state
        if self._check_thread is not None and before.record is None:
            self._check_thread.request(self._generation, None)
        elif self._check_thread is not None and changed:
            self._check_thread.request(self._generation, [rows[index].trial for index in changed])
        return bool(changed) or has_new_marks or record != before.record or state.info != before.info

    def _add_files(self, state: _RunState, indices: Iterable[int]) -> None:
        """Register the files of these rows and make their thumbnails before a page hears of them."""
        artifacts = collect_artifacts([state.rows[index] for index in indices], self.results)
        self._thumbs.make(select_pictures((sha, path) for path, sha in artifacts.values() if path is not None))
        with self._lock:
            state.artifacts.update(artifacts)
            self._files.update({path.name: path for path, _ in artifacts.values() if path is not None})


def _load_rows(store: Store, run: int, *, of_folder: bool) -> tuple[list[Result], list[list[Any]], list[int | None]]:
    """Load the rows of a run, the origins of each row's files, and the run whose result each row shows."""
    outcomes = list(store.outcomes(run, of_folder=of_folder))
    origins = [list_file_origins(outcome.files) for outcome in outcomes]
    return [outcome.result for outcome in outcomes], origins, [outcome.run for outcome in outcomes]


def _is_same_plan(state: _RunState, layout: TableLayout, rows: Sequence[Result]) -> bool:
    """Whether these are the trials that the page shows, so that it need not reload."""
    is_same_table = state.layout == layout and len(state.rows) == len(rows)
    return is_same_table and all(
        (a.trial, a.digest) == (b.trial, b.digest) for a, b in zip(state.rows, rows, strict=True)
    )


def _make_planned_state(experiment: Experiment, results: Path) -> _RunState:
    """Make the state of an experiment that has not run here: all trials are pending. A search has none yet."""
    rows: list[Result] = []
    if experiment.search is not None and not experiment.blocks:
        spec = experiment.search
        names = tuple(one.name for one in spec.space), tuple(axis.name for axis in spec.over)
        search = SearchColumns(spec.objectives, *names)
        layout = TableLayout(experiment.name, (), (), (*experiment.metrics, *search.columns), search=search)
    else:
        planned = plan(experiment)
        columns, slots = tuple(planned.axis_columns), tuple(planned.slot_names)
        known = (planned.value_order, planned.together)
        layout = TableLayout(experiment.name, columns, slots, tuple(experiment.metrics), *known)
        rows = [Result(t.index, t.columns, t.params, t.digest) for t in planned.written()]
    file, overrides = str(experiment.file), experiment.overrides
    record = RunRecord(0, experiment.name, file, (), len(rows), 0.0, None, None, overrides)
    return _RunState(
        layout, None, rows, [[] for _ in rows], [0] * len(rows), [None] * len(rows),
        info=describe_run(record, results, rows, layout, {}) | {"spending": ""},
    )  # fmt: skip
