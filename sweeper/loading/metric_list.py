"""Read the `metrics` of an experiment: names, and judges that are described in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sweeper.errors import UsageError
from sweeper.images.metrics.registry import METRIC_NAMES, find_unknown_metrics
from sweeper.model.experiment import CHAT_PATH, DEFAULT_REPEATS, Judge
from sweeper.model.expressions import ExpressionError, compile_text, has_jinja
from sweeper.model.money import parse_usd, to_micros
from sweeper.model.result import RESERVED_COLUMNS
from sweeper.model.target_spec import CLOUD_KEYS, CLOUD_URL
from sweeper.model.urls import normalise_url
from sweeper.schemas.values import KeyPath
from sweeper.wording import suggest

_DEFAULT_NAME: Final = "judge"
_JUDGE: Final = "judge"


def name_metrics(entries: Sequence[Any]) -> tuple[str, ...]:
    """The column of each entry."""
    return tuple(_name_metric(entry) for entry in entries)


def _name_metric(entry: Any) -> str:
    settings = entry.get(_JUDGE) if isinstance(entry, Mapping) else None
    return str(settings.get("name", _DEFAULT_NAME)) if isinstance(settings, Mapping) else str(entry)


def find_metric_problems(entries: Any) -> list[tuple[KeyPath, str]]:
    """(path, message) for each name that is unknown or listed twice. The schema finds other mistakes."""
    if not isinstance(entries, list):
        return []
    names = name_metrics(entries)
    judges = {name for name, entry in zip(names, entries, strict=True) if isinstance(entry, Mapping)}
    problems: list[tuple[KeyPath, str]] = []
    for name, message in find_unknown_metrics(names, judges):
        text = f"several metrics are named '{name}'; give each judge a `name` of its own" if name in judges else message
        problems.append((("metrics", names.index(name)), text))
    return problems


def build_judges(
    entries: Sequence[Any], slots: Collection[str], *, knows_slots: bool
) -> tuple[dict[str, Judge], list[tuple[KeyPath, str]]]:
    """The complete judges by name, and a (path, message) pair for each mistake in them.

    `slots`: the names that questions may read; not `knows_slots`: they may read other names too.
    """
    judges: dict[str, Judge] = {}
    problems: list[tuple[KeyPath, str]] = []
    for index, entry in enumerate(entries):
        settings = entry.get(_JUDGE, {}) if isinstance(entry, Mapping) else {}
        path = ("metrics", index, _JUDGE)
        if not {"question", "url", "model"}.issubset(settings):  # the schema says so
            continue
        name = _name_metric(entry)
        if name in (*METRIC_NAMES, *RESERVED_COLUMNS):
            problems.append(((*path, "name"), f"'{name}' is the name of another column; choose another"))
        problems += [((*path, "question"), text) for text in _check_question(settings["question"], slots, knows_slots)]
        variable = settings.get("key_env")
        try:
            url = normalise_url(settings["url"]).removesuffix(CHAT_PATH)
        except UsageError as error:
            problems.append(((*path, "url"), str(error)))
            url = ""
        if variable in CLOUD_KEYS:
            message = f"the key in {variable} belongs to {CLOUD_URL}, and an experiment cannot send it anywhere else"
            problems.append(((*path, "key_env"), message))
        repeats = int(settings.get("repeats", DEFAULT_REPEATS))
        price = to_micros(parse_usd(settings["price"])) if "price" in settings else None
        judges[name] = Judge(name, settings["question"], url, settings["model"], variable, repeats, price)
    return judges, problems


def _check_question(question: str, slots: Collection[str], knows_slots: bool) -> list[str]:
    if not has_jinja(question):
        return []
    try:
        names = compile_text(question).names
    except ExpressionError as error:
        return [str(error)]
    unknown = [name for name in names if knows_slots and name not in slots]
    return [f"reads '{name}', which is not a slot{suggest(name, slots, 'slots')}" for name in unknown]
