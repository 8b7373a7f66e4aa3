"""What an assistant cannot do with `sweeper mcp`: run code, read other files, spend more, or outlive its server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from sweeper.embedded import EmbeddedServer, Faults, Scenario
from sweeper.loading.load import load
from sweeper.loading.trust import find_trust_needs
from sweeper.running.run import run
from sweeper.store import FILE_NAME, Store
from tests import ROOT
from tests.cli.assistant_client import (
    EXPERIMENT,
    SECRET,
    call,
    get_server_pid,
    is_running,
    make_root,
    refuse,
    talk,
    talk_to_process,
    wait_for_end,
)
from tests.few_classes import pick_classes

if TYPE_CHECKING:
    from mcp import Client

pytestmark = pytest.mark.usefixtures("forked_commands")
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither FIFOs nor SIGKILL")
SHADOWED = ("click", "json", "enum", "sitecustomize", "sweeper", "numpy", "PIL", "usercustomize")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


def make_box(root: Path, seconds: float = 0.0) -> EmbeddedServer:
    """A server of the user with the name `box`, where a job takes so long and costs 1 USD."""
    scenario = Scenario(node_seconds={"KSampler": (seconds, seconds)})
    server = EmbeddedServer(dialect="comfyui", faults=Faults(scenario=scenario), nodes=pick_classes())
    server.start()
    entry = {"url": server.url, "price": {"per_job": "1 USD"}}
    (root.parent / "targets.yaml").write_text(json.dumps({"box": entry}))
    return server


@pytest.fixture
def box(root: Path) -> Iterator[EmbeddedServer]:
    server = make_box(root)
    yield server
    server.stop()


@pytest.fixture
def slow_box(root: Path) -> Iterator[EmbeddedServer]:
    server = make_box(root, 1.0)
    yield server
    server.stop()


async def wait_until(is_true: Callable[[], bool]) -> None:
    """Wait until something is true, at most 30 s."""
    for _ in range(600):
        if is_true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not become true")


def list_children(pid: int) -> set[str]:
    """The processes that a process has started, among them the commands of its servers."""
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def count_jobs(server: EmbeddedServer) -> int:
    return server.seen.accepted


def get_json(url: str) -> Any:
    return json.load(urllib.request.urlopen(url, timeout=30))


def test_no_tool_imports_code_from_the_root(root: Path) -> None:
    proof = root.parent / "imported"
    for name in SHADOWED:
        (root / f"{name}.py").write_text(f"open({str(proof)!r}, 'a').write({name!r})\n")
    (root / "sweeper.pth").write_text(f"import sys; open({str(proof)!r}, 'a').write('pth')\n")

    async def conversation(client: Client) -> None:
        await call(client, "list_slots", workflow="templates/txt2img.json")
        await call(client, "make_template", workflow="templates/txt2img.json", output="mine.json")
        await call(client, "save_experiment", path="tiny.yaml", text=EXPERIMENT)
        await call(client, "plan_run", experiment="tiny.yaml")
        await call(client, "start_run", experiment="tiny.yaml")
        assert (await wait_for_end(client))["exit_code"] == 0
        for tool in ("get_table", "get_effects", "make_report", "get_contact_sheet"):
            assert not (await client.call_tool(tool, {"results": "tiny.yaml"})).is_error

    # An empty or relative entry of PYTHONPATH begins in the current folder of each process.
    talk_to_process(root, conversation, PYTHONPATH=os.pathsep.join((str(ROOT), "", ".")))
    assert not proof.exists() or proof.read_text() == ""


# A value of a slot for files -> the end of the path that the refusal names.
OUTSIDE = {
    "/etc/passwd": "/etc/passwd", "../secret.png": "/secret.png", "link.png": "/behind.png", ".env.png": "/.env.png",
    ".hidden/a.png": "/.hidden/a.png", "/proc/1/environ": "/proc/1/environ",
}  # fmt: skip


def test_values_for_file_slots_stay_in_the_root(root: Path, box: EmbeddedServer) -> None:
    for path in (
        root.parent / "secret.png",
        root.parent / "behind.png",
        root / ".env.png",
        root / ".hidden/a.png",
        root / "fine.png",
    ):
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64)).save(path)
    (root / "link.png").symlink_to(root.parent / "behind.png")
    text = "template: templates/img2img.json\nparams: {prompt: a fox}\nsweep: {grid: {image: [fine.png]}}\n"

    async def conversation(client: Client) -> None:
        (root / "edit.yaml").write_text(text)
        (root / "own.yaml").write_text(text.replace("fine.png", ", ".join(("fine.png", *OUTSIDE))))
        for tool in ("plan_run", "start_run"):
            values = {"image": ["fine.png", *OUTSIDE]}
            given = await refuse(client, tool, experiment="edit.yaml", target="box", values=values)
            own = await refuse(client, tool, experiment="own.yaml", target="box")
            for message in (given, own):
                lines = [line for line in message.splitlines() if "the project" in line or "reads nothing" in line]
                assert [end for end in OUTSIDE.values() if f"{end}'" not in "".join(lines)] == [], message
            alone = await refuse(client, tool, experiment="edit.yaml", target="box", values={"image": "link.png"})
            assert "outside of the project" in alone
        (report,) = await call(client, "validate", path="own.yaml")
        assert not report["valid"]
        assert len(report["problems"]) == len(OUTSIDE)

    talk(root, conversation, "--budget", "9 USD")
    assert box.seen.uploads == []


def test_what_was_checked_is_what_runs(root: Path, stranger: Any) -> None:
    """The file changes all the time: it may run, or it names a stranger's server."""
    texts = itertools.cycle((EXPERIMENT, EXPERIMENT + f"target: {stranger.url}\n"))
    done = threading.Event()

    def write_in_turns() -> None:
        while not done.wait(0.002):
            (root / "part.yaml").write_text(next(texts))
            (root / "part.yaml").replace(root / "tiny.yaml")

    (root / "tiny.yaml").write_text(EXPERIMENT)
    writer = threading.Thread(target=write_in_turns)
    writer.start()

    async def conversation(client: Client) -> None:
        started = tried = 0
        while tried < 8 or not started:  # which of the two it meets is chance
            tried += 1
            answer = await client.call_tool("start_run", {"experiment": "tiny.yaml"})
            if not answer.is_error:
                started += 1
                state = await wait_for_end(client)
                assert state["exit_code"] == 0, state
                assert state["summary"]["succeeded"] == 4

    try:
        talk(root, conversation)
    finally:
        done.set()
        writer.join()
    assert stranger.seen == []


def test_two_runs_at_once_share_one_budget(root: Path, box: EmbeddedServer) -> None:
    async def conversation(client: Client) -> None:
        names = [f"run{number}" for number in range(4)]
        for name in names:
            (root / f"{name}.yaml").write_text(EXPERIMENT.replace("tiny", name))
        arguments = [{"experiment": f"{name}.yaml", "target": "box"} for name in names]
        answers = await asyncio.gather(*(client.call_tool("start_run", given) for given in arguments))
        assert [answer.is_error for answer in answers].count(False) == 1
        state = await wait_for_end(client)
        assert state["budget"] == "0.00 USD left of the budget"
        for name in names[:2]:
            await call(client, "start_run", experiment=f"{name}.yaml", target="box")
            await wait_for_end(client)

    talk(root, conversation, "--budget", "3 USD")
    assert count_jobs(box) == 3


def test_another_name_does_not_hide_what_was_spent(root: Path, slow_box: EmbeddedServer) -> None:
    async def conversation(client: Client) -> None:
        await call(client, "save_experiment", path="tiny.yaml", text=EXPERIMENT)
        for name in ("first", "second", "third"):
            await call(client, "start_run", experiment="tiny.yaml", target="box")
            await call(client, "save_experiment", path="tiny.yaml", text=EXPERIMENT.replace("tiny", name))
            state = await wait_for_end(client)
        assert state["budget"] == "0.00 USD left of the budget"

    talk(root, conversation, "--budget", "3 USD")
    assert count_jobs(slow_box) == 3


def test_results_that_are_deleted_still_count(root: Path, box: EmbeddedServer) -> None:
    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(EXPERIMENT)
        await call(client, "start_run", experiment="tiny.yaml", target="box")
        assert (await wait_for_end(client))["budget"] == "0.00 USD left of the budget"
        (root / "results").rename(root / "elsewhere")
        await call(client, "start_run", experiment="tiny.yaml", target="box")
        await wait_for_end(client)

    talk(root, conversation, "--budget", "2 USD")
    assert count_jobs(box) == 2


def move_away(results: Path, number: int) -> None:
    results.rename(results.with_name(f"gone{number}"))


def put_older_copy_back(results: Path, number: int) -> None:
    copy = results.with_name("older")
    if number == 0:
        shutil.copytree(results, copy)
    else:
        shutil.rmtree(results)
        shutil.copytree(copy, results)


def delete_rows(results: Path, number: int) -> None:
    with sqlite3.connect(results / "tiny" / FILE_NAME) as connection:
        connection.execute("DELETE FROM charges")
        connection.execute("DELETE FROM jobs")
    connection.close()


@needs_posix
@pytest.mark.parametrize("forge", [move_away, put_older_copy_back, delete_rows])
def test_forged_results_give_no_budget_back(
    root: Path, box: EmbeddedServer, forge: Callable[[Path, int], None]
) -> None:
    others = list_children(os.getpid())

    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(EXPERIMENT)
        for number in range(3):
            given = {"experiment": "tiny.yaml", "target": "box", "limit": 1 + number}
            # A thread tells the server of the end of a run, which goes on for it until then.
            while (answer := await client.call_tool("start_run", given)).is_error:
                assert "a run is going on" in answer.content[0].text
                await asyncio.sleep(0.05)
            await wait_until(lambda: list_children(os.getpid()) <= others)  # `get_progress` would read the store
            forge(root / "results", number)
        assert (await wait_for_end(client))["budget"] == "0.00 USD left of the budget"

    talk(root, conversation, "--budget", "2 USD")
    assert count_jobs(box) == 2


@pytest.mark.parametrize("name", ["results", "results/tiny", "results/tiny/artifacts", "results/tiny/rehearsal"])
def test_a_run_writes_nothing_behind_a_link(root: Path, box: EmbeddedServer, name: str) -> None:
    outside = root.parent / "outside"
    outside.mkdir()

    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(EXPERIMENT)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(outside)
        assert "link" in await refuse(client, "start_run", experiment="tiny.yaml", target="box")

    talk(root, conversation, "--budget", "9 USD")
    assert list(outside.iterdir()) == []
    assert count_jobs(box) == 0


@needs_posix
@pytest.mark.parametrize("name", ["results", "results/tiny", "results/tiny/artifacts"])
@pytest.mark.parametrize("jobs", [0, 1])
def test_a_link_made_during_a_run_is_not_followed(root: Path, slow_box: EmbeddedServer, name: str, jobs: int) -> None:
    outside = root.parent / "outside"
    outside.mkdir()

    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(EXPERIMENT)
        await call(client, "start_run", experiment="tiny.yaml", target="box")
        await wait_until(lambda: count_jobs(slow_box) >= jobs)
        if (root / name).exists():
            (root / name).rename(root / "elsewhere")
        (root / name).symlink_to(outside)
        state = await wait_for_end(client)
        assert state["exit_code"] != 0
        assert "is a link" in state["messages"]

    talk(root, conversation, "--budget", "9 USD")
    assert list(outside.rglob("*")) == []


def test_a_server_costs_the_same_under_another_name(root: Path, box: EmbeddedServer) -> None:
    async def conversation(client: Client) -> None:
        entry = f"{{url: '{box.url}', concurrency: 2}}"
        for target in (box.url, entry, f"free\ntargets: {{free: {entry}}}"):
            (root / "tiny.yaml").write_text(f"{EXPERIMENT}target: {target}\n")
            assert "use it by that name" in await refuse(client, "start_run", experiment="tiny.yaml")

    talk(root, conversation)
    assert count_jobs(box) == 0


@pytest.mark.parametrize(
    ("addition", "need"),
    [
        ("target: {url: 'URL', api_key_env: AWS_KEY}", "AWS_KEY"),
        ("target: {url: 'URL', partner_key_env: AWS_KEY}", "AWS_KEY"),
        ("metrics: ['os:getenv']", "imports the module 'os'"),
        ("metrics: [{judge: {question: a fox?, url: 'URL', model: m, key_env: AWS_KEY}}]", "sends its pictures"),
        ("run: {out: 'file:///tmp/elsewhere'}", "writes to file:///tmp/elsewhere"),
        ("run: {out: 's3://bucket/folder'}", "writes to s3://bucket/folder"),
        ("run: {notify: 'https://ntfy.sh/a'}", "posts how its runs end to ntfy.sh"),
        ("run: {confirm_above: 100}", "without a question"),
    ],
)
def test_trust_of_the_folder_is_not_for_the_assistant(root: Path, stranger: Any, addition: str, need: str) -> None:
    text = EXPERIMENT.replace("metrics: [sharpness]\n", "") + addition.replace("URL", stranger.url) + "\n"
    (root / "tiny.yaml").write_text(text)
    every = ["--target", stranger.url]

    async def learn(client: Client) -> None:
        for tool in ("plan_run", "start_run"):
            message = await refuse(client, tool, experiment="tiny.yaml")
            assert need in message
            assert "sweeper run" in message
            assert "--trust" in message

    # The person has allowed this experiment everything that it needs, for their own commands.
    needs = find_trust_needs(load(root / "tiny.yaml"), named={})
    grants = [grant for one in needs for grant in one.grants]
    (root.parent / "trusted.json").write_text(json.dumps({"folders": {str(root): grants}}))
    talk(root, learn, *every, "--budget", "9 USD", AWS_KEY="AKIA0123456789")
    assert stranger.seen == []


def kill_while_running(root: Path, server: EmbeddedServer, number: int, python: str) -> float:
    """Start a run of many jobs, send the server a signal, and wait for the end of the run. Returns the seconds."""
    lock = root / "results/tiny/.lock"
    seconds = 0.0

    async def conversation(client: Client) -> None:
        nonlocal seconds
        (root / "tiny.yaml").write_text(EXPERIMENT)
        await call(client, "start_run", experiment="tiny.yaml", target="box", values={"seed": list(range(500))})
        await wait_until(lambda: count_jobs(server) >= 2)
        child = json.loads(lock.read_text())["pid"]
        os.kill(get_server_pid(root), number)
        start = time.monotonic()
        await wait_until(lambda: not is_running(child))
        seconds = time.monotonic() - start

    talk_to_process(root, conversation, "--budget", "900 USD", python=python, TESTS_PYTHON=python)
    return seconds


@needs_posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_run_ends_with_its_server(root: Path, slow_box: EmbeddedServer, name: str, python: str) -> None:
    # Jobs are cancelled after 2 s, and the process ends after 2 s more; its jobs would take minutes.
    assert kill_while_running(root, slow_box, getattr(signal, name), python) < 25
    submitted = count_jobs(slow_box)
    queue = get_json(f"{slow_box.url}/queue")
    assert queue == {"queue_running": [], "queue_pending": []}
    time.sleep(1)
    assert count_jobs(slow_box) == submitted
    with Store.open(root / "results/tiny", readonly=True) as store:
        assert store.runs()[-1].stopped_by == "interrupt"

    async def continue_it(client: Client) -> None:
        await call(client, "start_run", experiment="tiny.yaml", target="box", values={"seed": [0, 1]}, limit=2)
        state = await wait_for_end(client)
        assert state["summary"]["succeeded"] >= 1

    talk(root, continue_it, "--budget", "3 USD")


@needs_posix
def test_a_run_that_is_killed_keeps_its_costs(root: Path, slow_box: EmbeddedServer) -> None:
    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(EXPERIMENT)
        await call(client, "start_run", experiment="tiny.yaml", target="box")
        await wait_until(lambda: count_jobs(slow_box) >= 1)
        os.kill(json.loads((root / "results/tiny/.lock").read_text())["pid"], signal.SIGKILL)
        state = await wait_for_end(client)
        counted = 3 - float(state["budget"].split()[0])
        # A job counts from the moment before it is submitted, so the kill may come in between.
        assert count_jobs(slow_box) <= counted <= count_jobs(slow_box) + 1
        await call(client, "start_run", experiment="tiny.yaml", target="box", values={"seed": list(range(20))})
        assert (await wait_for_end(client))["budget"] == "0.00 USD left of the budget"

    talk(root, conversation, "--budget", "3 USD")
    assert count_jobs(slow_box) in (2, 3)


class Gate:
    """Holds each command of a server that starts them by `program`, in place of Python."""

    def __init__(self, folder: Path, python: str) -> None:
        self.program = str(folder / "program")
        self._fifo, self._opened = folder / "gate", list[int]()
        folder.mkdir()
        os.mkfifo(self._fifo)
        Path(self.program).write_text(
            f'#!/bin/sh\n[ -p "{self._fifo}" ] && read -r _ < "{self._fifo}"\nexec {python} "$@"\n'
        )
        Path(self.program).chmod(0o755)

    def holds(self) -> bool:
        """Whether a command waits."""
        with contextlib.suppress(OSError):  # nobody reads it yet
            self._opened.append(os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(self._opened)

    def open(self) -> None:
        """Let all commands go on, also those that come."""
        self._fifo.unlink()
        while self._opened:
            os.close(self._opened.pop())


async def cancel_call(client: Client, gate: Gate, tool: str, arguments: dict[str, Any]) -> None:
    """Call a tool, and cancel the call while its command is held."""
    asked = asyncio.create_task(client.call_tool(tool, arguments))
    await wait_until(gate.holds)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


@needs_posix
def test_a_cancelled_call_ends_its_command(root: Path, python: str) -> None:
    gate = Gate(root.parent / "held", python)

    async def conversation(client: Client) -> None:
        await cancel_call(client, gate, "make_template", {"workflow": "templates/txt2img.json", "output": "mine.json"})
        await wait_until(lambda: not list_children(get_server_pid(root)))
        assert not (root / "mine.json").exists()

    talk_to_process(root, conversation, python=python, TESTS_PYTHON=gate.program)
    gate.open()


_ENDS = """
import asyncio, sys, time
from pathlib import Path
from sweeper.cli.assistant import mcp_tools, workspace

question = mcp_tools.Reader(workspace.Workspace(Path(sys.argv[1]))).ask(lambda: time.sleep(100))
try:
    asyncio.run(asyncio.wait_for(question, 0.5))
except TimeoutError:
    print("given up")
"""


def test_a_question_without_an_answer_does_not_keep_the_server(root: Path, python: str) -> None:
    """An assistant that is gone waits for nothing, so the thread that still answers must not keep the process."""
    script = root.parent / "ends.py"
    script.write_text(_ENDS)
    command = [python, "-P", str(script), str(root.resolve())]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                           timeout=60, check=False)  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "given up\n"), ended.stderr


@needs_posix
def test_a_start_that_is_cancelled_leaves_no_run(root: Path, slow_box: EmbeddedServer, python: str) -> None:
    gate = Gate(root.parent / "held", python)

    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(EXPERIMENT)
        arguments = {"experiment": "tiny.yaml", "target": "box"}
        await cancel_call(client, gate, "start_run", {**arguments, "values": {"seed": list(range(500))}})
        gate.open()
        await wait_until(lambda: not list_children(get_server_pid(root)))
        await call(client, "start_run", **arguments, limit=1)
        assert (await wait_for_end(client))["summary"]["succeeded"] == 1

    talk_to_process(root, conversation, "--budget", "900 USD", python=python, TESTS_PYTHON=gate.program)
    assert count_jobs(slow_box) < 20


def test_an_answer_is_never_too_long(root: Path) -> None:
    text = EXPERIMENT.replace("prompt: a fox", f"prompt: {'a fox ' * 3000}").replace("seed: [1, 2]", "seed: {seeds: 4}")
    (root / "big.json").write_text(
        json.dumps({str(i): {"class_type": "X", "inputs": {f"value{i}": i, "text": "a"}} for i in range(3000)})
    )

    async def conversation(client: Client) -> None:
        (root / "tiny.yaml").write_text(text)
        await call(client, "start_run", experiment="tiny.yaml")
        await wait_for_end(client)
        for tool, arguments in (
            ("get_table", {"results": "tiny.yaml", "limit": 200}),
            ("list_slots", {"workflow": "big.json"}),
            (
                "plan_run",
                {"experiment": "tiny.yaml", "values": {"prompt": ["a fox " * 100 + str(i) for i in range(300)]}},
            ),
        ):
            result = await client.call_tool(tool, arguments)
            answer = result.content[0].text
            assert len(answer.encode()) <= 60_000, tool
        table = await call(client, "get_table", results="tiny.yaml", limit=200)
        assert "left_out" in table
        found = await call(client, "list_slots", workflow="big.json", contains="value2999")
        assert [slot["address"] for slot in found] == ["2999.value2999"]

    talk(root, conversation)


def test_a_report_reads_no_experiment_outside(root: Path) -> None:
    shutil.copytree(root / "templates", root.parent / "templates")
    (root.parent / "other.yaml").write_text(EXPERIMENT)
    run(root.parent / "other.yaml", out=root / "results/other")

    async def conversation(client: Client) -> None:
        assert len(await call(client, "get_table", results="results/other")) == 4
        assert "is outside of" in await refuse(client, "make_report", results="results/other")

    talk(root, conversation)


def test_a_secret_of_the_environment_is_in_no_answer(root: Path) -> None:
    async def conversation(client: Client) -> None:
        for axis in ("lines: /proc/self/environ", "csv: /proc/self/environ, column: zz", "files: '../*'"):
            text = EXPERIMENT.replace("seed: [1, 2]", f"prompt: {{{axis}}}").replace(", prompt: a fox", "")
            (root / "tiny.yaml").write_text(text + "    exclude: [{prompt: zz}]\n")
            for tool in ("plan_run", "start_run"):
                message = await refuse(client, tool, experiment="tiny.yaml")
                assert "HOME=" not in message
                assert SECRET not in message

    talk(root, conversation)
