"""One target as `sweeper doctor` sees it: does it answer, does it take our key, has it what an experiment needs.

Asks the server and changes nothing there. Each thing that is wrong comes with what to do about it. No key is shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sweeper.cli.exit_codes import OK, UNREACHABLE, code_of
from sweeper.errors import InputError, RefusedError, SweeperError, TransientError, UnreachableError

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.protocol import Server
    from sweeper.comfy.target import Target
    from sweeper.model.target_spec import Named
    from sweeper.planning.plan import Plan

Told = dict[str, Any]

# What to do about an UnreachableError or TransientError, by its `trouble`; of a redirect the message says it.
_STEPS: Final = {
    "stranger": "another server answers there: correct host, port or path (a ComfyUI says in its first lines where it "
    "listens), or look what a proxy before it does",
    "certificate": "use the name that the certificate is for, or let SSL_CERT_FILE name the certificate of whoever "
    "signed it",
    "plain": "it does not speak TLS at that port: write http:// in place of https://, or correct the port",
    "silent": "nothing came back in time: look in the server's log whether it hangs, whether the port is another "
    "program's, and whether a firewall is between",
    "cut": "somebody takes the connection and ends it: write https:// where TLS is spoken, or correct the port",
    "faulty": "the server is there and cannot answer now: look in its log, or try again later",
}


async def examined(spec: Any, plan: Plan | None, named: Named) -> tuple[Told, int]:
    """What a target says of itself, JSON-ready, and the exit code that follows from it.

    `spec` is a target as users write it, `named` are the user's own names; with `plan` its nodes, models, values and
    files are held against the server.
    """
    from sweeper.comfy.target import resolve_targets  # noqa: PLC0415
    from sweeper.model.urls import loopback  # noqa: PLC0415

    told: Told = {"target": _called(spec), "ok": False}
    target: Target | None = None
    try:
        names = {**named, **(plan.experiment.named_targets if plan is not None else {})}
        (target,) = resolve_targets([spec], named=names, environ=os.environ)
        told["target"] = target.name
        told["url"] = target.url or None
        told["key"] = f"from {target.key_source}" if target.key_source else None
        if target.keys and target.url.startswith("http://") and not loopback(target.url):
            told["warning"] = "its key travels unencrypted: whoever is on the way can read it; prefer an https:// URL"
        needs = await _asked(target, told, plan)
    except SweeperError as error:
        told["problem"] = str(error)
        told["next"] = _next(error, target)
        return told, code_of(error)
    told["ok"] = not needs
    return told, UNREACHABLE if needs else OK


def _called(spec: Any) -> str:
    """A target before it is known to be one: never with what stands before an @ or behind a ? in it."""
    from sweeper.model.urls import without_userinfo  # noqa: PLC0415

    name = spec.get("name") or spec.get("url") if isinstance(spec, Mapping) else spec
    return without_userinfo(str(name))


async def _asked(target: Target, told: Told, plan: Plan | None) -> list[str]:
    """Fill in what the server tells; the embedded one is started for it. Returns what the plan lacks there."""
    from sweeper.comfy.client import ComfyClient  # noqa: PLC0415

    if target.embedded:
        from sweeper.embedded import EmbeddedServer  # noqa: PLC0415

        with EmbeddedServer(dialect="cloud") as server:
            return await _greeted(ComfyClient(replace(target, url=server.url)), told, plan)
    return await _greeted(ComfyClient(target), told, plan)


async def _greeted(client: ComfyClient, told: Told, plan: Plan | None) -> list[str]:
    async with client:
        server = await client.connect()
        told.update(dialect=server.dialect, version=server.version or None, cache=cache_mode(server))
        told["upload_limit"] = limit = await client.upload_limit()
        if plan is None:
            return []
        lacks, notes = await _fit(client, plan)
        lacks += _large_files(plan, limit)
        told["experiment"] = {"file": str(plan.experiment.file), "trials": len(plan), "lacks": lacks, "notes": notes}
        if lacks:
            told["problem"] = "\n".join(lacks)
            told["next"] = (
                "install what is missing on that server (a custom node's package, a model file in its folder), or "
                "correct the names in the template or the experiment"
            )
        return lacks


async def _fit(client: ComfyClient, plan: Plan) -> tuple[list[str], list[str]]:
    """(what the server lacks or would refuse, what is odd but runs)."""
    from sweeper.running.node_class_cache import classes_of  # noqa: PLC0415
    from sweeper.running.preflight import equip  # noqa: PLC0415

    classes = await classes_of(client, fresh=True)
    if classes is None:
        return [], ["the server does not tell its node classes: nothing of the template was checked"]
    fit = plan.fit(classes)
    lacks = [str(problem) for problem in fit.problems]
    try:
        equip(client, plan.experiment.template, classes, demanded=True)
    except InputError as error:
        lacks.append(str(error))
    return lacks, [str(note) for note in fit.notes]


def _large_files(plan: Plan, limit: int | None) -> list[str]:
    return [
        f"{fact.path}: {size / 2**20:.0f} MiB, more than the {limit / 2**20:.0f} MiB of an upload there"
        for fact in plan.experiment.files.values()
        if limit is not None and (size := fact.path.stat().st_size) > limit
    ]


def cache_mode(server: Server) -> str | None:
    """How a local ComfyUI keeps node results, by its command line; None where it does not tell (Cloud)."""
    if not server.arguments:
        return None
    modes = [
        " ".join(server.arguments[place : place + (2 if word == "--cache-lru" else 1)])
        for place, word in enumerate(server.arguments)
        if word.startswith("--cache-")
    ]
    return modes[-1].removeprefix("--cache-") if modes else "classic"


def _next(error: SweeperError, target: Target | None) -> str | None:
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
    if error.trouble not in ("nobody", "unconnected"):
        return _STEPS.get(error.trouble)
    from sweeper.model.urls import loopback  # noqa: PLC0415

    if loopback(target.url):
        return "start the server, or correct the port: a ComfyUI says in its first lines where it listens (8188)"
    return "look whether host and port are right, the server runs with --listen, and no firewall or proxy is between"
