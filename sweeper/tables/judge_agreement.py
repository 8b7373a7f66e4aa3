"""The answer of `sweeper votes --judge`: how far a metric, such as that of a judge, agrees with people about pairs.

Of two pictures, a metric chooses the one with the higher number; a tie of its numbers is half right. The share is that
of the votes for a side: who found two pictures equal has chosen none, so chance gives 50 % to every metric.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from sweeper.answers.parts import Fact, Facts, Line, Note, Part, Warn
from sweeper.answers.render import NOT_IN_JSON
from sweeper.errors import UsageError
from sweeper.model.experiment import JUDGE_FACTS
from sweeper.model.search_columns import VOTES_METRIC
from sweeper.schemas.values import is_number
from sweeper.statistics.ranking import MIN_SAMPLE, Agreement, estimate_share, measure_agreement
from sweeper.store import Store
from sweeper.store.votes import LEFT, RIGHT, TIE
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.select_rows import OptionErrors
from sweeper.tables.vote_pictures import VotePictures
from sweeper.tables.vote_tally import compare_voters, describe_scope

# With so many independent votes, a judge that is right about three of four pairs is shown to be better than chance in
# four of five cases. Fewer prove nothing against a judge, unless it is surely worse than chance.
_ENOUGH: Final = 30
_CHANCE: Final = 0.5
_MODEL: Final = "judge:"  # how the names of voters begin that are models
_SIDES: Final = (TIE, LEFT, RIGHT)  # by the sign of the difference of the numbers: left - right


@dataclass(frozen=True, slots=True)
class JudgeAgreement:
    """How far a metric agrees with the votes of people for a side: the share, and its 95 % interval (`low`, `high`).

    `votes` are those for a side, `ties` those for none, `unscored` those about pictures without a number. `metric_ties`
    of the votes are about equal numbers. `alpha` is Krippendorff's, of the votes with the ties and the metric. `people`
    is the agreement of the people. `prompts` and `voters`: how many there are, if they are too few to speak for others.
    """

    metric: str
    votes: int
    ties: int
    unscored: int
    metric_ties: int
    share: float
    low: float
    high: float
    alpha: float | None
    people: Agreement
    effective: float = field(metadata=NOT_IN_JSON)  # how many independent votes say as much
    prompts: int | None = field(metadata=NOT_IN_JSON)
    voters: int | None = field(metadata=NOT_IN_JSON)

    def is_doubtful(self, direction: int = 0) -> bool:
        """Whether the votes show that it disagrees with people, or would show that it agrees if it did well.

        `direction`: 1 if a higher number should be better, -1 if a lower one should (see `reverse`), 0 if nobody said.
        """
        low, high = (self.low, self.high) if direction >= 0 else (1 - self.high, 1 - self.low)
        is_worse = direction != 0 and high < _CHANCE
        return is_worse or (low <= _CHANCE <= high and self.effective >= _ENOUGH)

    def reverse(self) -> JudgeAgreement:
        """The agreement of the lower number with people."""
        return replace(self, share=1 - self.share, low=1 - self.high, high=1 - self.low, alpha=None)

    def describe(self) -> str:
        """`shows_it agrees with people in 78% of 120 votes (66% to 87%), for these 3 prompts, by these 2 voters`."""
        share = f"{self.share:.0%} of {self.votes} votes ({self.low:.0%} to {self.high:.0%})"
        return f"{self.metric} agrees with people in {share}{describe_scope(self.prompts, self.voters)}"

    def parts(self) -> Iterator[Part]:
        """What it agrees in, then how that is counted."""
        if self.unscored:
            yield Warn(f"{self.unscored} votes are about pictures without a number of {self.metric}; not counted")
        if not self.votes:
            yield Note(f"no votes of people for a side are about pictures with numbers of {self.metric}")
            return
        word = "more" if self.low > _CHANCE else "less" if self.high < _CHANCE else "not surely more"
        yield Line(f"{self.describe()}: {word} than by chance, which is 50%")
        facts = [
            Fact("ties", f"{self.ties} votes for no side are left out; {self.metric_ties} equal numbers are half right")
        ]
        if self.alpha is not None:
            facts.append(Fact("alpha", f"{self.alpha:.2f} with the ties (Krippendorff; 1: always, 0: by chance)"))
        if self.people.alpha is not None:
            facts.append(
                Fact("people", f"{self.people.alpha:.2f} among themselves, over {self.people.pairs} pairs of answers")
            )
        yield Facts(facts)


def compare_judge(results: str | os.PathLike[str], metric: str) -> JudgeAgreement:
    """Compare a metric with people's votes in the same folder. Raises UsageError for an unknown one, ResultsError."""
    with Store.open(find_results_folder(results), readonly=True) as store:
        errors, names = OptionErrors(), store.layout().measured_metrics
        errors.check_columns(
            "--judge", [metric], [name for name in names if name != VOTES_METRIC], ("metric", "metrics")
        )
        errors.raise_if_any()
        return _measure(store, metric)


def find_agreements(store: Store, metrics: Iterable[str]) -> dict[str, JudgeAgreement]:
    """How far those of the metrics that are answers of judges agree with people, if there are votes.

    Raises ResultsError.
    """
    with suppress(UsageError):  # `votes` is a column of the experiment itself, so nobody can vote
        names = metrics if store.votes.has_any() else ()
        return {name: _measure(store, name) for name in names if store.load_cached_metrics(f"{JUDGE_FACTS}{name}")}
    return {}


def _measure(store: Store, metric: str) -> JudgeAgreement:
    pictures, numbers = VotePictures(store), store.load_cached_metrics(metric)
    counted = [vote for vote in store.votes.load() if vote.counts and not vote.voter.startswith(_MODEL)]
    votes = pictures.keep_last(pictures.unify(counted))
    answers: dict[str, dict[Hashable, str]] = {"people": {}, "metric": {}}
    clusters, points = [], []
    for vote in votes:
        sides = [pictures.find(vote.left_digest, vote.left_sha256), pictures.find(vote.right_digest, vote.right_sha256)]
        shown = [pictures.all[side] for side in sides if side is not None]
        found = [numbers.get(each.sha256, numbers.get(f"{each.sha256}:{each.row.digest}")) for each in shown]
        known = [float(number) for number in found if number is not None and is_number(number)]
        if len(known) < 2:
            continue
        unit, chosen = (vote.voter, pictures.get_pair(vote)), vote.answer if vote.answer in _SIDES else TIE
        judged = _SIDES[(known[0] > known[1]) - (known[0] < known[1])]
        answers["people"][unit], answers["metric"][unit] = chosen, judged
        if chosen != TIE:
            points.append(0.5 if judged == TIE else float(judged == chosen))
            prompt = tuple(pictures.list_prompts(*(side for side in sides if side is not None)))
            clusters.append((unit[1], prompt, vote.voter))
    pairs, prompts, voters = zip(*clusters, strict=True) if clusters else ((),) * 3
    counts = [len(set(codes)) for codes in (prompts, voters)]
    many = [codes for codes, count in zip((prompts, voters), counts, strict=True) if count >= MIN_SAMPLE]
    estimate = estimate_share(points, [pairs, *many]) if points else (math.nan, 0.0, 1.0, 0.0)
    few = [count if count < MIN_SAMPLE else None for count in counts]
    alpha, scored = measure_agreement(answers).alpha, len(answers["people"])
    return JudgeAgreement(
        metric, len(points), scored - len(points), len(votes) - scored, points.count(0.5), *estimate[:3],
        alpha, compare_voters(votes), estimate[3], *few,
    )  # fmt: skip
