"""One target as `sweeper doctor` sees it: does it answer, does it take our key, has it what an experiment needs.

Asks the server and changes nothing there. Each thing that is wrong comes with what to do about it. No key is shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sweeper.cli.exit_codes import OK, UNREACHABLE, get_exit_code
from sweeper.errors import InputError, RefusedError, SweeperError, TransientError, Trouble, UnreachableError

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.protocol import Server
    from sweeper.comfy.target import Target
    from sweeper.model.target_spec import NamedTargets
    from sweeper.planning.plan import Plan

TargetReport = dict[str, Any]

# What to do about an UnreachableError or TransientError, by its `trouble`; of a redirect the message says it.
_NEXT_STEPS: Final = {
    Trouble.NOT_COMFYUI: "another server answers there: correct host, port or path (a ComfyUI says in its first lines "
    "where it listens), or look what a proxy before it does",
    Trouble.BAD_CERTIFICATE: "use the name that the certificate is for, or let SSL_CERT_FILE name the certificate of "
    "whoever signed it",
    Trouble.NO_TLS: "it does not speak TLS at that port: write http:// in place of https://, or correct the port",
    Trouble.TIMEOUT: "nothing came back in time: look in the server's log whether it hangs, whether the port is "
    "another program's, and whether a firewall is between",
    Trouble.DROPPED: "somebody takes the connection and ends it: write https:// where TLS is spoken, or correct the "
    "port",
    Trouble.SERVER_ERROR: "the server is there and cannot answer now: look in its log, or try again later",
}


async def diagnose_target(spec: Any, plan: Plan | None, named: NamedTargets) -> tuple[TargetReport, int]:
    """What a target says of itself, JSON-ready, and the exit code that follows from it.

    `spec` is a target as users write it, `named` are the user's own names; with `plan` its nodes, models, values and
    files are held against the server.
    """
    from sweeper.comfy.target import resolve_targets  # noqa: PLC0415
    from sweeper.model.urls import is_loopback  # noqa: PLC0415

    told: TargetReport = {"target": _get_display_name(spec), "ok": False}
    target: Target | None = None
    try:
        names = {**named, **(plan.experiment.named_targets if plan is not None else {})}
        (target,) = resolve_targets([spec], named=names, environ=os.environ)
        told["target"] = target.name
        told["url"] = target.url or None
        told["key"] = f"from {target.key_source}" if target.key_source else None
        if target.keys and target.url.startswith("http://") and not is_loopback(target.url):
            told["warning"] = "its key travels unencrypted: whoever is on the way can read it; prefer an https:// URL"
        needs = await _connect(target, told, plan)
    except SweeperError as error:
        told["problem"] = str(error)
        told["next"] = _suggest_next_step(error, target)
        return told, get_exit_code(error)
    told["ok"] = not needs
    return told, UNREACHABLE if needs else OK


def _get_display_name(spec: Any) -> str:
    """A target before it is known to be one: never with what stands before an @ or behind a ? in it."""
    from sweeper.model.urls import strip_secrets  # noqa: PLC0415

    name = spec.get("name") or spec.get("url") if isinstance(spec, Mapping) else spec
    return strip_secrets(str(name))


async def _connect(target: Target, report: TargetReport, plan: Plan | None) -> list[str]:
    """Fill in what the server tells; the embedded one is started for it. Returns what the plan lacks there."""
    from sweeper.comfy.client import ComfyClient  # noqa: PLC0415

    if target.embedded:
        from sweeper.embedded import EmbeddedServer

        with EmbeddedServer(dialect="cloud") as server:
            return await _query_server(ComfyClient(replace(target, url=server.url)), report, plan)
    return await _query_server(ComfyClient(target), report, plan)


async def _query_server(client: ComfyClient, report: TargetReport, plan: Plan | None) -> list[str]:
    async with client:
        server = await client.connect()
        report.update(dialect=server.dialect, version=server.version or None, cache=get_cache_mode(server))
        report["upload_limit"] = limit = await client.get_upload_limit()
        if plan is None:
            return []
        lacks, notes = await _check_plan(client, plan)
        lacks += _find_large_files(plan, limit)
        report["experiment"] = {"file": str(plan.experiment.file), "trials": len(plan), "lacks": lacks, "notes": notes}
        if lacks:
            report["problem"] = "\n".join(lacks)
            report["next"] = (
                "install what is missing on that server (a custom node's package, a model file in its folder), or "
                "correct the names in the template or the experiment"
            )
        return lacks


async def _check_plan(client: ComfyClient, plan: Plan) -> tuple[list[str], list[str]]:
    """(what the server lacks or would refuse, what is odd but runs)."""
    from sweeper.running.node_class_cache import get_classes  # noqa: PLC0415
    from sweeper.running.preflight import attach_partner_key  # noqa: PLC0415

    classes = await get_classes(client, fresh=True)
    if classes is None:
        return [], ["the server does not tell its node classes: nothing of the template was checked"]
    fit = plan.fit(classes)
    lacks = [str(problem) for problem in fit.problems]
    try:
        attach_partner_key(client, plan.experiment.template, classes, required=True)
    except InputError as error:
        lacks.append(str(error))
    return lacks, [str(note) for note in fit.notes]


def _find_large_files(plan: Plan, limit: int | None) -> list[str]:
    return [
        f"{fact.path}: {size / 2**20:.0f} MiB, more than the {limit / 2**20:.0f} MiB of an upload there"
        for fact in plan.experiment.files.values()
        if limit is not None and (size := fact.path.stat().st_size) > limit
    ]


def get_cache_mode(server: Server) -> str | None:
    """How a local ComfyUI keeps node results, by its command line; None where it does not tell (Cloud)."""
    if not server.arguments:
        return None
    modes = [
        " ".join(server.arguments[place : place + (2 if word == "--cache-lru" else 1)])
        for place, word in enumerate(server.arguments)
        if word.startswith("--cache-")
    ]
    return modes[-1].removeprefix("--cache-") if modes else "classic"


def _suggest_next_step(error: SweeperError, target: Target | None) -> str | None:
    """What to do about a failure, where its message does not say it already."""
    if target is None:
        return None
    if isinstance(error, RefusedError):
        if "HTTP 402" in str(error) or "HTTP 429" in str(error):
            return "look at the account's credits and subscription; nothing that was done is lost"
        if target.key_source is None:
            return "it asks for a key: give the target as {url: ..., api_key_env: NAME} and put the key into NAME"
        return f"the key from {target.key_source} is not one of that server's: make a new one there, or look for a typo"
    if not isinstance(error, UnreachableError | TransientError):
        return None
    if error.trouble not in (Trouble.REFUSED, Trouble.NO_CONNECTION):
        return _NEXT_STEPS.get(error.trouble)
    from sweeper.model.urls import is_loopback  # noqa: PLC0415

    if is_loopback(target.url):
        return "start the server, or correct the port: a ComfyUI says in its first lines where it listens (8188)"
    return "look whether host and port are right, the server runs with --listen, and no firewall or proxy is between"
