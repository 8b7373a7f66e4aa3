"""The workers of a cluster as the driver knows them: who is there, with which server, and how to ask them something."""

from __future__ import annotations

import asyncio
import platform
import pydoc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import sweeper
from sweeper.cluster import worker_rpc
from sweeper.cluster.worker_batch import LEASE_SECONDS
from sweeper.cluster.worker_plugin import PLUGIN_NAME, SweeperWorkerPlugin
from sweeper.errors import SweeperError, UsageError

if TYPE_CHECKING:
    from distributed import Client

    from sweeper.cluster.messages import RunSpec, WorkerInfo

# Longer than a worker waits for us, so that whoever we give up on has given up on us.
_CALL_TIMEOUT: Final = LEASE_SECONDS + 10.0


class WorkerGoneError(SweeperError):
    """A worker does not answer: it left the cluster, or died."""


async def fetch_identity(client: Client) -> dict[str, Any]:
    """What the scheduler says of itself and all its workers. Raises OSError when it does not answer."""
    if client.scheduler is None:
        raise OSError("the connection is closed")
    found: dict[str, Any] = await client.scheduler.identity(n_workers=-1)
    return found


class WorkerRegistry:
    """`seats`: the enlisted workers that can be used, by address. `resources`: what a worker must have of Dask's."""

    def __init__(self, client: Client, run_spec: RunSpec, resources: Mapping[str, float]) -> None:
        self.client, self.run_spec, self.resources = client, run_spec, resources
        self.workers: dict[str, WorkerInfo] = {}
        self.unusable: dict[str, WorkerInfo] = {}  # by address: those that cannot be used, and why
        self.present: set[str] = set()
        self._ever_present: set[str] = set()
        self._refreshed = asyncio.Event()
        self.unsent_jobs: set[str] = set()  # jobs of an earlier driver that certainly never left a worker

    async def install_plugin(self, *, are_children: bool) -> None:
        """Give every worker, now and later, its berth. `children`: they are this process's own.

        Raises UsageError where versions differ.
        """
        await self.check_versions()
        await self.client.register_plugin(SweeperWorkerPlugin(ignore_sigint=are_children), name=PLUGIN_NAME)

    async def check_versions(self) -> None:
        """Raises UsageError that names the workers with another sweeper, or none."""
        found = await self.client.run(pydoc.locate, "sweeper.__version__", on_error="return")
        python = await self.client.run(platform.python_version, on_error="return")
        others = [
            f"{address}: {version if isinstance(version, str) else 'no sweeper'}"
            for address, version in sorted(found.items())
            if version != sweeper.__version__
        ]
        own = platform.python_version()
        others += [
            f"{address}: Python {version}"
            for address, version in sorted(python.items())
            if isinstance(version, str) and version.split(".")[:2] != own.split(".")[:2]
        ]
        if others:
            raise UsageError(
                f"this is sweeper {sweeper.__version__} on Python {own}, but the cluster "
                f"has other workers ({'; '.join(others)}): install the same on each"
            )

    async def refresh(self) -> tuple[list[WorkerInfo], list[WorkerInfo]]:
        """Look who is there: the seats that came and those that left since the last time. Raises GoneError when the
        scheduler does not answer.
        """
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                identity = await fetch_identity(self.client)
        except (OSError, TimeoutError) as error:
            raise WorkerGoneError(f"the Dask scheduler does not answer: {error}") from None
        workers: dict[str, Any] = identity["workers"]
        able = {address for address, worker in workers.items() if self._is_eligible(worker)}
        left = [self.workers.pop(address) for address in list(self.workers) if address not in able]
        for address in list(self.unusable):
            if address not in able:
                del self.unusable[address]
        self.present = able
        self._ever_present |= able
        looked, self._refreshed = self._refreshed, asyncio.Event()
        looked.set()
        new = sorted(able - set(self.workers) - set(self.unusable))
        found = await asyncio.gather(*(self._register_worker(address) for address in new))
        return [seat for seat in found if seat is not None], left

    def reset(self) -> None:
        """Let the next `refresh` enlist every worker anew, as after the results folder was made."""
        self.workers.clear()
        self.unusable.clear()

    def _is_eligible(self, worker: Mapping[str, Any]) -> bool:
        return worker.get("status") != "closing" and all(
            worker["resources"].get(name, 0) >= amount for name, amount in self.resources.items()
        )

    async def _register_worker(self, address: str) -> WorkerInfo | None:
        try:
            seat: WorkerInfo = await self.call(worker_rpc.register_worker, self.run_spec, address=address)
        except (WorkerGoneError, KeyError):  # it left again, or its berth is still being made: next time
            return None
        self.unsent_jobs.update(seat.unsent_jobs)
        (self.unusable if seat.problem else self.workers)[address] = seat
        return seat

    def workers_for_server(self, server_id: str) -> list[tuple[str, str]] | None:
        """(address, URL) of the workers that can ask the server at that place; None where it died with its worker."""
        kind, _, url = server_id.partition(" ")
        if kind == "embedded":
            found = [(seat.address, seat.url) for seat in self.workers.values() if seat.server_id == server_id]
            return found or None
        if not url:  # the same server for everybody, which lives whether workers do or not
            return [(seat.address, server_id) for seat in self.workers.values()]
        return [(seat.address, url) for seat in self.workers.values() if seat.host == kind]

    async def _wait_until_gone(self, address: str) -> None:
        """Wait until the scheduler no longer knows that worker."""
        while address in self.present or address not in self._ever_present:
            await self._refreshed.wait()

    async def retire(self, address: str) -> None:
        """Let no more groups go to that worker in this run."""
        seat = self.workers.pop(address, None)
        if seat is not None:
            self.unusable[address] = seat
            try:
                await self.call(worker_rpc.retire_worker, address=address)
            except WorkerGoneError:
                return

    async def call(self, function: Callable[..., Any], *arguments: Any, address: str) -> Any:
        """Ask one worker. Raises GoneError when it does not answer, and what the function raises there."""
        asked = asyncio.ensure_future(self.client.run(function, *arguments, workers=[address], on_error="return"))
        left = asyncio.ensure_future(self._wait_until_gone(address))
        try:
            # A question to a process that was killed is not answered, and not refused either.
            await asyncio.wait((asked, left), timeout=_CALL_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise WorkerGoneError(f"{address}: does not answer")
            found = asked.result()
        except (OSError, ValueError) as error:
            raise WorkerGoneError(f"{address}: {error}") from None
        finally:
            asked.cancel()
            left.cancel()
        answer = found.get(address)
        if isinstance(answer, SweeperError | KeyError):
            raise answer
        if isinstance(answer, Exception) or address not in found:
            raise WorkerGoneError(f"{address}: {answer}")
        return answer
