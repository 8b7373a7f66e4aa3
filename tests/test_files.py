"""Replacing a file that another program has open, which Windows refuses; its error is simulated here."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.files import atomic_write

_SHARING_VIOLATION = 32


@pytest.fixture
def refuse_replacing(monkeypatch: pytest.MonkeyPatch):
    """Let the first renames fail, as Windows does while another program has the destination open."""

    def refuse(times: int, number: int | None) -> list[Path]:
        refused: list[Path] = []
        real = Path.replace

        def replace(source: Path, target: Path) -> Path:
            if len(refused) < times:
                refused.append(target)
                error = PermissionError(13, "Permission denied", str(source))
                error.winerror = number
                raise error
            return real(source, target)

        monkeypatch.setattr(Path, "replace", replace)
        return refused

    return refuse


def write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def test_a_file_is_replaced_when_the_other_program_closes_it(tmp_path: Path, refuse_replacing) -> None:
    write(tmp_path / "results.csv", "old")
    refused = refuse_replacing(3, _SHARING_VIOLATION)
    write(tmp_path / "results.csv", "new")
    assert (tmp_path / "results.csv").read_text() == "new"
    assert refused == [tmp_path / "results.csv"] * 3


def test_a_file_that_stays_open_is_named_and_left_unchanged(tmp_path: Path, refuse_replacing) -> None:
    write(tmp_path / "results.csv", "old")
    refuse_replacing(100, _SHARING_VIOLATION)
    with pytest.raises(PermissionError, match=r"another program has this file open.* close it there") as caught:
        write(tmp_path / "results.csv", "new")
    assert caught.value.filename == str(tmp_path / "results.csv")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"results.csv": "old"}


def test_another_refusal_is_reported_at_once(tmp_path: Path, refuse_replacing) -> None:
    refused = refuse_replacing(100, None)
    with pytest.raises(PermissionError, match="Permission denied"):
        write(tmp_path / "results.csv", "new")
    assert len(refused) == 1
