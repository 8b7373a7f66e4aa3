"""Run one `sweeper` command line as on Windows, as far as Linux can: `python simulated_windows.py run x.yaml`.

sweeper sees `win32`, no `fcntl` and no handlers of signals in the event loop. `msvcrt` locks by `fcntl`, and SIGUSR1
stands for Ctrl-Break. What sweeper imports comes first, because those packages must see the real system. With the
variable HELD, it then waits for a line on stdin.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import os
import signal
import subprocess
import sys
import types

import anyio._backends._asyncio
import click
import httpx
import jinja2
import jsonschema
import numpy as np
import PIL.Image
import platformdirs
import rich.progress
import starlette.applications
import uvicorn.protocols.http.h11_impl
import websockets

_IMPORTED = (anyio, click, httpx, jinja2, jsonschema, np, PIL, platformdirs, rich, starlette, uvicorn, websockets)


def lock(descriptor: int, _mode: int, count: int) -> None:
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, count, os.lseek(descriptor, 0, os.SEEK_CUR))


def refuse(*_: object) -> None:
    raise NotImplementedError


def simulate() -> None:
    modules = {"msvcrt": {"locking": lock, "LK_NBLCK": 2}, "colorama": {"just_fix_windows_console": lambda: None}}
    for name, members in modules.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(members)
    for name in ("fcntl", "termios", "uvloop"):
        sys.modules[name] = None
    asyncio.SelectorEventLoop.add_signal_handler = asyncio.SelectorEventLoop.remove_signal_handler = refuse
    signal.SIGBREAK, signal.CTRL_BREAK_EVENT, subprocess.CREATE_NEW_PROCESS_GROUP = signal.SIGUSR1, 1, 0x200
    sys.platform = "win32"


if __name__ == "__main__":
    simulate()
    from sweeper.cli import main

    if "HELD" in os.environ:
        importlib.import_module("sweeper.cli.commands.run")
        sys.stdin.readline()
    sys.exit(main())
