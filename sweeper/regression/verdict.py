"""Say for each metric whether the new trials are better than the old ones, worse, equivalent, or undecided."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np

from sweeper.answers.cells import label_values
from sweeper.answers.parts import Fact, Facts, Heading, Item, Line, Part, Pictures, ShownPicture, Table
from sweeper.answers.render import IF_GIVEN, NOT_IN_JSON, json_keys, json_name, render_html
from sweeper.errors import ImageError, ResultsError, UsageError
from sweeper.files import atomic_write
from sweeper.images.metrics.judge_messages import make_data_url
from sweeper.model.result import SAMPLING_METRIC, Result
from sweeper.model.search_columns import VOTES_METRIC, get_number
from sweeper.regression.cases import format_cells
from sweeper.regression.verdict_pairs import MatchedTrials, SideTrials
from sweeper.schemas.values import is_number
from sweeper.statistics.codes import LEVEL, Numbers, Replicates
from sweeper.statistics.paired import ValueComparison, compare_values
from sweeper.store.remote_artifacts import download_artifacts, is_url, local_path
from sweeper.tables.effect_answer import DOUBT, ReplicateScope, describe_difference
from sweeper.tables.select_rows import OptionErrors
from sweeper.wording import count_things

BETTER, WORSE, EQUIVALENT = "better", "worse", "equivalent"
HIGHER, LOWER, UNDECIDED = "higher", "lower", "undecided"
DEFAULT_MARGIN: Final = 0.2  # standard deviations of the metric among the old trials: Cohen's "small" effect
MARGINS: Final = (
    "The intervals of all metrics hold together with 95 % confidence. A margin is "
    f"{DEFAULT_MARGIN:g} standard deviations of the old trials unless you give one."
)
METHOD: Final = (
    "Differences are means over the matched pairs; an interval is that of a studentized range (Tukey and Kramer), with "
    "seeds, and for other prompts also prompts, as a sample. Equivalent: two one-sided tests (Schuirmann 1987). If all "
    "pairs differ by the same, the sign test decides."
)
_SHOWN_PAIRS: Final = 6
_COLUMNS: Final = ("ran_s", "cost")  # columns beside the metrics that can be judged
_OF_JOBS: Final = (*_COLUMNS, SAMPLING_METRIC, VOTES_METRIC)  # metrics that two equal pictures need not share
MAXIMIZED: Final = ("aesthetic", "prompt_similarity", VOTES_METRIC)
MINIMIZED: Final = (*_COLUMNS, SAMPLING_METRIC)
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 80rem; padding: 1rem; font: 15px/1.45 system-ui; overflow-wrap: anywhere; }}
table {{ display: block; overflow-x: auto; margin: 0.8rem 0; }} th, td {{ padding: 0.2rem 0.8rem 0.2rem 0; }}
figure {{ max-width: 48%; }}
</style></head><body><main>{body}</main></body></html>
"""


@dataclass(frozen=True, slots=True)
class VerdictQuery:
    """What to judge: the metrics (all that hold numbers if none is named), their margins, and which way is better."""

    metrics: Sequence[str] = ()
    margins: Mapping[str, float] | None = None
    maximize: Sequence[str] = ()
    minimize: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class MetricVerdict:
    """The verdict on one metric.

    - `verdict`: `better`, `worse`, `equivalent` or `undecided`; `higher` or `lower` if nobody said which is better.
    - `better`: `higher` or `lower`. In Python, `direction` is 1 if higher is better, -1 if lower is, else 0.
    - `old`, `new`: the means over the matched trials.
    - `difference`: the mean difference over `pairs` pairs, with its interval from `low` to `high` on these prompts, and
      that for other prompts too from `other_low` to `other_high` (None if there are too few to say). The new side is
      higher in `higher` pairs, and lower in `lower`.
    - `margin`: a smaller difference counts as none.
    - `reach`: the smallest difference that twice as many pairs would tell from 0, if the sides are not told apart.
    - `note`: why there is no difference to judge; then these numbers are None.
    """

    metric: str
    word: str = field(metadata=json_name("verdict"))
    direction: int = field(default=0, metadata=json_keys(better={1: "higher", -1: "lower"}.get))
    old: float | None = None
    new: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    other_low: float | None = None
    other_high: float | None = None
    margin: float | None = None
    higher: int | None = None
    lower: int | None = None
    pairs: int | None = None
    reach: float | None = None
    note: str = ""

    def describe(self, old: str, new: str, scope: ReplicateScope) -> str:
        """One sentence about the metric; `old` and `new` are the names of the sides."""
        start = f"{self.metric}: {self.word}"
        if self.difference is None or self.low is None or self.high is None:
            return f"{start}. {self.note}"
        others = None if self.other_low is None or self.other_high is None else (self.other_low, self.other_high)
        found = ValueComparison(new, old, self.higher or 0, self.lower or 0, self.pairs or 0, self.difference,
                                (self.low, self.high), others=others)  # fmt: skip
        is_sure = self.word not in (EQUIVALENT, UNDECIDED)
        text = f"{start}. {describe_difference(found, scope, is_sure=is_sure)}"
        if self.word == EQUIVALENT:
            return f"{text}; that is within the margin of {self.margin or 0.0:.3g}"
        if self.word == UNDECIDED:
            reach = f"; with {scope.more}, differences above {self.reach:.2g} would be told apart" if self.reach else ""
            return f"{text}; the margin is {self.margin or 0.0:.3g}{reach}"
        advice = f"; is that better? Give --maximize {self.metric} or --minimize {self.metric}"
        return f"{text}{'' if self.direction else advice}"

    def format_row(self) -> dict[str, str]:
        """The row of the metric in a table."""
        return {
            "metric": self.metric,
            "verdict": self.word,
            "old": _format(self.old, ".4g"),
            "new": _format(self.new, ".4g"),
            "difference": _format(self.difference, "+.3g"),
            "interval": "" if self.low is None else f"{self.low:+.3g} to {self.high:+.3g}",
            "other prompts": "" if self.other_low is None else f"{self.other_low:+.3g} to {self.other_high:+.3g}",
            "margin": _format(self.margin, ".3g"),
            "higher in": "" if self.pairs is None else f"{self.higher} of {self.pairs}",
        }


def _format(number: float | None, spec: str) -> str:
    return "" if number is None else format(number, spec)


@dataclass(frozen=True, slots=True)
class TrialPair:
    """Two matched trials, for looking at them: what they have in common, and the metrics of each as `old` and `new`.

    `trials`: both, with the side of each; in JSON, `old` and `new` are their files, without those at a URL. `size`: the
    largest difference, in margins.
    """

    cells: Mapping[str, Any]
    metrics: Mapping[str, tuple[float, float]] = field(metadata=json_keys(metrics=lambda metrics: {
        name: {"old": old, "new": new} for name, (old, new) in metrics.items()}))  # fmt: skip
    trials: tuple[tuple[SideTrials, Result], tuple[SideTrials, Result]] = field(metadata=json_keys(
        old=lambda trials: _list_files(*trials[0]), new=lambda trials: _list_files(*trials[1])))  # fmt: skip
    size: float = field(metadata=NOT_IN_JSON)

    def describe(self) -> str:
        """The metrics, as `sharpness 12.3 -> 20.1`."""
        return ", ".join(f"{name} {old:.4g} -> {new:.4g}" for name, (old, new) in self.metrics.items())

    def parts(self) -> Iterator[Part]:
        """What the trials have in common, their metrics, and their pictures side by side."""
        yield Heading(format_cells(self.cells) or "the only pair")
        yield Line(self.describe())
        yield Pictures([
            ShownPicture(f"{word}: {side.label}", partial(_read_picture, side, row))
            for word, (side, row) in zip(("old", "new"), self.trials, strict=True)
        ])  # fmt: skip


def _list_files(side: SideTrials, row: Result) -> list[Path]:
    return [side.folder / output for output in row.outputs if not is_url(output)]


def _read_picture(side: SideTrials, row: Result) -> str:
    """The first file of a trial as a data URL; empty if it is gone or not a picture.

    Raises ResultsError if a storage does not give it.
    """
    if not row.outputs:
        return ""
    output, sha256 = row.outputs[0], row.sha256[0]
    if is_url(output):
        download_artifacts(side.folder.resolve(), [(output, sha256)])
    try:
        return make_data_url(local_path(side.folder, output, sha256))
    except ImageError:
        return ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of `sweeper compare --verdict`: what the metrics say about the new side, `new`, against the old one.

    `verdict`: `worse` if one metric is; else `undecided` if one is not settled; else `better` if one is; else
    `equivalent`. `old` and `new` are the names of the sides, and `matched_pairs` is the number of matched trials.
    `largest`: the pairs that differ most. `notes`: what is not matched or not judged. `scope`: the numbers of prompts
    and of seeds among the pairs.

    `axis` is the axis if the sides are two of its values, and `axes` the number of values that each axis has among the
    pairs. `doubts`: how far people disagree with the judges whose numbers it compares.
    """

    word: str = field(metadata=json_name("verdict"))
    old: str
    new: str
    matched_pairs: int
    metrics: tuple[MetricVerdict, ...]
    largest: tuple[TrialPair, ...]
    notes: tuple[str, ...]
    scope: ReplicateScope
    axis: str = field(metadata=NOT_IN_JSON)
    axes: Mapping[str, int] = field(metadata=NOT_IN_JSON)
    doubts: tuple[str, ...] | None = field(default=None, metadata=IF_GIVEN)
    sides: tuple[SideTrials, ...] = field(default=(), metadata=NOT_IN_JSON)

    @property
    def ok(self) -> bool:
        """Whether every metric is better or equivalent."""
        return self.word in (BETTER, EQUIVALENT)

    def describe(self) -> str:
        """The headline, such as `better on these 10 prompts: checkpoint new against old, over 40 matched pairs`."""
        axes = ", ".join(f"{name} {count}" for name, count in self.axes.items() if count > 1)
        over = count_things(self.matched_pairs, "matched pair") + (f" ({axes})" if axes else "")
        old, new = self._name_sides()
        new = f"{self.axis} {new}" if self.axis else new
        doubt = f" ({DOUBT}: {'; '.join(self.doubts)})" if self.doubts else ""
        return f"{self.word}{self.scope.on_these}{doubt}: {new} against {old}, over {over}"

    def _name_sides(self) -> Sequence[str]:
        return label_values((self.old, self.new)) if self.axis else (self.old, self.new)

    def parts(self) -> Iterator[Part]:
        """The verdict, a sentence about each metric, the notes, and the numbers."""
        yield Line(self.describe())
        yield from self.list_items()
        yield from (Line(f"note: {note}") for note in self.notes)
        yield self.tabulate()

    def list_items(self) -> list[Item]:
        """A sentence about each metric."""
        return [Item(metric.describe(self.old, self.new, self.scope)) for metric in self.metrics]

    def tabulate(self) -> Table:
        """The numbers of each metric."""
        rows = [metric.format_row() for metric in self.metrics]
        return Table(list(rows[0]), [list(row.values()) for row in rows])

    def comment_parts(self) -> Iterator[Part]:
        """A comment for a pull request: the same, and the pairs that differ most."""
        yield Heading(f"{'✅' if self.ok else '❌'} {self.describe()}")
        yield from self.list_items()
        yield self.tabulate()
        if self.largest:
            yield Line("The pairs that differ most:")
            yield Table(("pair", " -> ".join(self._name_sides()), "pictures"), [
                (format_cells(pair.cells) or "-", pair.describe(),
                 ", ".join(name for _, row in pair.trials for name in row.outputs[:1]))
                for pair in self.largest
            ])  # fmt: skip
        yield from map(Item, (*self.notes, MARGINS))

    def report_parts(self) -> Iterator[Part]:
        """What a reviewer needs to accept the numbers: also how they were judged, by whom, and with which models."""
        yield from self.comment_parts()
        yield Heading("How it was judged")
        yield from (Item(f"{side.label}: {side.source}") for side in self.sides)
        yield Item(METHOD)
        judges = {name: facts for side in self.sides for name, facts in side.judges.items()}
        agreements = {name: found.describe() for side in self.sides for name, found in side.agreements.items()}
        for name in [metric.metric for metric in self.metrics if metric.metric in judges]:
            yield Heading(f"Judge {name}")
            facts = {**judges[name], "people": agreements.get(name, "nobody has voted on pictures that it judged")}
            yield Facts([Fact(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
                         for key, value in facts.items()])  # fmt: skip
        if models := list(dict.fromkeys(model for side in self.sides for model in side.models)):
            yield Heading("Model files")
            yield Table(("file", "what the server told"), models)


def find_verdict(matched: MatchedTrials, query: VerdictQuery) -> Verdict:
    """Judge the metrics of matched trials. Raises UsageError if there is none to judge."""
    names, notes = _choose_metrics(matched, query)
    found = [_measure(matched, name, (query.margins or {}).get(name)) for name in names]
    level = LEVEL / max(sum(table is not None for _, table in found), 1)
    metrics = []
    for metric, table in found:
        metric = replace(metric, direction=_find_direction(metric.metric, query))  # noqa: PLW2901
        metrics.append(metric if table is None else decide(metric, table, matched.replicates, level))
    old, new = matched.old_side, matched.new_side
    doubts = dict.fromkeys(
        (agreement.reverse() if metric.direction < 0 else agreement).describe()
        for metric in metrics
        for agreement in (side.agreements.get(metric.metric) for side in (old, new))
        if agreement is not None and agreement.is_doubtful(metric.direction)
    )
    return Verdict(
        _sum_up(metrics), old.label, new.label, len(matched.cells), tuple(metrics), _find_largest(matched, metrics),
        (*matched.notes, *notes), matched.scope, new.axis, matched.axes, tuple(doubts) or None, (old, new),
    )  # fmt: skip


def decide(metric: MetricVerdict, table: Numbers, replicates: Replicates, level: float) -> MetricVerdict:
    """Judge by the interval of the difference, whose chance of an error is `level`.

    A difference is *equivalent* if it is surely within the margin, by two one-sided tests (Schuirmann, Journal of
    Pharmacokinetics and Biopharmaceutics 15, 1987, 657-680): that is the interval with twice the chance. If all pairs
    differ by the same, there is no spread, and the sign test takes its place.
    """
    found = compare_values(table, replicates, 1 - level)
    (pair,), (narrower,) = found.pairs, compare_values(table, replicates, 1 - 2 * level).pairs
    if pair.interval is None or narrower.interval is None:
        return replace(metric, note="There is only one matched pair; a verdict needs several")
    word, has_spread = UNDECIDED, pair.interval[0] < pair.interval[1]
    is_clear = has_spread or 2 * 0.5**pair.pairs <= level
    if is_clear and max(map(abs, narrower.interval)) < (metric.margin or 0.0):
        word = EQUIVALENT
    elif is_clear and pair.differs:
        word = HIGHER if pair.mean > 0 else LOWER
        if metric.direction:
            word = BETTER if (word == HIGHER) == (metric.direction > 0) else WORSE
    other_low, other_high = pair.others or (None, None)
    return replace(
        metric, word=word, difference=pair.mean, low=pair.interval[0], high=pair.interval[1], other_low=other_low,
        other_high=other_high, higher=pair.higher, lower=pair.lower, pairs=pair.pairs,
        reach=found.reach if word == UNDECIDED else None,
    )  # fmt: skip


def _sum_up(metrics: Iterable[MetricVerdict]) -> str:
    words = {metric.word for metric in metrics}
    if WORSE in words:
        return WORSE
    if words - {BETTER, EQUIVALENT}:
        return UNDECIDED
    return BETTER if BETTER in words else EQUIVALENT


def check_query(sides: Sequence[SideTrials], query: VerdictQuery, errors: OptionErrors) -> None:
    """Add the mistakes in a query about these sides."""
    options = {"--metric": query.metrics, "--margin": query.margins or (), "--maximize": query.maximize,
               "--minimize": query.minimize}  # fmt: skip
    for option, names in options.items():
        errors.check_columns(option, names, [*_list_common(sides), *_COLUMNS], ("metric", "metrics on both sides"))
    for name in set(query.maximize) & set(query.minimize):
        errors.add("--maximize, --minimize", f"both name {name}")


def _list_common(sides: Sequence[SideTrials]) -> list[str]:
    return [name for name in sides[0].layout.measured_metrics if all(name in side.layout.metrics for side in sides)]


def _choose_metrics(matched: MatchedTrials, query: VerdictQuery) -> tuple[list[str], list[str]]:
    sides = (matched.old_side, matched.new_side)
    common = _list_common(sides)
    one_sided = [
        f"{name} is a metric of {side.label} alone, so it is not judged"
        for side in sides
        for name in side.layout.measured_metrics
        if name not in common
    ]
    if query.metrics:
        return list(dict.fromkeys(query.metrics)), one_sided
    rows = [row for side in sides for row in side.rows]
    names = [name for name in common if any(is_number(row.metrics.get(name)) for row in rows)]
    if VOTES_METRIC in names and sides[0].folder != sides[1].folder:
        names.remove(VOTES_METRIC)
        one_sided.append("votes compare pictures of one folder only, so they are not judged")
    if not names:
        raise UsageError("no metric with numbers is on both sides; name some under `metrics:`, or give --metric ran_s")
    return names, one_sided


def _find_direction(metric: str, query: VerdictQuery) -> int:
    if metric in query.maximize or metric in query.minimize:
        return 1 if metric in query.maximize else -1
    return (metric in MAXIMIZED) - (metric in MINIMIZED)


def _average(groups: Sequence[Sequence[Result]], name: str) -> Numbers:
    """The mean of a metric in each group of trials; NaN if one of them has none."""
    numbers = [[get_number(row, name) for row in rows] for rows in groups]
    return np.array([np.mean(np.array(of_group, dtype=float)) for of_group in numbers])


def _measure(matched: MatchedTrials, name: str, margin: float | None) -> tuple[MetricVerdict, Numbers | None]:
    """A metric with a table of its new and old numbers, not decided yet; without one, it needs no statistics."""
    old, new = _average(matched.old, name), _average(matched.new, name)
    known = np.isfinite(old) & np.isfinite(new)
    if not known.any():
        return MetricVerdict(name, UNDECIDED, note="No matched trials have numbers on both sides"), None
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.std([*old[known], *new[known]]))
        if not math.isfinite(spread):
            return MetricVerdict(name, UNDECIDED, note="The numbers are too large to compute with"), None
    spread = float(np.std(old[known], ddof=1)) if known.sum() > 1 else 0.0
    facts: dict[str, Any] = {"old": float(old[known].mean()), "new": float(new[known].mean()),
                             "margin": (DEFAULT_MARGIN * spread if margin is None else margin) or None}  # fmt: skip
    if name not in _OF_JOBS and _have_same_pictures(matched):
        note = f"The pictures of all {len(matched.old)} pairs are equal"
        return MetricVerdict(name, EQUIVALENT, **facts, note=note), None
    if margin is None and not (new[known] - old[known]).any():
        pairs = f"All {known.sum()} pairs are" if known.sum() > 1 else "The one pair is"
        note = f"{pairs} equal, so nothing says how much a pair can differ"
        return MetricVerdict(name, UNDECIDED, **facts, note=note), None
    return MetricVerdict(name, UNDECIDED, **facts), np.column_stack([new, old])


def _have_same_pictures(matched: MatchedTrials) -> bool:
    hashes = {**matched.old_side.hashes, **matched.new_side.hashes}

    def list_contents(rows: Sequence[Result]) -> set[tuple[str, ...]]:
        return {tuple(hashes.get(sha256, sha256) for sha256 in row.sha256) for row in rows}

    return all(list_contents(olds) == list_contents(news) for olds, news in zip(matched.old, matched.new, strict=True))


def _find_largest(matched: MatchedTrials, metrics: Sequence[MetricVerdict]) -> tuple[TrialPair, ...]:
    """The pairs whose difference in some metric is the largest, measured in margins."""
    pairs, names = [], [metric.metric for metric in metrics]
    for cells, olds, news in zip(matched.cells, matched.old, matched.new, strict=True):
        trials = (matched.old_side, olds[0]), (matched.new_side, news[0])
        numbers = ((name, get_number(olds[0], name), get_number(news[0], name)) for name in names)
        known = {name: (old, new) for name, old, new in numbers if old is not None and new is not None}
        sizes = [
            abs(known[metric.metric][1] - known[metric.metric][0]) / metric.margin
            for metric in metrics
            if metric.margin and metric.metric in known
        ]
        pairs.append(TrialPair(cells, known, trials, max(sizes, default=0.0)))
    return tuple(sorted((pair for pair in pairs if pair.size), key=lambda pair: -pair.size)[:_SHOWN_PAIRS])


def write_page(verdict: Verdict, file: Path) -> None:
    """Write the verdict as one HTML file: the words, the table, and the pairs that differ most, side by side.

    The pictures are in the file, so that it can be attached to anything. It needs no script and loads nothing. Raises
    ResultsError if that fails, or if a storage does not give a picture.
    """
    parts = chain(verdict.parts(), [Line(MARGINS)], *(pair.parts() for pair in verdict.largest))
    try:
        with atomic_write(file) as page:
            page.write(_PAGE.format(title=html.escape(verdict.describe()), body=render_html(parts)).encode())
    except OSError as error:
        raise ResultsError(f"{file}: the page cannot be written: {error.strerror or error}") from error
