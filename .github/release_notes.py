"""Print the changelog's section of a version, for the release on GitHub: `python .github/release_notes.py v0.1.0`.

Exits with a message unless the tag names the version of pyproject.toml, and its section is dated and has a text.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def find_section(version: str) -> tuple[str, str] | None:
    """The date (or `unreleased`) and the text of a version's section. None: there is no such section."""
    changes = (ROOT / ".github/CHANGELOG.md").read_text("utf-8")
    heading = rf"^## \[{re.escape(version)}\] - (\S+)\n(.*?)(?=^## |\Z)"
    found = re.search(heading, changes, re.MULTILINE | re.DOTALL)
    return (found[1], found[2].strip()) if found else None


def main(tag: str) -> str:
    """The text of the section. Raises SystemExit."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    if tag != f"v{version}":
        sys.exit(f"the tag is {tag}, but pyproject.toml has version {version}; tag v{version}, or set `version` there")
    section = find_section(version)
    if section is None:
        sys.exit(f".github/CHANGELOG.md: no section of version {version}; write one: ## [{version}] - YYYY-MM-DD")
    date, text = section
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        sys.exit(f".github/CHANGELOG.md: version {version} is dated {date}; write the day of the release: YYYY-MM-DD")
    if not text:
        sys.exit(f".github/CHANGELOG.md: the section of version {version} is empty; describe the changes for users")
    return text


if __name__ == "__main__":
    print(main(sys.argv[1]))
