"""Run one command of sweeper for an assistant: `python -P -m sweeper.cli.assistant.confined_command`.

The process reads one line of JSON from stdin: the `words` of the command, the `root`, the `targets` that the person
named, and the `budget` (US dollars). It checks the experiment that it has loaded, so what was checked is what runs.
Before a run, it creates the results folder, and prints one line of JSON. Before each job of the run, and after it, a
line with `spent` says what all jobs of this process cost at most. A line is in the pipe before the job is submitted,
so the server knows of the job even if this process is killed.

Stdin stays open. Each further line interrupts the command as Ctrl-C does. At its end the server is gone, however it
ended; then the command ends too.
"""

from __future__ import annotations

import _thread
import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.cli.assistant.workspace import SPENT, Ledger, Workspace, check_spending
from sweeper.cli.exit_codes import INTERRUPTED
from sweeper.errors import InputError, Problem, SweeperError
from sweeper.loading.read_scope import ReadScope, limit_process
from sweeper.loading.trust import find_trust_needs, find_url_path
from sweeper.model.experiment import Experiment
from sweeper.model.target_spec import NamedTargets
from sweeper.running.cost_question import load_spent
from sweeper.running.prepare import Prepared
from sweeper.tables.results_folder import default_results_folder
from sweeper.wording import join_command

if TYPE_CHECKING:
    from sweeper.running.session import Session

_STDIN: Final = 0
_STDOUT: Final = 1
_DRAIN_SECONDS: Final = 2.0  # after the server is gone, until the jobs in flight are cancelled
_CANCEL_SECONDS: Final = 2.0  # and then until the process ends in any case; the store has every job


@dataclass(slots=True)
class AssistantConfinement:
    """The limits of a command: files in the root, the person's servers, their budget, and nothing that needs trust.

    `out`: the results folder of its run, after `allow_run`.
    """

    workspace: Workspace
    ledger: Ledger
    out: Path | None = field(default=None, init=False)

    @property
    def scope(self) -> ReadScope:
        """The root. What `--set` gives was chosen by the assistant, so it is no exception."""
        return ReadScope(self.workspace.project)

    def find_problems(
        self, experiment: Experiment, *, targets: Sequence[Any] | None, users: NamedTargets, out: object
    ) -> list[Problem]:
        """What the experiment may not do, besides reading files. The arguments are those of `load_trusted`.

        Trust of its folder does not count: an assistant may have written it.
        """
        name = str(experiment.file)
        needs = [need.problem for need in find_trust_needs(experiment, targets=targets, named=users, out=out)]
        url = experiment.run.out
        if url is not None and not (
            url.startswith("file:///") and self.workspace.project.contains(Path(find_url_path(url)))
        ):
            needs.append(Problem(name, 0, "run.out", f"writes to {url}, which is outside of {self.workspace.root}"))
        problems: list[Problem] = []
        if needs:
            command = join_command(["sweeper", "run", name, "--trust"])
            message = f"needs a person for what the next lines say; one who trusts the file can run it: {command}"
            problems = [Problem(name, 0, "", message), *needs]
        try:
            self.workspace.check_servers(experiment, targets or (), users)
        except InputError as error:
            problems += [replace(problem, file=problem.file or name) for problem in error.problems]
        return problems

    def allow_run(self, prepared: Prepared) -> Prepared:
        """Return the run, limited to what is left of the budget. Raises InputError if it may not use its targets.

        Creates the results folder of the run, and prints the line that the server waits for.
        """
        check_spending(prepared, self.ledger.budget)
        experiment, left = prepared.experiment, self.ledger.left
        self.out = self.workspace.create_results(default_results_folder(experiment.file, experiment.name))
        if left is not None:
            # `session` keeps the limit. This one is for what the command says before, and for the end of a search.
            spent = load_spent(self.out)
            limits = [
                Decimal((spent.low if spent.high is None else spent.high) + left).scaleb(-6),
                experiment.run.budget,
            ]
            budget = min(limit for limit in limits if limit is not None)
            prepared = replace(prepared, experiment=replace(experiment, run=replace(experiment.run, budget=budget)))
        _send({"folder": str(self.out)})
        return prepared

    @property
    def session(self) -> type[Session]:
        """The class whose runs keep to the ledger and the root."""
        from sweeper.cli.assistant.confined_session import bind_session

        return bind_session(self.workspace, self.ledger)


def _send(value: Mapping[str, object]) -> None:
    """Write a line to the server at once. If the server is gone, nobody counts any more, and the run is ending."""
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        os.write(_STDOUT, json.dumps(value).encode() + b"\n")


def main() -> int:
    """Run the command that stdin describes, and return its exit code."""
    from sweeper.cli.main_group import invoke, report_failure

    request = json.loads(_read_line())
    threading.Thread(target=_follow_server, daemon=True).start()
    workspace = Workspace(Path(request["root"]), tuple(request["targets"]))
    limit_process(workspace.project)
    words = list(request["words"])
    try:
        if words[0] == "report":
            folder = workspace.find_results(words[1])
            workspace.check_recorded_file(folder)
            words[1] = str(folder)
    except (SweeperError, OSError) as failure:
        return report_failure(failure)
    ledger = Ledger(request["budget"], lambda spent: _send({SPENT: spent}))
    return invoke(words, AssistantConfinement(workspace, ledger))


def _read_line() -> bytes:
    """The first line of stdin, and not a byte more. A buffered reader would lock stdin while the process ends."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(_STDIN, 1)
        if not byte:
            raise EOFError
        line += byte
    return bytes(line)


def _follow_server() -> None:
    """Interrupt the command for each line of the server, and end it when the server is gone. Runs in a thread."""
    while received := os.read(_STDIN, 1024):
        for _ in range(received.count(b"\n")):
            _thread.interrupt_main()
    _thread.interrupt_main()
    time.sleep(_DRAIN_SECONDS)
    _thread.interrupt_main()
    time.sleep(_CANCEL_SECONDS)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
