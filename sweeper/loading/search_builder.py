"""Build the sections `search` and `metrics` of an experiment from the mapping that a user wrote."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from sweeper.errors import UsageError
from sweeper.images.metrics.registry import METRIC_NAMES, find_unknown_metrics
from sweeper.loading.sweep_builder import BlockBuilder, ExperimentDraft
from sweeper.model.axis_values import AxisError, Option
from sweeper.model.experiment import (
    CHAT_PATH,
    Axis,
    Dimension,
    HashedFile,
    Judge,
    JudgeQuestion,
    Likeness,
    NumberRange,
    Search,
    SpaceAxis,
    parse_questions,
)
from sweeper.model.expressions import ExpressionError, compile_text
from sweeper.model.money import parse_usd, to_micros
from sweeper.model.result import RESERVED_COLUMNS
from sweeper.model.search_columns import OBJECTIVE, ROUND, VOTES_METRIC, Objective
from sweeper.model.target_spec import CLOUD_KEYS, CLOUD_URL
from sweeper.model.template import MISSING, Slot
from sweeper.model.urls import normalise_url
from sweeper.model.workflow import encode_canonical
from sweeper.schemas.values import KeyPath, format_value
from sweeper.wording import join_names, suggest

PATH: Final[KeyPath] = ("search",)
UNMEASURED: Final = (VOTES_METRIC, "cost", "ran_s", "queued_s")  # columns of the table that no metric measures
_DIRECTIONS: Final = ("maximize", "minimize")
_MAX_OBJECTIVES: Final = 8  # that are looked at; the schema refuses more than four in a direction
_MAX_END: Final = 1e300  # so that the distance of two ends is a number too
_JUDGE, _LIKENESS = "judge", "likeness"  # the keys, and the default names of the metrics
_QUESTIONS: Final = ("question", "questions")
_TAKEN: Final = "'{}' is the name of another column; choose another"


def find_measuring_problems(raw: Mapping[str, Any], refused: Collection[KeyPath]) -> list[tuple[KeyPath, str]]:
    """(path, message) for each mistake in `metrics` and in the objectives of `search` that the schema does not find.

    `refused`: the paths of the schema's problems.
    """
    entries = raw.get("metrics")
    entries = entries if isinstance(entries, list) else []
    names = name_metrics(entries)
    named = {name for name, entry in zip(names, entries, strict=True) if isinstance(entry, Mapping)}
    problems: list[tuple[KeyPath, str]] = []
    for name, message in find_unknown_metrics(names, named):
        text = f"several metrics are named '{name}'; give each a `name` of its own" if name in named else message
        problems.append((("metrics", names.index(name)), text))
    objectives = _find_objective_problems(raw.get("search"), names)
    return [*problems, *(pair for pair in objectives if pair[0] not in refused)]


def _find_objective_problems(raw: Any, metrics: Collection[str]) -> list[tuple[KeyPath, str]]:
    """(path, message) for each objective that is unknown or given twice, and if there is none, or no end.

    `metrics`: the columns that the experiment measures anyway. The schema finds other mistakes.
    """
    if not isinstance(raw, Mapping):
        return []
    problems: list[tuple[KeyPath, str]] = []
    names = [(path, name) for path, name, _ in _iter_objectives(raw)]
    if not any(key in raw for key in _DIRECTIONS):
        problems.append((PATH, "says nothing about its aim; write `maximize:` or `minimize:` and a metric"))
    if not any(key in raw for key in ("trials", "budget", "until")):
        problems.append((PATH, "has no end; write `trials: 60`, `budget: 5 USD` or `until: no better for 15 trials`"))
    if VOTES_METRIC in [name for _, name in names]:
        if raw.get("stop_early") is True:
            message = "people vote on whole points, so a search by votes stops none early; leave it out"
            problems.append(((*PATH, "stop_early"), message))
        if VOTES_METRIC in metrics:
            message = f"'{VOTES_METRIC}' stands for people's votes here; give the metric of that name another one"
            problems.append((PATH, message))
    for index, (path, name) in enumerate(names[:_MAX_OBJECTIVES]):
        if name in [other for _, other in names[:index]]:
            problems.append((path, f"'{name}' is given twice; give each metric one direction"))
        elif name not in (*UNMEASURED, *metrics):
            problems += [(path, message) for _, message in find_unknown_metrics([name])]
    return problems


def list_metrics(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns to measure: those of `metrics`, and those that a search needs."""
    objectives = (name for _, name, _ in _iter_objectives(raw.get("search", {})) if name not in UNMEASURED)
    return tuple(dict.fromkeys((*name_metrics(raw.get("metrics", ())), *objectives)))


def _iter_objectives(raw: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str, bool]]:
    for key in _DIRECTIONS:
        given = raw.get(key)
        for index, name in enumerate(given if isinstance(given, list) else [given]):
            if isinstance(name, str):
                yield ((*PATH, key, index) if isinstance(given, list) else (*PATH, key)), name, key == "maximize"


class SearchBuilder(BlockBuilder):
    """Builds the search. Its block is the product of all options, where a continuous range has its two ends."""

    def __init__(self, owner: ExperimentDraft, raw: Mapping[str, Any]) -> None:
        self._ranges: dict[str, NumberRange] = {}
        super().__init__(owner, raw, PATH)
        for name in (ROUND, OBJECTIVE, VOTES_METRIC):
            if name in self.axes:
                message = f"an axis of a search cannot be named '{name}': the table has a column of that name"
                owner.add_problem(self.given_paths[name], message)
        axes = {name: axis for name, (_, axis) in self.axes.items()}
        until = raw.get("until")
        counts = {name: int(raw[name]) for name in ("trials", "batch", "seed") if name in raw}  # 8.0 is an integer too
        self.search = Search(
            objectives=tuple(Objective(name, maximize) for _, name, maximize in _iter_objectives(raw)),
            space=tuple(SpaceAxis(axes[name], self._ranges.get(name)) for name in raw.get("space", {}) if name in axes),
            over=tuple(axes[name] for name in raw.get("over", {}) if name in axes),
            where=self.block.where,
            trials=counts.get("trials"),
            budget=parse_usd(raw["budget"]) if "budget" in raw else None,
            patience=int(until.split()[3]) if until is not None else None,
            batch=counts.get("batch"),
            method=raw.get("method", "auto"),
            seed=counts.get("seed", 0),
            stop_early=raw.get("stop_early", False),
        )

    def _build_dimensions(self) -> Iterator[Dimension]:
        for section in ("space", "over"):
            for name, form in self.raw.get(section, {}).items():
                path: KeyPath = (*PATH, section, name)
                is_range = section == "space" and isinstance(form, dict) and {"from", "to"} <= form.keys()
                is_continuous = is_range and not {"step", "count"} & form.keys()
                axis = self._build_range(name, form, path) if is_continuous else self._build_axis(name, form, path)
                if axis is not None:
                    self._check_different(axis)
                    yield (axis,)

    def _check_different(self, axis: Axis) -> None:
        """Add a problem if two options make the same workflow, because the search would take them for two points."""
        first: dict[bytes, Option] = {}
        for index, option in enumerate(axis.options):
            value = None if option.value is MISSING else option.value
            if first.setdefault(encode_canonical([value, option.sets]), option) is not option:
                path = axis.locate_option(self.owner.source, index)
                self.owner.add_problem(path, f"{format_value(option.cell)} is given twice; give it once")

    def _build_range(self, name: str, form: Mapping[str, Any], path: KeyPath) -> Axis | None:
        """Build the axis of a continuous range, whose options are the two ends. None if it has a mistake."""
        ends = [form["from"], form["to"]]
        slot = self.owner.template.slots.get(name)
        is_integer = slot is not None and slot.schema.is_integer
        is_log = form.get("scale") == "log"
        message = None
        if max(map(abs, ends)) > _MAX_END:
            message = f"a range to search goes from {-_MAX_END:g} to {_MAX_END:g} at most"
        elif not ends[0] < ends[1]:
            message = f"a range to search goes up, but {ends[0]} is not below {ends[1]}"
        elif is_log and ends[0] <= 0:
            message = "a log scale needs `from` and `to` above 0"
        elif is_integer and not all(float(end).is_integer() for end in ends):
            message = "the slot takes integers, but the range does not begin and end with one"
        elif slot is not None and (rules := slot.schema.rules_for_some_numbers):
            message = f"the slot has {join_names(rules)}, so it may not take every number of the range; write a `step`"
        if message is not None:
            self.owner.add_problem(path, message)
            self.given_paths.setdefault(name, path)
            return None
        numbers = NumberRange(ends[0], ends[1], is_integer=is_integer, is_log=is_log)
        options = [Option(end) for end in ends]
        self._check_name(name, options, path)
        normalised = tuple([self._normalise_option(name, end, path, index, form) for index, end in enumerate(options)])
        self._record_given(name, options, path)
        self._ranges[name] = numbers
        return Axis(name, normalised, path)


def name_metrics(entries: Sequence[Any]) -> tuple[str, ...]:
    return tuple(_name_metric(entry) for entry in entries)


def _name_metric(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    kind, settings = (_LIKENESS, entry) if _LIKENESS in entry else (_JUDGE, entry.get(_JUDGE))
    return str(settings.get("name", kind)) if isinstance(settings, Mapping) else str(entry)


def build_judges(entries: Sequence[Any]) -> tuple[dict[str, Judge], list[tuple[KeyPath, str]]]:
    """The complete judges by name, and a (path, message) pair for each mistake in them."""
    judges: dict[str, Judge] = {}
    problems: list[tuple[KeyPath, str]] = []
    for index, entry in enumerate(entries):
        settings = entry.get(_JUDGE) if isinstance(entry, Mapping) else None
        path = ("metrics", index, _JUDGE)
        if not isinstance(settings, Mapping) or not {"url", "model"}.issubset(settings):  # the schema says so
            continue
        name = _name_metric(entry)
        if name in (*METRIC_NAMES, *RESERVED_COLUMNS):
            problems.append(((*path, "name"), _TAKEN.format(name)))
        questions, mistakes = _read_questions(settings)
        problems += [((*path, key) if key else path, message) for key, message in mistakes]
        variable = settings.get("key_env")
        try:
            url = normalise_url(settings["url"]).removesuffix(CHAT_PATH)
        except UsageError as error:
            problems.append(((*path, "url"), str(error)))
            url = ""
        if variable in CLOUD_KEYS:
            message = f"the key in {variable} belongs to {CLOUD_URL}, and an experiment cannot send it anywhere else"
            problems.append(((*path, "key_env"), message))
        more: dict[str, Any] = {key: settings[key] for key in ("score", "mean", "reference") if key in settings}
        more |= {key: int(settings[key]) for key in ("repeats", "frames") if key in settings}
        price = to_micros(parse_usd(settings["price"])) if "price" in settings else None
        more["pictures"] = tuple(settings.get("pictures", ()))
        if questions:
            judges[name] = Judge(name, questions, url, settings["model"], variable, price=price, **more)
    return judges, problems


def _read_questions(settings: Mapping[str, Any]) -> tuple[tuple[JudgeQuestion, ...] | str, list[tuple[str, str]]]:
    """The questions of a judge, empty if they are wrong, and a (key, message) pair for each mistake in its texts."""
    given = [key for key in _QUESTIONS if key in settings]
    if len(given) != 1:
        return (), [("", "write either `question` or `questions`")]
    (key,) = given
    questions: tuple[JudgeQuestion, ...] | str = settings[key]
    problems = []
    try:
        if key == "question":
            questions = (JudgeQuestion(settings[key]),)
        elif isinstance(questions, tuple | list):
            questions = parse_questions(questions)
    except ValueError as error:
        return (), [(key, str(error))]
    for text in Judge("", questions, "", "", reference=settings.get("reference", "")).texts:
        try:
            compile_text(text)
        except ExpressionError as error:
            problems.append((key, str(error)))
    return (() if problems else questions), problems


def find_unknown_names(
    entries: Sequence[Any], judges: Mapping[str, Judge], slots: Mapping[str, Slot], known: Collection[str]
) -> Iterator[tuple[KeyPath, str]]:
    """Yield (path, message) for each name that a judge reads and nothing has. `known`: all slots, axes and params."""
    names = name_metrics(entries)
    for judge in judges.values():
        index = names.index(judge.name)
        key = next(key for key in _QUESTIONS if key in entries[index][_JUDGE])
        for name in sorted(judge.names - {*known}):
            yield ("metrics", index, _JUDGE, key), f"reads '{name}', which is not a slot{suggest(name, known, 'slots')}"
        files = [slot.name for slot in slots.values() if slot.is_file]
        for name in judge.pictures:
            if name not in files:
                message = f"'{name}' is not a slot with a file{suggest(name, files, 'slots')}"
                yield ("metrics", index, _JUDGE, "pictures"), message


def build_likenesses(entries: Sequence[Any], draft: ExperimentDraft) -> dict[str, Likeness]:
    """The complete metrics of the likeness to reference pictures, by name. Adds a problem for each mistake."""
    found: dict[str, Likeness] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not {_LIKENESS, "model"}.issubset(entry):
            continue
        name, folder, files = _name_metric(entry), draft.folder, dict[str, dict[str, HashedFile]]()
        if name in (*METRIC_NAMES, *RESERVED_COLUMNS):
            draft.add_problem(("metrics", index, "name"), _TAKEN.format(name))
        for key in (_LIKENESS, "model"):
            try:
                paths = folder.find_files(entry[key]) if key == _LIKENESS else [entry[key]]
                files[key] = {path: folder.hash_file(path) for path in paths}
            except AxisError as error:
                draft.add_axis_error(("metrics", index, key), error)
        if len(files) == 2:
            (model,) = files["model"].values()
            found[name] = Likeness(name, model, files[_LIKENESS])
    return found
