"""The node pack inside ComfyUI, by a stand-in of ComfyUI's server: what it starts, and whom it obeys."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.cli import main
from sweeper.cli.commands.comfyui_extension import RECORD_NAME
from tests import ROOT
from tests.waiting import wait_until

PACK = ROOT / "sweeper/editing/comfyui_extension"
GRAPH = {"3": {"class_type": "KSampler", "inputs": {"steps": 4}}}
ORIGIN = {"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1:8188", "Content-Type": "application/json"}
# A `sweeper` that prints its arguments as its address, and writes a file when it is interrupted.
SWEEPER = """
import json, pathlib, sys, time
def main():
    try:
        print(json.dumps({"url": "http://127.0.0.1:9/#" + json.dumps(sys.argv[1:])}), flush=True)
        while True: time.sleep(0.05)
    except KeyboardInterrupt:
        pathlib.Path("ended").touch()
"""


class Comfyui:
    """ComfyUI's server with its routes; `post` is a request of its page."""

    def __init__(self, user: Path) -> None:
        self.routes: dict[str, Any] = {}
        self.user = user
        server = types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=types.SimpleNamespace(routes=self)))
        web = types.SimpleNamespace(json_response=lambda value, status=200: (status, value))
        inputs = str(user.parent / "input")
        folders = types.SimpleNamespace(get_user_directory=lambda: str(user), get_input_directory=lambda: inputs)
        self.modules = {"server": server, "folder_paths": folders, "aiohttp": types.SimpleNamespace(web=web)}

    def post(self, path: str) -> Callable[[Any], Any]:
        return lambda function: self.routes.setdefault(path, function)

    def load(self, folder: Path) -> types.ModuleType:
        """Load a pack as ComfyUI's nodes.py does."""
        spec = importlib.util.spec_from_file_location(str(folder).replace(".", "_x_"), folder / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def ask(
        self, name: str, body: Any, remote: str = "127.0.0.1", headers: dict[str, str] = ORIGIN
    ) -> tuple[int, dict[str, Any]]:
        async def read() -> bytes:
            return body if isinstance(body, bytes) else json.dumps(body).encode()

        request = types.SimpleNamespace(
            remote=remote, headers={**headers}, read=read,
            transport=types.SimpleNamespace(get_extra_info=lambda _name: ("127.0.0.1", 8188)),
        )  # fmt: skip
        status, answer = asyncio.run(self.routes[f"/sweeper/{name}"](request))
        return status, answer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of ComfyUI."""
    for name in ("custom_nodes", "user", "input/sub"):
        (tmp_path / "ComfyUI" / name).mkdir(parents=True)
    (tmp_path / "ComfyUI/main.py").touch()
    return tmp_path / "ComfyUI"


@pytest.fixture
def comfyui(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comfyui:
    """A ComfyUI with the pack, which starts `SWEEPER`."""
    package = tmp_path / "packages/sweeper"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(SWEEPER)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    found = Comfyui(root / "user")
    for name, module in found.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert main(["comfyui-extension", "install", str(root)]) == 0
    found.load(root / "custom_nodes/comfyui-sweeper")
    return found


def read_arguments(answer: dict[str, Any]) -> list[str]:
    found: list[str] = json.loads(answer["url"].partition("#")[2])
    return found


def test_sweep_opens_the_graph_as_the_page_would_queue_it(comfyui: Comfyui) -> None:
    body = {"prompt": GRAPH, "axis": "3.steps", "title": "My Flow.json"}
    status, answer = comfyui.ask("open", body)
    assert status == 200
    command, file, *options = read_arguments(answer)
    assert command == "open"
    assert json.loads(Path(file).read_text()) == GRAPH
    name = Path(file).stem
    assert name.startswith("my-flow-")
    assert options == [
        "--into", str(comfyui.user / "sweeper" / name), "--target", "http://127.0.0.1:8188", "--axis", "3.steps",
        "--no-open", "--json", "--embed-in", "http://127.0.0.1:8188",
    ]  # fmt: skip
    assert comfyui.ask("pages", {})[1]["pages"] == [{"url": answer["url"], "title": "My Flow.json"}]
    assert comfyui.ask("end", {"url": answer["url"]})[1]["pages"] == []
    wait_until((comfyui.user / "sweeper/ended").exists)


def test_what_it_started_ends_when_comfyui_is_killed(root: Path, comfyui: Comfyui) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.editing.test_comfyui_extension import Comfyui, GRAPH\n"
        f"comfyui = Comfyui(Path({str(root / 'user')!r})); sys.modules |= comfyui.modules\n"
        f"comfyui.load(Path({str(root / 'custom_nodes/comfyui-sweeper')!r}))\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # as after a shell's `&`
        "assert comfyui.ask('open', {'prompt': GRAPH})[0] == 200\nos._exit(9)"
    )
    # `-I`: PYTHONPATH has the stand-in of sweeper.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False, timeout=60).returncode == 9
    wait_until((comfyui.user / "sweeper/ended").exists)


def test_at_most_four_sweeps_are_open(comfyui: Comfyui) -> None:
    urls = []
    for steps in range(4):
        status, answer = comfyui.ask("open", {"prompt": {"3": {"steps": steps}}})
        assert status == 200
        urls.append(answer["url"])
    assert comfyui.ask("open", {"prompt": GRAPH}) == (
        403, {"problem": "4 sweeps are open; end one of them in the sidebar"}
    )  # fmt: skip
    for url in urls:
        comfyui.ask("end", {"url": url})


def test_a_sweep_that_does_not_start_says_why(comfyui: Comfyui, tmp_path: Path) -> None:
    (tmp_path / "packages/sweeper/cli.py").write_text("raise SystemExit('error: no such thing')")
    status, answer = comfyui.ask("open", {"prompt": GRAPH})
    assert (status, answer) == (403, {"problem": "`sweeper open` did not start (exit code 1): error: no such thing"})


@pytest.mark.parametrize(
    ("script", "problem"),
    [("exit 3", "(exit code 3): it wrote nothing"), ("sleep 15 & echo no such library >&2; exit 4",
                                                    "(exit code 4): no such library")],
)  # fmt: skip
def test_a_recorded_python_that_ends_at_once_is_told_at_once(
    comfyui: Comfyui, root: Path, script: str, problem: str
) -> None:
    python = root / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    (root / "custom_nodes/comfyui-sweeper" / RECORD_NAME).write_text(json.dumps({"python": str(python)}))
    begin = time.monotonic()
    assert comfyui.ask("open", {"prompt": GRAPH}) == (403, {"problem": f"`sweeper open` did not start {problem}"})
    assert time.monotonic() - begin < 12


def test_without_sweeper_it_answers_the_command(comfyui: Comfyui, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "custom_nodes/comfyui-sweeper" / RECORD_NAME).write_text('{"python": "/none"}')
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert comfyui.ask("pages", {})[1]["can_start"] is False
    _, answer = comfyui.ask("open", {"prompt": GRAPH, "axis": "3.a b"})
    assert answer["command"].startswith("sweeper open ")
    assert "3.a b" in answer["command"]


@pytest.mark.parametrize(
    ("changed", "remote"),
    [
        ({"Origin": "http://evil.example"}, "127.0.0.1"),
        ({"Origin": "null"}, "127.0.0.1"),
        ({"Origin": "http://127.0.0.1:8189"}, "127.0.0.1"),
        ({"Origin": ""}, "127.0.0.1"),
        ({"Origin": "http://evil.example:8188", "Host": "evil.example:8188"}, "127.0.0.1"),  # DNS rebinding
        ({"Host": "127.0.0.1.evil.example:8188"}, "127.0.0.1"),
        ({"x-forwarded-for": "10.0.0.9"}, "127.0.0.1"),
        ({"Content-Type": "text/plain"}, "127.0.0.1"),
        ({}, "10.0.0.9"),
    ],
)
@pytest.mark.parametrize("name", ["open", "pages", "end"])
def test_only_comfyuis_own_page_on_this_machine_is_obeyed(
    comfyui: Comfyui, name: str, changed: dict[str, str], remote: str
) -> None:
    status, answer = comfyui.ask(name, {"prompt": GRAPH}, remote, ORIGIN | changed)
    assert status == 403
    assert list(answer) == ["problem"]
    assert not (comfyui.user / "sweeper").exists()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b"[]",
        {"prompt": {}},
        {"prompt": []},
        {"prompt": GRAPH, "axis": "--into.x"},
        {"prompt": GRAPH, "axis": "3.\ud800"},
        {"prompt": GRAPH, "axis": ["3.steps"]},
    ],
)  # fmt: skip
def test_a_wrong_request_starts_nothing(comfyui: Comfyui, body: Any) -> None:
    assert comfyui.ask("open", body)[0] == 403
    assert not (comfyui.user / "sweeper").exists()


@pytest.mark.parametrize("title", ["../../../evil", "..", "/etc/passwd", "a\0b", "\ud800", "x" * 5000, "CON", "-rf"])
def test_a_workflows_odd_name_writes_no_file_elsewhere(comfyui: Comfyui, title: str) -> None:
    status, answer = comfyui.ask("open", {"prompt": GRAPH, "title": title})
    assert status == 200
    file = Path(read_arguments(answer)[1])
    assert file.parent == comfyui.user / "sweeper/workflows"
    assert [path.name for path in comfyui.user.rglob("*") if path.is_file()] == [file.name]
    comfyui.ask("end", {"url": answer["url"]})


def test_the_pictures_of_a_workflow_come_along_and_no_other_file(root: Path, comfyui: Comfyui) -> None:
    for name in ("cat.png", "sub/dog.webp", "sub/cat.png", "other.png", "notes.txt", "../secret.png"):
        (root / "input" / name).write_text(name)
    (root / "input/link.png").symlink_to(root / "secret.png")
    names = [
        "cat.png [input]",
        "sub/dog.webp",
        "sub/cat.png",
        "notes.txt",
        "../secret.png",
        str(root / "secret.png"),
        "link.png",
        "none.png",
    ]
    status, answer = comfyui.ask("open", {"prompt": {"1": {"inputs": {name: name for name in [*names, "a\0.png"]}}}})
    assert status == 200
    folder = comfyui.user / "sweeper/workflows/input"
    copied = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.*")}
    assert copied == {name: name for name in ("cat.png", "sub/cat.png", "sub/dog.webp")}
    comfyui.ask("end", {"url": answer["url"]})


@pytest.mark.parametrize("modules", [{}, {"server": object(), "folder_paths": object(), "aiohttp": object()}])
def test_elsewhere_and_in_an_unknown_comfyui_the_pack_does_nothing(
    modules: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("server", "folder_paths", "aiohttp"):
        monkeypatch.setitem(sys.modules, name, modules.get(name))  # type: ignore[arg-type]
    pack = Comfyui(tmp_path / "user").load(PACK)
    assert pack.NODE_CLASS_MAPPINGS == {}
    assert (PACK / pack.WEB_DIRECTORY / "sweep.js").is_file()
    assert not (tmp_path / "user").exists()


@pytest.mark.parametrize("options", [[], ["--copy"]])
def test_install_adds_the_pack_and_uninstall_removes_only_it(
    root: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = root / "custom_nodes/other"
    other.mkdir()
    for _ in range(2):  # again: as after an update
        assert main(["comfyui-extension", "install", *options, str(root / "custom_nodes")]) == 0
    assert "next: restart ComfyUI" in capsys.readouterr().err
    pack = root / "custom_nodes/comfyui-sweeper"
    assert json.loads((pack / RECORD_NAME).read_text()) == {"python": sys.executable}
    assert (pack / "js/sweep.js").read_bytes() == (PACK / "js/sweep.js").read_bytes()
    assert (pack / "__init__.py").is_symlink() == (not options and sys.platform != "win32")
    (pack / "notes.txt").touch()
    assert main(["comfyui-extension", "uninstall", str(root)]) == 2
    assert "contains notes.txt, which sweeper did not put there" in capsys.readouterr().err
    (pack / "notes.txt").unlink()
    assert main(["comfyui-extension", "uninstall", str(root)]) == 0
    assert list((root / "custom_nodes").iterdir()) == [other]
    assert (PACK / "js/sweep.js").is_file()


def test_install_refuses_what_is_not_a_comfyui(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["comfyui-extension", "install", str(root.parent)]) == 2
    assert f"did you mean {root}?" in capsys.readouterr().err
    (root / "custom_nodes/comfyui-sweeper").mkdir()
    assert main(["comfyui-extension", "install", str(root)]) == 2
    assert "has not made this folder" in capsys.readouterr().err
    assert list((root / "custom_nodes/comfyui-sweeper").iterdir()) == []
