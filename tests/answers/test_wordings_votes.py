"""The answers of `sweeper votes` keep their approved words."""

from __future__ import annotations

from dataclasses import replace
from math import nan

from sweeper.statistics.ranking import Agreement
from sweeper.tables.vote_tally import (
    AnswerCounts,
    BetterValue,
    DirectResult,
    JudgeAgreement,
    RankedValue,
    ValueRanking,
    VoteRankings,
)
from sweeper.voting.ballot import JudgeVotes
from sweeper.voting.vote_files import ImportedVotes, MergeCounts
from tests.answers.approved import check_approved

NAMES = ("euler", "heun", "ddim", "lcm")
SHARES = (0.9435465, 0.51, 0.3, 0.04)


def rank(*apart, axis="sampler", is_point=False, columns=("sampler",), independent=False, voted=4, **facts):
    values = tuple(
        RankedValue(name, (name,) * len(columns), share, share / 2, share,
                    AnswerCounts(9, 1, index, 2) if index < voted else AnswerCounts(), facts.get("by_voter", {}))
        for index, (name, share) in enumerate(zip(NAMES, SHARES, strict=True))
    )  # fmt: skip
    better = tuple(BetterValue(NAMES[first], NAMES[second]) for first, second in apart)
    direct = () if is_point else (DirectResult("euler", "heun", 14, 6), DirectResult("heun", "lcm", 5, 0))
    return ValueRanking(axis, columns, 40, independent, values, better, facts.get("scope", ""), direct,
                        facts.get("cycle", ()), is_point)  # fmt: skip


def summarize(*, votes=42, voters=None, agreement=None, axes=None, pictures=None, lost=0, equal=0):
    voters, agreement = voters or {"ana": 41, "bo\x1b[2J": 1}, agreement or Agreement(3, 4, 0.61)
    answers = {"left": 30, "right": 10, "tie": 1, "bad": 1}
    return VoteRankings(votes, voters, agreement, axes, pictures, answers, lost, "foxes.yaml", equal)


def test_rankings_of_values():
    rankings = (rank((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)), rank((0, 1), (0, 2), (0, 3), (1, 3)), rank())
    check_approved("votes", summarize(axes=(*rankings, rank((0, 1), axis="steps", independent=True)), lost=2))
    few = {"scope": ", for these 3 prompts, by these 2 voters", "by_voter": {"ana": 0.3, "bo": 0.713}}
    many = {"by_voter": {"ana": 0.3, "bo": 0.713, "cy": 0.4, "di": 0.5}}
    rankings = (rank((0, 3), cycle=("euler", "heun", "ddim"), **few), rank(axis="steps", **many))
    check_approved("votes_of_few", summarize(axes=rankings))
    check_approved("votes_of_one", summarize(axes=(), voters={"ana": 42}))
    check_approved("votes_about_different_pairs", summarize(axes=(), agreement=Agreement(0, 0, None)))
    check_approved("votes_that_all_agree", summarize(axes=(), agreement=Agreement(4, 4, None)))
    check_approved("votes_none", summarize(votes=0, axes=()))
    check_approved("votes_about_equal_pictures", summarize(axes=(), equal=12))


def test_rankings_of_points_and_pictures():
    points = rank((0, 1), axis="point", is_point=True, columns=("cfg", "sampler"), voted=3)
    unseen = rank(axis="point", is_point=True, columns=("cfg", "sampler"), voted=0)
    check_approved("votes_about_points", summarize(axes=(points, unseen)))
    row = {"trial": 3, "sampler": "euler", "share": 0.9426, "won": 13, "tied": 0, "lost": 0, "bad": 0,
           "picture": "artifacts/3.png"}  # fmt: skip
    check_approved("votes_about_pictures", summarize(pictures=[row]))


def test_imported_votes():
    check_approved("votes_import", ImportedVotes({"bo.jsonl": MergeCounts(4, 0, 0), "c.jsonl": MergeCounts(1, 2, 3)}))


def test_votes_of_a_judge():
    check_approved("votes_judge", JudgeVotes("judge:qwen", {"left": 2, "right": 1, "tie": 3}, 0, 0, ""))
    error = "3 answers in a row are neither left, right nor tie; ask for these words with --question"
    check_approved("votes_judge_stopped", JudgeVotes("judge:qwen", {"tie": 2}, 2, 1, error))


def test_agreement_with_a_judge():
    facts = {"metric": "shows_it", "ties": 14, "unscored": 0, "metric_ties": 9, "people": Agreement(70, 100, 0.612)}
    good = JudgeAgreement(
        votes=120, share=0.783, low=0.66, high=0.87, alpha=0.448, effective=48.0, prompts=3, voters=2, **facts
    )
    check_approved("votes_judge_agrees", good)
    few = {**facts, "people": Agreement(0, 0, None), "unscored": 5}
    less = JudgeAgreement(
        votes=4, share=0.5, low=0.07, high=0.93, alpha=None, effective=4, prompts=None, voters=1, **few
    )
    check_approved("votes_judge_few", less)
    check_approved("votes_judge_without", replace(less, votes=0, share=nan, low=0.0, high=1.0, voters=None))
    low, high = replace(good, low=0.2, high=0.49), replace(good, low=0.51, high=0.8)
    assert [low.is_doubtful(direction) for direction in (1, 0, -1)] == [True, False, False]
    assert [high.is_doubtful(direction) for direction in (1, 0, -1)] == [False, False, True]
    unsure = replace(good, low=0.4, high=0.6)
    assert [unsure.is_doubtful(direction) for direction in (1, 0, -1)] == [True, True, True]
    assert not replace(unsure, effective=29.9).is_doubtful(1)
