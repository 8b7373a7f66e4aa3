"""The tools that an assistant sees. Those that read ask a Reader; the others run a command of sweeper as a process.

The docstrings are what the assistant reads, so they say when to use a tool and what comes next. The protocol is
https://modelcontextprotocol.io/specification; the SDK speaks it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from mcp.server import MCPServer
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from sweeper.answers.render import to_json
from sweeper.cli.assistant.cli_process import CommandProcess, run_command
from sweeper.cli.assistant.confined_command import AssistantConfinement
from sweeper.cli.assistant.workspace import Ledger, Workspace
from sweeper.cli.load_prepared import check_file, load_prepared
from sweeper.cli.options import get_workflow_path, split_names
from sweeper.cli.trust_check import load_named_template
from sweeper.editing.read_workflow import NodeClassSource, list_slots, read_graph
from sweeper.errors import SweeperError, UsageError
from sweeper.model.selection import Selection
from sweeper.running.count_plan import answer_plan
from sweeper.running.settings import RunOptions
from sweeper.tables.query_results import ResultsQuery, query_results

_MAX_ROWS: Final = 200  # of a table in one answer
_SHEET_MEGAPIXELS: Final = 4  # of the first page, which an assistant can still see
_FEWER_CELLS: Final = 'give `columns` for fewer cells, or `where` for other rows, such as "trial >= 40"'
_WAIT: Final = 20.0  # seconds that `get_progress` may wait for the end
_READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_SUBMITS: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=True)
_Tool = TypeVar("_Tool", bound=Callable[..., Any])
_INSTRUCTIONS: Final = """\
sweeper runs a ComfyUI workflow over grids of prompts, seeds and settings, and keeps every picture in a table.
1. `list_slots` shows what a workflow lets you change; `make_template` makes a template of it.
2. Write an experiment (YAML: template, params, sweep: grid:) with `save_experiment`, and check it with `validate`.
3. `plan_run` says how many trials it has and what they cost. Tell the person before you run something that costs money.
4. `start_run` runs it in the background; `get_progress` follows it. The same experiment again continues where it was.
5. `get_table`, `get_effects` and `get_contact_sheet` show the results; `make_report` makes the page for the person.
All paths are relative to the root folder. Messages say what is wrong and what to do next; follow them."""


@dataclass(slots=True)
class Runs:
    """The run that this server started last, and what its runs may cost. One runs at a time."""

    workspace: Workspace
    ledger: Ledger
    current: CommandProcess | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_running(self) -> bool:
        return self.current is not None and self.current.exit_code is None

    async def start(self, *words: str) -> str:
        """Start `run` or `search`, and wait until it has checked its experiment. Raises UsageError if it refuses.

        If the call is cancelled, the run is interrupted as soon as it has checked its experiment.
        """
        task = asyncio.create_task(self._start(words))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: None if done.cancelled() or done.exception() else self.interrupt())
            raise

    async def _start(self, words: Sequence[str]) -> str:
        # Two calls at once would both see the same budget, so the second waits, and finds the run of the first.
        async with self._lock:
            if self.is_running:
                raise UsageError("a run is going on; wait for it with `get_progress`, or stop it with `stop_run`")
            if self.current is not None and not await self.current.wait(_WAIT):
                raise UsageError("the last run has ended, but its output has not; call `start_run` again")
            left = str(self.ledger)
            process = await CommandProcess.start([*words, "--json"], self.workspace, self.ledger)
            await process.read_line()
            self.current = process
        return f"started; {left}. Call get_progress."

    def interrupt(self) -> None:
        """Interrupt what runs; see `CommandProcess.interrupt`."""
        if self.current is not None:
            self.current.interrupt()

    async def close(self) -> None:
        """Stop what runs, as after a second Ctrl-C; it takes 5 s at most."""
        if self.current is not None and self.is_running:
            await self.current.close()


def make_server(workspace: Workspace, budget: int | None) -> tuple[MCPServer, Runs]:
    """Make the server with all tools. Close the Runs when it has ended."""
    server = MCPServer("sweeper", instructions=_INSTRUCTIONS, log_level="WARNING")
    runs = Runs(workspace, Ledger(budget))
    reader = Reader(workspace)
    _add_building_tools(server, workspace, reader)
    _add_running_tools(server, workspace, runs)
    _add_result_tools(server, workspace, reader)
    return server, runs


def _tool(server: MCPServer, hints: ToolAnnotations) -> Callable[[_Tool], _Tool]:
    """Add a tool. Its SweeperErrors become errors with their messages, which the assistant can act on."""

    def add(function: _Tool) -> _Tool:
        @functools.wraps(function)
        async def explain_errors(*args: Any, **rest: Any) -> Any:
            try:
                return await function(*args, **rest)
            except (SweeperError, OSError) as error:
                raise ToolError(cut_text(str(error))) from error

        server.add_tool(explain_errors, annotations=hints, structured_output=False)
        return function

    return add


def _add_building_tools(server: MCPServer, workspace: Workspace, reader: Reader) -> None:
    @_tool(server, _READS)
    async def list_slots(workflow: str, contains: str = "") -> str:
        """List every input of a workflow (JSON as ComfyUI exports it, or a picture that carries one) that can become a
        slot: node, input, type, current value, suggested name.

        `contains`: only the slots with this text in their name, address, class or title.
        """
        file = get_workflow_path(workspace.resolve(workflow))
        slots = await reader.ask(lambda: _list_slots(file))
        fields = ("name", "address", "class_type", "title")
        found = [slot for slot in slots if any(contains.lower() in str(slot[field]).lower() for field in fields)]
        return to_text(found, "ask for some of them by `contains`, a part of a name, address, class or title")

    @_tool(server, _SUBMITS)
    async def make_template(workflow: str, output: str) -> str:
        """Make a template with named slots (OUTPUT.json and OUTPUT.slots.yaml) from a workflow or a picture.

        Experiments name it under `template:`, relative to the experiment.
        """
        target = workspace.resolve(output)
        if target.exists():
            raise UsageError(f"{output} exists already; choose another name")
        words = ("template", "new", str(workspace.resolve(workflow)), "-o", str(target))
        return to_text(await run_command([*words, "--json"], workspace))

    @_tool(server, _SUBMITS)
    async def save_experiment(path: str, text: str) -> str:
        """Write an experiment (YAML) and check it. An existing experiment is replaced; any other file is refused.

        Example: {template: templates/txt2img.json, params: {width: 512, height: 512}, sweep: {grid: {steps: [8, 20],
        seed: {seeds: 2}}}, metrics: [sharpness]}
        """
        workspace.save_experiment(path, text)
        return await validate(path)

    @_tool(server, _READS)
    async def validate(path: str) -> str:
        """Report every mistake in an experiment or template, with its line and what to write instead."""
        file = workspace.resolve(path)
        return to_text(await reader.ask(lambda: [check_file(file, None, None, trust=False)]))

    @_tool(server, _READS)
    async def plan_run(
        experiment: str, target: str = "", values: dict[str, Any] | None = None, where: str = "", limit: int = -1
    ) -> str:
        """Say what a run would do, without submitting anything: axes, number of trials, how many are done, cost, time.

        `values` gives slots other values than the experiment, such as {"steps": [4, 8]}; `where` is a condition such as
        "steps > 4"; `limit` is the most trials to submit (-1: all).
        """
        options = RunOptions(where=where or None, limit=None if limit < 0 else limit)
        file, targets = workspace.resolve(experiment), split_names([target]) or None
        load = functools.partial(load_prepared, file, targets, trust=False, overrides=values or {})
        return to_text(await reader.ask(lambda: answer_plan(load(), None, options)))


def _add_running_tools(server: MCPServer, workspace: Workspace, runs: Runs) -> None:
    @_tool(server, _SUBMITS)
    async def start_run(
        experiment: str,
        target: str = "",
        values: dict[str, Any] | None = None,
        where: str = "",
        limit: int = -1,
        *,
        rehearse: bool = False,
    ) -> str:
        """Start a run in the background: the trials of the experiment that are not done yet. Call `plan_run` before.

        The arguments are those of `plan_run`. `rehearse` runs it on sweeper's own server, at no cost. Follow it with
        `get_progress`. Runs never cost more than the budget that the person set.
        """
        options = [*_make_options(target, values, where, limit), *(["--rehearse"] if rehearse else [])]
        return await runs.start("run", str(workspace.resolve(experiment)), *options)

    @_tool(server, _SUBMITS)
    async def start_search(experiment: str, target: str = "", trials: int = 0) -> str:
        """Start a search in the background: an optimiser chooses the trials, as the section `search` says.

        Example of the section: {maximize: sharpness, trials: 60, space: {cfg: {from: 1, to: 12}}, over: {seed: {seeds:
        2}}}. `trials`: the most trials in all (0: as written). The best number is too good, because its point was
        chosen for it; a person measures it on fresh seeds by `sweeper search EXPERIMENT --confirm`.
        """
        options = [*_make_options(target, None, "", -1), *(["--trials", str(trials)] if trials else [])]
        return await runs.start("search", str(workspace.resolve(experiment)), *options)

    @_tool(server, _READS)
    async def get_progress(wait_seconds: float = 5.0) -> str:
        """Show how far the run is, or its summary if it has ended. Waits for the end, at most so many seconds (20)."""
        if runs.current is None:
            return "no run was started"
        await runs.current.wait(min(max(wait_seconds, 0.0), _WAIT))
        state = {
            "running": runs.is_running,
            "exit_code": runs.current.exit_code,
            "summary": runs.current.parse_output(),
            "messages": runs.current.read_messages()[-4000:],
            "budget": str(runs.ledger),
        }
        return to_text(state)

    @_tool(server, _SUBMITS)
    async def stop_run() -> str:
        """Stop the run: it submits nothing more and waits for its jobs. A second call cancels those jobs."""
        if runs.current is None or not runs.is_running:
            return "no run is going on"
        runs.interrupt()
        return "stopping; call get_progress"


def _add_result_tools(server: MCPServer, workspace: Workspace, reader: Reader) -> None:
    @_tool(server, _READS)
    async def get_table(
        results: str, columns: str = "", where: str = "", sort: str = "", by: str = "", limit: int = 50
    ) -> str:
        """Show rows of the table of an experiment or a results folder (at most 200 in one answer).

        `columns`, `sort` and `by` are names separated by commas; `sort` may be "-sharpness"; `by` gives one row for
        each value of these axes, with means.
        """
        query = ResultsQuery(
            Selection(where or None, min(max(limit, 1), _MAX_ROWS)),
            split_names([sort]),
            split_names([columns]) or None,
            split_names([by]) or None,
        )
        answer = await reader.ask(lambda: query_results(workspace.find_results(results), query))
        return to_text(answer, _FEWER_CELLS)

    @_tool(server, _READS)
    async def get_effects(results: str, metric: str = "") -> str:
        """Say what each axis changes in a metric (default: all), by how much, for which prompts, how surely."""

        def analyse() -> Any:
            from sweeper.tables.effects import EffectQuery, analyse_effects  # noqa: PLC0415 - NumPy and SciPy

            return analyse_effects(workspace.find_results(results), EffectQuery([metric] if metric else []))

        return to_text(await reader.ask(analyse))

    @_tool(server, _READS)
    async def get_contact_sheet(results: str, x: str = "", y: str = "", where: str = "", cell: int = 192) -> Image:
        """Show the pictures as one image: a grid of two axes (default: chosen by sweeper), with their values written.

        `cell`: pixels of the longer side of a picture. A large run is cut to its first page; choose trials by `where`.
        """
        folder = workspace.resolve(results)
        with tempfile.TemporaryDirectory(prefix="sweeper-") as temporary:
            sheet = Path(temporary, "sheet.webp")
            words = ["report", str(folder), "--sheet", str(sheet), "--cell", str(cell)]
            words += ["--megapixels", str(_SHEET_MEGAPIXELS)]
            for option, value in (("--x", x), ("--y", y), ("--where", where)):
                words += [option, value] if value else []
            await run_command([*words, "--json"], workspace)
            return Image(data=_read_first_page(Path(temporary)), format="webp")

    @_tool(server, _SUBMITS)
    async def make_report(results: str, *, open_in_browser: bool = False) -> str:
        """Make the page of the results for the person; `open_in_browser` opens it on their machine."""
        words = ["report", str(workspace.resolve(results)), *(["--open"] if open_in_browser else [])]
        return to_text(await run_command([*words, "--json"], workspace))


def _list_slots(file: Path) -> Any:
    """The inputs of a workflow that can be slots."""
    classes = NodeClassSource()
    found = read_graph(file, classes)
    own = load_named_template(file).slots if found.is_unchanged else {}
    return list_slots(found.graph, classes.select(found.graph), own)


def _read_first_page(folder: Path) -> bytes:
    return min(folder.glob("*.webp")).read_bytes()


def _make_options(target: str, values: Mapping[str, Any] | None, where: str, limit: int) -> list[str]:
    options = [word for name in split_names([target]) for word in ("--target", name)]
    for name, value in (values or {}).items():
        options += ["--set", f"{name}={json.dumps(value)}"]
    options += ["--where", where] if where else []
    return options + (["--limit", str(limit)] if limit >= 0 else [])


MAX_BYTES: Final = 60_000  # of one answer
# How long texts, and how many items of lists and mappings, stay in an answer that is too long; one step after another.
_LEVELS: Final = ((2000, 500), (400, 100), (100, 20), (40, 5))


def to_text(value: Any, advice: str = "ask for less") -> str:
    """Write a value as JSON. One that is too long gets shorter texts and fewer items, and says so in `left_out`.

    An assistant pays for every word that it reads. `advice` says how to ask for the rest.
    """
    text = _dump(value)
    if len(text.encode()) <= MAX_BYTES:
        return text
    for longest, most in _LEVELS:
        short = _shorten({"first": value} if isinstance(value, list) else value, longest, most)
        left_out = f"this has texts of at most {longest} characters and lists of at most {most} items; {advice}"
        text = _dump({**short, "left_out": left_out})
        if len(text.encode()) <= MAX_BYTES:
            return text
    return cut_text(text)


def cut_text(text: str) -> str:
    """Return at most `MAX_BYTES` of a text, and say so if it is longer."""
    content = text.encode()
    if len(content) <= MAX_BYTES:
        return text
    return content[: MAX_BYTES - 100].decode("utf-8", "ignore") + f"\n... (cut; it has {len(content)} bytes)"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def _shorten(value: Any, longest: int, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}... ({len(value)} characters)"
    if isinstance(value, Mapping):
        items = list(value.items())
        short = {_shorten(key, longest, most): _shorten(item, longest, most) for key, item in items[:most]}
        return short | ({"...": f"{len(items) - most} more"} if len(items) > most else {})
    if isinstance(value, Sequence):
        short_items = [_shorten(item, longest, most) for item in value[:most]]
        return short_items + ([f"... {len(value) - most} more"] if len(value) > most else [])
    return value


_ANSWER_SECONDS: Final = 120.0  # that a question may take, with those before it


class Reader:
    """Answers questions about the files of a workspace in this process, as JSON values. Submits and writes nothing.

    One question at a time runs in a thread, confined as the process of a run is; call `confine_process` before.
    Everything that it reads has a limit, so it ends; a caller that does not wait so long gets a message. Pictures are
    decoded in processes of their own instead, because a decoder that fails may end its process.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._turn = threading.Lock()  # one question at a time

    async def ask(self, question: Callable[[], Any]) -> Any:
        """Run a question in the thread, and return its answer as JSON. Raises UsageError if that takes too long."""
        future: Future[Any] = Future()

        def answer() -> None:
            try:
                with (
                    self._turn,
                    click.Context(click.Command("mcp"), obj=AssistantConfinement(self.workspace, Ledger())),
                ):
                    future.set_result(to_json(question()))
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                future.set_exception(error)

        # Of a pool, Python would wait for the last question before the server can end.
        threading.Thread(target=answer, name="sweeper-reader", daemon=True).start()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            message = f"the question was not answered within {_ANSWER_SECONDS:.0f} s; ask about a smaller file"
            raise UsageError(message) from None
