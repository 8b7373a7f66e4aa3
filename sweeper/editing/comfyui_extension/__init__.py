"""*Sweep...* inside ComfyUI, which loads this folder as a custom node pack. The pack has no nodes.

ComfyUI imports this file by its path and with its own Python, which may lack sweeper. So it imports nothing but the
standard library, takes ComfyUI's own modules from those that are loaded, and does nothing in any other program.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import ipaddress
import json
import logging
import mimetypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

NODE_CLASS_MAPPINGS: Final[dict[str, type]] = {}
WEB_DIRECTORY: Final = "./js"

RECORD_NAME: Final = "sweeper.json"  # beside this file: `python`, the one that ran `sweeper comfyui-extension install`
_MAX_PAGES: Final = 4  # at once; each is a process
_START_SECONDS: Final = 120.0  # until `sweeper open` prints its address; first it reads the classes of all nodes
_AXIS: Final = re.compile(r"[\w:]{1,200}\.[^\x00-\x1f\ud800-\udfff]{1,200}")  # NODE.INPUT; node 5:3 is in subgraph 5
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip")  # from a proxy: the visitor may be anywhere
# Ends as by Ctrl-C when stdin does, which is when ComfyUI ends, however it ends.
_RUN_UNTIL_STDIN_ENDS: Final = """
import _thread, os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if ComfyUI was started by a shell's `&`
def watch():
    while os.read(0, 64): pass
    _thread.interrupt_main()
threading.Thread(target=watch, daemon=True).start()
from sweeper.cli import main
sys.exit(main())
"""


class _RefusalError(Exception):
    """What is wrong with a request."""


class _Routes:
    """What the pack's page asks for, all by POST, because the addresses in the answers have tokens.

    `web` is aiohttp's module; `folder` is where workflows and results go; `inputs` has the pictures of ComfyUI's user.
    """

    def __init__(self, web: Any, folder: Path, inputs: Path) -> None:
        self._web, self._folder, self._inputs = web, folder, inputs.resolve()
        self._pages: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}  # by URL: title, process
        self._starting = asyncio.Lock()

    def add_to(self, routes: Any) -> None:
        for name, answer in {"open": self.open, "pages": self.list_pages, "end": self.end}.items():
            routes.post(f"/sweeper/{name}")(self._guard(answer))

    def _guard(self, answer: Any) -> Any:
        async def respond(request: Any) -> Any:
            try:
                _check_sender(request)
                return self._web.json_response(await answer(_parse(await request.read()), request))
            except _RefusalError as refusal:
                return self._web.json_response({"problem": str(refusal)}, status=403)

        return respond

    async def list_pages(self, *_: Any) -> dict[str, Any]:
        self._pages = {url: page for url, page in self._pages.items() if page[1].poll() is None}
        pages = [{"url": url, "title": title} for url, (title, _) in self._pages.items()]
        return {"pages": pages, "can_start": _find_python() is not None}

    async def end(self, body: dict[str, Any], _request: Any) -> dict[str, Any]:
        _, process = self._pages.pop(str(body.get("url")), ("", None))
        if process is not None:
            threading.Thread(target=process.communicate, daemon=True).start()  # closes its stdin, and waits
        return await self.list_pages()

    async def open(self, body: dict[str, Any], request: Any) -> dict[str, Any]:
        """Write the workflow to a file and start `sweeper open`: `url`. Or only `command`, for the user to start it."""
        graph, axis, title = body.get("prompt"), body.get("axis"), str(body.get("title") or "workflow")
        if not isinstance(graph, dict) or not graph:
            raise _RefusalError("no node of this workflow would run; add some, or unmute them")
        if axis is not None and not (isinstance(axis, str) and _AXIS.fullmatch(axis)):
            raise _RefusalError("`axis` must be NODE.INPUT")
        digest = hashlib.sha256(json.dumps(graph, sort_keys=True).encode()).hexdigest()[:8]
        stem = re.sub("[^a-z0-9]+", "-", title.lower().removesuffix(".json"))[:40].strip("-")
        name = f"{stem or 'workflow'}-{digest}"
        file = self._folder / "workflows" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(graph), "utf-8")
        await asyncio.to_thread(self._copy_inputs, graph, file.parent / "input")
        address, port = request.transport.get_extra_info("sockname")[:2]  # where ComfyUI listens
        origin = request.headers["Origin"].lower()
        target = f"{origin.partition(':')[0]}://{f'[{address}]' if ':' in address else address}:{port}"
        words = ["open", str(file), "--into", str(self._folder / name), "--target", target]
        words += ["--axis", axis] if axis else []
        python = _find_python()
        if python is None:
            join = subprocess.list2cmdline if os.name == "nt" else shlex.join
            return {"command": join(["sweeper", *words])}
        async with self._starting:
            if len((await self.list_pages())["pages"]) >= _MAX_PAGES:
                raise _RefusalError(f"{_MAX_PAGES} sweeps are open; end one of them in the sidebar")
            command = [python, "-P", "-c", _RUN_UNTIL_STDIN_ENDS, *words, "--no-open", "--json", "--embed-in", origin]
            url, process = await asyncio.to_thread(_start, command, self._folder)
            self._pages[url] = title, process
        return {"url": url}

    def _copy_inputs(self, graph: dict[str, Any], folder: Path) -> None:
        """Copy the pictures, films and sounds that a workflow names to where `sweeper open` looks for them."""
        nodes = [node.get("inputs") for node in graph.values() if isinstance(node, dict)]
        values = [value for inputs in nodes if isinstance(inputs, dict) for value in inputs.values()]
        for name in {value.removesuffix(" [input]") for value in values if isinstance(value, str) and len(value) < 300}:
            if (mimetypes.guess_type(name)[0] or "").partition("/")[0] in ("image", "video", "audio"):
                with contextlib.suppress(OSError, ValueError):  # it is not a file, or not in the folder
                    path = Path(os.path.realpath(self._inputs / name, strict=True))
                    copy = folder / path.relative_to(self._inputs)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, copy)


def _start(command: list[str], folder: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """Start `sweeper open` and wait for its address. Raises _RefusalError with what it said if it has ended."""
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(  # noqa: S603 (no shell)
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages,
            start_new_session=True,  # Ctrl-C in ComfyUI's terminal is not for it
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )  # fmt: skip
        assert process.stdout is not None
        lines: list[bytes] = []
        read = partial(process.stdout.readline, 65536)
        reader = threading.Thread(target=lambda: lines.append(read()), daemon=True)
        reader.start()
        end = time.monotonic() + _START_SECONDS
        while reader.is_alive() and process.poll() is None and time.monotonic() < end:
            reader.join(0.1)
        reader.join(0.5)  # of a process that has ended, which may have left another one with its stdout
        try:
            return str(json.loads(lines[0])["url"]), process
        except (IndexError, ValueError, KeyError, TypeError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            code = process.poll()
            if sys.platform != "win32":
                with contextlib.suppress(OSError):  # nothing is left
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            reader.join(0.5)
            if not reader.is_alive():
                process.communicate()
            messages.seek(max(0, messages.tell() - 4000))
            said = messages.read().decode("utf-8", "replace").strip() or "it wrote nothing"
    how = f"no address within {_START_SECONDS:.0f} s" if code is None else f"exit code {code}"
    raise _RefusalError(f"`sweeper open` did not start ({how}): {said}")


def _check_sender(request: Any) -> None:
    """Let only ComfyUI's own page in a browser on this machine pass.

    Raises _RefusalError for other machines, pages of other sites, and those that point their own name at 127.0.0.1.
    """
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin", "")
    names = (request.remote or "", re.sub(r":\d+$", "", host).strip("[]"))
    if not all(map(_is_loopback, names)) or any(name in request.headers for name in _FORWARDED):
        raise _RefusalError(
            "Sweep... works only in a browser on ComfyUI's own machine, at an address such as http://127.0.0.1:8188."
            " Elsewhere, export the workflow, and start `sweeper open workflow.json --target URL`"
        )
    if origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        raise _RefusalError("only ComfyUI's own page may send this")
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        raise _RefusalError("the request must be JSON")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _parse(content: bytes) -> dict[str, Any]:
    """The JSON object of a request, whose size aiohttp limits."""
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(content)
        if isinstance(body, dict):
            return body
    raise _RefusalError("the request must be a JSON object")


def _find_python() -> str | None:
    """The Python that can start `sweeper open`: the recorded one, or ComfyUI's own. None if neither can."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # `install` did not make this folder
        python = json.loads(Path(__file__).with_name(RECORD_NAME).read_text("utf-8"))["python"]
        if os.access(python, os.X_OK):
            return str(python)
    found = importlib.util.find_spec("sweeper")  # imports nothing; on PyPI, `sweeper` is an unrelated program
    folders = [] if found is None else list(found.submodule_search_locations or ())
    return sys.executable if any(Path(folder, "cli/commands/open.py").is_file() for folder in folders) else None


def _join_comfyui() -> None:
    """Add the routes if this is a ComfyUI as expected. Whatever goes wrong, ComfyUI starts as before."""
    try:
        server, folders, aiohttp = (sys.modules.get(name) for name in ("server", "folder_paths", "aiohttp"))
        if server is not None and folders is not None and aiohttp is not None:
            user, inputs = Path(folders.get_user_directory()), Path(folders.get_input_directory())
            _Routes(aiohttp.web, user / "sweeper", inputs).add_to(server.PromptServer.instance.routes)
    except Exception as error:  # noqa: BLE001 (see above)
        logging.getLogger(__name__).warning("Sweep... is not available: %s", error)


_join_comfyui()
