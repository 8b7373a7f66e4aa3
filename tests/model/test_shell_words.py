"""A command in a message can be pasted into the shell of the system that shows it."""

from __future__ import annotations

import pytest

from sweeper.model.shell_words import join_command


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
