"""Check one target for `sweeper doctor`: is it reachable, is the key accepted, does it have what an experiment needs?

Changes nothing on the server. Each problem comes with a next step. Keys are never shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sweeper.cli.exit_codes import OK, UNREACHABLE, get_exit_code
from sweeper.comfy.target import Target, resolve_targets
from sweeper.errors import InputError, RefusedError, SweeperError, TransientError, Trouble, UnreachableError
from sweeper.model.experiment import Experiment
from sweeper.model.target_spec import NamedTargets
from sweeper.model.urls import is_loopback, strip_secrets
from sweeper.planning.plan import Plan
from sweeper.planning.searching.search_plan import is_space
from sweeper.planning.server_cache import detect_server_cache
from sweeper.running.node_class_cache import get_classes
from sweeper.running.preflight import attach_partner_key

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient

TargetReport = dict[str, Any]

# The next step for an UnreachableError or TransientError, by its `trouble`. A redirect's message has its own.
_NEXT_STEPS: Final = {
    Trouble.NOT_COMFYUI: "another server responds there: correct the host, port or path (ComfyUI prints its address "
    "when it starts), or check the proxy in front of it",
    Trouble.BAD_CERTIFICATE: "use the host name in the certificate, or set SSL_CERT_FILE to its issuer's certificate",
    Trouble.NO_TLS: "the server does not use TLS on that port: write http:// instead of https://, or correct the port",
    Trouble.TIMEOUT: "no response in time: check the server's log, that no other program uses the port, and that no "
    "firewall blocks it",
    Trouble.DROPPED: "the server accepts the connection and closes it: write https:// if it uses TLS, or correct the "
    "port",
    Trouble.SERVER_ERROR: "the server is running but cannot respond now: check its log, or try again later",
}

_PATIENCE: Final = 20.0  # seconds without progress, of a server that asks to wait for hours, too


async def diagnose_target(spec: Any, plans: Sequence[Plan], named: NamedTargets) -> tuple[TargetReport, int]:
    """Check a target. Returns what it reports, ready for JSON, and an exit code.

    `spec` is a target as users write it, `named` the user's named targets. The nodes, models, values and files of
    `plans`, which are of one experiment, are checked against the server.
    """
    report: TargetReport = {"target": _get_display_name(spec), "ok": False}
    target: Target | None = None
    try:
        names = {**named, **(plans[0].experiment.named_targets if plans else {})}
        (target,) = resolve_targets([spec], named=names, environ=os.environ)
        report["target"] = target.name
        report["url"] = target.url or None
        report["key"] = f"from {target.key_source}" if target.key_source else None
        if target.keys and target.url.startswith("http://") and not is_loopback(target.url):
            report["warning"] = (
                "sweeper sends its key unencrypted, so others on the network can read it; use an https:// URL"
            )
        needs = await _connect(target, report, plans)
    except SweeperError as error:
        report["problem"] = str(error)
        report["next"] = _suggest_next_step(error, target)
        return report, get_exit_code(error)
    report["ok"] = not needs
    return report, UNREACHABLE if needs else OK


def _get_display_name(spec: Any) -> str:
    """The name of a target that is not resolved yet, without secrets: user names, passwords and query strings."""
    name = spec.get("name") or spec.get("url") if isinstance(spec, Mapping) else spec
    return strip_secrets(str(name))


async def _connect(target: Target, report: TargetReport, plans: Sequence[Plan]) -> list[str]:
    """Query the server (started first if it is the embedded one). Returns what the plans need and the server lacks."""
    from sweeper.comfy.client import ComfyClient

    if target.embedded:
        from sweeper.embedded import EmbeddedServer

        with EmbeddedServer(dialect="cloud", permissive=True) as server:
            return await _query_server(ComfyClient(replace(target, url=server.url), patience=_PATIENCE), report, plans)
    return await _query_server(ComfyClient(target, patience=_PATIENCE), report, plans)


async def _query_server(client: ComfyClient, report: TargetReport, plans: Sequence[Plan]) -> list[str]:
    """Add the server's facts to `report`. Returns what the plans need and the server lacks."""
    async with client:
        server = await client.connect()
        cache = detect_server_cache(server.version, server.arguments, server.memory) if server.arguments else None
        report.update(dialect=server.dialect, version=server.version or None, cache=cache and str(cache))
        report["upload_limit"] = limit = await client.get_upload_limit()
        report["balance_usd"] = await client.get_balance()
        if not plans:
            return []
        experiment = plans[0].experiment
        lacks, notes = await _check_plans(client, plans)
        lacks += _find_large_files(experiment, limit)
        report["experiment"] = {
            "file": str(experiment.file),
            "trials": None if is_space(plans[0]) else len(plans[0]),
            "lacks": lacks,
            "notes": notes,
        } | ({} if experiment.search is None else {"search": True})
        if lacks:
            report["problem"] = "\n".join(lacks)
            report["next"] = (
                "install what is missing on that server (a custom node's package, a model file in its folder), or "
                "correct the names in the template or the experiment"
            )
        return lacks


async def _check_plans(client: ComfyClient, plans: Sequence[Plan]) -> tuple[list[str], list[str]]:
    """(what the server lacks or would refuse, notes on what is unusual but runs)."""
    classes = await get_classes(client, fresh=True)
    if classes is None:
        return [], ["the server does not list its node classes, so the template was not checked"]
    fits = [plan.fit(classes) for plan in plans]
    lacks = [str(problem) for fit in fits for problem in fit.problems]
    try:
        attach_partner_key(client, plans[0].experiment.template, classes, required=True)
    except InputError as error:
        lacks.append(str(error))
    notes = [str(note) for fit in fits for note in fit.notes]
    return list(dict.fromkeys(lacks)), list(dict.fromkeys(notes))


def _find_large_files(experiment: Experiment, limit: int | None) -> list[str]:
    """A message for each input file that is larger than an upload may be (`limit`, in bytes)."""
    return [
        f"{fact.path}: {size / 2**20:.0f} MiB; an upload there may have at most {limit / 2**20:.0f} MiB"
        for fact in experiment.files.values()
        if limit is not None and (size := fact.path.stat().st_size) > limit
    ]


def _suggest_next_step(error: SweeperError, target: Target | None) -> str | None:
    """The next step after a failure; None if the message already says it."""
    if target is None:
        return None
    if isinstance(error, RefusedError):
        if error.is_account_problem:
            return None
        if target.key_source is None:
            return "the server needs a key: write the target as {url: ..., api_key_env: NAME} and set NAME to the key"
        return (
            f"the server does not accept the key from {target.key_source}: create a new one there, or look for a typo"
        )
    if not isinstance(error, UnreachableError | TransientError):
        return None
    if error.trouble not in (Trouble.REFUSED, Trouble.NO_CONNECTION):
        return _NEXT_STEPS.get(error.trouble)
    if is_loopback(target.url):
        return "start the server, or correct the port: ComfyUI prints its address when it starts (default port 8188)"
    return "check host and port, that the server runs with --listen, and that no firewall or proxy blocks it"
