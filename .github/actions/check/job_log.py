"""Write to the log of a job. GitHub obeys a line of it that begins with `::error::`, or has `##[error]` anywhere.

The names of files, and what programs print about them, may be a stranger's.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path


def print_command(command: str, text: str) -> None:
    """Print a command such as `error` with one text, whatever is in it."""
    text = text.encode(errors="backslashreplace").decode()  # names of files need not be Unicode
    for mark in "%\r\n":
        text = text.replace(mark, f"%{ord(mark):02X}")
    print(f"::{command}::{text}", flush=True)


def run_program(
    words: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> int:
    """Run a program, and let GitHub obey nothing that it prints. Returns its exit code.

    `output`: the file that gets its standard output, which then does not stand in the log.
    """
    token = secrets.token_hex(16)
    print(f"::stop-commands::{token}", flush=True)
    # GitHub reads stdout and stderr separately, so a line of stderr could come after the token that ends this.
    sys.stdout.flush()
    with output.open("wb") if output else nullcontext(sys.stdout.buffer) as stream:
        code = subprocess.run(words, check=False, stdout=stream, stderr=sys.stdout.buffer, cwd=cwd, env=env).returncode
    print(f"\n::{token}::", flush=True)  # in a line of its own, however the program ended its last one
    return code
