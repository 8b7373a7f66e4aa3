"""What the page shows: the file, its inputs, what a run of it would do, and every mistake.

The plan is computed in threads beside the editing: first without servers, then with what they say. A newer version
ends the older check, except a question to a server that does not respond; then the newer version waits for its end.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from sweeper.answers.parts import Fact, Facts, Part
from sweeper.answers.render import render_text
from sweeper.comfy.target import Target
from sweeper.editing.changes import describe_document, find_slots
from sweeper.editing.document import Document, StaleVersionError
from sweeper.editing.input_files import INPUTS
from sweeper.editing.inputs import PageInputs, find_problem_slot, list_page_inputs
from sweeper.errors import InputError, Problem, SweeperError, UsageError
from sweeper.loading.load import load_granted
from sweeper.loading.read_scope import EVERYTHING, make_scope
from sweeper.loading.targets_file import load_named_targets
from sweeper.loading.trust import describe_missing_trust, get_trust_path, load_grants
from sweeper.model.node_classes import NodeInfo
from sweeper.model.shell_words import join_command
from sweeper.model.target_spec import CLOUD, EMBEDDED
from sweeper.running.count_plan import PlanCounter
from sweeper.running.node_class_cache import Nodes, get_cached_classes, get_embedded_classes
from sweeper.running.plan_answer import PlanAnswer
from sweeper.running.prepare import Prepared, prepare
from sweeper.running.settings import RunOptions
from sweeper.tables.results_folder import default_results_folder

_MAX_COUNTED: Final = 100_000  # trials; of more, the page shows only how many they are
Recall = Callable[[Target, Nodes], NodeInfo | None]


@dataclass(frozen=True, slots=True)
class Check:
    """What is known of one version of an experiment. `is_whole`: its targets were asked, if there is one to ask."""

    version: str = ""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    answer: PlanAnswer | None = None
    trials: int | None = None
    inputs: PageInputs = PageInputs()  # noqa: RUF009 - never changed
    out: Path | None = None
    targets: tuple[str, ...] = ()
    is_whole: bool = False


class OutdatedError(Exception):
    """A newer version came while one was checked."""


def load_checked(
    file: Path, specs: Sequence[Any] | None, *, trust: bool, asks_targets: bool, recall: Recall = get_cached_classes
) -> tuple[Prepared | None, Check]:
    """Load and prepare an experiment as `sweeper plan` does, without asking for trust: what is missing is a mistake.

    `specs`: the targets that the user gave on the command line, which may get their keys. `recall`: finds the known
    classes of a target. Returns None with the problems.
    """
    try:
        users = load_named_targets()
        partial, needs, is_known = load_granted(file, users, trust=trust, targets=specs)
    except InputError as error:
        return None, Check(problems=error.problems, is_whole=True)
    experiment = partial.experiment
    named = {**users, **experiment.named_targets}
    check = Check(out=default_results_folder(file, experiment.name), targets=tuple(named))
    missing = describe_missing_trust(file, needs, is_known=is_known)
    try:
        prepared = prepare(partial, missing, specs=specs, users=users, asks_targets=asks_targets and not missing)
    except InputError as error:
        prepared, check = None, replace(check, problems=error.problems)
    servers = []
    try:
        servers = list(Prepared(experiment, specs, users).resolve_targets())
    except UsageError as error:
        check = replace(check, problems=check.problems or error.problems)
    others = [target.name for target in servers if not target.embedded] if not missing else []
    if partial.has_template:
        nodes = list(experiment.template.graph.values())
        classes = recall(servers[0], nodes) if servers else None
        check = replace(check, inputs=list_page_inputs(experiment.template, classes or get_embedded_classes(nodes)))
        if prepared is not None and prepared.classes is None:
            prepared = replace(prepared, classes=classes)
    if others and not asks_targets:
        return prepared, replace(check, notes=(f"not checked against {' and '.join(others)} yet: sweeper asks it now",))
    return prepared, replace(check, is_whole=True)


def check_experiment(
    file: Path, specs: Sequence[Any] | None, *, trust: bool, asks_targets: bool, recall: Recall,
    is_outdated: Callable[[], bool],
) -> Check:  # fmt: skip
    """Find out what a run of an experiment would do, and every mistake. Raises OutdatedError."""
    prepared, check = load_checked(file, specs, trust=trust, asks_targets=asks_targets, recall=recall)
    if prepared is None:
        return check
    check = replace(check, trials=len(prepared.plan), notes=(*check.notes, *prepared.notes))
    if len(prepared.plan) > _MAX_COUNTED:
        return check
    try:
        counter = PlanCounter(prepared, None, RunOptions())
        for trial in counter.iter_selected():
            if is_outdated():
                raise OutdatedError
            counter.add(trial)
        return replace(check, answer=counter.answer())
    except InputError as error:
        return replace(check, problems=error.problems)
    except SweeperError as error:
        return replace(check, problems=(Problem(str(file), 0, "", str(error)),))


class Editor:
    """The document that a page edits, with what is known of it. Any thread may call its methods.

    Args:
        target: the target that the user gave on the command line; None: that of the experiment.
        trust: whether the user trusts the experiment with everything.
        notify: called after every change of what `describe` returns.

    """

    def __init__(self, *, target: str | None, trust: bool, notify: Callable[[], None]) -> None:
        self.target, self.trust = target, trust
        self.number = 0
        self.document: Document | None = None
        self.problem: str | None = None  # what failed last, besides what is wrong in the file
        self.notes: tuple[str, ...] = ()  # on the folder that was made for a workflow
        self._notify = notify
        self._lock = threading.RLock()
        self.check = Check()  # of the latest version that was checked
        self._first_target: Any = None  # that of the file when it was opened
        self._notice: str | None = None
        self._disk_problem: str | None = None
        self._revision = 0  # grows with what has to be checked
        self._classes: dict[Any, NodeInfo | None] = {}
        self._places: dict[str, tuple[int, str]] = {}  # of the inputs at first, and their groups
        self._wanted, self._ask_wanted, self._is_closed = threading.Event(), threading.Event(), False
        for wanted in (self._wanted, self._ask_wanted):
            check = partial(self._check_forever, wanted, asks_targets=wanted is self._ask_wanted)
            threading.Thread(target=check, name="sweeper-check", daemon=True).start()

    # --- the document

    def open(self, file: Path) -> None:
        """Edit this experiment from now on. Raises InputError if it cannot be read."""
        grants = load_grants().get(file.parent.resolve(), ())
        document = Document(file, EVERYTHING if self.trust else make_scope(file, grants, {}))
        with self._lock:
            self.document, self.check, self.problem, self._places = document, Check(), None, {}
            self._first_target = describe_document(document.text).get("target")
        self.check_again()

    def change(self, action: Callable[[Document], object]) -> None:
        """Change the document. Raises what `action` raises: StaleVersionError, UsageError."""
        with self._lock:
            if self.document is None:
                raise UsageError("no experiment is open yet")
            self._notice = None
            try:
                action(self.document)
            except StaleVersionError as error:
                self._notice = str(error)
                raise
            finally:
                self.check_again()

    def apply(self, version: str, changes: Sequence[Mapping[str, Any]], inputs: PageInputs | None = None) -> None:
        """Apply changes of the page to the document. Raises StaleVersionError, and UsageError for a wrong one."""
        known = inputs or self.check.inputs
        suggestions, taken = known.suggestions, known.names
        self.change(lambda document: document.apply(version, changes, suggestions, taken))

    def make_axis(self, address: str) -> None:
        """Make an input an axis with its own value, unless it is one. Raises UsageError if there is no such input."""
        assert self.document is not None
        _, check = load_checked(self.document.file, self.list_specs(), trust=self.trust, asks_targets=False)
        row = next((row for row in check.inputs.rows if row["address"] == address), None)
        if row is None:
            raise UsageError(f"--axis {address}: no such input; `sweeper template slots` lists them")
        axes = {axis["name"] for axis in describe_document(self.document.text)["axes"]}
        if row["slot"] not in axes:
            place = {"address": address} if row["slot"] is None else {"name": row["slot"]}
            change = {"set": "axis", **place, "value": [row["value"]]}
            self.apply(self.document.version, [change], check.inputs)

    def look_at_disk(self) -> None:
        """Take what another program wrote into the files, if one did, and say so if they are gone."""
        with self._lock:
            try:
                is_changed, problem = self.document is not None and self.document.reload(), None
            except InputError as error:
                is_changed, problem = False, str(error)
            if is_changed and self.document is not None:
                name = self.document.file.name
                self._notice = f"{name} was changed by another program; the page shows the file on disk"
                self.check_again()
            if problem != self._disk_problem:
                self._disk_problem = problem
                self.mark_changed()

    def check_again(self) -> None:
        """Check the document anew, because it or something around it has changed."""
        with self._lock:
            self._revision += 1
            self.mark_changed()
        self._wanted.set()

    def mark_changed(self) -> None:
        """Let the page know that something changed."""
        with self._lock:
            self.number += 1
        self._notify()

    def close(self) -> None:
        self._is_closed = True
        self._wanted.set()
        self._ask_wanted.set()

    # --- what is known of it

    @property
    def folder(self) -> Path:
        """The folder of the experiment. Raises UsageError if none is open."""
        if self.document is None:
            raise UsageError("no experiment is open yet")
        return self.document.file.parent

    def list_watched(self) -> list[Path]:
        """What a check reads besides the document: the user's trust, the workflow, and the folder of input files."""
        slots = None if self.document is None else self.document.slots_file
        workflow = [slots.with_name(slots.name.removesuffix(".slots.yaml") + ".json")] if slots is not None else []
        return [get_trust_path(), *workflow, *([] if self.document is None else [self.folder / INPUTS])]

    def check_version(self, version: str) -> Path:
        """Return the file if it still has this version. Raises StaleVersionError."""
        self.look_at_disk()
        with self._lock:
            if self.document is None or version != self.document.version:
                raise StaleVersionError("the experiment has changed since; look at it again")
            return self.document.file

    def list_targets(self) -> list[str]:
        """The names of the targets that the experiment can run on."""
        return list(dict.fromkeys([EMBEDDED, CLOUD, *self.check.targets, *([self.target] if self.target else [])]))

    def list_specs(self) -> list[str] | None:
        """The target of the command line, which stands for that of the file until the file names another."""
        with self._lock:
            if self.target is None or self.document is None:
                return None
            written = describe_document(self.document.text).get("target")
            return [self.target] if written in (self._first_target, self.target) else None

    def describe(self) -> dict[str, Any]:
        """The state of the page in mode `edit`, without the run and its report."""
        with self._lock:
            document, check = self.document, self.check
            assert document is not None
            described, specs = describe_document(document.text), self.list_specs()
            slots: Mapping[str, str] = {}
            with contextlib.suppress(UsageError):
                slots = find_slots(document.slots_text)  # the check knows a new one only later
            state = {
                "number": self.number, "mode": "edit", "version": document.version,
                "problem": self._disk_problem or self.problem,
                "file": str(document.file), "folder": str(document.file.parent), "text": document.text,
                "command": join_command(["sweeper", "run", str(document.file), *_list_target_words(specs)]),
                "can_undo": document.can_undo, "can_redo": document.can_redo, "diff": document.diff(),
                "notice": self._notice, "checking": check.version != document.version or not check.is_whole,
            }  # fmt: skip
        names = {row["slot"] for row in check.inputs.rows if row["slot"] is not None}
        names |= {item["name"] for item in (*described["axes"], *described["fixed"])}
        return described | state | {
            "slots_file": None if document.slots_file is None else str(document.slots_file),
            "target": specs[0] if specs else described.get("target"),
            "targets": self.list_targets(),
            "inputs": self._place_inputs(check.inputs, slots),
            "problems": [_describe_problem(problem, document.file, names) for problem in check.problems],
            "notes": list(dict.fromkeys((*self.notes, *check.notes, *(check.answer.warnings if check.answer else ())))),
            "plan": describe_plan(check),
        }  # fmt: skip

    def _place_inputs(self, inputs: PageInputs, slots: Mapping[str, str]) -> list[dict[str, Any]]:
        """The inputs where they stood first, because one that becomes a slot must not jump away."""
        places = {
            row["address"]: self._places.get(row["address"], (len(inputs.rows), row["group"])) for row in inputs.rows
        }
        rows = sorted(inputs.rows, key=lambda row: places[row["address"]][0])
        return [
            {**row, "slot": row["slot"] or slots.get(row["address"]), "group": places[row["address"]][1]}
            for row in rows
        ]

    # --- checking

    def _check_forever(self, wanted: threading.Event, *, asks_targets: bool) -> None:
        while True:
            wanted.wait()
            wanted.clear()
            if self._is_closed:
                return
            with contextlib.suppress(OutdatedError):
                self._check_once(asks_targets=asks_targets)

    def _check_once(self, *, asks_targets: bool) -> None:
        """Check the latest version, and have its targets asked if there are some. Raises OutdatedError."""
        with self._lock:
            document, revision = self.document, self._revision
            if document is None:
                return
            version, specs = document.version, self.list_specs()
        recall = get_cached_classes if asks_targets else self._recall_classes
        try:
            check = check_experiment(
                document.file, specs, trust=self.trust, asks_targets=asks_targets, recall=recall,
                is_outdated=lambda: self._revision != revision or self._is_closed,
            )  # fmt: skip
        except OutdatedError:
            raise
        except Exception as error:  # noqa: BLE001 - the page must show it, whatever it is
            problem = Problem(str(document.file), 0, "", f"{type(error).__name__}: {error}")
            check = Check(problems=(problem,), is_whole=True)
        with self._lock:
            if self._revision != revision:
                return
            inputs = check.inputs if check.inputs.rows else self.check.inputs
            out, targets = check.out or self.check.out, check.targets or self.check.targets
            self.check = replace(check, version=version, inputs=inputs, out=out, targets=targets)
            self._classes = {} if asks_targets else self._classes
            self._places = self._places or {
                row["address"]: (index, row["group"]) for index, row in enumerate(inputs.rows)
            }
            self.mark_changed()
        if not check.is_whole:
            self._ask_wanted.set()

    def _recall_classes(self, target: Target, nodes: Nodes) -> NodeInfo | None:
        """The node classes of a target in sweeper's cache, read once after each question: they may be large."""
        key = (target.url, frozenset(node["class_type"] for node in nodes))
        if key not in self._classes:
            self._classes = {key: get_cached_classes(target, nodes)}
        return self._classes[key]


def _list_target_words(specs: Sequence[str] | None) -> list[str]:
    return [word for spec in specs or () for word in ("--target", spec)]


def _describe_problem(problem: Problem, file: Path, names: Any) -> dict[str, Any]:
    is_here = problem.file == str(file)
    slot = find_problem_slot(problem.key, names)
    line = problem.line if is_here else 0
    return {"line": line, "key": problem.key, "message": problem.message, "text": str(problem), "slot": slot}


def describe_plan(check: Check) -> dict[str, Any] | None:
    """The plan as the page gets it."""
    answer = check.answer
    if answer is None:
        return None if check.trials is None else {"trials": check.trials, "jobs": None, "done": None, "axes": {},
                                                  "seconds": None, "cost": None, "lines": []}  # fmt: skip
    parts = list(answer.parts())
    return {
        "trials": answer.outline.count, "jobs": answer.jobs, "done": answer.done, "axes": dict(answer.outline.axes),
        "seconds": _find_fact(parts, "estimate"), "cost": answer.describe_cost() or None,
        "lines": list(render_text(parts)),
    }  # fmt: skip


def _find_fact(parts: Sequence[Part], label: str) -> str | None:
    facts: list[Fact] = [row for part in parts if isinstance(part, Facts) for row in part.rows]
    return next((str(row.value) for row in facts if row.label == label), None)
