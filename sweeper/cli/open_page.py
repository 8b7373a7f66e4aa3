"""Write the page of a results folder as `sweeper report` does, and open pages in the browser."""

from __future__ import annotations

import webbrowser
from collections.abc import Collection, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sweeper.cli import console
from sweeper.store import Store
from sweeper.store.trial_marks import Mark

if TYPE_CHECKING:
    from sweeper.reporting.write_report import Report

_MAX_ANSWERED: Final = 3000  # trials; for more, the answer would take longer than the page


def open_in_browser(address: str | Path) -> None:
    """Open a URL or a file in the browser, and say so if there is none.

    The address becomes an argument of the browser, which other users can see, so a token after `#` is left out.
    """
    url = address.resolve().as_uri() if isinstance(address, Path) else address.partition("#")[0]
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
    answers = _find_answers(folder, run) if trials is None else {}
    report = write_report(folder, out, run=run, checked=checked, trials=trials, marks=marks, answers=answers)
    if report.missing_count:
        console.warn(f"{report.missing_count} artifacts are missing; the page marks their cells")
    return report


def _find_answers(folder: Path, run: str | None) -> dict[str, list[str]]:
    """What `sweeper effects` says of each metric. Nothing without the extra `stats`, or for a large sweep."""
    if find_spec("scipy") is None:
        return {}
    with Store.open(folder, readonly=True) as store:
        layout = store.layout(run)
        if not layout.metrics or sum(store.count_by_status(run).values()) > _MAX_ANSWERED:
            return {}
    from sweeper.tables.effect_words import describe_effects
    from sweeper.tables.effects import EffectQuery, analyse_effects

    return describe_effects(analyse_effects(folder, EffectQuery(run=run)))
