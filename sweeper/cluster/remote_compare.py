"""A check's pictures compared on workers, where they lie at a URL: the accepted ones go there, verdicts come back.

First only the hash of the accepted picture's pixels goes, and most pictures are the same; the accepted file itself
follows where that does not settle it. What counts as the same is `sweeper.regression`'s affair, on either side.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.cluster.address import connected, resolve_address
from sweeper.errors import ImageError, ResultsError
from sweeper.regression.match_files import PICTURES, Answer, Match, Question, best_match, equal_metrics
from sweeper.regression.thresholds import Bound
from sweeper.running.async_tools import finished
from sweeper.store.remote_artifacts import bring

if TYPE_CHECKING:
    from distributed import Client

_BATCH: Final = 8  # pictures of one task that looks at pixels
_WINDOW: Final = 64  # tasks that stand in the scheduler at a time


@dataclass(frozen=True, slots=True)
class Look:
    """Whether the pixels of the picture at a URL are those of an accepted one, by their hashes."""

    url: str
    sha256: str
    pixels: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """The picture at a URL, to be held against accepted files: (suffix, content) of each."""

    url: str
    sha256: str
    accepted: tuple[tuple[str, bytes], ...] = field(repr=False)
    bounds: Mapping[str, Bound]


def answers_of(cluster: str, questions: Sequence[Question]) -> list[Answer]:
    """The answers to questions about pictures at URLs, by the workers of a cluster (as `--dask` names it).

    Raises UsageError and UnreachableError as `sweeper.cluster.run`, ResultsError where a worker cannot get a picture.
    """
    address = resolve_address(cluster, os.environ)
    return finished(lambda: _answers(address, questions))


async def _answers(address: str, questions: Sequence[Question]) -> list[Answer]:
    async with connected(address) as client:
        looks = [Look(one.url or "", one.sha256, one.pixels) for one in questions]
        batches = [tuple(looks[start : start + _BATCH]) for start in range(0, len(looks), _BATCH)]
        met = [place for found in await _asked(client, look, batches) for place in found]
        differ = [number for number, place in enumerate(met) if place is None]
        cases = ((_case, questions[number]) for number in differ)
        judged = dict(zip(differ, await _asked(client, judge, list(cases)), strict=True))
    found: list[Answer] = []
    for number, (question, place) in enumerate(zip(questions, met, strict=True)):
        if place is not None:
            found.append((place, Match("pixels", equal_metrics(question.bounds))))
        else:
            answer = judged[number]
            found.append(ImageError(answer) if isinstance(answer, str) else answer)
    return found


async def _asked(client: Client, function: Callable[..., Any], items: Sequence[Any]) -> list[Any]:
    """What workers make of each item, in order. An item may be (how to make it, of what), made when it leaves."""
    room = asyncio.Semaphore(_WINDOW)

    async def ask(item: Any) -> Any:
        async with room:
            made = item[0](item[1]) if callable(item[0]) else item
            future = client.submit(function, made, pure=False)
            try:
                return await future
            finally:
                await future.cancel()

    return list(await asyncio.gather(*map(ask, items)))


def _case(question: Question) -> Case:
    accepted = tuple((path.suffix, path.read_bytes()) for path in question.accepted)
    return Case(question.url or "", question.sha256, accepted, question.bounds)


# --- on a worker


def look(looks: Sequence[Look]) -> list[int | None]:
    """For each, the place of the accepted picture whose pixels it has; None where that is not so, or not known."""
    return [_looked(one) for one in looks]


def _looked(one: Look) -> int | None:
    from sweeper.images.compare import pixel_hash  # noqa: PLC0415 (NumPy and Pillow, which a driver need not have loaded)

    if Path(one.url).suffix[1:].lower() not in PICTURES:  # a film's sound is heard too
        return None
    with tempfile.TemporaryDirectory(prefix="sweeper-check-") as folder:
        path = bring(Path(folder), one.url, one.sha256)
        if path is None:
            return None
        try:
            pixels = pixel_hash(path)
        except ImageError:
            return None
    return one.pixels.index(pixels) if pixels in one.pixels else None


def judge(case: Case) -> tuple[int, Match] | str:
    """Which accepted file is met or nearest, and how; or why that cannot be said."""
    with tempfile.TemporaryDirectory(prefix="sweeper-check-") as folder:
        try:
            path = bring(Path(folder), case.url, case.sha256)
        except ResultsError as error:
            return str(error)
        if path is None:
            return f"{case.url} is gone"
        accepted: list[Path] = []
        for number, (suffix, content) in enumerate(case.accepted):
            accepted.append(Path(folder) / f"accepted-{number}{suffix}")
            accepted[-1].write_bytes(content)
        try:
            return best_match(accepted, path, case.bounds)
        except ImageError as error:
            return str(error).replace(str(path), case.url)
