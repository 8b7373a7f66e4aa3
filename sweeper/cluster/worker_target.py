"""The target of a run on a cluster: one name for many servers, resolved by the driver and completed by each worker.

The driver reads no key and no worker's environment. `${NAME}` in a URL stands for a variable of the worker.
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sweeper.comfy.target import Target, as_target_list, resolve_targets
from sweeper.errors import UsageError
from sweeper.model.target_spec import NamedTargets, TargetSpec
from sweeper.model.urls import is_loopback

if TYPE_CHECKING:
    from sweeper.embedded import EmbeddedServer

# On a worker, the variable that lists which other variables a target's URL may contain.
VARIABLES_VARIABLE: Final = "SWEEPER_WORKER_VARIABLES"
_DEFAULT_VARIABLE: Final = "PORT"
_PLACEHOLDER_URL: Final = "http://worker.invalid"


def resolve_for_workers(specs: TargetSpec | Sequence[TargetSpec], named: NamedTargets | None) -> Target:
    """Resolve the one target of a run on a cluster; its `url` stays as written, for the workers to complete.

    Raises UsageError like `resolve_targets`, for several targets, and for a loopback URL: it names another server on
    every worker, so users must write it as `{worker: URL}`.
    """
    target_list = as_target_list(specs)
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
        target = resolve_targets({**rest, "url": _PLACEHOLDER_URL}, environ={}, with_keys=False)[0]
        return replace(target, url=url.strip())
    target = resolve_targets([spec], named=named, environ={}, with_keys=False)[0]
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
        if name not in allowed_names:  # it may hold a secret, and the URL is of whoever wrote the experiment
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


def worker_environment() -> Mapping[str, str]:
    """The environment of this process, which is a worker's."""
    return os.environ


def start_embedded_server(slots: int, object_info: Mapping[str, Any] | None) -> EmbeddedServer:
    """Start an embedded server in this process that runs `slots` jobs at a time, with these node classes too."""
    from sweeper.embedded import EmbeddedServer

    return EmbeddedServer(dialect="cloud", workers=slots, object_info=object_info, permissive=True).start()
