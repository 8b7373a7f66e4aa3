"""Resolve `--dask` to a cluster (`local:N`, the address or file of a scheduler, or `auto`), connect to it, and more.

The target of a run on a cluster is one name for many servers, resolved by the driver and completed by each worker. The
driver reads no key and no worker's environment. `${NAME}` in a URL stands for a variable of the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import string
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.comfy.target import Target, as_target_list, resolve_targets
from sweeper.errors import UnreachableError, UsageError
from sweeper.model.target_spec import NamedTargets, TargetSpec, expand_groups
from sweeper.model.urls import is_loopback, strip_secrets

if TYPE_CHECKING:
    from distributed import Client


ADDRESS_VARIABLE: Final = "DASK_SCHEDULER_ADDRESS"
_SAFE_PATH_VARIABLE: Final = "PYTHONSAFEPATH"  # Python reads it before it computes where modules are
_ALLOWED_FORMS: Final = (
    "give local:N, a scheduler's address such as tcp://host:8786, a scheduler file, "
    f"or auto for the one that ${ADDRESS_VARIABLE} names"
)


def resolve_address(text: str, environ: Mapping[str, str]) -> str:
    """Resolve the user's text to `local:N`, an address, or `file:PATH`. Raises UsageError with the allowed forms."""
    word = text.strip()
    if word == "auto":
        word = environ.get(ADDRESS_VARIABLE, "").strip()
        if not word:
            raise UsageError(f"--dask auto: {ADDRESS_VARIABLE} is not set in the environment; {_ALLOWED_FORMS}")
    kind, colon, number = word.partition(":")
    if kind == "local":
        if not colon or not number.isdecimal() or int(number) < 1:
            raise UsageError(f"--dask {word}: how many workers? local:4 starts four on this machine")
        return f"local:{int(number)}"
    if "://" in word:
        return word
    if Path(word).is_file():
        return f"file:{word}"
    raise UsageError(f"--dask {word}: neither an address nor a scheduler file that exists; {_ALLOWED_FORMS}")


def describe_open_address(text: str, environ: Mapping[str, str]) -> str | None:
    """Why others may take over the cluster that the user's text names; None if it is local or uses TLS.

    Whoever reaches a Dask scheduler runs code on its workers and on the machine that uses it, because Dask exchanges
    pickled objects. Raises UsageError as `resolve_address` does.
    """
    address = resolve_address(text, environ)
    if address.startswith("file:"):
        try:
            address = str(json.loads(Path(address.removeprefix("file:")).read_text("utf-8"))["address"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    is_encrypted = address.startswith(("tls://", "wss://"))
    if "://" not in address or is_encrypted or address.startswith("inproc://") or is_loopback(address):
        return None
    return (
        f"the Dask scheduler at {strip_secrets(address)} uses no TLS, so whoever reaches its network runs code on your "
        "machines; use a private network, or certificates and a tls:// address (see sweeper/cluster/README.md)"
    )


@contextlib.contextmanager
def _start_python_safely() -> Iterator[None]:
    """Keep child processes from importing files of the current folder, which may be a stranger's.

    multiprocessing starts them with `python -c`, which looks there first, also for modules of Python such as `enum`.
    They get `sys.path` from this process afterwards. The variable ends with the block, because the user's own programs
    may import files beside them.
    """
    before = os.environ.get(_SAFE_PATH_VARIABLE)
    os.environ[_SAFE_PATH_VARIABLE] = "1"
    try:
        yield
    finally:
        del os.environ[_SAFE_PATH_VARIABLE]
        if before is not None:
            os.environ[_SAFE_PATH_VARIABLE] = before


@asynccontextmanager
async def connect_cluster(address: str) -> AsyncIterator[Client]:
    """Connect to a cluster in the running loop. A local cluster lives as long as the `async with` block.

    Raises UnreachableError if no scheduler responds.
    """
    from distributed import Client, LocalCluster

    async with contextlib.AsyncExitStack() as stack:
        options: dict[str, Any] = {"asynchronous": True, "set_as_default": False, "timeout": 10}
        try:
            if address.startswith("local:"):
                stack.enter_context(_start_python_safely())
                # One process per server. The second thread prepares the next batch.
                cluster = LocalCluster(
                    n_workers=int(address.removeprefix("local:")),
                    threads_per_worker=2,
                    processes=True,
                    asynchronous=True,
                    dashboard_address="127.0.0.1:0",
                    silence_logs=50,
                )
                options["address"] = await stack.enter_async_context(cluster)
            elif address.startswith("file:"):
                options["scheduler_file"] = address.removeprefix("file:")
            else:
                options["address"] = address
            client = await stack.enter_async_context(Client(**options))
        except (OSError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreachableError(f"--dask {address}: no Dask scheduler responds there: {reason}") from None
        yield client


# On a worker, the variable that lists which other variables a target's URL may contain.
VARIABLES_VARIABLE: Final = "SWEEPER_WORKER_VARIABLES"
_DEFAULT_VARIABLE: Final = "PORT"
_PLACEHOLDER_URL: Final = "http://worker.invalid"


def resolve_for_workers(specs: TargetSpec | Sequence[TargetSpec], named: NamedTargets | None) -> Target:
    """Resolve the one target of a run on a cluster; its `url` stays as written, for the workers to complete.

    Raises UsageError like `resolve_targets`, for several targets, and for a loopback URL: it names another server on
    every worker, so users must write it as `{worker: URL}`.
    """
    target_list = [used.spec for used in expand_groups(as_target_list(specs), named or {})]
    if len(target_list) != 1:
        raise UsageError("target: a run on a Dask cluster has one target; its workers are many servers under one name")
    spec: Any = target_list[0]
    entry = (named or {}).get(spec.strip()) if isinstance(spec, str) else None
    if isinstance(entry, Mapping) and "worker" in entry:
        spec = {"name": spec.strip(), **entry}
    if isinstance(spec, Mapping) and "worker" in spec:
        url = spec["worker"]
        if "url" in spec or not isinstance(url, str) or not url.strip():
            raise UsageError("target.worker: give the URL of the server as each worker sees it, in place of `url`")
        rest = {key: value for key, value in spec.items() if key != "worker"}
        rest.setdefault("name", f"worker {url.strip()}")
        target = resolve_targets({**rest, "url": _PLACEHOLDER_URL})[0]
        return replace(target, url=url.strip())
    target = resolve_targets([spec], named=named)[0]
    if target.launch is not None:
        raise UsageError(
            "target.launch: starts a ComfyUI on this machine; for the one beside each worker, give `worker`"
        )
    if target.url and is_loopback(target.url):
        raise UsageError(
            f"target: {target.url} is another server on every machine of the cluster; "
            f'write target: {{worker: "{target.url}"}} for the one beside each worker'
        )
    return target


def resolve_on_worker(target: Target, environ: Mapping[str, str]) -> Target:
    """Complete a target on a worker: insert variables into the URL, and read the keys. May run a key command.

    Raises UsageError for a variable or key that the worker's environment lacks, and for a variable that the worker does
    not allow in a URL.
    """
    template = string.Template(target.url)
    allowed_names = (_DEFAULT_VARIABLE, *environ.get(VARIABLES_VARIABLE, "").replace(",", " ").split())
    for name in template.get_identifiers():
        if name not in allowed_names:  # it may hold a secret, and a stranger may have written the URL
            raise UsageError(
                f"target {target.name}: this worker does not insert the variable {name} into a URL (allowed: "
                f"{', '.join(allowed_names)}); if it is not a secret, start the worker with {VARIABLES_VARIABLE}={name}"
            )
    try:
        url = template.substitute(environ)
    except KeyError as error:
        raise UsageError(f"target {target.name}: {error.args[0]} is not set in this worker's environment") from None
    except ValueError:
        raise UsageError(f"target {target.name}: {target.url!r}: after $ a name is needed, as in ${{NAME}}") from None
    spec = {
        "url": url,
        "dialect": target.dialect,
        "api_key_env": target.api_key_env,
        "api_key_command": target.api_key_command or None,
        "partner_key_env": target.partner_key_env,
        "name": target.name,
    }
    resolved = resolve_targets({key: value for key, value in spec.items() if value is not None}, environ=environ)[0]
    return replace(resolved, concurrency=target.concurrency, max_file_bytes=target.max_file_bytes)
