"""Which names a file or folder can have on every system that sweeper runs on."""

from __future__ import annotations

import re
from typing import Final

# Windows takes these for devices in every folder, whatever follows a dot or colon ("Naming Files, Paths, and
# Namespaces" in Microsoft's documentation).
_DEVICE: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *([.:].*)?", re.IGNORECASE | re.DOTALL
)


def find_name_problem(name: str) -> str | None:
    """Why no file or folder on Windows can have a name, as the end of a sentence about it; None if one can."""
    if name.endswith((".", " ")):
        return "ends in a dot or a space, which Windows leaves out of names"
    if _DEVICE.fullmatch(name):
        return "is a device on Windows, so no file or folder there can have this name"
    return None


def make_portable(name: str, prefix: str) -> str:
    """The name without dots and spaces at its end, and after a prefix if it is that of a device."""
    name = name.rstrip(". ")
    return name if find_name_problem(name) is None else f"{prefix}-{name}"
