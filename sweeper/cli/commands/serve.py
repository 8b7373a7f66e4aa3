"""`sweeper serve`: the embedded server in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from sweeper.cli import console
from sweeper.cli.options import format_examples
from sweeper.cli.wait_for_signal import catch_stop_signals
from sweeper.errors import UsageError


@click.command(
    epilog=format_examples(
        "sweeper serve --port 8188 --dialect comfyui", "sweeper run experiment.yaml --target http://127.0.0.1:8188"
    )
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Address to listen on.")
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option(
    "--dialect", type=click.Choice(["cloud", "comfyui"]), default="cloud", show_default=True, help="Whose API to speak."
)
@click.option("--api-key", metavar="KEY", help="Ask for this key. [default: no key is asked for]")
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Keep jobs and files here."
)
@click.option("--strict-models", is_flag=True, help="Refuse model files that the server does not have.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Jobs at a time (cloud). [default: 1]")
@click.option(
    "--previews/--no-previews", default=None, help="Pictures of work in progress. [default: in the cloud dialect only]"
)
@click.option(
    "--scenario",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Rehearse against a slow, busy or failing service, as this YAML file says.",
)
def command(
    *,
    host: str,
    port: int,
    dialect: Literal["cloud", "comfyui"],
    api_key: str | None,
    data: Path | None,
    workers: int | None,
    previews: bool | None,
    scenario: Path | None,
    strict_models: bool,
) -> None:
    """Serve the Comfy Cloud API (or ComfyUI's) on this machine, to rehearse sweeps without a GPU, a key or credits.

    The first line on stdout is the base URL. Ctrl-C or SIGTERM ends it.
    """
    from sweeper.embedded import EmbeddedServer, Faults, Scenario

    if workers is not None and dialect == "comfyui":
        raise UsageError("--workers: a ComfyUI runs one job at a time; only the cloud dialect has workers")
    rehearsed = Scenario() if scenario is None else Scenario.read(scenario)
    if workers is not None and rehearsed.jobs_at_once is not None:
        word = "concurrency" if rehearsed.tier is None else "tier"
        raise UsageError(f"--workers and `{word}` of {scenario} both say how many jobs run at once; give one")
    with (
        catch_stop_signals() as wait,
        EmbeddedServer(
            dialect=dialect,
            host=host,
            port=port,
            api_key=api_key,
            data=data,
            strict_models=strict_models,
            workers=workers or 1,
            previews=previews,
            faults=Faults(scenario=rehearsed),
        ) as server,
    ):
        console.print_line(server.url)
        console.print_status(f"serving the {dialect} dialect; Ctrl-C ends it")
        wait()
