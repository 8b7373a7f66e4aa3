"""The program between sweeper and a ComfyUI: it ends the ComfyUI when sweeper ends, also by `kill -9`.

`python -I -S guard.py FOLDER COMMAND...` starts the command, waits for its end, and ends with its code (128 + N for the
signal N, as shells do). Its standard input is a pipe whose other end only sweeper has: when that closes, the command
ends, and the folder with its outputs is deleted. It needs nothing but the standard library, because it runs without
sweeper's packages.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

_GRACE = 5.0  # seconds for a ComfyUI to end by itself; it has nothing to lose but the job that it executes


def _end_with_sweeper(child: subprocess.Popen[bytes], ended: threading.Event) -> None:
    os.read(0, 1)  # returns at the end of the pipe
    ended.set()
    if sys.platform == "win32":
        child.terminate()
    else:
        os.killpg(0, signal.SIGTERM)  # with the processes that the ComfyUI started; this one ignores it
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            child.kill()


def _guard(folder: str, command: list[str]) -> int:
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # on Windows, where Ctrl-C would end it too
    child = subprocess.Popen(  # noqa: S603 (the user's own ComfyUI, from the user's own file)
        command, stdin=subprocess.DEVNULL, creationflags=flags
    )
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # not before, because the child would ignore it too
    ended = threading.Event()
    threading.Thread(target=_end_with_sweeper, args=(child, ended), daemon=True).start()
    code = child.wait()
    if ended.is_set():  # otherwise the next ComfyUI serves what this one made
        shutil.rmtree(folder, ignore_errors=True)
        if sys.platform != "win32":
            os.killpg(0, signal.SIGKILL)  # what the ComfyUI started may ignore SIGTERM
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    raise SystemExit(_guard(sys.argv[1], sys.argv[2:]))
