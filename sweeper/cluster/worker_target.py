"""The target of a run on a cluster: one name for many servers, resolved on the driver and completed on each worker.

The driver reads no key and no worker's environment; what is written here as `${NAME}` is the worker's.
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sweeper.comfy.target import Target, as_target_list, resolve_targets
from sweeper.errors import UsageError
from sweeper.model.target_spec import NamedTargets, TargetSpec
from sweeper.model.urls import is_loopback

_PLACEHOLDER_URL: Final = "http://worker.invalid"


def resolve_for_workers(specs: TargetSpec | Sequence[TargetSpec], named: NamedTargets | None) -> Target:
    """The one target that a run on a cluster may have, its `url` as written for the workers.

    Raises UsageError as `resolve_targets`, for several targets, and for a loopback URL, which is another server on
    every worker and so must be written as `{worker: URL}`.
    """
    listed = as_target_list(specs)
    if len(listed) != 1:
        raise UsageError("target: a run on a Dask cluster has one target; its workers are many servers under one name")
    spec: Any = listed[0]
    entry = (named or {}).get(spec.strip()) if isinstance(spec, str) else None
    if isinstance(entry, Mapping) and "worker" in entry:
        spec = {"name": spec.strip(), **entry}
    if isinstance(spec, Mapping) and "worker" in spec:
        url = spec["worker"]
        if "url" in spec or not isinstance(url, str) or not url.strip():
            raise UsageError("target.worker: give the URL of the server as each worker sees it, in place of `url`")
        rest = {key: value for key, value in spec.items() if key != "worker"}
        rest.setdefault("name", f"worker {url.strip()}")
        found = resolve_targets({**rest, "url": _PLACEHOLDER_URL}, environ={}, with_keys=False)[0]
        return replace(found, url=url.strip())
    found = resolve_targets([spec], named=named, environ={}, with_keys=False)[0]
    if found.url and is_loopback(found.url):
        raise UsageError(
            f"target: {found.url} is another server on every machine of the cluster; "
            f'write target: {{worker: "{found.url}"}} for the one beside each worker'
        )
    return found


def resolve_on_worker(target: Target, environ: Mapping[str, str]) -> Target:
    """On a worker: `${NAME}` put in, the keys read; may wait for a command that prints one.

    Raises UsageError for what that worker's environment lacks.
    """
    try:
        url = string.Template(target.url).substitute(environ)
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
    found = resolve_targets({key: value for key, value in spec.items() if value is not None}, environ=environ)[0]
    return replace(found, concurrency=target.concurrency)


def worker_environment() -> Mapping[str, str]:
    """The environment of the process that asks, which is a worker's."""
    return os.environ
