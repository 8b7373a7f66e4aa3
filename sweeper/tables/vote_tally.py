"""The answers of `sweeper votes`: a ranking of values or of single pictures, and how far people and a judge agree.

Pictures are compared by their pixels: two equal ones count as one picture, and votes about them do not count. "Both
bad" counts as a tie, because it does not say which picture is better. It is also counted on its own.

Of two pictures, a metric chooses the one with the higher number; a tie of its numbers is half right. The share is that
of the votes for a side: who found two pictures equal has chosen none, so chance gives 50 % to every metric.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, field, replace
from itertools import combinations
from typing import Any, Final

from sweeper.answers.cells import map_labels
from sweeper.answers.parts import Fact, Facts, Line, Note, Part, Table, Warn
from sweeper.answers.render import IF_GIVEN, INLINE, NOT_IN_JSON
from sweeper.errors import UsageError
from sweeper.model.experiment import JUDGE_FACTS
from sweeper.model.search_columns import VOTES_METRIC
from sweeper.schemas.values import is_number
from sweeper.statistics.ranking import (
    MIN_GROUPS,
    MIN_SAMPLE,
    Agreement,
    compute_shares,
    estimate_share,
    find_cycle,
    find_one_sided,
    measure_agreement,
    rank,
)
from sweeper.store import Store
from sweeper.store.votes import BAD, LEFT, RIGHT, TIE, Vote
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.select_rows import OptionErrors
from sweeper.tables.vote_pictures import VoteAxis, VotePictures, list_answers, score_pictures, to_comparisons
from sweeper.wording import join_names

# With so many independent votes, a judge that is right about three of four pairs is shown to be better than chance in
# four of five cases. Fewer prove nothing against a judge, unless it is surely worse than chance.
_ENOUGH: Final = 30
_CHANCE: Final = 0.5
_MODEL: Final = "judge:"  # how the names of voters begin that are models
_SIDES: Final = (TIE, LEFT, RIGHT)  # by the sign of the difference of the numbers: left - right
_OF_RIGHT: Final = {LEFT: RIGHT, RIGHT: LEFT}  # the answer as the right picture sees it
_MAX_NAMED: Final = 3  # undecided pairs of values in a sentence
_MAX_DIRECT: Final = 10  # pairs of values whose direct results are shown
_MAX_VOTERS: Final = 3  # with a column of shares for each


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """How often something won, was as good as the other, lost, and was one of two bad ones."""

    won: int = 0
    tied: int = 0
    lost: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class RankedValue:
    """A value, its cells in the columns of the axis, its share (0 to 1), the ends of its 95 % interval, and answers.

    `by_voter` has the share that the votes of each voter give it, if there are several.
    """

    value: str
    cells: tuple[Any, ...]
    share: float
    low: float
    high: float
    counts: AnswerCounts = field(metadata=INLINE)
    by_voter: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DirectResult:
    """How often one value won against another in their direct comparison, and lost; ties do not count."""

    value: str
    other: str
    won: int
    lost: int


@dataclass(frozen=True, slots=True)
class BetterValue:
    """Two values of which one is surely better."""

    better: str
    worse: str


@dataclass(frozen=True, slots=True)
class ValueRanking:
    """The ranking of the values of an axis, which are in the order of the experiment, by so many votes.

    `independent`: the intervals take votes as independent, because there are few prompts and seeds. `scope` says for
    which prompts and voters the ranking holds, if these are too few to speak for others. `cycle`: three values that
    each won against the next. `is_point`: the values are the points of a search.
    """

    axis: str
    columns: tuple[str, ...]
    votes: int
    independent: bool
    values: tuple[RankedValue, ...]
    better: tuple[BetterValue, ...]
    scope: str
    direct: tuple[DirectResult, ...]
    cycle: tuple[str, ...]
    is_point: bool = field(metadata=NOT_IN_JSON)

    def parts(self) -> Iterator[Part]:
        """Which values are better, then the table of all, best first; of points, those that have votes."""
        order = sorted(self.values, key=lambda value: -value.share)
        shown = [value for value in order if not self.is_point or any(astuple(value.counts))]
        names = [value.value for value in shown]
        apart = {(pair.better, pair.worse) for pair in self.better}
        labels = map_labels(names)
        lines = self._describe_points(names, apart) if self.is_point else self._describe(names, apart, labels)
        yield from map(Line, lines)
        rows = [
            (*(value.cells if self.is_point else [labels[value.value]]), f"{value.share:.0%}",
             f"{value.low:.0%} to {value.high:.0%}", *_list_by_voter(value), *astuple(value.counts))
            for value in shown
        ]  # fmt: skip
        columns = self.columns if self.is_point else [self.axis]
        voters = list(shown[0].by_voter) if shown else []
        if len(voters) > _MAX_VOTERS:
            voters = ["by voter"]
        yield Table((*columns, "share", "95 % interval", *voters, "won", "equal", "lost", "both bad"), rows)
        if self.better:
            yield Note(
                f"{self.axis}: *better* holds for a number of votes that was decided beforehand; who stops at the "
                "first *better* is wrong about one in six pairs of equal values"
            )
        if self.independent:
            yield Note(
                f"{self.axis}: the intervals take votes as independent, because fewer than {MIN_GROUPS} different "
                "prompts and seeds have votes"
            )

    def _describe_points(self, names: Sequence[str], apart: AbstractSet[tuple[str, str]]) -> Iterator[str]:
        """How sure the best of the points of a search is that have votes."""
        if names:
            best, *others = names
            better = sum((best, other) in apart for other in others)
            yield f"the best is {best}: surely better than {better} of {len(others)} others"
        if len(names) < len(self.values):
            yield f"{len(self.values) - len(names)} points have no votes yet"

    def _describe(
        self, names: Sequence[str], apart: AbstractSet[tuple[str, str]], labels: Mapping[str, str]
    ) -> Iterator[str]:
        for name in names:
            if worse := [labels[other] for other in names if (name, other) in apart]:
                yield f"{self.axis}: {labels[name]} is better than {join_names(worse)}{self.scope}"
        if self.cycle:
            first, second, third = map(labels.__getitem__, self.cycle)
            yield f"{self.axis}: {first} wins against {second}, {second} against {third}, and {third} against {first}"
        direct = [
            f"{labels[found.value]} against {labels[found.other]} {found.won} : {found.lost}" for found in self.direct
        ]
        if direct:
            more = f"; and {len(direct) - _MAX_DIRECT} more" if len(direct) > _MAX_DIRECT else ""
            yield f"{self.axis}: direct votes {'; '.join(direct[:_MAX_DIRECT])}{more}"
        pairs = [*combinations(names, 2)]
        undecided = [f"{labels[a]} and {labels[b]}" for a, b in pairs if not {(a, b), (b, a)} & apart]
        if len(undecided) > _MAX_NAMED:
            yield f"{self.axis}: {len(undecided)} of {len(pairs)} pairs of values are undecided"
        elif undecided:
            yield f"{self.axis}: undecided between {'; '.join(undecided)}"


@dataclass(frozen=True, slots=True)
class VoteRankings:
    """The votes that count, in all and by voter, and what they say of axes, or of single pictures.

    `pictures` has one mapping for each picture with votes, the best first: its trial, the values of the axes, its
    share (0 to 1), the answers and its path. `answers` are the votes by answer, `lost` those about trials that the
    table does not have any more, `equal` those about two equal pictures, and `repeated` those after which the voter
    answered the same pair again. `results`: what the user named.
    `one_sided`: by voter, the votes for each side, if these are hardly by chance.
    """

    votes: int
    voters: Mapping[str, int]
    agreement: Agreement
    axes: tuple[ValueRanking, ...] | None = field(metadata=IF_GIVEN)
    pictures: Sequence[Mapping[str, Any]] | None = field(metadata=IF_GIVEN)
    answers: Mapping[str | None, int] = field(metadata=NOT_IN_JSON)
    lost: int = field(metadata=NOT_IN_JSON)
    results: str = field(metadata=NOT_IN_JSON)
    equal: int = field(default=0, metadata=NOT_IN_JSON)
    repeated: int = field(default=0, metadata=NOT_IN_JSON)
    one_sided: Mapping[str, Mapping[str, int]] | None = field(default=None, metadata=IF_GIVEN)

    def parts(self) -> Iterator[Part]:
        """Who voted, how far voters agree, and the rankings."""
        if self.equal:
            yield Warn(f"{self.equal} votes are about two equal pictures, which nobody can tell apart; not counted")
        if not self.votes:
            yield Note(f"no votes yet; start with `sweeper vote {self.results}`")
            return
        people = ", ".join(f"{name} {count}" for name, count in self.voters.items())
        equal, bad = self.answers.get(TIE, 0), self.answers.get(BAD, 0)
        facts = [Fact("votes", f"{self.votes}: {people}; {equal} equal, {bad} both bad")]
        if len(self.voters) > 1:
            facts.append(Fact("agree", _describe_agreement(self.agreement)))
        yield Facts(facts)
        if self.lost:
            yield Warn(f"{self.lost} votes are about trials that the table does not have any more; not counted")
        if self.repeated:
            yield Warn(f"{self.repeated} votes are about pairs that the voter answered again; only the last one counts")
        for voter, sides in (self.one_sided or {}).items():
            side = max(sides, key=lambda name: sides[name])
            often = f"{voter} chose the {side} picture in {sides[side]} of {sum(sides.values())} votes"
            yield Warn(f"{often}, although the sides are drawn at random: these votes say little about the pictures")
        for ranking in self.axes or ():
            yield from ranking.parts()
        if self.pictures:
            yield Table(list(self.pictures[0]), [list(row.values()) for row in self.pictures])


def _list_by_voter(value: RankedValue) -> list[str]:
    """The share by each voter or, of many, the lowest and the highest one; no cell for a single voter."""
    shares = value.by_voter.values()
    if len(shares) <= _MAX_VOTERS:
        return [f"{share:.0%}" for share in shares]
    return [f"{min(shares):.0%} to {max(shares):.0%}"]


def _describe_agreement(agreement: Agreement) -> str:
    if not agreement.pairs:
        return "unknown: no two voters answered the same pair"
    share = agreement.same / agreement.pairs
    alpha = "" if agreement.alpha is None else f"; Krippendorff's alpha {agreement.alpha:.2f} (1: always, 0: by chance)"
    return f"{share:.0%}: {agreement.same} of {agreement.pairs} answers of two voters to the same pair{alpha}"


def rank_votes(results: str | os.PathLike[str], axes: Sequence[str] = (), *, by_picture: bool = False) -> VoteRankings:
    """Rank the values of these axes, or of every axis with votes; or the single pictures.

    Raises UsageError for an unknown axis or and ResultsError.
    """
    with Store.open(find_results_folder(results), readonly=True) as store:
        pictures, counted = VotePictures(store), [vote for vote in store.votes.load() if vote.counts]
    different = pictures.unify(counted)
    votes = pictures.keep_last(different)
    named = pictures.get_axes(axes, "--axis")
    rankings = None if by_picture else tuple(_rank_values(pictures, axis, votes) for axis in named or pictures.axes)
    if rankings is not None and not named:
        rankings = tuple(ranking for ranking in rankings if ranking.votes)
    return VoteRankings(
        votes=len(votes),
        voters=dict(Counter(vote.voter for vote in votes).most_common()),
        agreement=compare_voters(votes),
        axes=rankings,
        pictures=_list_pictures(pictures, votes) if by_picture else None,
        answers=Counter(vote.answer for vote in votes),
        lost=0 if axes or rankings is None else max(0, len(votes) - sum(ranking.votes for ranking in rankings)),
        results=os.fspath(results),
        equal=len(counted) - len(different),
        repeated=len(different) - len(votes),
        one_sided=find_one_sided((vote.voter, vote.answer) for vote in different if vote.answer in _OF_RIGHT) or None,
    )


def _list_pictures(pictures: VotePictures, votes: Sequence[Vote]) -> list[dict[str, Any]]:
    scores = score_pictures(votes)
    counts = _count_answers((vote.left_sha256, vote.right_sha256, vote.answer) for vote in votes if vote.answer)
    rows = [
        {
            "trial": picture.row.trial,
            **picture.row.columns,
            "share": scores[pictures.get_content(picture.sha256)],
            **asdict(counts[pictures.get_content(picture.sha256)]),
            "picture": picture.path,
        }
        for picture in pictures.all
        if pictures.get_content(picture.sha256) in scores
    ]
    return sorted(rows, key=lambda row: -row["share"])


def _rank_values(pictures: VotePictures, axis: VoteAxis, votes: Iterable[Vote]) -> ValueRanking:
    """Rank the values of an axis by the votes about it, over all prompts, seeds and other axes."""
    answers = list_answers(pictures, axis, votes)
    counts = _count_answers((given.left, given.right, given.answer) for given in answers)
    comparisons = to_comparisons(axis, answers)
    found, names, wins = rank(comparisons), axis.values, comparisons.count_wins()
    voters = list(dict.fromkeys(given.voter for given in answers))
    shares = {
        name: compute_shares(to_comparisons(axis, [given for given in answers if given.voter == name])).tolist()
        for name in (voters if len(voters) > 1 else [])
    }
    numbers = enumerate(zip(names, axis.cells, found.shares, found.low, found.high, strict=True))
    direct = tuple(
        DirectResult(names[value], names[other], int(wins[value, other]), int(wins[other, value]))
        for value, other in combinations(range(len(names)), 2)
        if wins[value, other] + wins[other, value] and not axis.is_point
    )
    return ValueRanking(
        axis.name, axis.columns, len(answers), not found.by_groups,
        tuple(
            RankedValue(*number, counts.get(value, AnswerCounts()), {name: own[value] for name, own in shares.items()})
            for value, number in numbers
        ),
        tuple(BetterValue(names[better], names[worse]) for better, worse in sorted(found.apart)),
        describe_scope(found.prompts, found.voters), direct,
        tuple(names[item] for item in find_cycle(wins) or ()), axis.is_point,
    )  # fmt: skip


def describe_scope(prompts: int | None, voters: int | None) -> str:
    """For what something holds, such as `, for these 3 prompts, by these 2 voters`. None: there are many."""
    few = [(prompts, "for", "prompt"), (voters, "by", "voter")]
    return "".join(
        f", {word} {f'these {count} {noun}s' if count > 1 else f'this {noun}'}" for count, word, noun in few if count
    )


def _count_answers(answers: Iterable[tuple[Hashable, Hashable, str]]) -> dict[Hashable, AnswerCounts]:
    counts: dict[Hashable, Counter[str]] = {}
    for left, right, answer in answers:
        counts.setdefault(left, Counter())[answer] += 1
        counts.setdefault(right, Counter())[_OF_RIGHT.get(answer, answer)] += 1
    return {item: AnswerCounts(c[LEFT], c[TIE], c[RIGHT], c[BAD]) for item, c in counts.items()}


def compare_voters(votes: Iterable[Vote]) -> Agreement:
    """How far voters agree about the same two pictures."""
    answers: dict[str, dict[Hashable, str]] = {}
    for vote in votes:
        if vote.answer is not None and vote.counts:
            is_first_left = vote.left_sha256 == vote.pictures[0]
            answer = vote.answer if is_first_left else _OF_RIGHT.get(vote.answer, vote.answer)
            answers.setdefault(vote.voter, {})[vote.pictures] = answer
    return measure_agreement(answers)


# --- is a judge right?


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
        sides = pictures.find_sides(vote)
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
    share, low, high, effective = estimate_share(points, [pairs, *many]) if points else (math.nan, 0.0, 1.0, 0.0)
    few = [count if count < MIN_SAMPLE else None for count in counts]
    alpha, scored = measure_agreement(answers).alpha, len(answers["people"])
    return JudgeAgreement(
        metric, len(points), scored - len(points), len(votes) - scored, points.count(0.5), share, low, high, alpha,
        compare_voters(votes), effective, *few,
    )  # fmt: skip
