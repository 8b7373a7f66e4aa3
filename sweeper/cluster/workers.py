"""The workers of a cluster as the driver knows them: who is present, beside which server, and calls to one of them."""

from __future__ import annotations

import asyncio
import platform
import pydoc
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sweeper.cluster.messages import RunSpec, WorkerInfo
from sweeper.cluster.worker_batch import LEASE_SECONDS
from sweeper.cluster.worker_plugin import PLUGIN_NAME, SweeperWorkerPlugin, call_plugin
from sweeper.errors import SweeperError, UsageError
from sweeper.running.run_events import TargetDown, TargetReady

if TYPE_CHECKING:
    from distributed import Client

# Seconds; longer than the lease, so that a worker which the driver gives up has dropped its batches by then.
_CALL_TIMEOUT: Final = LEASE_SECONDS + 10.0


class WorkerGoneError(SweeperError):
    """A worker does not respond: it left the cluster, or died."""


async def fetch_identity(client: Client) -> dict[str, Any]:
    """The scheduler's description of itself and all workers. Raises OSError if it does not respond."""
    if client.scheduler is None:
        raise OSError("the connection is closed")
    identity: dict[str, Any] = await client.scheduler.identity(n_workers=-1)
    return identity


def make_worker_event(worker: WorkerInfo, target: str) -> TargetReady | TargetDown:
    name = f"{worker.name}: {target}"
    if worker.problem is None:
        return TargetReady(name, worker.dialect, worker.version, worker.concurrency)
    return TargetDown(name, worker.problem, final=True)


class WorkerRegistry:
    """The workers of a run. `resources`: the Dask resources that a worker must have.

    `workers`: those that can be used, by address. `unusable`: the others, by address. `unsent_jobs`: jobs of an
    earlier driver that certainly never left a worker.
    """

    def __init__(self, client: Client, run_spec: RunSpec, resources: Mapping[str, float]) -> None:
        self.client, self.run_spec, self.resources = client, run_spec, resources
        self.workers: dict[str, WorkerInfo] = {}
        self.unusable: dict[str, WorkerInfo] = {}
        self.present: set[str] = set()
        self._ever_present: set[str] = set()
        self._refreshed = asyncio.Event()
        self.unsent_jobs: set[str] = set()
        self._server_clocks: dict[str, float] = {}  # by address: the server's clock, ahead of our monotonic one

    async def install_plugin(self, *, are_children: bool) -> None:
        """Install the plugin on every worker, present or future. `are_children`: they are child processes of ours.

        Raises UsageError that lists the workers with another version of sweeper or Python, or without sweeper.
        """
        own_sweeper = pydoc.locate("sweeper.__version__")
        sweepers = await self.client.run(pydoc.locate, "sweeper.__version__", on_error="return")
        pythons = await self.client.run(platform.python_version, on_error="return")
        others = [
            f"{address}: {version if isinstance(version, str) else 'no sweeper'}"
            for address, version in sorted(sweepers.items())
            if version != own_sweeper
        ]
        own = platform.python_version()
        others += [
            f"{address}: Python {version}"
            for address, version in sorted(pythons.items())
            if isinstance(version, str) and version.split(".")[:2] != own.split(".")[:2]
        ]
        if others:
            raise UsageError(
                f"this is sweeper {own_sweeper} on Python {own}, but the cluster "
                f"has other workers ({'; '.join(others)}): install the same version on each"
            )
        await self.client.register_plugin(SweeperWorkerPlugin(ignore_sigint=are_children), name=PLUGIN_NAME)

    async def refresh(self) -> tuple[list[WorkerInfo], list[WorkerInfo]]:
        """Update the workers; return those that came and those that left since the last call.

        Raises WorkerGoneError if the scheduler does not respond.
        """
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                identity = await fetch_identity(self.client)
        except (OSError, TimeoutError) as error:
            raise WorkerGoneError(f"the Dask scheduler does not respond: {error}") from None
        workers: dict[str, Any] = identity["workers"]
        eligible = {address for address, worker in workers.items() if self._is_eligible(worker)}
        left = [self.workers.pop(address) for address in list(self.workers) if address not in eligible]
        self.unusable = {address: worker for address, worker in self.unusable.items() if address in eligible}
        self.present = eligible
        self._ever_present |= eligible
        refreshed, self._refreshed = self._refreshed, asyncio.Event()
        refreshed.set()
        new = sorted(eligible - set(self.workers) - set(self.unusable))
        came = await asyncio.gather(*(self._register_worker(address) for address in new))
        return [worker for worker in came if worker is not None], left

    def _is_eligible(self, worker: Mapping[str, Any]) -> bool:
        return worker.get("status") != "closing" and all(
            worker["resources"].get(name, 0) >= amount for name, amount in self.resources.items()
        )

    async def _register_worker(self, address: str) -> WorkerInfo | None:
        try:
            worker: WorkerInfo = await self.call(SweeperWorkerPlugin.register, self.run_spec, address=address)
        except (WorkerGoneError, KeyError):  # it left again, or its plugin is still being set up; try at the next call
            return None
        if worker.server_time is not None:
            self._server_clocks[address] = worker.server_time - time.monotonic()
        self.unsent_jobs.update(worker.unsent_jobs)
        (self.unusable if worker.problem else self.workers)[address] = worker
        return worker

    def workers_for_server(self, server_id: str) -> list[tuple[str, str]] | None:
        """(worker address, URL) of each worker that can reach that server; None if the server died with its worker.

        See `SweeperWorkerPlugin` for the form of a server id.
        """
        kind, _, url = server_id.partition(" ")
        if kind == "embedded":
            found = [(worker.address, worker.url) for worker in self.workers.values() if worker.server_id == server_id]
            return found or None
        if not url:  # one server for all workers, which does not depend on any of them
            return [(worker.address, server_id) for worker in self.workers.values()]
        return [(worker.address, url) for worker in self.workers.values() if worker.host == kind]

    def get_server_time(self, address: str) -> float | None:
        """The time now by the clock of the server beside that worker; None if it is unknown."""
        ahead = self._server_clocks.get(address)
        return None if ahead is None else time.monotonic() + ahead

    async def _wait_until_gone(self, address: str) -> None:
        """Wait until the scheduler no longer knows that worker."""
        while address in self.present or address not in self._ever_present:
            await self._refreshed.wait()

    async def retire(self, address: str) -> None:
        """Give that worker no more batches in this run."""
        worker = self.workers.pop(address, None)
        if worker is not None:
            self.unusable[address] = worker
            await self.call_if_present(SweeperWorkerPlugin.retire, address=address)

    async def call_if_present(self, method: Callable[..., Any], *arguments: Any, address: str) -> Any:
        """Call a method as `call` does. None if the worker is gone."""
        with suppress(WorkerGoneError):
            return await self.call(method, *arguments, address=address)

    async def call(self, method: Callable[..., Any], *arguments: Any, address: str) -> Any:
        """Call a method of SweeperWorkerPlugin on one worker.

        Raises WorkerGoneError if the worker does not respond, and any SweeperError or KeyError of the method.
        """
        running = self.client.run(call_plugin, method, *arguments, workers=[address], on_error="return")
        answer = asyncio.ensure_future(running)
        gone = asyncio.ensure_future(self._wait_until_gone(address))
        try:
            # Dask neither answers nor refuses a call to a killed process, so wait for its disappearance too.
            await asyncio.wait((answer, gone), timeout=_CALL_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise WorkerGoneError(f"{address}: does not respond")
            results = answer.result()
        except (OSError, ValueError) as error:
            raise WorkerGoneError(f"{address}: {error}") from None
        finally:
            answer.cancel()
            gone.cancel()
        result = results.get(address)
        if isinstance(result, SweeperError | KeyError):
            raise result
        if isinstance(result, Exception) or address not in results:
            raise WorkerGoneError(f"{address}: {result}")
        return result
