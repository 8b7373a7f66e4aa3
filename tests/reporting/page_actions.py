"""What a user does on the page of a report."""

from __future__ import annotations

from typing import Any


def open_menu(page: Any, name: str) -> None:
    """Open the menu `View` or `Marks` of the bar, unless it is open."""
    button = page.locator(".menu > button", has_text=name)
    if button.get_attribute("aria-expanded") == "false":
        button.click()


def press_in_menu(page: Any, menu: str, name: str) -> None:
    """Press a button of a menu."""
    open_menu(page, menu)
    page.get_by_role("button", name=name).click()
