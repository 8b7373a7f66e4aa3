"""What the targets of a run tell about the model files of its plan, and what follows for a run.

One question for each folder, and one for each of the first files, never one for each trial. The other files of a large
sweep are known by the listing alone, so that a plan of 9,000 files asks no longer than one of 250. If a target tells
nothing, its trials have no facts, and nothing is compared.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from platformdirs import user_cache_path

from sweeper.comfy.target import Target
from sweeper.errors import TargetError, TransientError, UsageError
from sweeper.files import atomic_write
from sweeper.model.bounded_json import parse_json
from sweeper.model.model_facts import (
    MODELS_SHAPE,
    Change,
    ModelFacts,
    ModelKey,
    Models,
    decode_models,
    describe_both,
    encode_models,
)
from sweeper.model.node_classes import NodeInfo
from sweeper.model.result import SUCCEEDED
from sweeper.model.trial import Trial
from sweeper.planning.model_inputs import PlanModels, may_name_models
from sweeper.planning.plan import Plan
from sweeper.schemas.values import fits_shape
from sweeper.wording import count_things, join_names

if TYPE_CHECKING:
    from sweeper.store import Store

_MAX_SHOWN: Final = 3  # files in a message
_MAX_SECONDS: Final = 30.0  # for all questions to one target
_MAX_ASKED: Final = 250  # files, each with a question of its own; in the order of their names, so that all runs agree


class ModelSource(Protocol):
    """What answers questions about classes and models: the client of a server, or on a cluster the worker beside it."""

    async def get_object_info(self) -> dict[str, Any] | None: ...

    async def get_node_classes(self, names: Sequence[str]) -> dict[str, Any] | None: ...

    async def list_all(self, only: Collection[str] | None = None) -> Mapping[str, Mapping[str, ModelFacts]]: ...

    async def get_facts(self, listed: Models) -> Models: ...

    async def find_oldest_job(self) -> float | None: ...

    async def free_memory(self) -> bool: ...

    @property
    def unanswered(self) -> Sequence[str]: ...


@dataclass(slots=True)
class TargetModels:
    """The model files of a plan on one target.

    `unanswered`: what the target did not answer about single folders and files. `unasked`: how many files it was not
    asked about. `to_free`: those that the server may have read before they were replaced; see `find_outdated`. `new`:
    those that it did not list before, so that nothing has read them.
    """

    facts: Models
    uses: PlanModels
    unanswered: tuple[str, ...] = ()
    unasked: int = 0
    to_free: set[ModelKey] = field(default_factory=set)
    new: set[ModelKey] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # while the server is asked to forget them

    def list_limits(self, target: str) -> Iterator[str]:
        """Say of how many files the target tells less than it could."""
        if self.unasked:
            count = count_things(self.unasked, "model file")
            yield f"{target}: {count} known by the folder's listing alone; the first {_MAX_ASKED} are asked about"

    def get(self, trial: Trial) -> Models:
        """The facts about the files that a trial uses."""
        return {key: self.facts[key] for key in self.uses.list_keys(trial) if key in self.facts}

    async def free_before(self, source: ModelSource, url: str, trial: Trial) -> str | None:
        """Let the server forget what it read, if the trial uses a file that was replaced since, and say so.

        Raises TransientError and TargetError: then the trial must not be submitted.
        """
        if not self.to_free:
            return None
        async with self.lock:
            outdated = sorted(self.to_free.intersection(self.uses.list_keys(trial)))
            try:
                if not outdated or not await source.free_memory():
                    return None
            except TransientError as error:
                raise TransientError(str(error), sent=False, trouble=error.trouble) from error
            save_seen(url, {key: self.facts[key] for key in self.to_free})
            self.to_free.clear()  # the server forgot everything
        names, verb = join_names(key.name for key in outdated), "was" if len(outdated) == 1 else "were"
        return f"{names} {verb} replaced while the server was running, so it reads all models again"


class RunModels:
    """The model files of a plan on all targets of a run. `may_differ`: whether two of them may have other contents."""

    def __init__(self, plan: Plan, *, may_differ: bool) -> None:
        self._plan, self._may_differ = plan, may_differ
        self.by_target: dict[str, TargetModels] = {}  # of those that tell anything

    @property
    def facts(self) -> dict[str, Models]:
        return {name: models.facts for name, models in sorted(self.by_target.items())}  # as asked, in any order

    def list_notes(self) -> Iterator[str]:
        """What the targets did not answer, and how much they were not asked."""
        for name, models in self.by_target.items():
            yield from models.list_limits(name)
            if models.unanswered:
                more = f" (and {len(models.unanswered) - 1} more)" if len(models.unanswered) > 1 else ""
                yield f"{name}: no answer about the content of {models.unanswered[0]}{more}"

    async def read(self, source: ModelSource, target: Target, classes: NodeInfo | None) -> None:
        """Ask one target. Raises UsageError if its files differ from those of another one."""
        models = await read_target_models(source, self._plan, classes)
        if models is not None:
            models.new = _note_listed(target.url, models)
            models.new |= self.by_target.get(target.name, models).new  # a run asks twice
            self.by_target[target.name] = models
            lines = [] if self._may_differ else list(describe_differences(self.facts))
            if lines:
                more = f"\nand {count_things(len(lines) - _MAX_SHOWN, 'more file')}" if len(lines) > _MAX_SHOWN else ""
                raise UsageError(
                    "the targets have different files under one name, so that their pictures do not belong together:\n"
                    + "\n".join(lines[:_MAX_SHOWN])
                    + f"{more}\nmake them equal, give one --target, or allow it with --allow-different-models"
                )

    async def find_outdated(self, source: ModelSource, target: Target, store: Store) -> bool:
        """Find out which files a server may still have in its memory as they were before. Whether there are any."""
        models = self.by_target.get(target.name)
        if models is None:
            return False
        latest = store.models.load_latest(target.name) | load_seen(target.url)
        models.to_free = await find_outdated(source, models.facts, latest, models.new)
        save_seen(target.url, {key: facts for key, facts in models.facts.items() if key not in models.to_free})
        return bool(models.to_free)

    async def free_all(self, source: ModelSource, target: Target) -> bool:
        """Let the server of a target read all files again. Whether it can; raises TransientError, TargetError."""
        is_free = await source.free_memory()
        if is_free:
            save_seen(target.url, self.by_target[target.name].facts)
        return is_free

    async def set_aside_mixed(self, source: ModelSource, target: str, store: Store, run_id: int) -> str | None:
        """Set aside what a run made with files of a target that were replaced after `read`, and say so.

        Nobody knows which content a job had that ended after the file came to its place.
        """
        models = self.by_target.get(target)
        if models is None:
            return None
        try:
            async with asyncio.timeout(_MAX_SECONDS):
                folders = await source.list_all({key.folder for key in models.facts})
        except (TargetError, TransientError, TimeoutError):
            return None
        listed = {key: folders.get(key.folder, {}).get(key.name) for key in models.facts}
        placed = {
            key: now.placed or 0.0
            for key, now in listed.items()
            if now is not None and not now.is_listed_as(models.facts[key])
        }
        recorded = store.models.load() if placed else {}
        mixed = [
            job.id
            for job in (store.jobs() if placed else ())
            if (job.run, job.target, job.state) == (run_id, target, SUCCEEDED)
            and any((job.ended or math.inf) >= placed.get(key, math.inf) for key in recorded.get(job.id, [{}])[0])
        ]
        store.models.set_aside(run_id, mixed)
        if not mixed:
            return None
        names = join_names(key.name for key in placed)
        return f"{target}: {names} replaced during the run, so the next run repeats {len(mixed)} jobs"


async def read_target_models(source: ModelSource, plan: Plan, classes: NodeInfo | None) -> TargetModels | None:
    """Ask a target about the model files of a plan; None if it tells nothing, or the plan names no file."""
    if classes is None or not may_name_models(plan, classes):
        return None
    try:
        async with asyncio.timeout(_MAX_SECONDS):
            folders = await source.list_all()
            uses = PlanModels(plan, classes, folders)
            facts = {key: folders[key.folder][key.name] for key in uses.list_all_keys()}
            facts |= await source.get_facts(dict(itertools.islice(facts.items(), _MAX_ASKED)))
    except (TargetError, TransientError, TimeoutError):
        return None
    unasked = max(0, len(facts) - _MAX_ASKED)
    return TargetModels(facts, uses, tuple(source.unanswered), unasked) if facts or source.unanswered else None


_listed: Final[dict[tuple[str, str], set[str]]] = {}  # what servers have listed in this process, by URL and folder


def _note_listed(url: str, models: TargetModels) -> set[ModelKey]:
    """Note what a server lists. Return the files that it did not list when this process looked into their folder."""
    known = {key: _listed.get((url, key.folder)) for key in models.facts}
    new = {key for key, names in known.items() if names is not None and key.name not in names}
    for folder, names in models.uses.folders.items():
        _listed.setdefault((url, folder), set()).update(names)
    return new


async def find_outdated(
    source: ModelSource, models: Models, latest: Models, new: Collection[ModelKey]
) -> set[ModelKey]:
    """The files that a server may have in its memory as they were before they were replaced.

    Measured on ComfyUI 0.33.0: it reads a replaced file only when its loader's result has left the cache. So a file is
    outdated if it came to its place after the oldest job in the server's history began and is not `new`, or if it was
    used there with other facts at last (`latest`), of the times alone too. If these are the very facts of now, the
    server was asked to forget the old file before.
    """
    unread = {
        key: facts
        for key, facts in models.items()
        if (known := latest.get(key)) != facts or known is None or known.placed != facts.placed
    }
    if not unread:
        return set()
    try:
        oldest = await source.find_oldest_job()
    except (TargetError, TransientError):
        oldest = None
    return {
        key
        for key, facts in unread.items()
        if key in latest
        or (key not in new and oldest is not None and facts.placed is not None and facts.placed > oldest)
    }


def describe_differences(targets: Mapping[str, Models]) -> Iterator[str]:
    """One line for each file that differs between two targets, as far as they tell (not by times)."""
    for key in sorted({key for facts in targets.values() for key in facts}):
        known = [(name, facts[key]) for name, facts in targets.items() if key in facts]
        for (first, before), (second, now) in itertools.combinations(known, 2):
            if before.compare(now, same_server=False) is Change.CHANGED:
                texts = describe_both(before, now)
                yield f"{key}: {texts[0]} on {first}, {texts[1]} on {second}"
                break


_MAX_FILES: Final = 20_000  # of a server


def load_seen(url: str) -> dict[ModelKey, ModelFacts]:
    """The facts with which each file was used last on the server at a URL, over all results folders of this user.

    A hint: a server may have read a file before it was replaced, in a run of another folder.
    """
    with suppress(OSError, ValueError):
        value = parse_json(_get_path(url).read_text("utf-8"))
        if fits_shape(value, MODELS_SHAPE):
            return decode_models(value)
    return {}


def save_seen(url: str, models: Models) -> None:
    """Record that the server at a URL uses these files, or was asked to read them again."""
    known = load_seen(url)
    kept = {key: facts for key, facts in known.items() if key not in models}
    found = dict([*kept.items(), *models.items()][-_MAX_FILES:])
    if found != known or any(known[key].placed != facts.placed for key, facts in found.items()):
        with suppress(OSError), atomic_write(_get_path(url)) as file:
            file.write(json.dumps(encode_models(found)).encode())


def _get_path(url: str) -> Path:
    digest = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:24]
    return user_cache_path("sweeper", appauthor=False) / "models" / f"{digest}.json"
