"""Options and arguments that several commands share, and how their values are parsed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from sweeper.errors import UsageError
from sweeper.loading.parse import parse_yaml
from sweeper.model.money import parse_usd
from sweeper.model.selection import Selection
from sweeper.model.source import SourceError
from sweeper.model.target_spec import TargetSpec
from sweeper.wording import suggest


def format_examples(*lines: str) -> str:
    """The examples at the end of a command's help. The backspace stops click from joining the lines."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def complete_from(completer: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Complete a value by one of `sweeper.cli.completion`'s COMPLETERS, imported when a shell asks for it."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from sweeper.cli.completion import COMPLETERS

        before, comma, _ = incomplete.rpartition(",") if "," in (param.metavar or "") else ("", "", incomplete)
        values = (f"{before}{comma}{name}" for name in COMPLETERS[completer](ctx))
        return [CompletionItem(value) for value in values if value.startswith(incomplete)]

    return complete


def split_names(texts: Iterable[str]) -> list[str]:
    """`("a, b", "c")` as `["a", "b", "c"]`: an option may be repeated, and may hold several names."""
    return [name for text in texts for part in text.split(",") if (name := part.strip())]


def make_names_option(option: str, parameter: str, text: str, metavar: str = "NAME,...") -> Callable[..., Any]:
    """Make an option for names of columns. The command gets a list, which is empty without the option."""
    return click.option(
        option, parameter, multiple=True, metavar=metavar, shell_complete=complete_from("columns"),
        callback=lambda _context, _parameter, texts: split_names(texts), help=text,
    )  # fmt: skip


class SuggestingGroup(click.Group):
    """A click group that suggests the nearest command for a misspelt one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if not args[0].startswith("-") and args[0] not in names:
            raise click.UsageError(f"no such command '{args[0]}'{suggest(args[0], names)}", ctx)
        return super().resolve_command(ctx, args)


class DirOrUrl(click.Path):
    """A folder as a Path, or a URL as the text that was given."""

    name = "dir_or_url"

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, str) and "://" in value else super().convert(value, param, ctx)


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`("steps=8", "prompt=a fox")` as `{"steps": 8, "prompt": "a fox"}`. Values are YAML, as in an experiment.

    Raises UsageError if a setting is not NAME=VALUE, its value is not YAML, or a name is given twice.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name or "/" in name:  # such names are those of lists of model files
            raise UsageError(f"--set {setting}: write NAME=VALUE, such as steps=8")
        if name in values:
            raise UsageError(f"--set {name}: given twice; give a list, such as {name}=[4,8], for several values")
        try:
            values[name] = parse_yaml(text, f"--set {name}").value if text.strip() else text
        except SourceError as error:
            raise UsageError(f"--set {setting}: {error.problem.message}") from error
    return values


def _parse_target(text: str, option: str = "--target") -> TargetSpec:
    """A target of the command line: a mapping in YAML, or else its name or URL. Raises UsageError without the text."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        spec: TargetSpec = parse_yaml(text, option).value
    except SourceError as error:
        raise UsageError(f"{option}: {error.problem.message}") from None  # it may contain a key
    return spec


def _parse_launch(text: str) -> Mapping[str, Any]:
    """Settings that a target has beside `launch`. Raises UsageError."""
    settings = _parse_target(text, "--launch")
    if isinstance(settings, str) or settings.keys() & {"launch", "url", "name", "keep"}:
        raise UsageError("--launch: write a mapping such as '{gpus: cpu}', without launch, url, name and keep")
    return settings


ARGUMENTS: Final = "sweeper.arguments"  # in `meta` of a context: the command line, for messages that repeat it
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

baseline = click.option(
    "--baseline", type=FOLDER, metavar="DIR",
    help="Folder of the baseline. [default: baselines/NAME beside the experiment]",
)  # fmt: skip
quiet = click.option("-q", "--quiet", is_flag=True, help="Show only problems.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")
targets = click.option(
    "-t", "--target", "targets", multiple=True, metavar="TARGET", shell_complete=complete_from("targets"),
    callback=lambda _context, _parameter, texts: [_parse_target(text) for text in texts] or None,  # for the library
    help="embedded, cloud, a URL, a name from the experiment or the targets file, or a mapping such as "
    "'{launch: ~/ComfyUI}'; may be repeated. [default: the experiment's]",
)  # fmt: skip
out = click.option(
    "-o", "--out", type=FOLDER, metavar="DIR", help="Results folder. [default: results/NAME beside EXPERIMENT]"
)
where = click.option(
    "--where",
    metavar="EXPR",
    help="Only the trials for which this is true, such as \"steps > 4 and style.label == 'oil'\". Put names that are "
    "not identifiers in backticks.",
)
_limit = click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N trials.")
settings = click.option(
    "--set", "values", multiple=True, metavar="NAME=VALUE",
    callback=lambda _context, _parameter, texts: parse_settings(texts),
    help="Only this value of a slot or variable, or these: VALUE is YAML, and a list such as steps=[4,8] has several. "
    "A command that runs the experiment uses them instead of the experiment's own. May be repeated.",
)  # fmt: skip
object_info = click.option(
    "--object-info", type=click.Path(path_type=Path), metavar="FILE",
    help="Take node classes from this file: a saved response to GET /object_info.",
)  # fmt: skip
_class_target = click.option(
    "-t", "--target", metavar="TARGET",
    help="Take node classes from this server: cloud, a URL or a name from the targets file. [default: embedded]",
)  # fmt: skip
pythons = click.option(
    "--python", "pythons", multiple=True, metavar="[VERSION=]PYTHON",
    callback=lambda _context, _parameter, texts: dict(text.rpartition("=")[::2] for text in texts),
    help="The Python with the packages of a version, or of all others. [default: that in the folder of the ComfyUI]",
)  # fmt: skip
launch = click.option(
    "--launch", "settings", metavar="MAPPING", default="{}",
    callback=lambda _context, _parameter, text: _parse_launch(text),
    help="How to start the ComfyUIs, such as '{gpus: cpu, args: [--lowvram]}'.",
)  # fmt: skip
run_id = click.option(
    "--run", "run_id", metavar="ID", shell_complete=complete_from("runs"),
    help="Only the results of this run (see `sweeper runs`). [default: of each trial, the best result of all runs]",
)  # fmt: skip
open_browser = click.option("--open", "open_browser", is_flag=True, help="Also open the page in the browser.")
over = make_names_option(
    "--over", "over", "Replicates: axes whose values stand for many others. [default: seeds and prompts]"
)
results = click.argument("results", type=click.Path(path_type=Path), metavar="RESULTS")
experiment = click.argument("experiment", type=click.Path(path_type=Path), metavar="EXPERIMENT")


def selection(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--where`, `--limit` and `--set`. The command gets them as one argument `selection`."""

    @functools.wraps(command)
    def with_selection(*args: Any, where: str | None, limit: int | None, values: dict[str, Any], **rest: Any) -> Any:
        return command(*args, selection=Selection(where, limit, values), **rest)

    for option in (settings, _limit, where):
        with_selection = option(with_selection)
    return with_selection


def node_classes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--target` and `--object-info`, from which a `NodeClassSource` is made."""
    return _class_target(object_info(command))


def get_workflow_path(file: Path) -> Path:
    """The workflow of a template. `file` is that workflow, or the slots file beside it."""
    stem = file.name.removesuffix(".slots.yaml")
    return file if stem == file.name else file.with_name(f"{stem}.json")


# --- of `run`, and of `search`, each round of which is a run


def _parse_max_failures(ctx: click.Context, param: click.Parameter, value: str | None) -> int | float | None:
    """Parse `3` or `10%`, as in the experiment's `max_failures`: a count, or a share from 0 to 1."""
    if value is None:
        return None
    text = value.strip()
    try:
        limit = float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        message = f"{text!r} is neither a count such as 3 nor a share such as 10%"
        raise click.BadParameter(message, ctx, param) from None
    if not (0 <= limit <= 1 if isinstance(limit, float) else limit >= 0):
        raise click.BadParameter(f"{text!r} is out of range: give at least 0, or 0% to 100%", ctx, param)
    return limit


def parse_budget(ctx: click.Context, param: click.Parameter, value: str | None) -> Decimal | None:
    """Parse `20 USD` or `20`, as in the experiment's `budget`."""
    try:
        return None if value is None else parse_usd(value)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from None


run_out = click.option(
    "-o", "--out", type=DirOrUrl(), metavar="DIR|URL", help="Results folder, or a URL to save the pictures to "
    "instead, such as s3://bucket/folder. [default: results/NAME beside EXPERIMENT]",
)  # fmt: skip
view = click.option("--view", is_flag=True, help="Show the run in a browser, until Ctrl-C.")

notify = click.option("--notify", metavar="URL", help="Post a message there at the end: ntfy, Slack, Discord, or JSON.")

_OF_RUN: Final = (
    click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Jobs in flight per target."),
    click.option("--retries", type=click.IntRange(min=0), metavar="N",
                 help="How many more times to submit a trial that fails."),
    click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S",
                 help="Cancel a job that runs longer than this many seconds."),
    click.option("--patience", type=click.FloatRange(min=0), metavar="S", help="Seconds to retry a target that stops "
                 "responding, if no other target can continue. [default: 300]"),
    click.option("--max-trials", type=click.IntRange(min=1), metavar="N",
                 help="Reject a larger plan. [default: 10000]"),
    click.option("--max-failures", callback=_parse_max_failures, metavar="N|P%",
                 help="Stop when more trials than this have failed."),
    click.option("--budget", callback=parse_budget, metavar="USD",
                 help="The most that the results folder may cost over all its runs, such as '20 USD'."),
    click.option("--fail-fast", is_flag=True, help="Stop at the first failed trial."),
    click.option("--retry-failed", is_flag=True, help="Resubmit trials that failed in an earlier run."),
    click.option("--retry-unknown", is_flag=True, help="Resubmit trials that an earlier run sent to a server without a "
                 "list of jobs (RunPod), and whose outcome is unknown; what ran is paid for twice."),
    click.option("--per-target/--any-target", default=None,
                 help="Count only results of these targets as done. [default: those of any real target]"),
    click.option("--keep-stale", is_flag=True,
                 help="Keep the results of trials whose model files have changed, and remember the files of now."),
    click.option("--remake-stale", is_flag=True,
                 help="Resubmit also trials of whose model files only the time has changed."),
    click.option("--allow-different-models", is_flag=True,
                 help="Let the targets have different model files under one name."),
    notify,
    click.option("--keep-temp/--no-keep-temp", default=None,
                 help="Also download previews (files of type temp). [default: off]"),
    click.option("--check/--no-check", default=True,
                 help="First check every workflow against the target's node classes. [default: on]"),
)  # fmt: skip


def of_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--concurrency` to `--check`. The command gets them by the names of RunOptions' fields.

    Refuses two options that exclude each other.
    """

    @functools.wraps(command)
    def with_limits(*args: Any, **given: Any) -> Any:
        if given["keep_stale"] and given["remake_stale"]:
            raise UsageError("--keep-stale and --remake-stale contradict each other; give one")
        if given["fail_fast"] and given["max_failures"] is not None:
            raise UsageError("--fail-fast and --max-failures both say when to stop; give one")
        return command(*args, **given)

    for option in reversed(_OF_RUN):
        with_limits = option(with_limits)
    return with_limits
