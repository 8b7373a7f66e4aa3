"""The click group: finds a command in the table of `sweeper.cli`, imports that one module, and calls it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import click

from sweeper.cli.command_table import COMMANDS
from sweeper.cli.exit_codes import OK, report_failure
from sweeper.cli.options import SuggestingGroup


class _LazyGroup(SuggestingGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, line = COMMANDS[cmd_name]
        found: click.Command = importlib.import_module(f"sweeper.cli.commands.{module}").command
        found.short_help = line
        return found


def make_group() -> click.Group:
    """The whole command line as click sees it."""
    return _LazyGroup("sweeper", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})


def invoke(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; whatever goes wrong becomes a line on stderr."""
    top = make_group()
    try:
        with top.make_context("sweeper", list(arguments)) as context:
            code = top.invoke(context)
    except Exception as failure:  # noqa: BLE001 - the only place that may: no traceback reaches a user
        return report_failure(failure)
    except KeyboardInterrupt as failure:
        return report_failure(failure)
    return code if isinstance(code, int) else OK
