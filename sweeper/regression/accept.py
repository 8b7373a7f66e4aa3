"""Accepting: a run's pictures become the baseline. First what it would change, as a value; then the change itself.

Nothing is overwritten or removed unless the caller says so (`yes`), and the manifest is written last, in one piece.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from sweeper.did_you_mean import hint
from sweeper.errors import ImageError, InputError, ResultsError, UsageError
from sweeper.images.byte_equality import ending, sameness
from sweeper.images.compare import pixel_hash
from sweeper.model.trial import InputFile
from sweeper.regression.baseline import Accepted, Baseline, Entry, default_folder, read_baseline
from sweeper.regression.cases import Case, Observed, Row, Shown, observe
from sweeper.regression.match_files import best_match, side_by_side
from sweeper.regression.server_changes import models_of
from sweeper.tables.dataframe import results_folder

Kind = Literal["new", "changed", "added", "same", "removed", "kept"]
WRITES: Final = ("new", "changed", "added", "removed")
OVERWRITES: Final = ("changed", "removed")
_LFS: Final = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class Change:
    """What accepting does to a case: `new` (it had no picture), `changed` (its pictures give way), `added` (one more
    beside them), `same`, `removed` (the experiment has no such trial any more), `kept` (its trial gave nothing).
    """

    case: Case
    kind: Kind
    shown: Shown | None = None
    row: Row | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What accepting a run would change in a baseline, or has changed."""

    baseline: Baseline
    observed: Observed
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many cases of each kind; kinds without any are left out."""
        return dict(Counter(change.kind for change in self.changes))

    @property
    def overwrites(self) -> bool:
        """Whether an accepted picture would give way."""
        return any(change.kind in OVERWRITES for change in self.changes)

    @property
    def writes(self) -> bool:
        return any(change.kind in WRITES for change in self.changes)

    def apply(self) -> None:
        """Write files and manifest. Raises ResultsError when the folder or a picture cannot be used."""
        try:
            _apply(self)
        except OSError as error:
            raise ResultsError(f"{self.baseline.folder}: cannot be written: {error.strerror or error}") from error


def accept(
    results: str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
    *,
    where: str | None = None,
    new_only: bool = False,
    add: bool = False,
    cases: Iterable[str] | None = None,
    run: str | int | None = None,
    yes: bool = False,
) -> Acceptance:
    """Accept the pictures of a results folder (or of an experiment file's default folder) as its baseline.

    The arguments are those of `acceptance`. Raises UsageError, and writes nothing, when accepted pictures would give
    way and `yes` is not given.
    """
    found = acceptance(results, baseline, where=where, new_only=new_only, add=add, cases=cases, run=run)
    if found.overwrites and not yes:
        told = ", ".join(f"{count} {kind}" for kind, count in found.counts.items())
        raise UsageError(f"{found.baseline.folder}: accepted pictures would be overwritten ({told}); say yes to that")
    if found.writes:
        found.apply()
    return found


def acceptance(
    results: str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
    *,
    where: str | None = None,
    new_only: bool = False,
    add: bool = False,
    cases: Iterable[str] | None = None,
    run: str | int | None = None,
) -> Acceptance:
    """What accepting would change; nothing is written.

    `baseline`: its folder, by default `baselines/<name>/` beside the experiment file. `where`: an expression over
    slots and axes, `cases`: names of cases; both choose. `new_only`: only cases that have no picture yet. `add`: one
    more picture for a case that changed, instead of another. `run`: an earlier run than the latest. Cases that the
    experiment does not have any more are removed only when nothing is chosen.

    Raises ResultsError for results or a baseline that cannot be read, UsageError for a `where` or a case that is
    wrong, ImageError for a picture that cannot be read.
    """
    observed = observe(results_folder(results), run)
    folder = Path(baseline) if baseline is not None else default_folder(observed.file, observed.experiment)
    known = read_baseline(folder, observed.experiment)
    rows = observed.chosen(where)
    wanted = set(cases) if cases is not None else None
    if wanted is not None:
        _check_cases(wanted, rows)
    shown = [(one, row) for row in rows for one in row.shown if wanted is None or one.case.name in wanted]
    observed.bring(one for one, _ in shown)
    absent = [told for one, _ in shown if (told := observed.absent(one))]
    if absent:
        raise ResultsError("\n".join(absent))
    changes = side_by_side(lambda pair: _change(known, *pair, new_only=new_only, add=add), shown)
    if wanted is None and not new_only and not add:
        changes += _left(known, observed, rows, whole=where is None)
    notes = [f"{one.case.name}: {one.reason}" for one in changes if one.kind == "kept"]
    return Acceptance(known, observed, tuple(changes), tuple(notes))


def _check_cases(wanted: set[str], rows: Iterable[Row]) -> None:
    names = [one.case.name for row in rows for one in row.shown]
    unknown = sorted(wanted - set(names))
    if unknown:
        raise UsageError("; ".join(f"the run has no picture of a case '{name}'{hint(name, names)}" for name in unknown))


def _change(known: Baseline, one: Shown, row: Row, *, new_only: bool, add: bool) -> Change:
    entry = known.entries.get(one.case.key)
    if entry is None:
        return Change(one.case, "new", one, row)
    if new_only:
        return Change(one.case, "same", one, row)
    usable = [path for accepted in entry.accepted if (path := accepted_file(known, accepted)) is not None]
    if not usable:
        return Change(one.case, "changed", one, row, "its accepted files are gone or altered")
    _, found = best_match(usable, one.path, {})
    if found.passes:
        return Change(one.case, "same", one, row)
    return Change(one.case, "added" if add else "changed", one, row, found.reason)


def accepted_file(known: Baseline, accepted: Accepted) -> Path | None:
    """The accepted file, if it is there and is the one that was accepted."""
    path = known.folder / accepted.file
    return None if why_unusable(path, accepted) else path


def plainly_same(path: str, accepted: Accepted, now: Shown) -> bool:
    """Whether an accepted file is certainly met: today's has its bytes (a PNG's text aside), and it is the one that the
    manifest tells of. False is no answer: look closer.

    That takes no hash, which would take longer than the reading. Equal in every byte, the two have one hash, and
    today's is known from its arrival; equal but for their text, the file has the size and the checksums of the pixels
    that it was accepted with.
    """
    try:
        found = sameness(path, now.path_text)
    except ImageError:
        return False
    if found.wholly:
        return now.sha256 == accepted.sha256
    return found.equal and found.size == accepted.size and bool(found.ending) and found.ending.hex() == accepted.ending


def why_unusable(path: Path, accepted: Accepted) -> str:
    """Why an accepted file cannot be compared with; empty when it can."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"the accepted file {path} cannot be read: {error.strerror or error}"
    if data.startswith(_LFS):
        return f"the accepted file {path} is only a Git LFS pointer; fetch it with `git lfs pull`"
    if hashlib.sha256(data).hexdigest() != accepted.sha256:
        return f"the accepted file {path} is not the one that the manifest tells of"
    return ""


def _left(known: Baseline, observed: Observed, rows: Iterable[Row], *, whole: bool) -> list[Change]:
    """What becomes of cases for which the run shows nothing."""
    shown = {one.case.key for row in observed.rows for one in row.shown}
    broken = {row.point: row for row in rows if not row.succeeded}
    planned = {row.point for row in observed.rows}
    found = []
    for key, entry in known.entries.items():
        trial = entry.case.point
        if trial in broken:
            found.append(Change(entry.case, "kept", reason=f"its trial is {broken[trial].result.status}"))
        elif whole and (trial not in planned or key not in shown):
            reason = "no such trial any more" if trial not in planned else "its trial gives no such output any more"
            found.append(Change(entry.case, "removed", reason=reason))
    return found


def _apply(acceptance: Acceptance) -> None:
    known = acceptance.baseline
    known.folder.mkdir(parents=True, exist_ok=True)
    works = _works(acceptance.observed, {one.row.result.digest for one in acceptance.changes if one.row is not None})
    leaving: list[str] = []
    for change in acceptance.changes:
        key = change.case.key
        before = known.entries.get(key)
        if change.kind == "removed" and before is not None:
            leaving += [accepted.file for accepted in before.accepted]
            del known.entries[key]
        elif change.kind in ("new", "changed", "added") and change.shown is not None and change.row is not None:
            kept = before.accepted if before is not None and change.kind == "added" else ()
            leaving += [accepted.file for accepted in before.accepted] if before is not None and not kept else []
            accepted = _placed(known, change.shown, kept, change.row, works.get(change.row.result.digest))
            known.entries[key] = Entry(change.case, (*kept, accepted))
    known.save()
    staying = {accepted.file for entry in known.entries.values() for accepted in entry.accepted}
    for name in set(leaving) - staying:
        (known.folder / name).unlink(missing_ok=True)


def _placed(
    known: Baseline,
    shown: Shown,
    kept: tuple[Accepted, ...],
    row: Row,
    work: tuple[dict[str, Any], dict[str, dict[str, str]]] | None,
) -> Accepted:
    """Copy a picture into the baseline, and say all that is known of it."""
    taken = {accepted.file for accepted in kept}
    extension = shown.path.suffix[1:] or "bin"
    number = next(n for n in range(1, len(taken) + 2) if shown.case.file_name(extension, n) not in taken)
    name = shown.case.file_name(extension, number)
    part = known.folder / f".{name}.part"
    shutil.copyfile(shown.path, part)
    part.replace(known.folder / name)
    try:
        pixels = pixel_hash(known.folder / name)
    except ImageError:  # a text, a sound, a video: its bytes are all that is known
        pixels = None
    data = (known.folder / name).read_bytes()
    accepted = Accepted(
        file=name, sha256=shown.sha256, pixels=pixels, size=len(data), ending=ending(data).hex(),
        params=row.result.params, digest=row.result.digest, target=row.result.target or "",
        server=known.keep_server(row.server), sweeper=version("sweeper"),
    )  # fmt: skip
    if work is None:
        return accepted
    graph, inputs = work
    base, changes = known.keep_graph(graph)
    return replace(accepted, workflow=base, changes=changes, inputs=inputs, models=models_of(graph))


def _works(observed: Observed, digests: set[str]) -> Mapping[str, tuple[dict[str, Any], dict[str, dict[str, str]]]]:
    """The workflow and the input files behind digests, where the experiment still makes them: digest -> both."""
    from sweeper.loading.load import load  # noqa: PLC0415 - Jinja2 and jsonschema, only for this
    from sweeper.planning.plan import plan as planned  # noqa: PLC0415

    try:
        plan = planned(load(observed.file))
    except InputError:  # it has changed or gone since: the pictures can be accepted all the same
        return {}
    return {
        trial.digest: (
            plan.workflow(trial),
            {f"{one.node}.{one.input}": _about(one) for one in plan.files(trial)},
        )
        for trial in plan.written()
        if trial.digest in digests
    }


def _about(file: InputFile) -> dict[str, str]:
    """An input file as the manifest keeps it, with its mask."""
    mask = {"mask": file.mask.value, "mask_sha256": file.mask.sha256} if file.mask is not None else {}
    return {"file": file.value, "sha256": file.sha256, **mask}
