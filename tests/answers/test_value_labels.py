"""The short labels that tell the values of an axis apart."""

from __future__ import annotations

import random
import time

from hypothesis import example, given
from hypothesis import strategies as st

from sweeper.answers.cells import MAX_LABEL, label_values

PROMPT = "A cinematic wide photograph of a lighthouse on a cliff, " + "with waves and clouds over the sea, " * 12

words = st.lists(
    st.sampled_from([*"aab", "red", "blue-ish", "fox,", "夜景", "\n", "\t ", "v1.5_x", "x" * 50]), max_size=60
)
values = st.text(max_size=60) | words.map(" ".join) | words.map("".join) | st.integers() | st.booleans()
axes = st.lists(values, max_size=12, unique_by=lambda value: (type(value), value))


def label_texts(*texts: object) -> list[str]:
    return label_values(texts)


def test_long_prompts_show_the_words_that_differ() -> None:
    texts = [f"{PROMPT}drawn in {medium} with soft light {PROMPT}" for medium in ("charcoal", "oil paint on wood")]
    assert label_values(texts) == ["…drawn in charcoal with soft…", "…drawn in oil paint on wood with soft…"]


def test_prompts_that_differ_in_two_places_show_both() -> None:
    texts = [
        f"A photo of a {animal}, very sharp, in {medium}, 4k, award"
        for animal in ("fox", "cat")
        for medium in ("oil", "ink")
    ]
    assert label_values(texts)[:2] == [
        "…of a fox, very sharp, in oil, 4k, award",
        "…of a fox, very sharp, in ink, 4k, award",
    ]


def test_a_model_file_shows_where_its_name_differs() -> None:
    files = [f"checkpoints/some/folder/xyz-{version}.safetensors" for version in ("v1", "v2")]
    assert label_values(files) == ["…folder/xyz-v1.safetensors", "…folder/xyz-v2.safetensors"]


def test_text_without_spaces_is_compared_letter_by_letter() -> None:
    labels = label_texts(
        "一只在雪地里奔跑的红色狐狸,电影感的光线,细节丰富,四千像素,获奖作品",
        "一只在雪地里奔跑的白色狐狸,电影感的光线,细节丰富,四千像素,获奖作品",
    )
    assert labels == ["…跑的红色狐…", "…跑的白色狐…"]


def test_short_values_and_numbers_are_their_own_labels() -> None:
    assert label_texts("euler", "dpm++ 2m  karras", "", " ", 7.5, 12345678901234567890, True) == [
        "euler", "dpm++ 2m  karras", "", " ", "7.5", "12345678901234567890", "true",
    ]  # fmt: skip


def test_a_label_of_the_user_wins() -> None:
    assert label_values([PROMPT + "a", PROMPT + "b"], {1: "the one with the b, as the user calls it"})[1] == (
        "the one with the b, as the user calls it"
    )


def test_labels_that_are_still_equal_get_numbers() -> None:
    texts = [f"{'word ' * 30}{space}end" for space in ("", " ")]
    labels = label_values([*texts, "plain"])
    assert labels[0].endswith(" #1")
    assert labels[1].endswith(" #2")
    assert label_texts(7, "7") == ["7 #1", "7 #2"]


@given(axes)
@example(["a #1", "a", "a\n", "a\t"])
@example(["x" * 200, "x" * 201, " " * 50, "\n" * 50, "\ud800"])
@example([" ".join("a" * count) for count in range(90)])
def test_labels_are_distinct_bounded_and_printable(axis: list[object]) -> None:
    labels = label_values(axis)
    assert len(set(labels)) == len(axis)
    assert all(len(label) <= MAX_LABEL and label.isprintable() for label in labels)


@given(axes, st.randoms(use_true_random=False))
def test_the_order_of_the_values_changes_no_words(axis: list[object], chance: random.Random) -> None:
    order = chance.sample(range(len(axis)), len(axis))
    shuffled = label_values([axis[index] for index in order])
    for label, again in zip(shuffled, map(label_values(axis).__getitem__, order), strict=True):
        assert label == again or (" #" in label and " #" in again) or "#" in label[:2]


@given(axes)
def test_labels_that_fit_are_their_own_labels(axis: list[object]) -> None:
    short = [label for label in label_values(axis) if len(label) <= 24]
    assert label_values(short) == short


def test_ten_thousand_prompts_are_labelled_in_seconds() -> None:
    texts = [f"{PROMPT}drawn in {number} with soft light {PROMPT}" for number in range(10_000)]
    start = time.process_time()
    assert len(set(label_values(texts))) == 10_000
    assert time.process_time() - start < 10
