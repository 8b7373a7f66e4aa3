"""`sweeper run --follow`: wait for new model files and lists of an experiment, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from sweeper.cli import console
from sweeper.cli.wait_for_signal import catch_stop_signals
from sweeper.errors import SweeperError, UsageError
from sweeper.model.axis_values import match_models
from sweeper.model.experiment import select_listed_models
from sweeper.model.model_facts import ModelFacts
from sweeper.running.prepare import Prepared
from sweeper.running.stop_control import run_sync

_SECONDS: Final = 3.0  # between two looks
_Models = dict[tuple[str, str], Any]  # by target and `folder/name`, the size and the time
_Counts = Callable[[str, str, ModelFacts], bool]


def follow(prepared: Prepared, load: Callable[[_Counts], Prepared], *, quiet: bool) -> Iterator[Prepared]:
    """Yield the experiment for a run now, and again whenever there is something new. Ends with Ctrl-C.

    A model file counts when two looks find it with the same size and time, of which the argument of `load` knows. Local
    files count when all of them rest. Raises UsageError if there is nothing to watch, and if the experiment itself
    changes, because the user may have trusted the earlier one.
    """
    if not (prepared.experiment.look() or select_listed_models(prepared.experiment.overrides)):
        raise UsageError("--follow: nothing in this experiment can become new: no models, files, lines, csv or jsonl")
    document, done, status = _read_document(prepared), None, ""
    while (found := _wait_for_change(prepared, done, status)) is not None:
        local, models = done = found
        status = ""
        if any(size is None for size, _ in models.values()):
            console.warn("the server tells no sizes, so a file counts when it was listed twice")
        try:
            latest = load(partial(_has_rested, models))
        except SweeperError as error:  # somebody is still editing a list
            console.print_error(str(error))
            continue
        if _read_document(latest) != document:
            raise UsageError(f"{latest.experiment.file} has changed, so this run of it ends; start it again")
        if latest.experiment.look() == local:
            yield (prepared := latest)
            status = "" if quiet else "waiting for new files; Ctrl-C ends it"
        else:
            done = None


def _has_rested(models: _Models, target: str, name: str, facts: ModelFacts) -> bool:
    return models.get((target, name)) == (facts.size, facts.placed)


def _wait_for_change(prepared: Prepared, done: Any, status: str) -> tuple[Any, _Models] | None:
    """Print a status, look until something rests that is not `done`, and return it; None after Ctrl-C."""
    before: tuple[Any, _Models] | None = None
    with catch_stop_signals() as wait:
        if status:
            console.print_status(status)
        while True:
            looked = _look(prepared)
            if looked is not None and before is not None:
                models = {key: facts for key, facts in looked[1].items() if before[1].get(key) == facts}
                has_rested = looked[0] == before[0] and (models or not looked[1])
                if has_rested and (looked[0], models) != done:
                    return looked[0], models
            before, end = looked or before, time.monotonic() + _SECONDS
            if wait(lambda end=end: time.monotonic() > end):
                return None


def _look(prepared: Prepared) -> tuple[Any, _Models] | None:
    """The local files and the model files that the experiment names; None as long as a target does not respond."""
    patterns = select_listed_models(prepared.experiment.overrides)
    folders = {pattern.partition("/")[0] for pattern in patterns}
    models: _Models = {}
    try:
        if patterns:
            listings, silent = run_sync(lambda: prepared.list_model_files(folders, may_send_keys=True))
            for target, listing in listings.items():
                for pattern in patterns if not silent else ():
                    folder = pattern.partition("/")[0]
                    found = {name: listing[folder][name] for name in match_models(listing[folder], pattern)}
                    models |= {(target, f"{folder}/{name}"): (of.size, of.placed) for name, of in found.items()}
        return (prepared.experiment.look(), models) if models or not patterns else None
    except SweeperError:
        return None


def _read_document(prepared: Prepared) -> Any:
    return None if prepared.experiment.source is None else prepared.experiment.source.value
