"""Runs on a Dask cluster. The driver plans and records as on one machine; workers execute trials on their own servers.

```
driver                                               worker (one per server)
cluster_session  connects, checks, records           worker_plugin   the server beside it, its batches
work_pool        work that no worker has             worker_batch    one batch, executed by sweeper.running
dispatcher       batches as Dask tasks               messages        what driver and worker exchange
batch_follower   one batch: intents, messages        workers         which workers are present (for the driver)
```

Dask chooses the worker of a batch. The worker reports that it has the batch, and waits. The driver records the intents,
and to which server they go; only then does it start the batch. So a task that Dask runs again submits nothing, and
after a crash of worker or driver, the jobs can be found on their server.

This package needs the extra `dask`. Its functions are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sweeper.errors import UsageError
from sweeper.wording import format_install

if TYPE_CHECKING:
    from sweeper.cluster.address import describe_open_address as describe_open_address
    from sweeper.cluster.cluster_session import bind_session as bind_session
    from sweeper.cluster.cluster_session import run as run

_MODULES = {
    "bind_session": "cluster_session",
    "describe_open_address": "address",
    "run": "cluster_session",
}

__all__ = sorted(_MODULES)  # noqa: PLE0605 (one list serves both)


def __getattr__(name: str) -> Any:
    """Import a function. Raises UsageError if the extra is not installed."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"sweeper.cluster.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name != "distributed":
            raise
        raise UsageError(f"--dask needs the package `distributed`: {format_install('distributed')}") from None
    return getattr(module, name)
