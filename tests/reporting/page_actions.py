"""What a user does on the page of a report."""

from __future__ import annotations

import json
from typing import Any


def change_address(page: Any, address: str) -> None:
    """Give an open page another address behind its `#`, as Back or a link does: it shows what it would when opened."""
    page.evaluate(
        """address => new Promise(done => {
        const before = location.href;
        location.hash = address;
        if (location.href === before) done();
        else addEventListener('hashchange', () => done(), { once: true }); })""",
        address,
    )


def open_menu(page: Any, name: str) -> None:
    """Open the menu `Marks`, `View` or `Share` of the bar, unless it is open."""
    button = page.locator(f'.menu > button[data-keep="{name}"]')
    if button.get_attribute("aria-expanded") == "false":
        button.click()


def press_in_menu(page: Any, menu: str, name: str) -> None:
    """Press a button of a menu."""
    open_menu(page, menu)
    page.get_by_role("button", name=name).click()


def choose_axis(page: Any, direction: str, name: str) -> None:
    """Give an axis a direction (`X axis`, `Y axis`, `Outer columns`, `Outer rows`), as a press on the corner allows."""
    press_in_menu(page, "View", "Axes and values…")
    page.get_by_role("dialog").get_by_label(direction, exact=True).select_option(name)
    page.get_by_role("button", name="Done").click()


def read_axes(page: Any) -> list[str]:
    """The axes across, down, and of the outer columns."""
    return page.evaluate("(({ x, y, xx }) => [x, y, xx])(sweeper.page.getState())")


def list_heads(page: Any, lines: str = ".head") -> list[str]:
    """The values of the columns (or with `.side`, of the rows) that are in the document, in full."""
    return read_all(page, lines, "all => all.map(one => one.title)")


def read_all(page: Any, selector: str, script: str, argument: Any = None) -> Any:
    """What a function returns for all elements of a selector; `evaluate_all` loads a script into the page before."""
    found = f"[...document.querySelectorAll({json.dumps(selector)})]"
    return page.evaluate(f"argument => ({script})({found}, argument)", argument)
