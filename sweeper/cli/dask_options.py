"""`--dask`: who runs an experiment and who compares its pictures, this process or a cluster's workers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.model.result import Run
    from sweeper.regression.match_files import CompareFunction

dask = click.option(
    "--dask",
    metavar="CLUSTER",
    help="Run on a Dask cluster: local:N, tcp://HOST:PORT, a scheduler file, or auto ($DASK_SCHEDULER_ADDRESS).",
)
resources = click.option(
    "--dask-resource",
    "dask_resources",
    multiple=True,
    metavar="NAME=N",
    help="What a worker must have, such as GPU=1; with --dask, may be repeated.",
)


def choose_runner(dask: str | None, resources: tuple[str, ...]) -> Callable[..., Run]:
    """What runs an experiment. Raises UsageError for resources without a cluster, or that are no NAME=N."""
    if dask is None:
        if resources:
            raise UsageError("--dask-resource says what a worker of a cluster must have: give --dask too")
        from sweeper.running.run import run  # noqa: PLC0415

        return run
    from sweeper.cluster import run as run_on

    return partial(run_on, cluster=dask, resources=dict(map(_parse_resource, resources)))


def choose_comparer(dask: str | None) -> CompareFunction | None:
    """Who looks at pictures that lie at a URL; None: this process, which fetches them."""
    if dask is None or dask.strip().startswith("local:"):  # those workers are here, and gone when the run is over
        return None
    from sweeper.cluster.remote_compare import compare_on_cluster

    return partial(compare_on_cluster, dask)


def _parse_resource(text: str) -> tuple[str, float]:
    name, equals, amount = text.partition("=")
    try:
        found = float(amount)
    except ValueError:
        found = 0.0
    if not name.strip() or not equals or not 0 < found < float("inf"):
        raise UsageError(f"--dask-resource {text}: write NAME=N, such as GPU=1")
    return name.strip(), found
