"""The click group: imports the module of the command that was called, runs it, and reports every failure.

The only place that turns an exception into lines on stderr and an exit code.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, shell_complete

from sweeper.cli import console
from sweeper.cli.command_table import COMMANDS, COMPLETION_VARIABLE
from sweeper.cli.exit_codes import CLOSED_PIPE, INTERNAL_ERROR, INTERRUPTED, INVALID_INPUT, OK, get_exit_code
from sweeper.cli.options import ARGUMENTS, SuggestingGroup
from sweeper.errors import SweeperError

if TYPE_CHECKING:
    from sweeper.cli.trust_check import Confinement

if sys.platform == "win32":
    from colorama import just_fix_windows_console


class _LazyGroup(SuggestingGroup):
    def shell_complete(self, _ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without the import of all commands."""
        return [CompletionItem(name, help=line) for name, (_, line) in COMMANDS.items() if name.startswith(incomplete)]

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, line = COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(f"sweeper.cli.commands.{module}").command
        command.short_help = line
        return command


def make_group() -> click.Group:
    return _LazyGroup("sweeper", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})


def complete_command_line() -> int:
    """Answer a shell that asks for completions, by the variables that its script sets. Returns an exit code."""
    with redirect_stderr(io.StringIO()):  # a traceback in the middle of a command line helps nobody
        return shell_complete(make_group(), {}, "sweeper", COMPLETION_VARIABLE, os.environ[COMPLETION_VARIABLE])


def invoke(arguments: Sequence[str], confinement: Confinement | None = None) -> int:
    """Run a command line and return its exit code. An exception becomes lines on stderr.

    `confinement`: see `trust_check.find_confinement`.
    """
    group = make_group()
    if sys.platform == "win32":  # its console shows escape codes as text until a program asks it to follow them
        just_fix_windows_console()
    try:
        with group.make_context("sweeper", list(arguments), obj=confinement) as context:
            context.meta[ARGUMENTS] = tuple(arguments)
            code = group.invoke(context)
    except (Exception, KeyboardInterrupt) as failure:  # noqa: BLE001 - the one place that must: no user sees a traceback
        return report_failure(failure)
    return code if isinstance(code, int) else OK


def report_failure(failure: BaseException) -> int:
    """Print what went wrong on stderr, one line for each problem, and return the exit code."""
    if os.environ.get("SWEEPER_DEBUG"):
        traceback.print_exception(failure)
    if isinstance(failure, click.exceptions.Exit):
        return failure.exit_code
    # Windows reports that the reader of our output is gone as EINVAL without a file name.
    is_invalid = isinstance(failure, OSError) and failure.errno == errno.EINVAL and failure.filename is None
    if isinstance(failure, BrokenPipeError) or (sys.platform == "win32" and is_invalid):
        # Redirect stdout, so that Python's flush at exit does not fail.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        return CLOSED_PIPE
    if isinstance(failure, (KeyboardInterrupt, click.Abort)):
        console.print_status("interrupted")
        return INTERRUPTED
    if isinstance(failure, click.ClickException):
        console.print_error(" ".join(failure.format_message().split()))
        if (context := getattr(failure, "ctx", None)) is not None:
            console.print_status(f"`{context.command_path} --help` lists the options.")
        return INVALID_INPUT
    if isinstance(failure, SweeperError):
        for line in str(failure).splitlines() or [type(failure).__name__]:
            console.print_error(line)
        return get_exit_code(failure)
    if isinstance(failure, OSError) and failure.strerror:
        console.print_error(": ".join(str(part) for part in (failure.filename, failure.strerror) if part))
        return INVALID_INPUT
    message = " ".join(str(failure).split()) or "no message"
    console.print_error(f"{type(failure).__name__}: {message} (a bug in sweeper; SWEEPER_DEBUG=1 shows the traceback)")
    return INTERNAL_ERROR
