"""What the menu `Share` of a served page saves: the trials that are shown, as one file or as a contact sheet."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ResultsError, UsageError
from sweeper.reporting.contact_sheet import SheetOptions, write_sheets
from sweeper.reporting.one_file import write_one_file
from sweeper.reporting.page_answers import find_answers
from sweeper.reporting.write_report import write_report

_MEDIA_TYPES: Final = {".html": "text/html", ".png": "image/png"}
_MAX_BYTES: Final = 25_000_000  # of one file, as by default of `sweeper report --max-mb`
_MAX_SHEET_MEGAPIXELS: Final = 200.0  # a download is one picture, so it is not split before that
_RANGES: Final = re.compile(r"(\d{1,9}(-\d{1,9})?(,(?!$)|$))*")
_MAX_TRIALS: Final = 1_000_000


def make_shared_file(results: Path, run: str | None, wish: Any) -> tuple[bytes, str]:
    """Make a file as the page asks for it, and its media type.

    `wish` has `file` (a name whose suffix says the kind), `x` and `y` (axes of a sheet), `trials` (ranges such as
    `0-99,120`; empty: all) and `address` (the view, as it stands behind `#`).

    Raises UsageError if that is not what the page asks for, and ResultsError if the file cannot be made.
    """
    fields = ("file", "x", "y", "trials", "address")
    if not isinstance(wish, Mapping) or not all(isinstance(wish.get(name), str) for name in fields):
        raise UsageError(f"expected an object with the texts {', '.join(fields)}")
    suffix = Path(wish["file"]).suffix
    if suffix not in _MEDIA_TYPES:
        raise UsageError(f"file: {suffix!r} cannot be made; use one of {', '.join(_MEDIA_TYPES)}")
    trials = _parse_ranges(wish["trials"])
    with tempfile.TemporaryDirectory(prefix="sweeper-share-") as folder:
        file = Path(folder, f"shared{suffix}")
        if suffix == ".html":
            answers = find_answers(results, run) if trials is None else {}
            write_page = partial(write_report, results, run=run, trials=trials, answers=answers)
            write_one_file(results, file, _MAX_BYTES, write_page, address=wish["address"])
        else:
            options = SheetOptions(wish["x"] or None, wish["y"] or None, megapixels=_MAX_SHEET_MEGAPIXELS)
            if len(write_sheets(results, file, options, run=run, trials=trials)) > 1:
                raise ResultsError("the sheet is too large for one picture; show fewer trials, or use --sheet")
        return file.read_bytes(), _MEDIA_TYPES[suffix]


def _parse_ranges(text: str) -> frozenset[int] | None:
    """The trials of ranges; None for an empty text. Raises UsageError."""
    if text == "":
        return None
    if not _RANGES.fullmatch(text):
        raise UsageError("trials: expected ranges such as 0-99,120")
    ranges = [tuple(map(int, part.split("-"))) for part in text.split(",")]
    if sum(max(0, part[-1] - part[0] + 1) for part in ranges) > _MAX_TRIALS:
        raise UsageError(f"trials: more than {_MAX_TRIALS:,}")
    return frozenset(trial for part in ranges for trial in range(part[0], part[-1] + 1))
