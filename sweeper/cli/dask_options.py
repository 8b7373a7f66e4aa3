"""`--dask` and `--dask-resource`: choose whether this process or a Dask cluster runs trials."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from sweeper.cli.trust_check import find_confinement
from sweeper.cluster import bind_session
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.model.result import Run
    from sweeper.running.session import Session

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
    help="A resource that a worker must have, such as GPU=1; needs --dask; may be repeated.",
)


def choose_runner(dask: str | None, resources: tuple[str, ...]) -> Callable[..., Run]:
    """The function that runs an experiment, here or on a cluster. Raises as `choose_session`."""
    from sweeper.running.run import run

    return partial(run, session=choose_session(dask, resources))


def choose_session(dask: str | None, resources: tuple[str, ...]) -> type[Session] | None:
    """The class that executes runs on a cluster or in a confinement; None: Session.

    Raises UsageError for resources without a cluster, and for a resource that is not NAME=N.
    """
    if dask is None:
        if resources:
            raise UsageError("--dask-resource needs --dask: it says what a worker of the cluster must have")
        confinement = find_confinement()
        return None if confinement is None else confinement.session
    return bind_session(dask, dict(map(_parse_resource, resources)))


def _parse_resource(text: str) -> tuple[str, float]:
    """`GPU=1` as `("GPU", 1.0)`."""
    name, equals, amount = text.partition("=")
    try:
        number = float(amount)
    except ValueError:
        number = 0.0
    if not name.strip() or not equals or not 0 < number < float("inf"):
        raise UsageError(f"--dask-resource {text}: write NAME=N, such as GPU=1")
    return name.strip(), number
