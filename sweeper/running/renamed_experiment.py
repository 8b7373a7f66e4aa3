"""Finds out that trials are new only because the experiment has another name than in an earlier run.

The name is part of the default results folder, and `{seeds: n}` without `key` draws from it. This module only looks;
nothing is submitted differently because of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from sweeper.errors import InputError, ResultsError
from sweeper.loading.load import load_recorded
from sweeper.model.shell_words import join_command
from sweeper.planning.plan import Plan, plan
from sweeper.store import FILE_NAME, Store
from sweeper.store.records import FAILED, REJECTED, SUCCEEDED
from sweeper.tables.results_folder import default_results_folder, is_owner


def describe_renaming(planned: Plan, out: Path, store: Store | None, targets: Sequence[str]) -> str | None:
    """Say how many trials are new because the experiment has another name now, and how to keep their results.

    `store`: that of the results folder `out`, None if it has none yet; then the results of an earlier name are looked
    for in the folders beside it. `targets`: the names of the run's targets. None if there is nothing to say.
    """
    if planned.search_columns is not None:  # nobody knows which trials a search of another name would have chosen
        return None
    if store is not None:
        return _compare(planned, store, targets, is_same_folder=True)
    if out != default_results_folder(planned.experiment.file, planned.experiment.name):
        return None
    return next(_compare_with_neighbours(planned, out, targets), None)


def _compare_with_neighbours(planned: Plan, out: Path, targets: Sequence[str]) -> Iterator[str]:
    for file in sorted(out.parent.glob(f"*/{FILE_NAME}")):
        with suppress(ResultsError), Store.open(file.parent, readonly=True) as store:
            runs = store.runs()
            if runs and runs[-1].experiment == file.parent.name:  # not that of a check, for example
                message = _compare(planned, store, targets, is_same_folder=False)
                if message is not None:
                    yield message


def _compare(planned: Plan, store: Store, targets: Sequence[str], *, is_same_folder: bool) -> str | None:
    """Compare a plan with a store that may be of an earlier name. `is_same_folder`: whether the run would use it."""
    experiment, runs = planned.experiment, store.runs()
    if not runs or runs[-1].experiment == experiment.name or not is_owner(runs[-1].file, experiment.file):
        return None
    name = runs[-1].experiment
    try:
        earlier = plan(load_recorded(experiment.file, experiment.overrides, name=name))
    except (InputError, OSError):
        return None
    ended = (SUCCEEDED, FAILED, REJECTED)
    done = {digest for digest, job in store.current_jobs(targets).items() if job.state in ended}
    without_key, with_key = (sum(trial.digest in done for trial in one.written()) for one in (planned, earlier))
    needs_key = with_key > without_key
    if not (needs_key or (without_key and not is_same_folder)):
        return None
    total = len(planned)
    new = total - without_key if is_same_folder else total
    text = f"{new} of {total} trials are new because `name` changed from '{name}' to '{experiment.name}'"
    key = f"`key: {name}` beside `seeds:`"
    if is_same_folder:
        return f"{text}; {key} keeps {with_key - without_key} of them"
    folder = store.path.parent
    steps = f"write {key} and add" if needs_key else "add"
    option = join_command(["--out", str(folder)])
    return f"{text}; {folder} has {max(with_key, without_key)} of them. To keep them, {steps} `{option}`"
