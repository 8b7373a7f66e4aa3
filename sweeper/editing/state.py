"""What the page shows: the file, its inputs, what a run of it would do, and every mistake.

The plan is computed in threads beside the editing: first without servers, then with what they say. A newer version
ends the older check, except a question to a server that does not respond; then the newer version waits for its end.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sweeper.comfy.target import Target
from sweeper.editing.changes import describe_document, find_slots
from sweeper.editing.document import Document, StaleVersionError
from sweeper.editing.inputs import PageInputs, find_problem_slot, list_page_inputs
from sweeper.editing.run_process import list_run_words
from sweeper.editing.starter_folder import INPUTS
from sweeper.errors import InputError, Problem, SweeperError, UsageError
from sweeper.loading.load import load_granted
from sweeper.loading.read_scope import EVERYTHING, make_scope
from sweeper.loading.targets_file import load_named_targets
from sweeper.loading.trust import describe_missing_trust, get_trust_path, load_grants
from sweeper.model.shell_words import join_command
from sweeper.model.target_spec import CLOUD, EMBEDDED
from sweeper.running.count_plan import PlanCounter
from sweeper.running.node_class_cache import get_cached_classes, get_embedded_classes
from sweeper.running.prepare import Prepared, prepare
from sweeper.running.settings import RunOptions
from sweeper.tables.results_folder import default_results_folder

_MAX_COUNTED: Final = 100_000  # trials; of more, the page shows only how many they are


@dataclass(frozen=True, slots=True)
class Check:
    """What is known of one version of an experiment. `is_whole`: its targets were asked, if there is one to ask."""

    version: str = ""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    plan: Mapping[str, Any] | None = None
    inputs: PageInputs = PageInputs()  # noqa: RUF009 - never changed
    out: Path | None = None
    targets: tuple[str, ...] = ()
    is_whole: bool = True


def check_experiment(
    file: Path, specs: Sequence[Any] | None, own_slots: Collection[str] | None, *, trust: bool, asks_targets: bool,
    is_outdated: Callable[[], bool],
) -> Check | None:  # fmt: skip
    """Load and plan an experiment as `sweeper plan` does, without asking for trust: what is missing is a mistake.

    `specs`: the targets that the user gave on the command line, which may get their keys. `own_slots`: see
    `list_page_inputs`. Returns None if it is outdated.
    """
    try:
        users = load_named_targets()
        partial, needs, is_known = load_granted(file, users, trust=trust, targets=specs)
    except InputError as error:
        return Check(problems=error.problems)
    experiment, missing = partial.experiment, describe_missing_trust(file, needs, is_known=is_known)
    prepared = Prepared(experiment, specs, users)
    check = Check(out=default_results_folder(file, experiment.name), targets=tuple(prepared.named))
    try:
        prepared = prepare(partial, missing, specs=specs, users=users, asks_targets=asks_targets and not missing)
    except InputError as error:
        check = replace(check, problems=error.problems)
    servers: Sequence[Target] = ()
    with contextlib.suppress(UsageError):  # the plan says it
        servers = prepared.resolve_targets()
    others = [target.name for target in servers if not target.embedded] if not missing else []
    if others and not asks_targets:
        note = f"not checked against {' and '.join(others)} yet: sweeper asks it now"
        check = replace(check, notes=(note,), is_whole=False)
    if partial.has_template:
        nodes = list(experiment.template.graph.values())
        classes = get_cached_classes(servers[0], nodes) if servers else None
        inputs = list_page_inputs(experiment.template, classes or get_embedded_classes(nodes), own_slots)
        check, prepared = replace(check, inputs=inputs), replace(prepared, classes=prepared.classes or classes)
    return check if check.problems else _count_plan(prepared, check, is_outdated)


def _count_plan(prepared: Prepared, check: Check, is_outdated: Callable[[], bool]) -> Check | None:
    """The check with what a run would do; None if it is outdated."""
    count = len(prepared.plan)
    plan: dict[str, Any] = {"trials": count, "jobs": None, "done": None, "axes": {}, "seconds": None, "cost": None}
    check = replace(check, notes=(*check.notes, *prepared.notes), plan=plan)
    if count > _MAX_COUNTED:
        return check
    try:
        counter = PlanCounter(prepared, None, RunOptions())
        for trial in counter.iter_selected():
            if is_outdated():
                return None
            counter.add(trial)
        answer = counter.answer()
    except InputError as error:
        return replace(check, problems=error.problems, plan=None)
    except SweeperError as error:
        return replace(check, problems=(Problem(str(prepared.experiment.file), 0, "", str(error)),), plan=None)
    plan |= {
        "jobs": answer.jobs, "done": answer.done, "axes": dict(answer.outline.axes),
        "seconds": answer.describe_time() or None, "cost": answer.describe_cost() or None,
    }  # fmt: skip
    return replace(check, notes=(*check.notes, *answer.warnings), plan=plan)


class Editor:
    """The document that a page edits, with what is known of it. Any thread may call its methods.

    Args:
        target: the target that the user gave on the command line; None: that of the experiment.
        trust: whether the user trusts the experiment with everything.

    """

    def __init__(self, *, target: str | None, trust: bool) -> None:
        self.target, self.trust = target, trust
        self.number = 0  # grows with every change of what `describe` returns
        self.problem: str | None = None  # what failed last, besides what is wrong in the file
        self.notes: tuple[str, ...] = ()  # on the folder that was made for a workflow
        self.check = Check()  # of the latest version that was checked
        self._document: Document | None = None
        self._first_target: Any = None  # that of the file when it was opened
        self._own_slots: tuple[str, ...] | None = None  # those of the template at first
        self._notice: str | None = None
        self._disk_problem: str | None = None
        self._revision = 0  # grows with what has to be checked
        self._lock = threading.RLock()
        self._wanted = {False: threading.Event(), True: threading.Event()}  # checks, by whether they ask the targets
        self._is_closed = False
        for asks_targets in self._wanted:
            check = threading.Thread(target=self._check_forever, args=(asks_targets,), daemon=True)
            check.start()

    # --- the document

    def open(self, file: Path) -> None:
        """Edit this experiment from now on. Raises InputError if it cannot be read."""
        grants = load_grants().get(file.parent.resolve(), ())
        document = Document(file, EVERYTHING if self.trust else make_scope(file, grants, {}))
        with self._lock:
            self._document, self.check, self.problem, self._own_slots = document, Check(), None, None
            self._first_target = describe_document(document.text).get("target")
        self.check_again()

    @property
    def is_open(self) -> bool:
        return self._document is not None

    @property
    def document(self) -> Document:
        """The document. Raises UsageError if none is open."""
        if self._document is None:
            raise UsageError("no experiment is open yet")
        return self._document

    def change(
        self, version: str, *, changes: Sequence[Mapping[str, Any]] = (), text: str | None = None, step: str = ""
    ) -> None:
        """Change the document: by `changes` (see `apply_changes`), to another `text`, or by a `step`: undo or redo.

        `version`: that for which the change was made. Raises StaleVersionError, and UsageError for a wrong change.
        """
        with self._lock:
            document, self._notice = self.document, None
            try:
                if text is not None:
                    document.replace_text(version, text)
                elif step:
                    (document.undo if step == "undo" else document.redo)(version)
                else:
                    document.apply(version, changes, self.check.inputs.suggestions, self.check.inputs.names)
            except StaleVersionError as error:
                self._notice = str(error)
                raise
            finally:
                self.check_again()

    def make_axis(self, address: str) -> None:
        """Make an input an axis with its own value, unless it is one. Raises UsageError if there is no such input."""
        self._check(asks_targets=False)
        row = next((row for row in self.check.inputs.rows if row["address"] == address), None)
        if row is None:
            raise UsageError(f"--axis {address}: no such input; `sweeper template slots` lists them")
        if row["slot"] not in [axis["name"] for axis in describe_document(self.document.text)["axes"]]:
            change = {"set": "axis", "address": address, "value": [row["value"]]}
            self.change(self.document.version, changes=[change])

    def look_at_disk(self) -> None:
        """Take what another program wrote into the files, if one did, and say so if they are gone."""
        with self._lock:
            try:
                is_changed, problem = self.document.reload(), None
            except InputError as error:
                is_changed, problem = False, str(error)
            if is_changed:
                name = self.document.file.name
                self._notice = f"{name} was changed by another program; the page shows the file on disk"
                self.check_again()
            if problem != self._disk_problem:
                self._disk_problem = problem
                self.number += 1

    def check_again(self) -> None:
        """Check the document anew, because it or something around it has changed."""
        with self._lock:
            self._revision += 1
            self.number += 1
        self._wanted[False].set()

    def close(self) -> None:
        self._is_closed = True
        for wanted in self._wanted.values():
            wanted.set()

    # --- what is known of it

    def list_watched(self) -> list[Path]:
        """What a check reads besides the document: the user's trust, the workflow, and the folder of input files."""
        slots, inputs = self.document.slots_file, self.document.file.parent / INPUTS
        workflow = [] if slots is None else [slots.with_name(f"{slots.name.removesuffix('.slots.yaml')}.json")]
        return [get_trust_path(), inputs, *workflow]

    def check_version(self, version: str) -> Path:
        """Return the file if it still has this version. Raises StaleVersionError."""
        self.look_at_disk()
        if version != self.document.version:
            raise StaleVersionError("the experiment has changed since; look at it again")
        return self.document.file

    def list_specs(self) -> list[str] | None:
        """The target of the command line, which stands for that of the file until the file names another."""
        with self._lock:
            written = describe_document(self.document.text).get("target")
            is_given = self.target is not None and written in (self._first_target, self.target)
        return [self.target] if self.target is not None and is_given else None

    def list_words(self) -> list[str]:
        """The words of the command that runs the experiment, without that of sweeper."""
        options = [word for spec in self.list_specs() or () for word in ("--target", spec)]
        return list_run_words(self.document.file, *options)

    def describe(self) -> dict[str, Any]:
        """The state of the page in mode `edit`, without the run and its report."""
        with self._lock:
            document, check = self.document, self.check
            described, specs = describe_document(document.text), self.list_specs()
            slots: Mapping[str, str] = {}
            with contextlib.suppress(UsageError):
                slots = find_slots(document.slots_text)  # the check knows a new one only later
            state = {
                "mode": "edit", "version": document.version, "problem": self._disk_problem or self.problem,
                "file": str(document.file), "folder": str(document.file.parent), "text": document.text,
                "command": join_command(["sweeper", *self.list_words()]), "diff": document.diff(),
                "can_undo": document.can_undo, "can_redo": document.can_redo, "notice": self._notice,
                "checking": check.version != document.version or not check.is_whole,
            }  # fmt: skip
        inputs = [{**row, "slot": row["slot"] or slots.get(row["address"])} for row in check.inputs.rows]
        names = {row["slot"] for row in inputs if row["slot"] is not None}
        names |= {item["name"] for item in (*described["axes"], *described["fixed"])}
        targets = [EMBEDDED, CLOUD, *check.targets, *([self.target] if self.target else [])]
        return described | state | {
            "slots_file": None if document.slots_file is None else str(document.slots_file),
            "target": specs[0] if specs else described.get("target"),
            "targets": list(dict.fromkeys(targets)),
            "inputs": inputs,
            "problems": [_describe_problem(problem, document.file, names) for problem in check.problems],
            "notes": list(dict.fromkeys((*self.notes, *check.notes))),
            "plan": check.plan,
        }  # fmt: skip

    # --- checking

    def _check_forever(self, asks_targets: bool) -> None:
        wanted = self._wanted[asks_targets]
        while wanted.wait() and not self._is_closed:
            wanted.clear()
            self._check(asks_targets=asks_targets)

    def _check(self, *, asks_targets: bool) -> None:
        """Check the latest version, and have its targets asked if there are some."""
        with self._lock:
            if self._document is None:
                return
            file, version, specs = self.document.file, self.document.version, self.list_specs()
            revision = self._revision
        try:
            check = check_experiment(
                file, specs, self._own_slots, trust=self.trust, asks_targets=asks_targets,
                is_outdated=lambda: self._revision != revision or self._is_closed,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - the page must show it, whatever it is
            check = Check(problems=(Problem(str(file), 0, "", f"{type(error).__name__}: {error}"),))
        with self._lock:
            if check is None or self._revision != revision:
                return
            inputs = check.inputs if check.inputs.rows else self.check.inputs
            out, targets = check.out or self.check.out, check.targets or self.check.targets
            self.check = replace(check, version=version, inputs=inputs, out=out, targets=targets)
            if self._own_slots is None and inputs.rows:
                self._own_slots = inputs.names
            self.number += 1
        if not check.is_whole:
            self._wanted[True].set()


def _describe_problem(problem: Problem, file: Path, names: Collection[str]) -> dict[str, Any]:
    line = problem.line if problem.file == str(file) else 0
    slot = find_problem_slot(problem.key, names)
    return {"line": line, "key": problem.key, "message": problem.message, "text": str(problem), "slot": slot}
