"""Write the page of a results folder as `sweeper report` does, and open pages in the browser."""

from __future__ import annotations

import webbrowser
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli import console
from sweeper.store.trial_marks import Mark

if TYPE_CHECKING:
    from sweeper.reporting.write_report import Report


def open_in_browser(address: str | Path) -> None:
    """Open a URL or a file in the browser, and say so if there is none."""
    url = address.resolve().as_uri() if isinstance(address, Path) else address
    if not webbrowser.open(url):
        console.warn(f"this machine has no browser to open the page in; its address is {url}")


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
    from sweeper.cli.baseline_check import check_results
    from sweeper.reporting.write_report import write_report

    checked = check_results(folder, run, baseline, trials) if with_check or baseline is not None else None
    report = write_report(folder, out, run=run, checked=checked, trials=trials, marks=marks)
    if report.missing_count:
        console.warn(f"{report.missing_count} artifacts are missing; the page marks their cells")
    return report
