"""Print the packages of this Python whose major version the last green run did not have.

`packages-3.13.txt` beside this script lists what the last green run on Python 3.13 had. With `--record` it is written
anew; `.ci/run` does so after a green run, except in CI, where nobody would commit it.
"""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from pathlib import Path

_OURS = "comfy-sweeper"
_MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
_RECORD = Path(__file__).parent / f"packages-{_MINOR}.txt"


def list_packages() -> dict[str, str]:
    """Return the version of each installed package."""
    versions = {package.name.lower().replace("_", "-"): package.version for package in metadata.distributions()}
    versions.pop(_OURS, None)
    return dict(sorted(versions.items()))


def read_record() -> dict[str, str]:
    """Return the versions of the last green run; none if there was no run on this Python."""
    if not _RECORD.is_file():
        return {}
    lines = _RECORD.read_text("utf-8").splitlines()
    return dict(line.split("==", maxsplit=1) for line in lines)


def describe_changes(now: dict[str, str], recorded: dict[str, str]) -> list[str]:
    """Return a line for each package that is new or has another major version."""
    lines = []
    for name, version in now.items():
        before = recorded.get(name)
        if before is None:
            lines.append(f"{name} {version} (new)")
        elif version.partition(".")[0] != before.partition(".")[0]:
            lines.append(f"{name} {version} (was {before})")
    return lines


def main() -> None:
    """Record the packages, or print what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    now = list_packages()
    if parser.parse_args().record:
        _RECORD.write_text("".join(f"{name}=={version}\n" for name, version in now.items()), "utf-8")
        return
    recorded = read_record()
    if not recorded:
        print(f"Python {_MINOR}: {_RECORD.name} does not exist, so that no major version can be compared")
        return
    changes = describe_changes(now, recorded)
    print(f"Python {_MINOR}: {len(changes)} packages with a major version that the last green run did not have")
    for line in changes:
        print(f"  {line}")


if __name__ == "__main__":
    main()
