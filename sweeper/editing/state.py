"""What the page shows: the file, its inputs, what a run of it would do, and every mistake.

The plan is computed when a page asks for news: first without servers, then in a thread with what they say. A newer
version ends the older check, except a question to a server that does not respond; that goes on beside it.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sweeper.comfy.target import Target
from sweeper.editing.document import Document, StaleVersionError, describe_document, find_slots
from sweeper.editing.read_workflow import iter_inputs
from sweeper.editing.run_process import list_run_words
from sweeper.editing.starter_folder import INPUTS
from sweeper.errors import InputError, Problem, SweeperError, UsageError
from sweeper.loading.load import load_granted
from sweeper.loading.read_scope import EVERYTHING, make_scope
from sweeper.loading.starter_experiment import is_useful
from sweeper.loading.suggest_slots import Suggestion
from sweeper.loading.targets_file import load_named_targets
from sweeper.loading.trust import describe_missing_trust, get_trust_path, load_grants
from sweeper.model.node_classes import InputSpec, NodeInfo
from sweeper.model.node_classes.spec import ANY
from sweeper.model.target_spec import CLOUD, EMBEDDED
from sweeper.model.template import MISSING, Template
from sweeper.running.count_plan import PlanCounter
from sweeper.running.node_class_cache import get_cached_classes, get_embedded_classes
from sweeper.running.prepare import Prepared, prepare
from sweeper.running.settings import RunOptions
from sweeper.tables.results_folder import default_results_folder
from sweeper.wording import join_command, to_one_line

_MAX_COUNTED: Final = 100_000  # trials; of more, the page shows only how many they are
_GROUPS: Final = ("app", "often", "other")
_MAX_CHOICES: Final = 200  # in one answer
_MAX_TITLE: Final = 150  # characters
_PLACE: Final = re.compile(r"(?:sweep(?:\[\d+\])?\.(?:grid|(?:zip|include|exclude)\[\d+\])|params|slots)\.")


@dataclass(frozen=True, slots=True)
class PageInputs:
    """The inputs as the page gets them, in its order, and by address the choices of those that have a list.

    `suggestions` are inputs that are not slots yet, `names` the names of the slots.
    """

    rows: tuple[Mapping[str, Any], ...] = ()
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    suggestions: tuple[Suggestion, ...] = ()
    names: tuple[str, ...] = ()

    def find_choices(self, address: str, text: str) -> dict[str, Any]:
        """The first choices of an input that contain each word of a text, and how many do."""
        words = text.lower().split()
        choices = self.choices.get(address, ())
        found = [choice for choice in choices if all(word in str(choice).lower() for word in words)]
        return {"values": found[:_MAX_CHOICES], "total": len(found)}


def list_page_inputs(template: Template, info: NodeInfo, own_slots: Collection[str] | None = None) -> PageInputs:
    """List all inputs that can be swept: first the author's own choice, then what people sweep, then the others.

    The author chose if the slots file leaves out something that people sweep: in the App mode of ComfyUI, or by hand.
    `own_slots`: those of the author (None: all). Others stay where they were before the page made them slots.
    """
    own = {name: slot for name, slot in template.slots.items() if own_slots is None or name in own_slots}
    found = list(iter_inputs(template.graph, info.with_any_model(), own))
    is_chosen = any(is_useful(suggestion) and not is_slot for suggestion, is_slot in found)
    rows, choices = [], {}
    for suggestion, is_slot in found:
        node_id, _, name = suggestion.address.partition(".")
        declared = info.find_input(template.graph, node_id, name) or InputSpec(name, "widget", ANY, False)
        slot = template.slots[suggestion.name] if is_slot else None
        is_file = suggestion.type == "file" if slot is None else slot.is_file
        offered = None if is_file else declared.choices
        if offered:
            choices[suggestion.address] = offered
        rows.append({
            "address": suggestion.address,
            "others": suggestion.others,
            "slot": suggestion.name if is_slot else None,
            "node": node_id,
            # A stranger's title may be megabytes, each of them in every input of its node, or turn the text around it.
            "title": to_one_line((suggestion.title or suggestion.class_type)[:_MAX_TITLE]),
            "class": suggestion.class_type[:_MAX_TITLE],
            "role": suggestion.role or suggestion.name,
            "group": "app" if is_slot and is_chosen else "often" if is_useful(suggestion) else "other",
            "type": "file" if is_file else suggestion.type,
            "schema": None if suggestion.schema is None else dict(suggestion.schema),
            "step": declared.options.get("step"),
            "value": suggestion.value if slot is None or slot.default is MISSING else slot.default,
            "multiline": declared.options.get("multiline") is True,
            "choices": None if offered is None else len(offered),
            "model": declared.names_model,
        })  # fmt: skip
    rows.sort(key=lambda row: _GROUPS.index(row["group"]))
    suggestions = tuple(suggestion for suggestion, is_slot in found if not is_slot)
    return PageInputs(tuple(rows), choices, suggestions, tuple(template.slots))


@dataclass(frozen=True, slots=True)
class Check:
    """What is known of one version of an experiment. `is_whole`: its targets were asked, if there is one to ask."""

    version: str = ""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    plan: Mapping[str, Any] | None = None
    inputs: PageInputs = PageInputs()
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
    # Without a plan, the values of an axis are model files of a server that is not asked yet.
    return check if check.problems or not prepared.plans else _count_plan(prepared, check, is_outdated)


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
        self.notes: tuple[str, ...] = ()  # on the folder that was made for a workflow
        self.check = Check()  # of the latest version that was checked
        self._document: Document | None = None
        self._first_target: Any = None  # that of the file when it was opened
        self._own_slots: tuple[str, ...] | None = None  # those of the template at first
        self._notice: str | None = None
        self._disk_problem: str | None = None
        self._problem: str | None = None  # what failed last, besides what is wrong in the file
        self._revision = 0  # grows with what has to be checked
        self._checked = 0  # the revision that was checked last
        self._lock, self._checking = threading.RLock(), threading.Lock()
        self._asker: threading.Thread | None = None  # checks with what the targets say

    # --- the document

    def open(self, file: Path) -> None:
        """Edit this experiment from now on. Raises InputError if it cannot be read."""
        grants = load_grants().get(file.parent.resolve(), ())
        document = Document(file, EVERYTHING if self.trust else make_scope(file, grants, {}))
        with self._lock:
            self._document, self.check, self._own_slots = document, Check(), None
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
                    document.step(version, -1 if step == "undo" else 1)
                else:
                    document.apply(version, changes, self.check.inputs.suggestions)
            except StaleVersionError as error:
                self._notice = str(error)
                raise
            finally:
                self.check_again()

    def make_axis(self, address: str) -> None:
        """Make an input the first axis, with its own value unless it is one. Raises UsageError if it does not exist."""
        self._check(asks_targets=False)
        row = next((row for row in self.check.inputs.rows if address in (row["address"], *row["others"])), None)
        if row is None:
            raise UsageError(f"--axis {address}: no such input; `sweeper template slots` lists them")
        axes = {axis["name"]: axis["zip"] for axis in describe_document(self.document.text)["axes"]}
        changes = [] if row["slot"] in axes else [{"set": "axis", "address": row["address"], "value": [row["value"]]}]
        if axes.get(row["slot"]) is None:  # a zip group stays together
            firsts = [name for name, group in axes.items() if group is None][:1]
            changes += [{"set": "move", "address": row["address"], "before": name} for name in firsts]
        self.change(self.document.version, changes=changes)

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

    def show_problem(self, problem: str | None) -> None:
        """Show what has failed outside of the file, from now on; None: nothing."""
        with self._lock:
            self.number += problem != self._problem
            self._problem = problem

    def check_again(self) -> None:
        """Check the document anew, because it or something around it has changed."""
        with self._lock:
            self._revision += 1
            self.number += 1

    # --- what is known of it

    def list_watched(self) -> list[Path]:
        """What a check reads besides the document: the user's trust, the workflow, and the folder of input files."""
        slots, inputs = self.document.slots_file, self.document.file.parent / INPUTS
        workflow = [] if slots is None else [slots.with_name(f"{slots.name.removesuffix('.slots.yaml')}.json")]
        return [get_trust_path(), inputs, *workflow]

    def list_specs(self) -> list[str] | None:
        """The target of the command line, which stands for that of the file until the file names another."""
        written = describe_document(self.document.text).get("target")
        return [self.target] if self.target is not None and written in (self._first_target, self.target) else None

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
                "mode": "edit", "version": document.version, "problem": self._disk_problem or self._problem,
                "file": str(document.file), "text": document.text,
                "command": join_command(["sweeper", *self.list_words()]), "diff": document.diff(),
                "can_undo": document.can_step(-1), "can_redo": document.can_step(1), "notice": self._notice,
                "checking": check.version != document.version or not check.is_whole,
            }  # fmt: skip
        inputs = [{**row, "slot": row["slot"] or slots.get(row["address"])} for row in check.inputs.rows]
        names = {row["slot"] for row in inputs if row["slot"] is not None}
        names |= {item["name"] for item in (*described["axes"], *described["fixed"])}
        targets = [EMBEDDED, CLOUD, *check.targets, *([self.target] if self.target else [])]
        return described | state | {
            "target": specs[0] if specs else described.get("target"),
            "targets": list(dict.fromkeys(targets)),
            "inputs": inputs,
            "problems": [
                {"key": problem.key, "message": problem.message, "text": str(problem),
                 "slot": find_problem_slot(problem.key, names)}
                for problem in check.problems
            ],
            "notes": list(dict.fromkeys((*self.notes, *check.notes))),
            "plan": check.plan,
        }  # fmt: skip

    # --- checking

    def refresh(self) -> None:
        """Look at the disk and check what has changed; have the targets asked if there are some."""
        self.look_at_disk()
        if not self._checking.acquire(blocking=False):  # for another page; a long check must not hold a thread for each
            return
        try:
            if self._checked != self._revision:
                self._check(asks_targets=False)
            if not self.check.is_whole and not (self._asker and self._asker.is_alive()):
                self._asker = threading.Thread(target=self._check, kwargs={"asks_targets": True}, daemon=True)
                self._asker.start()
        finally:
            self._checking.release()

    def _check(self, *, asks_targets: bool) -> None:
        """Check the latest version, unless it changes meanwhile."""
        with self._lock:
            file, version, specs = self.document.file, self.document.version, self.list_specs()
            revision = self._revision
        try:
            check = check_experiment(
                file, specs, self._own_slots, trust=self.trust, asks_targets=asks_targets,
                is_outdated=lambda: self._revision != revision,
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
            self._checked = revision
            self.number += 1


def find_problem_slot(key: str, names: Collection[str]) -> str | None:
    """The axis, fixed value or slot where the page shows a problem with this key, such as `sweep.grid.steps[2]`."""
    match = _PLACE.match(key)
    rest = key[match.end() :] if match else ""
    found = [name for name in names if rest == name or rest.startswith((f"{name}.", f"{name}["))]
    return max(found, key=len, default=None)
