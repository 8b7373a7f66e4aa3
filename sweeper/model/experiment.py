"""An experiment as a checked, frozen value: everything in it fits its template.

`sweeper.loading.experiment_builder` checks it. `sweeper.planning` expands it into trials.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from sweeper.errors import ExperimentError
from sweeper.model.axis_values import Option
from sweeper.model.bounded_json import parse_json
from sweeper.model.expressions import Expression, ExpressionError, compile_text, has_jinja
from sweeper.model.search_columns import VOTES_METRIC, Objective
from sweeper.model.source import Source
from sweeper.model.target_spec import TargetGroup, TargetSpec
from sweeper.model.template import Template
from sweeper.schemas.values import KeyPath, format_value

_DIGITS: Final = 4  # significant digits of the width of a range, so that values stay readable
DEFAULT_REPEATS: Final = 3
_MAX_QUESTIONS: Final = 100  # about one picture; each may cost money
JUDGE_FACTS: Final = "judge "  # before its name: under which the store has them; a metric's name has no space
YES_NO, SCALE, PROBABILITY = "yes-no", "scale", "probability"  # the values of a judge's `score`
CHAT_PATH: Final = "/chat/completions"


@dataclass(frozen=True, slots=True)
class Axis:
    """A name (a slot, or a variable of an expression) with its options; `path` is its location in the file."""

    name: str
    options: tuple[Option, ...]
    path: KeyPath

    def locate_option(self, source: Source | None, index: int) -> KeyPath:
        """Return the path of an option: its item if the file lists the values, else the path of the axis."""
        item = (*self.path, index)
        return item if source is not None and item in source.lines else self.path


Dimension = tuple[Axis, ...]  # axes that vary together: one grid axis, or a zip group


@dataclass(frozen=True, slots=True)
class Sample:
    """A reproducible random subset of `n` trials."""

    n: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class IncludeRow:
    """An `include` row: one option for every axis of its block, and the values of other slots."""

    options: Mapping[str, Option]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the sweep: the product of its dimensions, filtered, and extra rows.

    An `exclude` row maps the index of a dimension to the indexes of its options that match. `path` is the location of
    the block in the file.
    """

    dimensions: tuple[Dimension, ...] = ()
    exclude: tuple[Mapping[int, frozenset[int]], ...] = ()
    include: tuple[IncludeRow, ...] = ()
    where: Expression | None = None
    sample: Sample | None = None
    path: KeyPath = ("sweep",)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(dimension[0].options) for dimension in self.dimensions)


@dataclass(frozen=True, slots=True)
class NumberRange:
    """A continuous range: all numbers, or all integers, from `low` to `high`.

    `is_log`: ratios count, and not differences. Both ends are above 0 then.
    """

    low: float
    high: float
    is_integer: bool = False
    is_log: bool = False

    @property
    def step(self) -> float:
        """The distance between two numbers that are worth telling apart: 1 for integers, 0.01 for 1 to 12."""
        if self.is_integer:
            return 1
        return float(Decimal(10) ** (math.floor(math.log10(self.high - self.low)) - _DIGITS + 1))

    def round(self, number: float) -> int | float:
        """Return the nearest number of the range that is written with few digits."""
        if self.is_integer:
            return int(min(max(round(number), self.low), self.high))
        if self.is_log:
            rounded = float(f"{number:.{_DIGITS - 1}g}")
        else:
            step = Decimal(repr(self.step))
            rounded = float(round(Decimal(number) / step) * step)
        return min(max(rounded, self.low), self.high)


@dataclass(frozen=True, slots=True)
class SpaceAxis:
    """An axis of the space: the options of `axis`, or if there is a range, all its numbers.

    With a range, the options of `axis` are its two ends.
    """

    axis: Axis
    numbers: NumberRange | None = None

    @property
    def name(self) -> str:
        return self.axis.name


@dataclass(frozen=True, slots=True)
class Search:
    """What `sweeper search` does.

    `trials`: how many rows it may ask for. `budget`: US dollars that the results folder may cost. `patience`: after how
    many trials without a better point it ends. At least one of the three is given. `batch`: points of a round; None: as
    many as the targets run jobs at once. `path` is the location in the file.
    """

    objectives: tuple[Objective, ...]
    space: tuple[SpaceAxis, ...]
    over: tuple[Axis, ...] = ()
    where: Expression | None = None
    trials: int | None = None
    budget: Decimal | None = None
    patience: int | None = None
    batch: int | None = None
    method: str = "auto"
    seed: int = 0
    stop_early: bool = False
    path: KeyPath = ("search",)

    @property
    def is_by_votes(self) -> bool:
        """Whether people's votes are an objective, so that each round waits for them."""
        return any(objective.metric == VOTES_METRIC for objective in self.objectives)

    @property
    def block(self) -> Block:
        """The product of all options; of a range, only its ends. It serves to check values, and is too large to run."""
        return Block(tuple([(item.axis,) for item in self.space] + [(axis,) for axis in self.over]), path=self.path)


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A local file that trials read: its absolute path and the SHA-256 of its bytes."""

    path: Path
    sha256: str


class JudgeQuestion(NamedTuple):
    """A question to a judge with its right answer, in lower case."""

    text: str
    answer: str = "yes"


def parse_questions(value: Any) -> tuple[JudgeQuestion, ...]:
    """Read questions: a text, or a list of texts, of pairs [question, answer], or of mappings with these keys.

    So GenEval 2, GenAI-Bench and DSG write them. A text that is such a list as JSON, as in a CSV file, is one too.
    Raises ValueError, whose message continues after the value's name.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse_json(value)
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not 0 < len(entries) <= _MAX_QUESTIONS:
        raise ValueError(f"holds no list of 1 to {_MAX_QUESTIONS} texts, or pairs of a question and its right answer")
    return tuple(map(_parse_question, entries))


def _parse_question(entry: Any) -> JudgeQuestion:
    parts = [entry] if isinstance(entry, str) else entry
    if isinstance(parts, Mapping):
        parts = [parts.get("question"), parts.get("answer", True)]
    match parts:
        case [str(text)] | [str(text), True] if text.strip():
            return JudgeQuestion(text)
        case [str(text), str() | int() | float() as answer] if text.strip() and str(answer).strip():
            return JudgeQuestion(text, "no" if answer is False else " ".join(str(answer).casefold().split()))
    raise ValueError(f"holds {format_value(entry)}, which is neither a question nor [question, right answer]")


@dataclass(frozen=True, slots=True)
class Judge:
    """One judge of an experiment, which is the metric `name`.

    `questions`: what it is asked about each picture, in Jinja2 over the cells of the trial, or the column that holds
    them. `score`: a question's number is the share, 0-1, of right answers among `repeats`; the mean of as many marks on
    a scale; or the probability of the right answer. `mean`: how the numbers of several questions are averaged.

    `url` is the address of the API, without `CHAT_PATH`. `key_env` is the environment variable with the key; None for a
    server without one. `price`: what one question costs, in micro-dollars; None if nobody said. `pictures` are the
    slots whose files go along. `frames`: how many are sent of a film; None: films are not asked about. `reference` is a
    text that goes into each question, in Jinja2 too.
    """

    name: str
    questions: tuple[JudgeQuestion, ...] | str
    url: str
    model: str
    key_env: str | None = None
    repeats: int = DEFAULT_REPEATS
    price: int | None = None
    score: str = YES_NO
    mean: str = "arithmetic"
    pictures: tuple[str, ...] = ()
    frames: int | None = None
    reference: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """What may be Jinja2. Questions of a column are data, and never rendered."""
        own = () if isinstance(self.questions, str) else (question.text for question in self.questions)
        return (*own, self.reference)

    @property
    def names(self) -> frozenset[str]:
        """The slots and axes that it reads. Raises ExpressionError."""
        column = [self.questions] if isinstance(self.questions, str) else []
        return frozenset((*column, *(name for text in self.texts for name in compile_text(text).names)))

    @property
    def reads_params(self) -> bool:
        """Whether what it is asked differs from trial to trial."""
        return isinstance(self.questions, str) or bool(self.pictures) or any(map(has_jinja, self.texts))

    @property
    def version(self) -> str:
        """What a value depends on besides the picture. Values of another version are measured again."""
        own = self.model, self.questions, self.repeats, self.score, self.mean, self.pictures, self.frames
        return _hash([*own, self.reference])

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table: its own, and if it is not clear from the experiment, how it got the numbers."""
        return (self.name, f"{self.name}.by") if self.score == PROBABILITY else (self.name,)

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader of its numbers needs to know, as JSON."""
        known = {name: value for name, value in asdict(self).items() if value and name not in _PRIVATE}
        if self.score == SCALE and not isinstance(self.questions, str):  # no answer is the right one
            texts = [question.text for question in self.questions]
            known["questions"] = texts[0] if len(texts) == 1 else texts
        return {"host": urlsplit(self.url).netloc, **json.loads(json.dumps(known))}

    def render_questions(self, cells: Mapping[str, Any]) -> list[JudgeQuestion]:
        """The questions about a picture of a trial. Raises ExpressionError, also if its column holds no questions."""
        if isinstance(self.questions, str):
            try:
                rendered = list(parse_questions(cells.get(self.questions)))
            except ValueError as error:
                raise ExpressionError(f"the column '{self.questions}' {error}") from error
        else:
            rendered = [JudgeQuestion(_render(question.text, cells), question.answer) for question in self.questions]
        end = f"\n\nReference: {_render(self.reference, cells)}" if self.reference else ""
        return [JudgeQuestion(question.text + end, question.answer) for question in rendered]

    def name_answers(self, question: str, *more: Any) -> str:
        """The name under which the store caches the model's answers to a question, which are paid for.

        `more`: what it was asked with besides, such as the source pictures.
        """
        return f"answers {_hash([self.model, question, *more])}"  # the space keeps it apart from the names of metrics


_PRIVATE: Final = ("name", "url", "key_env", "price")


def _render(text: str, cells: Mapping[str, Any]) -> str:
    return str(compile_text(text).evaluate(cells)) if has_jinja(text) else text


@dataclass(frozen=True, slots=True)
class Likeness:
    """The metric `name`: how like the `references` each picture is, by an ONNX image encoder.

    `references` maps the names of the files, as the experiment writes them.
    """

    name: str
    model: HashedFile
    references: Mapping[str, HashedFile]

    @property
    def columns(self) -> tuple[str, ...]:
        """The similarity to the nearest reference and to the mean of all, the nearest one, and how it compares."""
        return (self.name, f"{self.name}.mean", f"{self.name}.nearest", f"{self.name}.range")

    @property
    def version(self) -> str:
        """What a value depends on besides the picture."""
        files = [(name, file.sha256) for name, file in self.references.items()]
        return _hash([self.model.sha256, files])


def select_settings(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `--set`, without the model files that a server listed."""
    return {name: value for name, value in overrides.items() if "/" not in name}


def select_listed_models(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model files that servers listed, by their patterns, which have a `/`."""
    return {name: value for name, value in overrides.items() if "/" in name}


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The `run` settings of an experiment.

    `timeout` and `patience` are in seconds. `max_failures` is a count (int) or a share from 0 to 1 (float).
    `per_target`: only results of the run's own targets count as done. `out` is the URL of the storage for the
    pictures, None for the results folder. The command line asks before a run that may cost more than `confirm_above`,
    in US dollars. `budget` is the most that the results folder may cost, in US dollars. `notify` is the URL that gets a
    message when a run ends; it may hold a secret.
    """

    concurrency: int | None = None
    retries: int = 2
    timeout: float = 600.0
    patience: float = 300.0
    max_trials: int = 10_000
    max_failures: int | float | None = None
    keep_temp: bool = False
    per_target: bool = False
    out: str | None = None
    confirm_above: Decimal = Decimal(5)
    budget: Decimal | None = None
    notify: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A template, the values to try in it, and how to run and check the trials.

    `blocks` is empty if there is a `search` and no sweep. `targets` are as written in the file, `named_targets` the
    names that the file defines for servers. `metrics` are what to measure; `judges` has those of them that a judge
    answers, `likenesses` those that compare with references. `files` maps the values of file slots to their files.
    `overrides` are values given from outside the file, as by `--set`, and the model files that servers listed: see
    `select_settings`.

    `pending` has the patterns of model files that nobody has asked a server for, with their location, so that no plan
    can be made. `complete` takes what servers have, as overrides, and returns the PartialExperiment with them; it reads
    no file again. `look` returns the sizes and times of the lists that were read, and of the files that patterns match.
    """

    name: str
    file: Path
    template: Template
    targets: tuple[str | Mapping[str, Any], ...] = ("embedded",)
    named_targets: Mapping[str, TargetSpec | TargetGroup] = field(default_factory=dict)
    description: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    derive: Mapping[str, Expression] = field(default_factory=dict)
    blocks: tuple[Block, ...] = (Block(),)
    search: Search | None = None
    order: Literal["auto", "written"] = "auto"
    metrics: tuple[str, ...] = ()
    judges: Mapping[str, Judge] = field(default_factory=dict)
    likenesses: Mapping[str, Likeness] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)
    run: RunSettings = RunSettings()
    files: Mapping[str, HashedFile] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = field(default=None, compare=False, repr=False)
    pending: Mapping[str, KeyPath] = field(default_factory=dict, compare=False)
    complete: Callable[[Mapping[str, Any]], Any] | None = field(default=None, compare=False, repr=False)
    look: Callable[[], Mapping[str, Any]] = field(default=dict, compare=False, repr=False)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Every axis of every block, in the order of first appearance."""
        return tuple(dict.fromkeys(axis.name for block in self.blocks for group in block.dimensions for axis in group))

    @property
    def metric_columns(self) -> tuple[str, ...]:
        """The columns of the table in which the metrics are."""
        several = {name: judge.columns for name, judge in self.judges.items()}
        several |= {name: likeness.columns for name, likeness in self.likenesses.items()}
        return tuple(column for name in self.metrics for column in several.get(name, (name,)))

    def make_error(self, path: KeyPath, message: str) -> ExperimentError:
        """Make an error located at `path` of the file, if the experiment comes from one."""
        return ExperimentError(self.source.make_problem(path, message) if self.source is not None else message)

    @property
    def search_budget(self) -> Decimal | None:
        """The most US dollars that a folder may cost with the search: the smaller of its budget and that of runs."""
        budgets = (self.run.budget, None if self.search is None else self.search.budget)
        return min((budget for budget in budgets if budget is not None), default=None)

    @property
    def written_blocks(self) -> tuple[Block, ...]:
        """The blocks of the sweep, and the block of the search, which only serves to check values."""
        return self.blocks if self.search is None else (*self.blocks, self.search.block)
