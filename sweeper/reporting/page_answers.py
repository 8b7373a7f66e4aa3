"""The page's `answers`: what `sweeper effects` and `sweeper votes` say about each metric, in words and as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sweeper.answers.parts import Line
from sweeper.errors import UsageError
from sweeper.model.search_columns import VOTES_METRIC
from sweeper.reporting.dataset import encode_values, to_json
from sweeper.store import Store
from sweeper.wording import join_command, replace_surrogates

_MAX_ANSWERED: Final = 10_000  # trials; for more, the answer would take longer than the page

Answers = Mapping[str, Any]  # as JSON, but for the cells of values


def find_answers(folder: Path, run: str | None) -> Answers:
    """Return `{by_metric: {name: {lines, shares, choices}}}`, votes first, and `left_out` if there are too many trials.

    `lines` are sentences, `shares` the names and shares (0 to 1) of what explains the variance, and `choices` those of
    `tables.value_choice`. Raises SweeperError.
    """
    with Store.open(folder, readonly=True) as store:
        layout, has_votes = store.layout(run), run is None and store.votes.has_any()
        count = sum(store.count_by_status(run).values())
    if count > _MAX_ANSWERED:
        command = join_command(["sweeper", "effects", str(folder)])
        return {"left_out": f"{count:,} trials are too many to analyse for this page; run `{command}`"}
    voted = _read_votes(folder) if has_votes else {}
    effects = _analyse_effects(folder, run) if layout.measured_metrics else {}
    return {"by_metric": {**voted, **{name: entry for name, entry in effects.items() if name not in voted}}}


def _read_votes(folder: Path) -> dict[str, Any]:
    from sweeper.tables.value_choice import choose_by_votes
    from sweeper.tables.vote_tally import rank_votes

    try:
        rankings = rank_votes(folder).axes or ()
    except UsageError:  # the experiment itself has a column with the name of the metric of votes
        return {}
    choice = choose_by_votes(rankings)
    lines = [part.text for ranking in rankings for part in ranking.parts() if isinstance(part, Line)]
    return {} if choice is None else {VOTES_METRIC: {"lines": lines, "shares": [], "choices": [asdict(choice)]}}


def _analyse_effects(folder: Path, run: str | None) -> dict[str, Any]:
    from sweeper.regression.verdict import MAXIMIZED, MINIMIZED
    from sweeper.tables.effect_answer import describe_effects
    from sweeper.tables.effects import EffectQuery, analyse_effects
    from sweeper.tables.value_choice import COST_COLUMNS, choose_by_effects

    answer = analyse_effects(folder, EffectQuery(also=tuple(COST_COLUMNS), run=run))
    lines = describe_effects(answer)
    found: dict[str, dict[str, Any]] = {}
    for metric in answer.metrics:
        shares = [(" x ".join(share.axes), share.share) for share in metric.shares]
        shares += [("rest", metric.rest)] if metric.rest else []
        found[metric.metric] = {"lines": lines[metric.metric], "shares": shares, "choices": []}
    for choice in choose_by_effects(answer, dict.fromkeys(MAXIMIZED, True) | dict.fromkeys(MINIMIZED, False)):
        found[choice.metric]["choices"].append(asdict(choice))
    return found


def encode_answers(answers: Answers, columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answers as the page's data: the cells of a value become the indices of these values of the page's columns."""
    indices = {
        column["name"]: {to_json(value): index for index, value in enumerate(column["values"])} for column in columns
    }

    def encode(value: Any) -> Any:
        if isinstance(value, str):
            return replace_surrogates(value)
        if isinstance(value, list | tuple):
            return [encode(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        if "columns" in value:
            values = [{**item, "cells": find_codes(value["columns"], item["cells"])} for item in value["values"]]
            value = {**value, "values": values}
        # The page finds columns by their names as they are.
        return {replace_surrogates(name): item if name == "columns" else encode(item) for name, item in value.items()}

    def find_codes(names: Sequence[str], cells: Sequence[Any]) -> list[int]:
        exact = ["" if cell is None else to_json(encode_values([cell])[0][0]) for cell in cells]
        return [indices.get(name, {}).get(text, -1) for name, text in zip(names, exact, strict=True)]

    encoded: dict[str, Any] = encode(answers)
    return encoded
