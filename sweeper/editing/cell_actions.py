"""What a served report does with a cell: *More like this* and *Revise this cell*."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sweeper.editing.document import Document, StaleVersionError
from sweeper.editing.edit_yaml import DELETE, edit_yaml, get_at, parse_text
from sweeper.editing.run_process import Runner, list_run_words
from sweeper.errors import UsageError
from sweeper.files import write_new
from sweeper.loading.load import load_recorded
from sweeper.loading.starter_experiment import write_flow
from sweeper.model.axis_values import make_seeds
from sweeper.model.experiment import Experiment, select_listed_models
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.planning.plan import Plan
from sweeper.regression.cases import find_run_record
from sweeper.reporting.live.server import CellRequest
from sweeper.schemas import make_editor_line
from sweeper.schemas.values import KeyPath, is_number
from sweeper.store import Store
from sweeper.wording import join_command, join_names, to_one_line

_MAX_PAGES: Final = 4  # that one report opens
_START_SECONDS: Final = 60.0  # in which a run asks its servers, and begins or ends
_TRIAL_FAILED: Final = 1  # the exit code of a run that submitted something
_MAX_TEXT: Final = 1000  # characters of a value in a condition; of more, the first ones and their number
_SEED_INPUTS: Final = frozenset(("seed", "noise_seed"))
_MORE_SEEDS: Final = 3


class CellActions:
    """`on_cell` of a `LiveView`. `make_page` makes the `OpenServer` of an experiment; `runner` runs revised trials."""

    def __init__(self, make_page: Callable[[Path], Any], runner: Runner | None = None) -> None:
        self.runner = runner or Runner()
        self._make_page = make_page
        self._pages: list[Any] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the pages, and stop all runs as Ctrl-C does."""
        self.runner.stop()
        for page in self._pages:
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
            self._pages.append(self._make_page(made).__enter__())
            answer["url"] = self._pages[-1].session_url
        return answer

    def _revise(self, cell: CellRequest, experiment: Experiment) -> dict[str, Any]:
        """Add a trial to the experiment of the cell, and run it, or return the question about its cost."""
        file, options = experiment.file, cell.options
        if options is None or "--set" in options:
            raise UsageError(f"this run has values of --set, which {file} does not have; write them into it and run it")
        _check_values(experiment, cell.changes)
        where = _write_condition({name: cell.settings.get(name) for name in experiment.axis_names} | {**cell.changes})
        words = list_run_words(file, *options, "--out", str(cell.results), *(["--where", where] if where else []))
        document, is_kept = Document(file), False
        before = document.text
        try:
            text = make_revised(before, settings=cell.settings, changes=cell.changes)
            document.replace_text(document.version, text)
            trial = _find_revised(cell, experiment)
            self.runner.start(words, cell.results, confirmed=cell.confirmed or "")
            run = self._wait_for_start(cell.results)
            is_kept = run["question"] is None
        except StaleVersionError as error:
            raise UsageError(str(error)) from None
        finally:
            if not is_kept and document.text != before:
                with suppress(StaleVersionError):  # somebody else has changed the file since
                    document.step(document.version, -1)
        if is_kept:
            return {"url": None, "file": str(file), "command": run["command"], "trial": trial}
        self.runner.stop()  # the report asks it
        return {"question": run["question"]}

    def _wait_for_start(self, results: Path) -> dict[str, Any]:
        """Wait until the run has begun, and describe it. Raises UsageError if it cannot, with what it said."""
        end = time.monotonic() + _START_SECONDS
        while (run := self.runner.describe(results)) is not None and time.monotonic() < end:
            if run["has_begun"] or run["question"] is not None or run["exit_code"] in (0, _TRIAL_FAILED):
                return run
            if run["state"] == "ended":
                raise UsageError("\n".join(run["messages"][-3:]))
            time.sleep(0.05)
        self.runner.stop()
        raise UsageError(f"the run did not begin within {_START_SECONDS:g} s, or was stopped")


def _find_revised(cell: CellRequest, before: Experiment) -> int:
    """The number of the new trial. Raises UsageError if it differs from the cell in more than the changes say."""
    settings, changes = cell.settings, cell.changes
    free = {*before.derive, *changes}
    kept = [(name, settings[name]) for name in before.template.slots if name in settings and name not in free]
    params = [*kept, *changes.items()]
    listed = select_listed_models(before.overrides)
    for trial in Plan(load_recorded(before.file, listed, results=cell.results)).written():
        if all(trial.params.get(name) == value for name, value in params):
            return trial.index
    raise UsageError(f"{before.file} has changed since this run, and makes another trial of it; run it again first")


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


def _write_condition(values: Mapping[str, Any]) -> str:
    """The condition that selects the trials with these values. It leaves out what an expression cannot say."""
    parts = []
    for name, value in values.items():
        column = name if name.isidentifier() else f"`{name}`"
        if isinstance(value, str) and len(value) > _MAX_TEXT:
            start = json.dumps(value[:_MAX_TEXT], ensure_ascii=False)  # `\u` says no emoji there
            parts += [f"{column}[:{_MAX_TEXT}] == {start}", f"{column} | length == {len(value)}"]
        elif isinstance(value, str | int | float):
            parts.append(f"{column} == {json.dumps(value, ensure_ascii=False)}")
    return " and ".join(parts)


def find_trial(results: Path, trial: int) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a results folder's latest run, and the values of a trial. Raises SweeperError."""
    with Store.open(results, readonly=True) as store:
        record = find_run_record(store, None)
        rows = (outcome.result for outcome in store.outcomes(record.id, of_folder=True))
        row = next((row for row in rows if row.trial == trial), None)
    if row is None:
        raise UsageError(f"{results}: has no trial {trial}; `sweeper results` lists them")
    return load_recorded(record.file, record.overrides, results=results), {**row.columns, **row.params}


def write_similar(experiment: Experiment, settings: Mapping[str, Any]) -> Path:
    """Write an experiment around a trial with these values, beside its own. Raises UsageError and OSError."""
    folder = experiment.file.parent
    names = (f"{experiment.name}-more-{number}" for number in itertools.count(1))
    name = next(name for name in names if not (folder / f"{name}.yaml").exists())
    made = folder / f"{name}.yaml"
    write_new(made, make_similar(experiment, settings, name=name).encode())  # fails if another process just made it
    return made


# --- texts of experiments


def make_similar(experiment: Experiment, settings: Mapping[str, Any], *, name: str) -> str:
    """Return the text of an experiment around one trial, for a file beside that of `experiment`.

    `settings`: the trial's `params`, and its `axes` where they have other names. Each numeric axis gets the steps
    half-way to its neighbours, unless `derive` reads it; a seed gets more seeds; all else is fixed. Raises UsageError
    if `experiment` comes from no file.
    """
    if experiment.source is None:
        raise UsageError("an experiment without a file has no text to begin with")
    slots = experiment.template.slots
    read = {name for expression in experiment.derive.values() for name in expression.names}
    seeds = [slot.name for slot in slots.values() if any(at.input in _SEED_INPUTS for at in slot.addresses)]
    axes: dict[str, list[Any]] = {}
    for axis in (axis for block in experiment.written_blocks for group in block.dimensions for axis in group):
        value = settings.get(axis.name)
        if axis.name in slots and axis.name not in read and axis.name not in seeds and is_number(value):
            numbers = [option.value for option in axis.options if is_number(option.value)]
            axes[axis.name] = _refine(value, numbers, slots[axis.name].schema)
    axes = {axis: steps for axis, steps in axes.items() if len(steps) > 1}
    for seed in [seed for seed in seeds if is_number(settings.get(seed)) and seed not in read][:1]:
        drawn = [settings[seed], *make_seeds(_MORE_SEEDS, name, seed)]
        axes[seed] = [value for value in drawn if slots[seed].schema.allows(value)]
    given = {*experiment.params, *experiment.axis_names}
    params = {
        key: value
        for key, value in settings.items()
        if key in slots and key not in axes and (key in given or value != slots[key].default)
    }
    head = f"# Around one picture of {to_one_line(experiment.name)}: finer steps of its numbers, and more seeds."
    text = f"{make_editor_line('experiment')}\n{head}\nname: {write_flow(name)}\n"
    kept = {key: experiment.source.value.get(key) for key in ("template", "target", "targets", "metrics", "run")}
    parts: list[tuple[KeyPath, Mapping[str, Any]]] = [((), kept), (("params",), params), (("sweep", "grid"), axes)]
    for parent, part in parts:
        for key, value in part.items():
            if value is not None or parent:
                text = edit_yaml(text, (*parent, key), value)
    return text


def make_revised(text: str, *, settings: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """Return the text of the experiment with one more trial: that of `settings`, with other values of some names.

    It is a row of `include`, which gives all axes of the sweep and may give any slot, also one that `params`, a bundle
    or `derive` gives otherwise. Raises UsageError.
    """
    value = parse_text(text).value
    sweep = get_at(value, ("sweep",))
    if get_at(value, ("search",)) is not DELETE:
        raise UsageError(
            "a search chooses its trials itself, so it takes no single one; make an experiment around the picture"
        )
    if isinstance(sweep, list):
        raise UsageError(
            "the sweep of this file is a list of blocks; add the trial to one of them in the text of the file"
        )
    zipped = get_at(sweep, ("zip",))
    groups = [get_at(sweep, ("grid",)), *(zipped if isinstance(zipped, list) else ())]
    axes = [axis for group in groups if isinstance(group, dict) for axis in group]
    if missing := [axis for axis in axes if settings.get(axis) is None]:
        found = f"the trial has no value of {join_names(missing)}, so the file has changed since"
        raise UsageError(f"{found}; run it again first")
    rows = get_at(sweep, ("include",))
    rows = rows if isinstance(rows, list) else []
    same = [row for row in rows if isinstance(row, dict) and row.items() <= settings.items()]
    row = {name: settings[name] for name in [*axes, *(name for row in same for name in row)]} | {**changes}
    return text if row in rows else edit_yaml(text, ("sweep", "include", len(rows)), row)


def _refine(value: float, numbers: list[float], schema: SlotSchema) -> list[Any]:
    """Return a value with those half-way to its neighbours, ascending; on an end, as far to the other side."""
    below = max((number for number in numbers if number < value), default=None)
    above = min((number for number in numbers if number > value), default=None)
    down = value - below if below is not None else above - value if above is not None else 0
    up = above - value if above is not None else down
    steps: list[Any] = [_step(value, -down), value, _step(value, up)]
    if schema.is_integer or (isinstance(value, int) and "number" not in schema.types):
        steps = [round(step) for step in steps]
    return sorted({step for step in steps if (step == value or step not in numbers) and schema.allows(step)})


def _step(value: float, gap: float) -> float:
    """Return the middle of a gap beside a value, with as many decimals as a thousandth of the gap has."""
    return round(value + gap / 2, 3 - math.floor(math.log10(abs(gap)))) if gap else value
