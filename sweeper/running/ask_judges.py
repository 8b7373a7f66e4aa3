"""Asks the judges of an experiment about the pictures of a run, and keeps every answer, because answers are paid for.

The store caches the answers by picture, question and model, and the share of yes as the metric. No failure of a judge
fails the run: the cells stay empty, and a message says why.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sweeper.errors import ExperimentError, ImageError, Problem, SweeperError, UnreachableError, UsageError
from sweeper.images.file_types import PICTURE_SUFFIXES
from sweeper.images.metrics.registry import Metric, MetricInput
from sweeper.model.charges import PRICED, Charge
from sweeper.model.experiment import Judge
from sweeper.model.expressions import ExpressionError
from sweeper.model.money import CURRENCY, Amount, format_usd
from sweeper.running.measure_run import fetch_remote_files, find_unmeasured
from sweeper.running.run_events import Event, JudgeAsked, Notice
from sweeper.running.stop_control import INTERRUPT, StopControl
from sweeper.store import Store

_AT_ONCE: Final = 4  # pictures that a judge is asked about


def check_judges(judges: Mapping[str, Judge], budget: int | None) -> None:
    """Raise ExperimentError for each judge whose key is missing, or its price although there is a budget."""
    if not judges:
        return
    from sweeper.running.judge_client import read_judge_key

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
    judges: Mapping[str, Judge],
    *,
    budget: int | None,
    control: StopControl,
    report: Callable[[Event], None],
) -> None:
    """Ask every judge about the pictures of a run and of the table that have no value yet.

    `budget`: the micro-dollars that the results folder may cost, the questions included. After an interrupt, nothing
    more is asked; the next run asks the rest.
    """
    for judge in judges.values():
        if control.reason == INTERRUPT:
            return
        metric = Metric(judge.render_question, judge.version, judge.reads_params)
        unmeasured, _ = find_unmeasured(store, run_id, out, {judge.name: metric})
        files = {file.cache_key(metric): (file, url) for file, url in unmeasured}
        if files:
            await _JudgeRun(store, judge, metric, control, report, budget=budget).ask_about(list(files.values()))


class _JudgeRun:
    """The questions to one judge after one run."""

    def __init__(
        self,
        store: Store,
        judge: Judge,
        metric: Metric,
        control: StopControl,
        report: Callable[[Event], None],
        *,
        budget: int | None,
    ) -> None:
        from sweeper.running.judge_client import JudgeClient

        self.store, self.judge, self.metric, self.control, self.report = store, judge, metric, control, report
        self.client = JudgeClient(judge)
        self._left = math.inf if budget is None else budget - store.charges.load_spent().at_most
        self._problems: dict[str, list[Path]] = {}
        self._is_over = False  # because asking about other pictures would be in vain too
        self._is_announced = False
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}  # so that two trials with one picture ask once

    async def ask_about(self, files: list[tuple[MetricInput, str]]) -> None:
        waiting = iter(files)
        async with self.client:
            await asyncio.gather(*(self._work(waiting, len(files)) for _ in range(_AT_ONCE)))
        for problem, paths in self._problems.items():
            more = f" (and {len(paths) - 1} more pictures)" if len(paths) > 1 else ""
            self.report(Notice(f"{paths[0]}{more}: metric '{self.judge.name}': {problem}"))

    async def _work(self, waiting: Iterator[tuple[MetricInput, str]], count: int) -> None:
        for file, url in waiting:
            if self._is_over or self.control.reason == INTERRUPT:
                return
            try:
                await self._measure(file, url, count)
            except UnreachableError as error:
                advice = "no more questions are asked now; run the experiment again to ask the rest"
                self._problems.setdefault(f"{error}; {advice}", []).append(file.path)
                self._is_over = True
            except (SweeperError, ExpressionError) as error:
                self._problems.setdefault(str(error), []).append(file.path)

    async def _measure(self, file: MetricInput, url: str, count: int) -> None:
        """Store the value of one picture, with as many questions as answers are missing."""
        question = self.judge.render_question(file.params)
        name, repeats = self.judge.name_answers(question), self.judge.repeats
        async with self._locks.setdefault((file.sha256, name), asyncio.Lock()):
            answers = list(self.store.load_cached_metrics(name, file.sha256).get(file.sha256, ()))
            if len(answers) < repeats:
                picture = await asyncio.to_thread(_read_picture, file, url)
                if picture is None:
                    if file.path.suffix.lower() not in PICTURE_SUFFIXES:
                        self._store_value(file, None)
                    return
                self._announce(count)
                while len(answers) < repeats and self.control.reason != INTERRUPT:
                    self._pay(file)
                    answers.append(await self.client.ask(question, picture))
                    self.store.cache_metrics([(file.sha256, name, answers)])
        clear = [answer for answer in answers[:repeats] if answer]
        if len(answers) < repeats:
            return
        if unclear := repeats - len(clear):
            problem = f"{unclear} of {repeats} answers are neither yes nor no and do not count; word the question so"
            self._problems.setdefault(f"{problem} that one word answers it", []).append(file.path)
        if clear:
            self._store_value(file, clear.count("yes") / len(clear))

    def _pay(self, file: MetricInput) -> None:
        """Record what a question costs, before it is asked. Raises UnreachableError if the budget is too small."""
        price = self.judge.price
        if not price:
            return
        if price > self._left:
            left = format_usd(int(max(self._left, 0)))
            raise UnreachableError(
                f"the budget is spent: a question costs {format_usd(price)} {CURRENCY}, and {left} is left"
            )
        charge = Charge(f"judge {self.judge.name}", self.judge.model, Amount(price, price), PRICED)
        self.store.charges.add(file.sha256, charge)
        self._left -= price

    def _store_value(self, file: MetricInput, value: float | None) -> None:
        self.store.cache_metrics([(file.cache_key(self.metric), self.judge.name, value)])

    def _announce(self, count: int) -> None:
        if not self._is_announced:
            self._is_announced = True
            host = urlsplit(self.judge.url).netloc
            self.report(JudgeAsked(self.judge.name, self.judge.model, host, count, self.judge.repeats))


def _read_picture(file: MetricInput, url: str) -> str | None:
    """The picture as a data URL; None if the file is not there or not a picture. Runs in a thread.

    Raises ImageError for a broken picture.
    """
    from sweeper.images.metrics.judge_messages import make_data_url

    with tempfile.TemporaryDirectory(prefix="sweeper-judge-") as folder:
        for here in fetch_remote_files([(file, url)], Path(folder)):
            if not here.path.is_file():
                return None
            try:
                return make_data_url(here.path)
            except ImageError:
                if here.path.suffix.lower() in PICTURE_SUFFIXES:
                    raise
    return None
