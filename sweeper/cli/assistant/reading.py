"""Answer an assistant's questions in this process: what submits nothing and writes nothing.

One question at a time runs in a thread, confined as the process of a run is. Everything that it reads has a limit, so
it ends; a caller that does not wait so long gets a message. Pictures are decoded in processes of their own instead,
because a decoder that fails may end its process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

import click

from sweeper.answers.render import to_json
from sweeper.cli.assistant.confined_command import AssistantConfinement
from sweeper.cli.assistant.workspace import Ledger, Workspace
from sweeper.cli.load_prepared import check_file, load_prepared
from sweeper.cli.node_class_source import NodeClassSource
from sweeper.cli.options import get_workflow_path
from sweeper.cli.read_workflow import list_slots
from sweeper.errors import UsageError
from sweeper.running.count_plan import answer_plan
from sweeper.running.settings import RunOptions
from sweeper.tables.query_results import ResultsQuery, query_results

_SECONDS: Final = 120.0  # that a question may take, with those before it


class Reader:
    """Answers questions about the files of a workspace, as JSON values. Call `confine_process` before."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._turn = threading.Lock()  # one question at a time

    async def list_slots(self, workflow: str) -> Any:
        """The inputs of a workflow that can be slots."""
        file = get_workflow_path(self.workspace.resolve(workflow))
        return await self._ask(lambda: list_slots(file, NodeClassSource(None, None)))

    async def validate(self, file: str) -> Any:
        """What is wrong with an experiment or a template."""
        path = self.workspace.resolve(file)
        return await self._ask(lambda: [check_file(path, None, None, trust=False)])

    async def plan_run(
        self, experiment: str, targets: list[str] | None, values: Mapping[str, Any], options: RunOptions
    ) -> Any:
        """What a run would do."""
        file = self.workspace.resolve(experiment)
        return await self._ask(
            lambda: answer_plan(load_prepared(file, targets, trust=False, overrides=values), None, options)
        )

    async def query_results(self, results: str, query: ResultsQuery) -> Any:
        """Rows or groups of the table of a run."""
        return await self._ask(lambda: query_results(self.workspace.find_results(results), query))

    async def analyse_effects(self, results: str, metric: str) -> Any:
        """What each axis changes."""

        def analyse() -> Any:
            from sweeper.tables.effects import EffectQuery, analyse_effects

            query = EffectQuery([metric] if metric else [])
            return analyse_effects(self.workspace.find_results(results), query)

        return await self._ask(analyse)

    async def _ask(self, question: Callable[[], Any]) -> Any:
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
            async with asyncio.timeout(_SECONDS):
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            message = f"the question was not answered within {_SECONDS:.0f} s; ask about a smaller file"
            raise UsageError(message) from None
