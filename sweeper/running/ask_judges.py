"""Asks the judges of an experiment about the pictures of a run, and keeps every answer, because answers are paid for.

The store caches the answers by picture (and source pictures), question and model, a refusal too, and the number that
they give as the metric. No failure of a judge fails the run: the cells stay empty, and a message says why.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from sweeper.comfy.client import ComfyClient  # noqa: TID253 - a run has it anyway
from sweeper.comfy.protocol import Flow, ServerRequest, ServerResponse, is_redirect, read_error_message
from sweeper.comfy.retry import JUDGE_POLICY
from sweeper.comfy.target import Target, read_key_from_variable, validate_key
from sweeper.errors import (
    ExperimentError,
    ImageError,
    Problem,
    SweeperError,
    TransientError,
    UnreachableError,
    UsageError,
)
from sweeper.images.metrics.registry import Metric, MetricInput
from sweeper.model.experiment import CHAT_PATH, JUDGE_FACTS, PROBABILITY, SCALE, Experiment, HashedFile, Judge
from sweeper.model.expressions import ExpressionError
from sweeper.model.money import CURRENCY, PRICED, Amount, Charge, format_usd
from sweeper.model.picture_size import FILM_TYPES, PICTURE_SUFFIXES
from sweeper.model.workflow import encode_canonical
from sweeper.running.measure_run import fetch_remote_files, find_unmeasured
from sweeper.running.run_events import Event, JudgeAsked, Notice
from sweeper.running.spending import OverBudgetError
from sweeper.running.stop_control import BUDGET, INTERRUPT, StopControl, cancel_when
from sweeper.store import Store
from sweeper.wording import count_things, join_names, shorten

if TYPE_CHECKING:
    from sweeper.images.metrics.judge_messages import Inquiry

_AT_ONCE: Final = 4  # pictures that a judge is asked about
_REFUSED_PICTURE: Final = (400, 413, 422)  # too large, or against the rules of the server
_MAX_REFUSED: Final = 3  # pictures without any answer; then the judge refuses the model or the question
_MAX_REASON: Final = 300  # characters of what the server says
# Tokens whose log-probabilities are asked for: the most that OpenAI and vLLM give by default, then what others give.
_TOPS: Final = (20, 5, 0)
_REFUSED_OPTION: Final = (400, 403, 422, 501)  # OpenAI's reasoning models and some servers refuse log-probabilities


def check_judges(judges: Mapping[str, Judge], budget: int | None) -> None:
    """Raise ExperimentError for each judge whose key is missing, or its price although there is a budget."""
    problems = []
    for judge in judges.values():
        try:
            read_judge_key(judge)
        except UsageError as error:
            problems.append(Problem("", 0, "", f"metric '{judge.name}' {error}"))
        if budget is not None and judge.key_env is not None and judge.price is None:
            message = f"metric '{judge.name}' asks a judge that takes a key, so a budget needs the price of a question"
            problems.append(Problem("", 0, "", f"{message}; add to the judge, such as `price: 0.002 USD`"))
    if problems:
        raise ExperimentError(problems)


async def ask_judges(
    store: Store,
    run_id: int,
    out: Path,
    experiment: Experiment,
    *,
    budget: int | None,
    asks_refused: bool,
    control: StopControl,
    report: Callable[[Event], None],
) -> None:
    """Ask every judge about the pictures of a run and of the table that have no value yet.

    `budget`: the micro-dollars that the results folder may cost, the questions included. `asks_refused`: also about
    pictures that it refused in an earlier run. After an interrupt, nothing more is asked, and after a second one,
    nobody waits for answers; the next run asks the rest.
    """
    for judge in experiment.judges.values():
        if control.reason == INTERRUPT:
            return
        store.cache_metrics([("", f"{JUDGE_FACTS}{judge.name}", judge.facts)])
        names = sorted(judge.names - experiment.template.slots.keys())
        read = _read_cells(store, experiment, names)
        # The values of these names may change although the workflow does not, by which a metric's value is known.
        texts = sorted({text for found in read.values() for text in found})
        version = hashlib.sha256(b"\n".join([judge.version.encode(), *texts])).hexdigest()
        mixed = {digest for digest, found in read.items() if len(found) > 1}
        if mixed:
            what = f"trials that differ only in {join_names(names)} share their pictures, and so their numbers"
            report(Notice(f"metric '{judge.name}': {what}; they are not judged; give each value a judge of its own"))
        metric = Metric(judge.render_questions, version, judge.reads_params)
        unmeasured, known = find_unmeasured(store, run_id, out, {judge.name: metric})
        files = {file.cache_key(metric): (file, url) for file, url in unmeasured if file.digest not in mixed}
        if files:
            left = math.inf if budget is None else budget - store.charges.load_spent().at_most
            has_answered = any(value is not None for value in known[judge.name].values())
            run = _JudgeRun(store, judge, metric, experiment, control, report, left, has_answered, asks_refused)
            await run.ask_about(list(files.values()))


def _read_cells(store: Store, experiment: Experiment, names: Sequence[str]) -> dict[str, set[bytes]]:
    """The values of some params and axes in the table, by the digest of the trials' workflow."""
    found: dict[str, set[bytes]] = {}
    for row in store.results() if names else ():
        cells = {**experiment.params, **row.columns}
        found.setdefault(row.digest, set()).add(encode_canonical([cells.get(name) for name in names]))
    return found


@dataclass
class _JudgeRun:
    """The questions to one judge after one run.

    `left`: the micro-dollars that they may cost. `has_answered`: whether an earlier run has numbers of this judge.
    `asks_refused`: see `ask_judges`.
    """

    store: Store
    judge: Judge
    metric: Metric
    experiment: Experiment
    control: StopControl
    report: Callable[[Event], None]
    left: float
    has_answered: bool
    asks_refused: bool
    _problems: dict[str, list[Path]] = field(default_factory=dict)
    _refusals: list[tuple[str, str, list[str | float]]] = field(default_factory=list)  # rows of the store
    _is_over: bool = False  # because asking about other pictures would be in vain too
    _is_announced: bool = False
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)  # so that two trials with one picture ask once

    async def ask_about(self, files: list[tuple[MetricInput, str]]) -> None:
        waiting, cancelled = iter(files), asyncio.Event()
        async with JudgeClient(self.judge, has_answered=self.has_answered) as self.client:
            with self.control.subscribe(lambda: cancelled.set() if self.control.cancelling else None):
                asking = asyncio.gather(*(self._work(waiting, len(files)) for _ in range(_AT_ONCE)))
                await cancel_when(cancelled.wait(), asking)
            if self.client.has_answered:  # else it may refuse all, because of its model or the question
                self.store.cache_metrics(self._refusals)
        for problem, paths in self._problems.items():
            more = f" (and {len(paths) - 1} more pictures)" if len(paths) > 1 else ""
            self.report(Notice(f"{paths[0]}{more}: metric '{self.judge.name}': {problem}"))
        if self.control.reason == INTERRUPT:
            self.report(Notice(f"metric '{self.judge.name}': interrupted; run the experiment again to ask the rest"))

    async def _work(self, waiting: Iterator[tuple[MetricInput, str]], count: int) -> None:
        for file, url in waiting:
            if self._is_over or self.control.reason == INTERRUPT:
                return
            try:
                async with self._locks.setdefault(file.sha256, asyncio.Lock()):
                    await self._measure(file, url, count)
            except (UnreachableError, OverBudgetError) as error:
                raising = "raise the budget, and " if isinstance(error, OverBudgetError) else ""
                advice = f"no more questions are asked now; {raising}run the experiment again to ask the rest"
                self._problems.setdefault(f"{error}; {advice}", []).append(file.path)
                self._is_over = True
            except (SweeperError, ExpressionError) as error:
                self._problems.setdefault(str(error), []).append(file.path)

    async def _measure(self, file: MetricInput, url: str, count: int) -> None:
        """Store the value of one picture, with as many questions as answers are missing."""
        from sweeper.images.metrics.judge_messages import REFUSED, Inquiry

        judge, pictures = self.judge, list[str]()
        questions = judge.render_questions({**self.experiment.params, **file.columns, **file.params})
        inquiries = [Inquiry(question.text, question.answer, judge.score) for question in questions]
        sources = self._find_sources(file)
        more = [*([judge.frames] if judge.frames else []), *(source.sha256 for source in sources)]
        answered: list[list[str | float]] = []
        for inquiry in inquiries:
            name = judge.name_answers(inquiry.question, *inquiry.marks, *more)
            answers = list(self.store.load_cached_metrics(name, file.sha256).get(file.sha256, ()))
            if REFUSED in answers:
                if not self.asks_refused:
                    raise ImageError("the judge has refused this picture before; --retry-failed asks again")
                answers.remove(REFUSED)
            while not inquiry.is_complete(answers, judge.repeats):
                if self._is_over or self.control.reason == INTERRUPT:
                    return
                pictures = pictures or await asyncio.to_thread(self._read_pictures, file, url, sources)
                if not pictures:
                    if not self._is_shown(file.path):
                        self._store_value(file, None)
                    return
                self._announce(count, len(inquiries))
                self._pay(file)
                try:
                    answers.append(await self.client.ask(inquiry, pictures, sources=len(sources)))
                except ImageError:
                    self._refusals.append((file.sha256, name, [*answers, REFUSED]))
                    raise
                self.store.cache_metrics([(file.sha256, name, answers)])
            answered.append(answers if judge.score == PROBABILITY else answers[: judge.repeats])
        self._store_numbers(file, inquiries, answered)

    def _store_numbers(
        self, file: MetricInput, inquiries: Sequence[Inquiry], answered: Sequence[Sequence[str | float]]
    ) -> None:
        """Store what the answers to all questions about a picture give, if each question has a clear one."""
        from sweeper.images.metrics.judge_messages import UNCLEAR

        pairs = list(zip(inquiries, answered, strict=True))
        if kinds := [inquiry.unclear for inquiry, answers in pairs if UNCLEAR in answers]:
            unclear, count = sum(answers.count(UNCLEAR) for answers in answered), sum(map(len, answered))
            advice = f"word the question so that one {'number' if self.judge.score == SCALE else 'word'} answers it"
            problem = f"{unclear} of {count_things(count, 'answer')} not counted: {kinds[0]}; {advice}"
            self._problems.setdefault(problem, []).append(file.path)
        numbers = [number for inquiry, answers in pairs if (number := inquiry.compute_number(answers)) is not None]
        if len(numbers) == len(inquiries):
            is_geometric = self.judge.mean == "geometric" and len(numbers) > 1
            average = fmean if not is_geometric else geometric_mean if all(numbers) else min
            by = all(inquiry.is_complete(answers, len(answers) + 1) for inquiry, answers in pairs)
            self._store_value(file, average(numbers), "log-probabilities" if by else f"samples of {self.judge.repeats}")

    def _find_sources(self, file: MetricInput) -> list[HashedFile]:
        """The files of the slots that go along. Raises ImageError if the experiment does not have one of them."""
        names = {slot: str(file.params.get(slot)) for slot in self.judge.pictures}
        for slot, name in names.items():
            if name not in self.experiment.files:
                raise ImageError(f"the file {name} of the slot '{slot}' is not in the experiment any more")
        return [self.experiment.files[name] for name in names.values()]

    def _is_shown(self, path: Path) -> bool:
        suffix = path.suffix.lower()
        return suffix in PICTURE_SUFFIXES or (self.judge.frames is not None and suffix[1:] in FILM_TYPES)

    def _read_pictures(self, file: MetricInput, url: str, sources: Sequence[HashedFile]) -> list[str]:
        """The source pictures and then the picture, or its frames, as data URLs. Runs in a thread.

        Empty if the file is not there, or neither a picture nor a film to show. Raises ImageError for a broken one.
        """
        from sweeper.images.metrics.judge_messages import make_data_url, make_frame_urls

        with tempfile.TemporaryDirectory(prefix="sweeper-judge-") as folder:
            here, frames = next(fetch_remote_files([(file, url)], Path(folder)), None), self.judge.frames
            if here is None or not here.path.is_file():
                return []
            try:
                own = [make_data_url(here.path)] if frames is None else make_frame_urls(here.path, frames)
            except ImageError:
                if self._is_shown(here.path):
                    raise
                return []
            return [*(make_data_url(source.path) for source in sources), *own]

    def _pay(self, file: MetricInput) -> None:
        """Record what a question costs, before it is asked. Raises OverBudgetError if no more fits into the budget."""
        price = self.judge.price
        if not price:
            return
        if price > self.left:
            left = format_usd(int(max(self.left, 0)))
            self.control.drain(BUDGET)
            raise OverBudgetError(
                f"the budget is spent: a question costs {format_usd(price)} {CURRENCY}, and {left} is left"
            )
        charge = Charge(f"judge {self.judge.name}", self.judge.model, Amount(price, price), PRICED)
        self.store.charges.add(file.sha256, charge)
        self.left -= price

    def _store_value(self, file: MetricInput, value: float | None, by: str | None = None) -> None:
        values = zip(self.judge.columns, (value, by), strict=False)
        self.store.cache_metrics([(file.cache_key(self.metric), name, value) for name, value in values])

    def _announce(self, count: int, questions: int) -> None:
        if not self._is_announced:
            self._is_announced = True
            times = questions * (1 if self.judge.score == PROBABILITY else self.judge.repeats)
            self.report(JudgeAsked(self.judge.name, self.judge.model, urlsplit(self.judge.url).netloc, count, times))


# --- one judge: an OpenAI-compatible API (https://platform.openai.com/docs/api-reference/chat)


class JudgeClient(ComfyClient):
    """The client of one judge; use it as a context manager within one event loop.

    The requests go through the client of targets, so the same rules hold: bounded answers, retries after 429 and 5xx,
    no redirect, and no key in a message or log.
    """

    def __init__(self, judge: Judge, *, has_answered: bool = False) -> None:
        """`has_answered`: whether the judge is known to answer, so that what it refuses are single pictures.

        Raises UsageError if the key is missing. The message continues after the metric's name.
        """
        super().__init__(Target(judge.name, judge.url, key=read_judge_key(judge)), retry_policy=JUDGE_POLICY)
        self.judge = judge
        self._tops: tuple[int, ...] = _TOPS  # the first is what the server is known to give, or is asked for first
        self.has_answered = has_answered
        self._refused_pictures = 0

    def _build_headers(self) -> dict[str, str]:
        return {} if self.target.key is None else {"Authorization": f"Bearer {self.target.key}"}

    async def ask(self, inquiry: Inquiry, pictures: Sequence[str], *, sources: int = 0) -> str | float:
        """What `Inquiry.read` makes of the answer about pictures, which are data URLs.

        Raises ImageError if the judge refuses these, and UnreachableError if asking about others is in vain too.
        """
        tops = self._tops if inquiry.score == PROBABILITY else (0,)
        for position, top in enumerate(tops):
            body = inquiry.build(self.judge.model, pictures, sources=sources, top=top)
            choice = await self._complete(body, _REFUSED_OPTION if top else ())
            if choice:
                self._tops = tops[position:] if inquiry.score == PROBABILITY else self._tops
                return inquiry.read(choice)
        raise AssertionError  # the last request has no option to refuse

    async def judge_pair(self, question: str, left: str, right: str) -> str:
        """`LEFT`, `RIGHT` or `TIE` for two data URLs; `UNCLEAR` without an answer. Raises the errors of `ask`.

        A model may prefer a side. So it sees the pair in both orders, and if the answers differ, it is a tie.
        """
        from sweeper.images.metrics.judge_messages import LEFT, RIGHT, TIE, UNCLEAR, build_comparison, read_answer

        words = (LEFT, RIGHT, TIE)
        bodies = (build_comparison(self.judge.model, question, *pair) for pair in ((left, right), (right, left)))
        choices = [await self._complete(body) for body in bodies]
        answer, other = (read_answer(choice["message"].get("content"), words) for choice in choices)
        if UNCLEAR in (answer, other):
            return UNCLEAR
        return answer if {answer, other} == {LEFT, RIGHT} else TIE

    async def _complete(self, body: dict[str, Any], allowed: Collection[int] = ()) -> dict[str, Any]:
        """The first choice of the answer; empty if the server refuses the request with one of the `allowed` states."""
        try:
            response = await self.run_flow(_request_completion(body))
            if response.status in allowed:
                return {}
            choice = _read_choice(response)
        except TransientError as error:
            raise UnreachableError(str(error)) from None
        except ImageError as error:
            self._refused_pictures += 1
            if self.has_answered or self._refused_pictures < _MAX_REFUSED:
                raise
            raise UnreachableError(str(error)) from None
        self.has_answered = True
        return choice


def read_judge_key(judge: Judge) -> str | None:
    """The key of a judge; None if it needs none. Raises UsageError as the client does."""
    if judge.key_env is None:
        return None
    key = read_key_from_variable(judge.key_env, os.environ)
    if key is None:
        raise UsageError(
            f"needs its key in the environment variable {judge.key_env}, which is not set; set it, or remove the judge"
        )
    return validate_key(key, f"the environment variable {judge.key_env}")


def _request_completion(body: dict[str, Any]) -> Flow[ServerResponse]:
    # Idempotent, because a repeated question costs at most one more answer.
    return (yield ServerRequest("POST", CHAT_PATH, body=body))


def _read_choice(response: ServerResponse) -> dict[str, Any]:
    """The first choice, with a message. Raises ImageError for a refused picture, and UnreachableError otherwise."""
    if is_redirect(response):
        raise UnreachableError(
            f"answers with a redirect (HTTP {response.status}) to {response.headers['location']}, which sweeper does "
            "not follow; write that address as `url` if you trust it"
        )
    if response.status != 200:
        reason = shorten(read_error_message(response), _MAX_REASON)
        kind = ImageError if response.status in _REFUSED_PICTURE else UnreachableError
        raise kind(f"the judge refuses the question (HTTP {response.status}): {reason}")
    try:
        choice = response.json_object()["choices"][0]
        if isinstance(choice, dict) and isinstance(choice["message"], dict):
            return choice
    except (KeyError, IndexError, TypeError):
        pass
    raise UnreachableError(f"this is no chat completion: {response.excerpt()!r}; check `url`")
