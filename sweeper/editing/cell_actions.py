"""What a served report does with a cell: *More like this* and *Revise this cell*."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from sweeper.editing.document import Document, StaleVersionError
from sweeper.editing.run_process import Runner
from sweeper.editing.similar import make_revised, make_similar
from sweeper.errors import UsageError
from sweeper.files import write_new
from sweeper.loading.load import load_recorded
from sweeper.model.experiment import Experiment
from sweeper.model.shell_words import join_command
from sweeper.model.slot_values import ValueRefusedError
from sweeper.planning.plan import plan
from sweeper.regression.cases import find_run_record
from sweeper.reporting.live.server import CellRequest
from sweeper.running.folder_lock import is_locked
from sweeper.store import Store

_MAX_PAGES: Final = 4  # that one report opens
_MAX_FILES: Final = 1000  # of the same name
_START_SECONDS: Final = 10.0  # in which most mistakes end a run
_TRIAL_FAILED: Final = 1  # the exit code of a run that submitted something
_MAX_TEXT: Final = 1000  # of a value in a condition


class _Page(Protocol):
    """An `OpenServer`, whose module imports this one."""

    runner: Runner

    @property
    def session_url(self) -> str: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *_: object) -> None: ...


class CellActions:
    """`on_cell` of a `LiveView`. `make_page` makes the page that edits an experiment. `runner` runs revised trials."""

    def __init__(self, make_page: Callable[[Path], _Page], runner: Runner | None = None) -> None:
        self.runner = runner or Runner(lambda: None)
        self._make_page = make_page
        self._pages: list[_Page] = []
        self._lock = threading.Lock()

    def close_pages(self) -> None:
        """Close the pages, and stop their runs as Ctrl-C does."""
        for page in self._pages:
            page.runner.stop()
            page.__exit__()

    def __call__(self, cell: CellRequest) -> dict[str, Any]:
        """Do it, one after the other. Raises SweeperError and OSError."""
        with self._lock:
            experiment = load_recorded(cell.record.file, cell.record.overrides, results=cell.results)
            return self._open_similar(cell, experiment) if cell.kind == "more" else self._revise(cell, experiment)

    def _open_similar(self, cell: CellRequest, experiment: Experiment) -> dict[str, Any]:
        made = write_similar(experiment, cell.settings)
        answer = {"url": None, "file": str(made), "command": join_command(["sweeper", "open", str(made)])}
        if len(self._pages) < _MAX_PAGES:
            page = self._make_page(made)
            page.__enter__()
            self._pages.append(page)
            answer["url"] = page.session_url
        return answer

    def _revise(self, cell: CellRequest, experiment: Experiment) -> dict[str, Any]:
        """Add a trial to the experiment of the cell, and run it, or return the question about its cost."""
        file, options = experiment.file, cell.options
        if options is None or "--set" in options:
            raise UsageError(f"this run has values of --set, which {file} does not have; write them into it and run it")
        _check_values(experiment, cell.changes)
        specs = [word for word in options if word != "--target"] or None
        where = _write_condition({name: cell.settings.get(name) for name in experiment.axis_names} | {**cell.changes})
        document = Document(file)
        before = document.text
        try:
            text = make_revised(before, settings=cell.settings, changes=cell.changes)
            if text != before:
                document.replace_text(document.version, text)
            trial = _find_revised(cell, experiment)
            question = self.runner.start(
                file, version=document.version, kind="run", specs=specs, budget=None, confirmed=cell.confirmed,
                trust=False, out=cell.results, where=where,
            )  # fmt: skip
            if question is None:
                run = self._wait_for_start(cell.results)
                return {"url": None, "file": str(file), "command": run["command"], "trial": trial}
        except StaleVersionError as error:
            raise UsageError(str(error)) from None
        except BaseException:
            _take_back(document, before)
            raise
        _take_back(document, before)
        return {"question": question.text, "confirm": question.token}

    def _wait_for_start(self, results: Path) -> dict[str, Any]:
        """Wait until the run goes on, and describe it. Raises UsageError with what it said if it submitted nothing."""
        end = time.monotonic() + _START_SECONDS
        while self.runner.is_running and not is_locked(results) and time.monotonic() < end:
            time.sleep(0.05)
        run = self.runner.describe(None) or {}
        if run["exit_code"] not in (None, 0, _TRIAL_FAILED):
            raise UsageError("\n".join(run["messages"][-3:]))
        return run


def _find_revised(cell: CellRequest, before: Experiment) -> int:
    """The number of the new trial. Raises UsageError if it differs from the cell in more than the changes say."""
    settings, changes = cell.settings, cell.changes
    free = {*before.derive, *changes}
    kept = [(name, settings[name]) for name in before.template.slots if name in settings and name not in free]
    params = [*kept, *changes.items()]
    for trial in plan(load_recorded(before.file, {}, results=cell.results)).written():
        if all(trial.params.get(name) == value for name, value in params):
            return trial.index
    raise UsageError(f"{before.file} has changed since this run, and makes another trial of it; run it again first")


def write_similar(experiment: Experiment, settings: Mapping[str, Any]) -> Path:
    """Write an experiment around a trial with these values, beside its own. Raises UsageError and OSError."""
    folder = experiment.file.parent
    names = (f"{experiment.name}-more-{number}" for number in range(1, _MAX_FILES))
    name = next((name for name in names if not (folder / f"{name}.yaml").exists()), None)
    if name is None:
        raise UsageError(f"{folder} has {_MAX_FILES - 1} such experiments; remove some")
    content = make_similar(experiment, settings, name=name).encode()
    made = folder / f"{name}.yaml"
    write_new(made, content)  # fails if another process just made the file
    return made


def find_trial(results: Path, trial: int) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a results folder's latest run, and the values of a trial. Raises SweeperError."""
    with Store.open(results, readonly=True) as store:
        record = find_run_record(store, None)
        rows = (outcome.result for outcome in store.outcomes(record.id, of_folder=True))
        row = next((row for row in rows if row.trial == trial), None)
    if row is None:
        raise UsageError(f"{results}: has no trial {trial}; `sweeper results` lists them")
    return load_recorded(record.file, record.overrides, results=results), {**row.columns, **row.params}


def _take_back(document: Document, before: str) -> None:
    """Undo the change, unless somebody else has changed the file since."""
    if document.text != before:
        with suppress(StaleVersionError):
            document.undo(document.version)


def _check_values(experiment: Experiment, changes: Mapping[str, Any]) -> None:
    """Raise UsageError unless there are changes, each of a slot to a value that it takes."""
    if not changes:
        raise UsageError("choose an input and its new value")
    for name, value in changes.items():
        slot = experiment.template.slots.get(name)
        if slot is None or slot.is_file:
            raise UsageError(f"{name!r} is not an input that can be revised here")
        try:
            slot.schema.normalise(value)
        except ValueRefusedError as error:
            raise UsageError(f"{name}: {error}") from None


def _write_condition(values: Mapping[str, Any]) -> str | None:
    """The condition that selects the trials with these values. It leaves out what an expression cannot say."""
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in plain.items()}  # `\u` says no emoji there
    usable = [f"{name} == {text}" for name, text in texts.items() if name.isidentifier() and len(text) < _MAX_TEXT]
    return " and ".join(usable) or None
