"""Which jobs of a results folder count for a run: the finished ones, the open ones, and those that are stale.

A trial is known by what makes it: its digest and the content of its model files. The address of the server does not
count, so a result of any real server stands for all of them, unless what they tell of the files contradicts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sweeper.errors import InputError, ResultsError
from sweeper.loading.load import load_recorded
from sweeper.model.model_facts import (
    CHANGE_WORDS,
    Change,
    ModelFacts,
    ModelKey,
    Models,
    compare_models,
    describe_change,
    format_time,
)
from sweeper.model.target_spec import EMBEDDED
from sweeper.planning.plan import Plan
from sweeper.store import FILE_NAME, Store
from sweeper.store.records import ENDED_STATES, FAILED, INTENT, SUBMITTED, SUCCEEDED, JobRecord
from sweeper.tables.results_folder import default_results_folder, is_owner
from sweeper.wording import count_things, join_command

_RANKS = {SUCCEEDED: 2, INTENT: 1, SUBMITTED: 1}
_MAX_FILES = 3  # named in a message

Changes = Mapping[ModelKey, tuple[Change, ModelFacts, ModelFacts]]


@dataclass(frozen=True, slots=True)
class DoneRule:
    """What counts as done for a run on `targets`, by their names.

    `models`: by target, what it tells about the plan's files now; one that tells nothing is left out. `per_target`:
    only results of these targets count. `keep_stale`: results of other contents count too. `remake_stale`: those count
    as stale too of which nothing tells whether the content is the same.
    """

    targets: tuple[str, ...]
    models: Mapping[str, Models] = field(default_factory=dict)
    per_target: bool = False
    keep_stale: bool = False
    remake_stale: bool = False

    def find(self, store: Store | None) -> DoneWork:
        """Compare the jobs of a results folder with what the targets tell now."""
        found = DoneWork(keeps_stale=self.keep_stale)
        if store is None:
            return found
        recorded, void = store.models.load(), store.models.load_void()
        is_rehearsal = EMBEDDED in self.targets and len(self.targets) == 1
        refused = (Change.CHANGED, Change.UNCLEAR) if self.remake_stale else (Change.CHANGED,)
        for job in store.jobs():
            is_own = job.target in self.targets
            if not is_own and (job.state != SUCCEEDED or self.per_target or is_rehearsal or job.target == EMBEDDED):
                continue
            if job.state in (*_RANKS, FAILED) and (sets := recorded.get(job.id)):
                found.has_models = found.has_models or job.target != EMBEDDED
                item = self._find_least_change(job, sets)
                if job.state == FAILED:  # perhaps because a file was not complete yet
                    if self.keep_stale or item.worst is not Change.CHANGED:
                        found.add(job)
                    continue
                if job.id in void or (item.worst in refused and not self.keep_stale):
                    found.stale[job.digest] = item
                    found.contradicted.append(job.id)
                    found.drop_failure(job.digest)
                    continue
                if item.changes:
                    found.touched[job.id] = item
            found.add(job)
        found.stale = {digest: item for digest, item in found.stale.items() if not found.is_made(digest)}
        return found

    def _find_least_change(self, job: JobRecord, sets: Sequence[Models]) -> StaleJob:
        """How the files of a job differ on the target of the run that contradicts it least."""
        options = [
            StaleJob(job, target, made, compare_models(made, now, same_server=target == job.target))
            for target, now in self.models.items()
            for made in sets
        ]
        return min(
            options, key=lambda item: (item.worst.value, len(item.changes)), default=StaleJob(job, "", sets[0], {})
        )


@dataclass(frozen=True, slots=True)
class StaleJob:
    """A finished job, `made` with model files some of which differ on `target` now."""

    job: JobRecord
    target: str
    made: Models
    changes: Changes

    @property
    def worst(self) -> Change:
        return max(
            (change for change, _, _ in self.changes.values()), key=lambda change: change.value, default=Change.SAME
        )


@dataclass(slots=True)
class DoneWork:
    """The job that counts for each digest, and what differs. `has_models`: facts about files of real servers are known.

    `contradicted`: the finished and open jobs that do not count, because their files differ now. `stale`: by digest,
    the latest of them, if the trial is to be made again. `touched`: by job id, the jobs that count although something
    about their files differs; `keeps_stale`: whether that is since the user wants it.
    """

    keeps_stale: bool = False

    jobs: dict[str, JobRecord] = field(default_factory=dict)
    contradicted: list[str] = field(default_factory=list)
    stale: dict[str, StaleJob] = field(default_factory=dict)
    touched: dict[str, StaleJob] = field(default_factory=dict)
    has_models: bool = False

    def add(self, job: JobRecord) -> None:
        """Count a job: a success wins, then an open one, then the surest content, then the latest."""
        previous = self.jobs.get(job.digest)
        if previous is None or self._rank(job) >= self._rank(previous):
            self.jobs[job.digest] = job

    def _rank(self, job: JobRecord) -> tuple[int, int]:
        item = self.touched.get(job.id)
        return _RANKS.get(job.state, 0), 0 if item is None else -item.worst.value

    def drop_failure(self, digest: str) -> None:
        """Forget an earlier failure of a trial that succeeded after it, although the success counts no more."""
        if not self.is_made(digest):
            self.jobs.pop(digest, None)

    def is_made(self, digest: str) -> bool:
        """Whether a job has made the trial's pictures of the files of now, or may be making them."""
        job = self.jobs.get(digest)
        return job is not None and job.state in _RANKS

    def list_accepted(self) -> Iterator[tuple[str, Models]]:
        """The facts to remember of jobs that count: those of equal headers, or all that differ if it `keeps_stale`."""
        for job_id, item in self.touched.items():
            changes = {change for change, _, _ in item.changes.values()}
            if self.keeps_stale or changes == {Change.TOUCHED}:
                yield job_id, {**item.made, **{key: now for key, (_, _, now) in item.changes.items()}}

    def describe_stale(self, digests: Iterable[str]) -> str:
        """`mychar.safetensors on studio changed (3 Nov 2026 -> 28 Nov 2026)`, for the stale ones of some trials.

        One text for each file that differs, at most three, and how many more.
        """
        stale = [self.stale[digest] for digest in dict.fromkeys(digests) if digest in self.stale]
        texts = dict.fromkeys(
            f"{key.name} {_describe_place(item)} {CHANGE_WORDS[change]} ({describe_change(before, now)})"
            for item in stale
            for key, (change, before, now) in item.changes.items()
            if change is item.worst and change in CHANGE_WORDS
        )
        texts |= {
            f"model files were replaced while run {item.job.run} made it": None
            for item in stale
            if item.worst not in CHANGE_WORDS
        }
        more = [f"{len(texts) - _MAX_FILES} more files"] if len(texts) > _MAX_FILES else []
        return "; ".join([*list(texts)[:_MAX_FILES], *more])

    def list_notes(self, digests: Iterable[str]) -> Iterator[str]:
        """What to say about the trials that stay done although a time differs."""
        current = [self.jobs[digest] for digest in dict.fromkeys(digests) if digest in self.jobs]
        touched = [self.touched[job.id] for job in current if job.id in self.touched]
        if self.keeps_stale:
            if touched:
                yield f"{count_things(len(touched), 'trial')} kept, and the model files of now are remembered for them"
            return
        unclear: Counter[str] = Counter()
        same: Counter[str] = Counter()
        for item in touched:
            for key, (change, before, now) in item.changes.items():
                times = " -> ".join(format_time(facts.modified or 0.0) for facts in (before, now))
                if change is Change.UNCLEAR:
                    unclear[f"{key} on {item.target} ({times})"] += 1
                elif change is Change.TOUCHED:
                    same[f"{key} on {item.target} ({times})"] += 1
        for text, count in unclear.items():
            yield (
                f"{text} has another time, and nothing tells whether its content changed: "
                f"{count_things(count, 'trial')} kept; --remake-stale makes them again, --keep-stale ends this note"
            )
        for text, count in same.items():
            yield f"{text} has another time, but its header states the same: {count_things(count, 'trial')} kept"


def _describe_place(item: StaleJob) -> str:
    if item.target == item.job.target:
        return f"on {item.target}"
    return f"of {item.job.target} differs on {item.target}: it"


def list_timed_jobs(jobs: Iterable[JobRecord]) -> list[tuple[JobRecord, float]]:
    """Return each job whose seconds are known, with them. The first of each run are left out if there are others."""
    known = [(job, job.started, job.ended) for job in jobs if job.started is not None and job.ended is not None]
    first_ends: dict[tuple[int, str], float] = {}
    for job, _, ended in known:
        key = job.run, job.target
        first_ends[key] = min(ended, first_ends.get(key, ended))
    later = [entry for entry in known if entry[1] >= first_ends[entry[0].run, entry[0].target]]
    return [(job, max(0.0, ended - started)) for job, started, ended in later or known]


def describe_renaming(planned: Plan, out: Path, store: Store | None, rule: DoneRule) -> str | None:
    """Say how many trials are new because the experiment has another name now, and how to keep their results.

    The name is part of the default results folder, and `{seeds: n}` without `key` draws from it.
    `store`: that of the results folder `out`, None if it has none yet; then the results of an earlier name are looked
    for in the folders beside it. `rule`: what counts as done. None if there is nothing to say.
    """
    if planned.search_columns is not None:  # nobody knows which trials a search of another name would have chosen
        return None
    if store is not None:
        return _compare(planned, store, rule, is_same_folder=True)
    if out != default_results_folder(planned.experiment.file, planned.experiment.name):
        return None
    for file in sorted(out.parent.glob(f"*/{FILE_NAME}")):
        with suppress(ResultsError), Store.open(file.parent, readonly=True) as neighbour:
            runs = neighbour.runs()
            is_default = bool(runs) and runs[-1].experiment == file.parent.name  # not that of a check, for example
            if is_default and (message := _compare(planned, neighbour, rule, is_same_folder=False)) is not None:
                return message
    return None


def _compare(planned: Plan, store: Store, rule: DoneRule, *, is_same_folder: bool) -> str | None:
    """Compare a plan with a store that may be of an earlier name. `is_same_folder`: whether the run would use it."""
    experiment, runs = planned.experiment, store.runs()
    if not runs or runs[-1].experiment == experiment.name or not is_owner(runs[-1].file, experiment.file):
        return None
    name = runs[-1].experiment
    try:
        earlier = Plan(load_recorded(experiment.file, experiment.overrides, name=name))
    except (InputError, OSError):
        return None
    done = {digest for digest, job in rule.find(store).jobs.items() if job.state in ENDED_STATES}
    without_key, with_key = (sum(trial.digest in done for trial in known.written()) for known in (planned, earlier))
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
