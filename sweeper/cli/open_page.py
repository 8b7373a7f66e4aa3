"""Write the page of a results folder as `sweeper report` does, compare for it, and open pages in the browser."""

from __future__ import annotations

import atexit
import html
import shutil
import tempfile
import webbrowser
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli import console
from sweeper.errors import InputError, ResultsError
from sweeper.store.votes import Mark
from sweeper.tables.results_folder import is_check_folder

if TYPE_CHECKING:
    from sweeper.regression.comparison import Comparisons
    from sweeper.reporting.write_report import Report


def open_in_browser(address: str | Path) -> None:
    """Open a URL or a file in the browser, and say so if there is none.

    The address becomes an argument of the browser, which other users can see. So for one with a token after `#`, it is
    that of a page which only this user can read, and which leads there.
    """
    url = shown = address.resolve().as_uri() if isinstance(address, Path) else address
    if "#" in url:
        folder = tempfile.mkdtemp(prefix="sweeper-open-")  # only its owner can enter
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        page = Path(folder, "open.html")
        page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(url)}">')
        url, shown = page.as_uri(), url.partition("#")[0]
    if not webbrowser.open(url):
        console.warn(f"this machine has no browser to open the page in; its address is {shown}")


def write_checked_report(
    folder: Path,
    out: Path | None = None,
    *,
    run: str | None = None,
    baseline: Path | None = None,
    with_check: bool = True,
    trials: Collection[int] | None = None,
    marks: Iterable[Mark] = (),
) -> Report:
    """Write the page of a run with the findings of its check, and warn of missing artifacts. Raises SweeperError."""
    from sweeper.reporting.page_answers import find_answers
    from sweeper.reporting.write_report import write_report

    checked = _check_results(folder, run, baseline, trials) if with_check or baseline is not None else None
    answers = find_answers(folder, run) if trials is None else {}
    is_review = checked is not None and is_check_folder(folder, checked.experiment)
    report = write_report(folder, out, run=run, checked=checked, is_review=is_review, trials=trials, marks=marks,
                          answers=answers)  # fmt: skip
    if report.missing_count:
        console.warn(f"{report.missing_count} artifacts are missing; the page marks their cells")
    return report


def _check_results(
    folder: Path, run_id: str | None, baseline: Path | None, trials: Collection[int] | None
) -> Comparisons | None:
    """Compare a run, or only some `trials` of it, with its baseline. `baseline` None: the experiment's default folder.

    Returns None if nothing was ever accepted in the default folder. Raises ResultsError if a folder was given that
    holds no baseline.
    """
    from sweeper.regression.check import check, make_live_check

    if baseline is None and make_live_check(folder, run_id, None) is None:
        return None
    try:
        comparisons = check(folder, baseline, run=run_id, trials=trials)
    except InputError as error:
        if baseline is not None:
            raise
        console.warn(f"not compared with its baseline: {str(error).splitlines()[0]}")
        return None
    if not comparisons.has_baseline and baseline is not None:
        raise ResultsError(f"{baseline}: no baseline here; `{comparisons.accept_command}` makes one")
    return comparisons if comparisons.has_baseline else None
