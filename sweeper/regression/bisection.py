"""Find the first commit of ComfyUI that changes a case, by `git bisect` in a worktree of ours.

`bisect.json` in the results folder holds what each commit was found to be. The worktree, with Git's own state, goes at
every end, and the same command makes it again from these marks: after a kill, only the commit being tested is lost.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sweeper.answers.parts import Item, Line, Part
from sweeper.answers.render import NOT_IN_JSON
from sweeper.errors import SweeperError
from sweeper.files import atomic_write
from sweeper.model.experiment import Experiment
from sweeper.planning.plan import Plan
from sweeper.regression.baseline import Baseline
from sweeper.regression.cases import read_run
from sweeper.regression.check import check_experiment
from sweeper.regression.comparison import SAME, Comparison, Comparisons, compare_with_baseline, tabulate_cases
from sweeper.regression.match_files import parse_checks
from sweeper.regression.versions import VERSION_ERRORS, WORKTREE, ComfyuiClone, Commit, Version, make_reference
from sweeper.running.folder_lock import lock_folder
from sweeper.store.containment import display_path
from sweeper.wording import count_things, join_command

GOOD, BAD, SKIP = "good", "bad", "skip"  # Git's words; the first two also name results folders
_MARKS: Final = (GOOD, BAD, SKIP)
_HASH: Final = re.compile(r"[0-9a-f]{40,64}")
_FOUND: Final = re.compile(r"# (?:possible )?first bad commit: \[(" + _HASH.pattern + r")\]")
_MAX_COMMITS: Final = 20  # shown


@dataclass(frozen=True, slots=True)
class Bisection:
    """The answer of `sweeper bisect`.

    `commits`: the first commit that changes a case; it and those before it that cannot be tested; none if the user
    ended it early. `cases`: the changed ones at the first of these, of which `results` has the pictures, compared with
    the folder `reference`. `marks` counts the tested commits by what they were found to be.
    """

    experiment: str
    commits: tuple[Commit, ...]
    cases: tuple[Comparison, ...]
    marks: Mapping[str, int]
    clone: Path
    results: Path
    reference: Path
    has_baseline: bool = field(metadata=NOT_IN_JSON)

    def parts(self) -> Iterator[Part]:
        """The cases, the commit, and the commands that show both."""
        skipped = f", {self.marks[SKIP]} of them without a result" if self.marks.get(SKIP) else ""
        tested = f"{count_things(sum(self.marks.values()), 'commit')} tested{skipped}"
        if not self.commits:
            yield Line(f"{self.experiment}: interrupted, {tested}; the same command goes on")
            return
        yield from tabulate_cases(self.cases)
        if len(self.commits) == 1:
            yield Line(f"{self.commits[0]} is the first commit that changes a case")
        else:
            yield Line("one of these commits is the first that changes a case; those below the first cannot be tested")
            yield from map(Item, map(str, self.commits[:_MAX_COMMITS]))
        yield Line(f"{tested}, compared with {display_path(self.reference)}; to see the change:")
        reference, results = str(self.reference), str(self.results)
        compare = ["check", results, "--baseline", reference] if self.has_baseline else ["compare", reference, results]
        yield Item(join_command(["git", "-C", str(self.clone), "show", self.commits[0].hash[:12]]))
        yield Item(join_command(["sweeper", *compare]))


@dataclass(slots=True)
class _State:
    """What is known so far. `key`: a hash of what it depends on. `reference`: GOOD, or empty for the baseline.

    `wanted`: by the key of a case, its state in the bad version. `trials` make these cases. `marks`: commits, and how
    they were marked.
    """

    key: str
    reference: str = ""
    wanted: Mapping[str, str] = field(default_factory=dict)
    trials: list[int] = field(default_factory=list)
    marks: list[Sequence[str]] = field(default_factory=list)


class _InterruptedError(Exception):
    """The user ended the run of a commit."""


@dataclass(frozen=True, slots=True)
class Bisector:
    """Finds the first commit at which a case is as it is at the bad version; call `run`.

    `ends`: a good and a bad version, which are commits of the clone. `options`: those of `check_experiment`. All
    pictures are compared with those of the baseline `accepted` if the good version matches it, else with those of the
    good version, which must then give them twice.
    """

    experiment: Experiment
    clone: ComfyuiClone
    ends: Sequence[Version]
    accepted: Baseline
    out: Path
    options: Mapping[str, Any]

    def run(self) -> Bisection:
        """Raises ResultsError if another process uses `out`, and SweeperError if the good version cannot repeat its
        pictures, the bad one changes nothing, or Git fails.
        """
        with lock_folder(self.out, now=time.time()), self.clone.open_worktree(self._tree, self.ends[1].commit):
            return self._run()

    def _run(self) -> Bisection:
        good, bad = self.ends
        self._git("bisect", "start", bad.commit, good.commit)  # fails at once if good comes after bad
        following = self._git("rev-parse", "HEAD")[0]
        state = self._load_state()
        found: list[str] = []
        try:
            if not state.wanted:
                self._prove_ends(state)
                self._git("checkout", "--quiet", "--force", "--detach", following)
            reference = self._read_reference(state)
            for commit, mark in state.marks:
                self._mark(commit, mark)
            while not (found := self._list_found()):
                commit = self._git("rev-parse", "HEAD")[0]
                state.marks.append((commit, self._judge(commit, reference, state)))
                self._save_state(state)  # before Git knows it, so that a kill between them loses nothing
                self._mark(*state.marks[-1])
        except _InterruptedError:
            pass
        results = self.out / (BAD if bad.commit in found[:1] else found[0][:12]) if found else self.out
        own = read_run(results, own=True) if found else None
        cases = () if own is None else compare_with_baseline(own, reference, parse_checks(self.experiment))
        return Bisection(
            self.experiment.name, tuple(map(self.clone.find_commit, found)),
            tuple(item for item in cases if state.wanted.get(item.case.key) == item.state),
            dict(Counter(mark for _, mark in state.marks)), self.clone.folder, results,
            self.out / GOOD if state.reference else self.accepted.folder, not state.reference,
        )  # fmt: skip

    def _load_state(self) -> _State:
        """The state that an earlier command left, if it was for the same commits, cases, workflows and checks."""
        digests = [trial.digest for trial in Plan(self.experiment).written()]
        selection = [self.options.get("where"), self.options.get("limit")]
        commits = [version.commit for version in self.ends]
        facts = [commits, selection, digests, self.experiment.checks, self.accepted.stamp]
        key = hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()
        with suppress(OSError, ValueError, TypeError):
            state = _State(**json.loads(self._state_file.read_text("utf-8")))
            # Somebody else may have written it, and `git bisect run` would start a program.
            if state.key == key and all(mark in _MARKS and _HASH.fullmatch(commit) for commit, mark in state.marks):
                return state
        return _State(key)

    def _save_state(self, state: _State) -> None:
        with atomic_write(self._state_file) as file:
            file.write(json.dumps(asdict(state), indent=1).encode())

    def _prove_ends(self, state: _State) -> None:
        """Test the good and the bad version. Raises SweeperError if they are not what they should be."""
        good, bad = self.ends
        found = self._test(good, GOOD, self.accepted)
        if not found.has_baseline or any(item.state != SAME for item in found):
            state.reference = GOOD
            found = self._test(good, f"{GOOD}-again", self._read_reference(state))
        keys = {item.case.key for item in found if item.state == SAME}
        if not keys:
            why = next((f" ({item.state}: {item.reason})" for item in found), "")
            advice = "`sweeper calibrate` proposes `checks` that allow noise"
            raise SweeperError(f"{good.name}: no case is the same in two runs{why}; {advice}")
        found = self._test(bad, BAD, self._read_reference(state))
        changed = [item for item in found if found.is_blocking(item) and item.case.key in keys]
        if not changed:
            raise SweeperError(f"{bad.name}: changes no case against {good.name}, so there is nothing to find")
        state.wanted = {item.case.key: item.state for item in changed}
        points = {item.case.point for item in changed}
        state.trials = [row.result.trial for row in read_run(self.out / BAD).rows if row.point in points]
        self._save_state(state)

    def _read_reference(self, state: _State) -> Baseline:
        return make_reference(read_run(self.out / GOOD, own=True)) if state.reference else self.accepted

    def _judge(self, commit: str, reference: Baseline, state: _State) -> str:
        """Bad if a case is as in the bad version, good if all are as in the good one, else to be skipped."""
        try:
            found = self._test(replace(self.ends[1], commit=commit), commit[:12], reference, state.trials)
        except VERSION_ERRORS:
            return SKIP
        states = {item.case.key: item.state for item in found}
        if any(states.get(key) == wanted for key, wanted in state.wanted.items()):
            return BAD
        return GOOD if all(states.get(key) == SAME for key in state.wanted) else SKIP

    def _test(
        self, version: Version, name: str, reference: Baseline, trials: Collection[int] | None = None
    ) -> Comparisons:
        """Run a version into a results folder of this name. Raises _InterruptedError, and what a run raises."""
        self._git("checkout", "--quiet", "--force", "--detach", version.commit)
        self._git("clean", "-ffdxq")
        target = self.clone.complete_launch(version.target, self._tree, version.commit) | {"name": name}
        options = {"out": self.out / name, "target": target, "trials": trials, **self.options}
        found = check_experiment(self.experiment, reference, **options)
        if found.stopped_by == "interrupt":
            raise _InterruptedError
        return found

    def _mark(self, commit: str, mark: str) -> None:
        try:
            self._git("bisect", mark, commit)
        except SweeperError:
            if not self._list_found():  # Git also fails if only skipped commits are left
                raise

    def _list_found(self) -> list[str]:
        """The first bad commit, or several that it can be; none while Git has more to test."""
        return [found[1] for line in self._git("bisect", "log") if (found := _FOUND.match(line))]

    @property
    def _tree(self) -> Path:
        return self.out.resolve() / WORKTREE

    @property
    def _state_file(self) -> Path:
        return self.out / "bisect.json"

    def _git(self, *words: str) -> list[str]:
        return self.clone.git(*words, folder=self._tree)
