"""An assistant for tests: the client of the official SDK, and the server in this process or in one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from sweeper.cli.assistant.workspace import Workspace, get_root
from sweeper.cli.commands.mcp import command
from sweeper.model.money import floor_micros
from tests import ROOT

if TYPE_CHECKING:
    from mcp import Client  # to import it takes a second, which other tests do without

EXPERIMENT = """\
name: tiny
template: templates/txt2img.json
params: {width: 64, height: 64, prompt: a fox}
metrics: [sharpness]
sweep:
  grid:
    steps: [1, 2]
    seed: [1, 2]
"""
SECRET = "comfyui-0123456789abcdef"
PID_FILE = "server.pid"  # beside the root
_START = """\
import os, sys
from pathlib import Path
from sweeper.cli import main
Path(sys.argv[1]).write_text(str(os.getpid()))
sys.executable = os.environ.get("TESTS_PYTHON", sys.executable)  # which starts its commands
sys.exit(main(sys.argv[2:]))
"""


def make_root(parent: Path) -> Path:
    """A root with the shipped templates, and no targets of the user."""
    root = parent / "sweeps"
    shutil.copytree(ROOT / "templates", root / "templates")
    (parent / "targets.yaml").write_text("{}")
    return root


Conversation = Callable[["Client"], Coroutine[Any, Any, None]]


def make_environment(root: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "COMFY_CLOUD_API_KEY": SECRET,
        "SWEEPER_TARGETS": str(root.parent / "targets.yaml"),
        "SWEEPER_TRUST_FILE": str(root.parent / "trusted.json"),
    }


def talk(root: Path, conversation: Conversation, *options: str, **environment: str) -> None:
    """Talk to the server in this process, at most 100 seconds. Its commands have processes of their own, as always.

    To start the server takes a second of the processor, nearly all of it for the SDK.
    """
    from mcp import Client

    from sweeper.cli.assistant.mcp_tools import make_server

    given = command.make_context("mcp", ["--root", str(root), *options]).params
    budget = None if given["budget"] is None else floor_micros(given["budget"])

    async def run() -> None:
        server, runs = make_server(Workspace(get_root(given["root"]), given["targets"]), budget)
        try:
            async with asyncio.timeout(100), Client(server) as client:
                await conversation(client)
        finally:
            await runs.close()

    with mock.patch.dict(os.environ, make_environment(root) | environment), contextlib.chdir(root.parent):
        asyncio.run(run())


def talk_to_process(
    root: Path, conversation: Conversation, *options: str, python: str = sys.executable, **environment: str
) -> None:
    """Start the server as an assistant does, and talk to it over stdin and stdout; at most 100 seconds.

    `python` starts it, and the variable TESTS_PYTHON its commands; see `tests.cli.forked_commands`.
    """
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    script = root.parent / "server.py"
    script.write_text(_START)

    async def run() -> None:
        parameters = StdioServerParameters(
            command=python,
            args=["-P", str(script), str(root.parent / PID_FILE), "mcp", "--root", str(root), *options],
            env=make_environment(root) | environment,
            cwd=root.parent,
        )
        async with asyncio.timeout(100), Client(stdio_client(parameters)) as client:
            await conversation(client)

    asyncio.run(run())


def get_server_pid(root: Path) -> int:
    """The process id of the server that `talk_to_process` started last."""
    return int((root.parent / PID_FILE).read_text())


def is_running(pid: int) -> bool:
    """Whether there is such a process, which has not ended."""
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return False


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    text = result.content[0].text
    assert SECRET not in text
    return json.loads(text) if text[:1] in "{[" else text


async def refuse(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    text: str = result.content[0].text
    assert SECRET not in text
    return text


async def wait_for_end(client: Client) -> Any:
    while (state := await call(client, "get_progress", wait_seconds=20))["running"]:
        pass
    return state
