"""Sweeps on a Dask cluster: the driver plans and records as on one machine, workers carry trials to their own servers.

```
driver                                            worker (one per server)
session    connects, checks, records              berth     the plugin: the server beside it, groups under way
pool       works that wait                        stint     one group's trials, carried by sweeper.running's own lane
dispatch   groups as Dask tasks, a bounded window  aboard    what stands there for plan, store and folder
tending    one group: intents, news, artifacts    calls     what the driver asks of a worker
fleet      who is there                           messages  what passes between the two
```

Dask decides which worker takes a group. The worker says that it has it, and waits; the driver commits the intents and
where they go, and only then lets the group begin. So a task that Dask runs again submits nothing, and what a dead
worker or driver left can be looked for at the place where it went. Needs the extra `dask`, imported with this package's
modules and by nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.cluster.cluster_session import run as run
    from sweeper.cluster.cluster_session import run_async as run_async

__all__ = ["run", "run_async"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 (with the rest, only where a cluster is asked for)

    return getattr(importlib.import_module("sweeper.cluster.cluster_session"), name)
