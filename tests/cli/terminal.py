"""A user at a terminal, who answers the question of a command."""

from __future__ import annotations

import os
import subprocess

from tests import ROOT


def answer(python, command, file, text, *flags):
    """Run a command on a terminal whose user trusts the experiment and types `text`.

    Returns the exit code and what the terminal shows.
    """
    leader, follower = os.openpty()
    words = [python, "-m", "sweeper", command, file, "--trust", "--quiet", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    done = subprocess.Popen(
        words, stdin=follower, stdout=subprocess.DEVNULL, stderr=follower, env=environment, start_new_session=True
    )
    os.close(follower)
    os.write(leader, text.encode())
    shown = b""
    try:
        while chunk := os.read(leader, 4096):
            shown += chunk
    except OSError:  # the process has closed the terminal
        pass
    code = done.wait(timeout=60)
    os.close(leader)
    return code, shown.decode()
