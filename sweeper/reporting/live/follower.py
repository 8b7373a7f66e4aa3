"""Follows a results folder while a run writes it: the page's data as it stands, and what changed since.

The store is the truth and is only ever read; SQLite tells whether another process wrote to it. Sequence numbers order
the changes, so that a page which was cut off asks for what it missed. Nothing of HTTP here.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sweeper.errors import InputError, ResultsError
from sweeper.model.experiment import Experiment
from sweeper.model.result import PENDING, Result
from sweeper.reporting.check_findings import Checked
from sweeper.reporting.contents import about, artifacts, brought_files, file_entries, record_of
from sweeper.reporting.dataset import dataset, places, places_of, row_outcome
from sweeper.reporting.live.check_follower import Check, Comparer, Standing
from sweeper.reporting.sprites import Sprites, make_sprites
from sweeper.reporting.thumbnails import Thumbnails, wanted
from sweeper.running.folder_lock import is_held
from sweeper.store import FILE_NAME, Store
from sweeper.store.live_folder import LiveFolder, Sight
from sweeper.store.records import Layout, RunRecord

_STEP: Final = 0.25  # seconds between two looks at least
_SHARE: Final = 4  # and so many times as long as the last look took: a run in this process needs its time
_HEARTBEAT: Final = 4.0  # seconds between two words to the run that somebody looks on


@dataclass
class _Seen:
    """A run as it was last read. `places[i]` tells where the files of row i come from; `changed[i]` is the number of
    the change that it last took part in.
    """

    layout: Layout
    record: RunRecord | None
    rows: list[Result]
    places: list[list[Any]]
    changed: list[int]
    found: dict[str, tuple[Path | None, str]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    sprites: Sprites = field(default_factory=lambda: Sprites((), {}))  # of what was there when it was first read


class Follower:
    """Reads a folder's latest run (or `run`) in a thread of its own and calls `notify` after every change.

    `experiment`: the one whose plan is shown while no run is recorded yet; None where the folder must have one.
    `check`: what holds trials against a baseline, where there is one.
    Raises ResultsError or InputError at once when there is nothing to show.
    """

    def __init__(
        self,
        results: Path,
        notify: Callable[[], None],
        *,
        run: str | None = None,
        experiment: Experiment | None = None,
        check: Check | None = None,
    ) -> None:
        self.results = results
        self.live = LiveFolder(results)
        self._notify = notify
        self._run = run
        self._experiment = experiment
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._aside: tempfile.TemporaryDirectory[str] | None = None
        self._thumbs = Thumbnails(self._thumbs_folder())
        self._number = 0
        self._generation = 0  # grows when the page has to begin anew
        self._sights: dict[int, Sight] = {}
        self._flight: dict[int, Sight | None] = {}
        self._files: dict[str, Path] = {}
        self._problem: str | None = None
        self._version: int | None = None
        self._store: Store | None = None
        self._standing = None if check is None else Standing(Checked(Path(), (), ()))
        self._comparer = None if check is None else Comparer(check, self._take_check)
        self._check_problem: str | None = None
        self._whole = 0  # number of the change that last told which accepted cases no trial makes
        try:
            self._seen = self._read_first()
        except BaseException:
            self._tidy()
            raise
        self._thread = threading.Thread(target=self._follow, name="sweeper-view", daemon=True)

    def start(self) -> None:
        self.live.watch()
        self._thread.start()
        if self._comparer is not None:
            self._comparer.start()
            if self._seen.record is not None:
                self._comparer.ask(self._generation, None)

    def stop(self) -> None:
        self._stop.set()
        if self._comparer is not None:
            self._comparer.stop()
        self._thread.join()
        self.live.close()
        self._tidy()

    def _thumbs_folder(self) -> Path:
        """Where the report keeps them, so that they are made once; elsewhere when the results cannot be written."""
        folder = self.results / "report"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            # A visitor may still have one of them open, on Windows.
            self._aside = tempfile.TemporaryDirectory(prefix="sweeper-view-", ignore_cleanup_errors=True)
            return Path(self._aside.name)

    def _tidy(self) -> None:
        if self._aside is not None:
            self._aside.cleanup()

    # --- for the server, from any thread

    @property
    def thumbs(self) -> Path:
        """The folder that holds the folder of thumbnails."""
        return self._thumbs.report

    def file(self, name: str) -> Path | None:
        """The artifact of that name of the run shown; nothing else is ever given out."""
        return self._files.get(name)

    def has(self, trial: int) -> bool:
        """Whether the page shows such a trial."""
        return any(row.trial == trial for row in self._seen.rows)

    def accepted(self, name: str) -> Path | None:
        """The accepted picture of that name; as above."""
        with self._lock:
            return None if self._standing is None else self._standing.file(name)

    def snapshot(self) -> dict[str, Any]:
        """The whole of the page's data, with what it has to ask for next."""
        with self._lock:
            seen = self._seen
            data = dataset(seen.rows, seen.layout) | {"places": places(seen.places)}
            thumbs = self._thumbs.known(sha for _, sha in seen.found.values())
            data["files"], data["outputs"] = file_entries(seen.rows, seen.found, thumbs, seen.sprites.places)
            data["sprites"] = seen.sprites.as_data()
            if self._standing is not None:
                data["check"] = self._standing.data(seen.rows, data["files"])
            return data | seen.about | {"live": self._live_state()}

    def since(self, number: int, generation: int) -> dict[str, Any] | None:
        """What changed after change `number`; None when the page has to begin anew."""
        with self._lock:
            if generation != self._generation:
                return None
            seen = self._seen
            rows = [self._patch(place) for place, changed in enumerate(seen.changed) if changed > number]
            check = {"gone": self._standing.gone()} if self._standing is not None and self._whole > number else {}
            return {"rows": rows, **check, **self._live_state()}

    def _live_state(self) -> dict[str, Any]:
        record = self._seen.record
        flight = {
            str(trial): None if sight is None else [sight.node, sight.value, sight.maximum, sight.preview]
            for trial, sight in self._flight.items()
        }
        return {
            "number": self._number,
            "generation": self._generation,
            "running": self._goes_on(),
            "ended": None if record is None else record.ended,
            "stopped_by": None if record is None else record.stopped_by,
            "flight": flight,
            "problem": self._problem or self._check_problem,
            "about": {name: self._seen.about[name] for name in ("run", "asked")},
        }

    def _patch(self, place: int) -> dict[str, Any]:
        row = self._seen.rows[place]
        found = {name: self._seen.found[name] for name in row.outputs}
        entries, _ = file_entries([row], found, self._thumbs.known(row.sha256))
        check = {} if self._standing is None else {"check": self._standing.row(row.trial)}
        told = {"row": place, "files": entries, "places": self._seen.places[place]}
        return {**told, **check, **row_outcome(row, self._seen.layout)}

    def _take_check(self, page: int, checked: Checked | None, whole: bool, problem: str | None) -> None:
        """From the comparer's thread: what it found, for the rows that it is about."""
        with self._lock:
            if page != self._generation or self._standing is None:
                return
            told = set() if checked is None else self._standing.take(checked, whole=whole)
            self._check_problem = problem
            self._number += 1
            if whole and checked is not None:
                self._whole = self._number
            for place, row in enumerate(self._seen.rows):
                if row.trial in told:
                    self._seen.changed[place] = self._number
        self._notify()

    # --- the thread

    def _follow(self) -> None:
        told, took = float("-inf"), 0.0
        while not self._stop.wait(max(_STEP, _SHARE * took)):
            start = time.monotonic()
            if start - told >= _HEARTBEAT:
                told = start
                self.live.watch()
            try:
                changed, problem = self._look(), None
            except (ResultsError, InputError) as error:
                changed, problem = False, str(error)
            took = time.monotonic() - start
            if changed or problem != self._problem:
                with self._lock:
                    self._problem = problem
                    self._number += 1
                self._notify()
        if self._store is not None:
            self._store.close()

    def _look(self) -> bool:
        """Whether anything that the page shows has changed; it is taken in then."""
        changed = False
        if self._store is None and (self.results / FILE_NAME).is_file():
            self._store = Store.open(self.results, readonly=True)
        if self._store is not None:
            version = self._store.version()
            if version != self._version:
                changed = self._read(self._store)
                self._version = version
        sights = self.live.sights()
        flight = self._in_flight(sights)
        if flight != self._flight:
            with self._lock:
                self._flight = flight
            changed = True
        return changed

    def _in_flight(self, sights: Mapping[int, Sight]) -> dict[int, Sight | None]:
        """By trial: those that a server has, and what is seen of them."""
        if not self._goes_on():
            return {}
        return {
            row.trial: sights.get(row.trial)
            for row in self._seen.rows
            if row.status == PENDING and (row.prompt_id is not None or row.trial in sights)
        }

    def _goes_on(self) -> bool:
        """A run that was killed has no end, and nobody who holds the folder."""
        record = self._seen.record
        return record is not None and record.ended is None and is_held(self.results)

    def _read_first(self) -> _Seen:
        if (self.results / FILE_NAME).is_file():
            with Store.open(self.results, readonly=True) as store:
                if store.runs() or self._experiment is None:
                    return self._prepared(store)
        if self._experiment is None:
            raise ResultsError(f"{self.results}: no results here (looked for {FILE_NAME}); `sweeper run` makes them")
        return _planned(self._experiment, self.results)

    def _prepared(self, store: Store) -> _Seen:
        """The run as it stands, its thumbnails made."""
        record = record_of(store, self._run)
        rows, made = _rows(store, record.id)
        seen = _Seen(store.layout(record.id), record, rows, made, [0] * len(rows))
        self._take_files(seen, range(len(rows)))
        thumbs = self._thumbs.known(sha for _, sha in seen.found.values())
        seen.sprites = make_sprites(self._thumbs.report, list(thumbs), self._thumbs.sprites)
        self._thumbs.sprites.clear()
        seen.about = self._about(store, seen)
        return seen

    def _about(self, store: Store, seen: _Seen) -> dict[str, Any]:
        assert seen.record is not None
        began = store.runs()[0].started
        return about(seen.record, self.results, seen.rows, seen.layout, brought_files(store, seen.rows), began=began)

    def _read(self, store: Store) -> bool:
        if not store.runs():
            return False
        record = record_of(store, self._run)
        layout, (rows, made) = store.layout(record.id), _rows(store, record.id)
        before = self._seen
        if not _same_plan(before, layout, rows):
            seen = self._prepared(store)
            with self._lock:
                self._seen = seen
                self._generation += 1
                if self._standing is not None:
                    self._standing.found.clear()
            if self._comparer is not None:
                self._comparer.ask(self._generation, None)
            return True
        changed = [place for place, (old, new) in enumerate(zip(before.rows, rows, strict=True)) if old != new]
        seen = replace(before, layout=layout, record=record, rows=rows, places=made)
        if before.record is None or before.record.id != record.id:
            seen.about = self._about(store, seen)
        if changed:
            self._take_files(seen, changed)
        with self._lock:
            for place in changed:
                seen.changed[place] = self._number + 1
            self._seen = seen
        if self._comparer is not None and before.record is None:
            self._comparer.ask(self._generation, None)
        elif self._comparer is not None and changed:
            self._comparer.ask(self._generation, [rows[place].trial for place in changed])
        return bool(changed) or record != before.record

    def _take_files(self, seen: _Seen, places: Iterable[int]) -> None:
        """Know the files of these rows, and have their thumbnails, before anybody is told of them."""
        found = artifacts([seen.rows[place] for place in places], self.results)
        self._thumbs.make(wanted((sha, path) for path, sha in found.values() if path is not None))
        with self._lock:
            seen.found.update(found)
            self._files.update({path.name: path for path, _ in found.values() if path is not None})


def _rows(store: Store, run: int) -> tuple[list[Result], list[list[Any]]]:
    """The rows of a run, and where the files of each come from."""
    outcomes = list(store.outcomes(run))
    return [one.result for one in outcomes], [places_of(one.files) for one in outcomes]


def _same_plan(seen: _Seen, layout: Layout, rows: Sequence[Result]) -> bool:
    """Whether these rows stand where the page's rows do: a run that goes on with a plan needs no new page."""
    same = seen.layout == layout and len(seen.rows) == len(rows)
    return same and all((a.trial, a.digest) == (b.trial, b.digest) for a, b in zip(seen.rows, rows, strict=True))


def _planned(experiment: Experiment, results: Path) -> _Seen:
    """The plan of an experiment that was never run here: every trial is still to come."""
    from sweeper.planning.plan import plan  # noqa: PLC0415 - Jinja2 and jsonschema, only for this

    planned = plan(experiment)
    columns, slots = tuple(planned.axis_columns), tuple(planned.slot_names)
    known = (planned.value_order, planned.together)
    layout = Layout(experiment.name, columns, slots, tuple(experiment.metrics), *known)
    rows = [Result(t.index, t.columns, t.params, t.digest) for t in planned.written()]
    file, overrides = str(experiment.file), experiment.overrides
    record = RunRecord(0, experiment.name, file, (), len(rows), 0.0, None, None, overrides)
    return _Seen(
        layout, None, rows, [[] for _ in rows], [0] * len(rows), about=about(record, results, rows, layout, {})
    )
