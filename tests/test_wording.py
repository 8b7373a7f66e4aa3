"""Suggested names in messages: only similar names, and texts and numbers are distinguished. Commands can be pasted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.wording import find_nearest, join_command, suggest


@pytest.mark.parametrize(
    ("word", "names", "wanted"),
    [
        ("stpes", ["cfg", "steps"], "steps"),
        ("Euler", ["heun", "euler"], "euler"),
        ("gone.safetensors", ["photo.safetensors"], None),
        ("foto.safetensors", ["photo.safetensors", "gone.safetensors"], "photo.safetensors"),
        ("loras/gone.safetensors", ["loras/photo.safetensors"], None),
        ("loras/foto.safetensors", ["loras/photo.safetensors"], "loras/photo.safetensors"),
        ("word.txt", ["words.txt", "ward.csv"], "words.txt"),
        ("photo.pt", ["photo.png"], "photo.png"),
        ("zebra", ["cfg", "steps"], None),
        ("", ["cfg"], None),
    ],
)
def test_a_common_suffix_or_folder_does_not_count_as_similar(word, names, wanted):
    assert find_nearest(word, names) == wanted


@pytest.mark.parametrize(
    ("word", "allowed", "expected"),
    [
        ("4", [4, 8], "; did you mean 4, without quotes?"),
        (4, ["4", "8"], "; did you mean the text '4', in quotes?"),
        ("true", [True, False], "; did you mean true, without quotes?"),
        (True, ["true"], "; did you mean the text 'true', in quotes?"),
        (45, [4, 46], "; allowed: 4, 46"),
        (5, ["4", "8"], "; allowed: '4', '8'"),
        (1, ["euler", "heun"], "; allowed: euler, heun"),
        ("x", [True, None, 4], "; allowed: true, null, 4"),
        ("x", [], ""),
        (5.5, range(14), "; allowed: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (2 more)"),
    ],
)
def test_texts_and_numbers_are_distinguished(word, allowed, expected):
    assert suggest(word, allowed) == expected


def test_a_long_list_is_cut_so_that_the_nearest_names_stay():
    samplers = [f"other_{letter}" for letter in "abcdefghijklmnopqrst"]
    names = [*samplers[:15], "dpmpp_2m", *samplers[15:], "dpmpp_sde"]
    text = suggest("DPM++ SDE Karras", names)
    assert text.startswith("; allowed: other_a, ")
    assert "dpmpp_2m, " in text
    assert text.endswith("dpmpp_sde, ... (10 more)")


@given(st.text(max_size=8), st.lists(st.text(max_size=8), max_size=5))
def test_the_nearest_name_is_one_of_the_names(word, names):
    assert find_nearest(word, names) in {None, *names}
    assert word not in names or find_nearest(word, names) is not None or not word


@pytest.mark.parametrize(
    ("word", "windows", "posix"),
    [
        (r"C:\a\b.yaml", r"C:\a\b.yaml", r"'C:\a\b.yaml'"),
        ("a b.yaml", '"a b.yaml"', "'a b.yaml'"),
        ("C:\\a b\\", r'"C:\a b\\"', r"'C:\a b\'"),
        ('prompt == "a\\"', r'"prompt == \"a\\\""', "'prompt == \"a\\\"'"),
        ("a&b;c,d", '"a&b;c,d"', "'a&b;c,d'"),
        ("naïve.yaml", "naïve.yaml", "'naïve.yaml'"),
        ("", '""', "''"),
    ],
)
def test_words_are_quoted_for_the_shell_of_the_system(word: str, windows: str, posix: str) -> None:
    assert join_command(["sweeper", "run", word], "win32") == f"sweeper run {windows}"
    assert join_command(["sweeper", "run", word], "darwin") == f"sweeper run {posix}"
