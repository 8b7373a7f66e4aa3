"""Runs on a Dask cluster. The driver plans and records as on one machine; workers execute trials on their own servers.

```
driver                                               worker (one per server)
cluster_session  connects, checks, records           worker_plugin   the server beside it, its batches
dispatcher       batches as Dask tasks               worker_batch    one batch, executed by sweeper.running
batch_follower   cuts batches, records what they do  messages        what driver and worker exchange
                                                     workers         which workers are present (for the driver)
```

Dask chooses the worker of a batch. The worker reports that it has the batch, and waits. The driver records the intents,
and to which server they go; only then does it start the batch. So a task that Dask runs again submits nothing, and
after a crash of worker or driver, the jobs can be found on their server.

This package needs the extra `dask`, which only `cluster_session` and what it imports load.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sweeper.cluster.address import resolve_address
from sweeper.errors import UsageError
from sweeper.wording import format_install

if TYPE_CHECKING:
    from sweeper.running.session import Session


def bind_session(cluster: str, resources: Mapping[str, float]) -> type[Session]:
    """Return the session class of runs on a Dask cluster.

    `cluster`: `local:N` to start N workers on this machine, a scheduler's address or file, or `auto` for the address
    in DASK_SCHEDULER_ADDRESS. `resources`: the Dask resources that a worker must have, such as {"GPU": 1}.

    Raises UsageError for another text, or if the extra is not installed. The runs raise UsageError if the workers have
    another version, and UnreachableError if no scheduler responds.
    """
    try:
        from sweeper.cluster.cluster_session import ClusterSession
    except ModuleNotFoundError as error:
        if error.name != "distributed":
            raise
        raise UsageError(f"--dask needs the package `distributed`: {format_install('distributed')}") from None

    class BoundSession(ClusterSession):
        address = resolve_address(cluster, os.environ)
        worker_resources = resources

    return BoundSession
