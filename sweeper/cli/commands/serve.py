"""`sweeper serve`: run the embedded server until Ctrl-C."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.cli.wait_for_signal import catch_stop_signals
from sweeper.comfy.target import read_key_from_variable, validate_key
from sweeper.editing.read_workflow import NodeClassSource
from sweeper.errors import UsageError
from sweeper.loading.load import read_yaml_file

_MAX_KEY_BYTES: Final = 8192  # of a key file that are read: a key, not /dev/zero


@click.command(
    epilog=format_examples(
        "sweeper serve --port 8188 --dialect comfyui", "sweeper run experiment.yaml --target http://127.0.0.1:8188"
    )
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Address to listen on.")
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535), metavar="PORT",
              help="Port to listen on; 0: any free port.")  # fmt: skip
@click.option("--dialect", type=click.Choice(["cloud", "comfyui", "v2"]), default="cloud", show_default=True,
              help="The API to serve.")  # fmt: skip
@click.option("--api-key-env", metavar="NAME",
              help="Require the key that this environment variable holds. [default: no key is required]")  # fmt: skip
@click.option("--api-key-file", type=options.FILE, metavar="FILE",
              help="Require the key in the first line of this file.")  # fmt: skip
@click.option("--api-key", metavar="KEY", help="Require this key. Other users of this machine can see it.")
@click.option("--data", type=options.FOLDER, metavar="DIR", help="Store jobs and files here.")
@click.option("--strict-models", is_flag=True, help="Reject model files that the server does not have.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N",
              help="Jobs to run at once (not for comfyui). [default: 1]")  # fmt: skip
@click.option("--like", metavar="TARGET", help="As --object-info, with the node classes of this server: cloud, a URL "
              "or a name from the targets file.")  # fmt: skip
@click.option("--permissive", is_flag=True, help="Let stand-ins run every other class too, from what the submitted "
              "workflow shows of it.")  # fmt: skip
@click.option("--object-info", type=options.FILE, metavar="FILE", help="Also serve the node classes in this file, a "
              "saved response to GET /object_info. Stand-ins run those that this server lacks.")  # fmt: skip
@click.option("--scenario", type=options.FILE, metavar="FILE",
              help="Simulate a slow, busy or failing service, as described in this YAML file.")  # fmt: skip
def command(
    *, dialect: Literal["cloud", "comfyui", "v2"], api_key: str | None, api_key_env: str | None,
    api_key_file: Path | None, workers: int | None, like: str | None, object_info: Path | None,
    scenario: Path | None, **server_options: Any,
) -> None:  # fmt: skip
    """Serve the API of Comfy Cloud, ComfyUI or API v2 on this machine: rehearse sweeps without a GPU, a key or credits.

    The first line on stdout is the base URL. Ctrl-C or SIGTERM stops the server.
    """
    from sweeper.embedded import EmbeddedServer, Faults, Scenario

    if like is not None and object_info is not None:
        raise UsageError("--like and --object-info both say which classes to serve; give one")
    described = None if like is None and object_info is None else NodeClassSource(like, object_info).object_info
    if workers is not None and dialect == "comfyui":
        raise UsageError("--workers: a ComfyUI runs one job at a time; use the cloud dialect or v2")
    key = _read_api_key(api_key, api_key_env, api_key_file)
    rehearsal = Scenario() if scenario is None else Scenario.from_source(read_yaml_file(scenario))
    if workers is not None and rehearsal.jobs_at_once is not None:
        key = "concurrency" if rehearsal.tier is None else "tier"
        raise UsageError(f"--workers and `{key}` of {scenario} both say how many jobs run at once; give one")
    with (
        catch_stop_signals() as wait,
        EmbeddedServer(
            dialect=dialect, api_key=key, workers=workers or 1, faults=Faults(scenario=rehearsal),
            object_info=described, **server_options,
        ) as server,
    ):  # fmt: skip
        console.print_line(server.url)
        console.print_status(f"serving the {dialect} dialect; Ctrl-C stops it")
        wait()


def _read_api_key(key: str | None, variable: str | None, file: Path | None) -> str | None:
    """The key that the server requires, from the one option that was given. None: no key."""
    sources = {"--api-key": key, "--api-key-env": variable, "--api-key-file": file}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: give one of them, because the server has one key")
    if key is not None:
        console.warn(
            "--api-key shows the key to everyone who lists this machine's processes; use --api-key-env NAME or"
            " --api-key-file FILE"
        )
        return validate_key(key, "--api-key")
    if variable is not None:
        found = read_key_from_variable(variable, os.environ)
        if found is None:
            raise UsageError(f"--api-key-env: the environment variable '{variable}' is not set; set it to the key")
        return validate_key(found, variable)
    if file is None:
        return None
    try:
        with file.open("rb") as source:
            return validate_key(source.readline(_MAX_KEY_BYTES).decode("utf-8", "replace").strip(), str(file))
    except OSError as problem:
        raise UsageError(f"--api-key-file: cannot read {file}: {problem.strerror or problem}") from problem
