"""`sweeper doctor`: this installation, and what each target says of itself. No key is ever shown."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

import click

from sweeper import __version__
from sweeper.cli import console, options
from sweeper.cli.failure import OK, code_of
from sweeper.cli.options import examples
from sweeper.errors import SweeperError

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.target import Target
    from sweeper.comfy.wire import Server


@click.command(epilog=examples("sweeper doctor", "sweeper doctor --target cloud --target http://127.0.0.1:8188"))
@options.targets
@options.as_json
def command(targets: tuple[str, ...], *, as_json: bool) -> int:
    """Check this installation and the targets: reachable, dialect, version, key accepted, cache mode."""
    found: dict[str, Any] = {
        "sweeper": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _packages()},
        "free_bytes": shutil.disk_usage(".").free,
        "targets": [],
    }
    code = OK
    for spec in targets or ("embedded",):
        told, failed = _examined(spec)
        found["targets"].append(told)
        code = max(code, failed)
    if as_json:
        console.out_json(found)
    else:
        _show(found)
    return code


def _packages() -> list[str]:
    """What sweeper asks for, its extras for users too."""
    try:
        wanted = requires("sweeper") or []
    except PackageNotFoundError:
        return []
    plain = [text for text in wanted if "extra ==" not in text or "'test'" not in text.replace('"', "'")]
    names = ["".join(char if char.isalnum() or char in "-_." else " " for char in text).split()[0] for text in plain]
    return list(dict.fromkeys(names))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _examined(spec: str) -> tuple[dict[str, Any], int]:
    """What a target says, and the exit code that follows from it."""
    from sweeper.cli.targets_file import named_targets  # noqa: PLC0415 - each command imports what it uses
    from sweeper.comfy.target import resolve_targets  # noqa: PLC0415

    told: dict[str, Any] = {"target": spec, "ok": False}
    try:
        (target,) = resolve_targets([spec], named=named_targets(), environ=os.environ)
        told["target"] = target.name
        told["url"] = target.url or None
        told["key"] = f"from {target.api_key_env}" if target.api_key_env else None
        told.update(asyncio.run(_asked(target)))
    except SweeperError as error:
        told["problem"] = str(error)
        return told, code_of(error)
    told["ok"] = True
    return told, OK


async def _asked(target: Target) -> dict[str, Any]:
    """Greets the server; the embedded one is started for it."""
    from dataclasses import replace  # noqa: PLC0415

    from sweeper.comfy.client import ComfyClient  # noqa: PLC0415

    if target.embedded:
        from sweeper.embedded import EmbeddedServer  # noqa: PLC0415

        with EmbeddedServer(dialect="cloud") as server:
            return await _greeted(ComfyClient(replace(target, url=server.url)))
    return await _greeted(ComfyClient(target))


async def _greeted(client: ComfyClient) -> dict[str, Any]:
    async with client:
        server = await client.connect()
        return {"dialect": server.dialect, "version": server.version or None, "cache": _cache(server)}


def _cache(server: Server) -> str | None:
    """How a local ComfyUI keeps node results, by its command line; None where it does not tell (Cloud)."""
    if not server.arguments:
        return None
    modes = [
        " ".join(server.arguments[place : place + (2 if word == "--cache-lru" else 1)])
        for place, word in enumerate(server.arguments)
        if word.startswith("--cache-")
    ]
    return modes[-1].removeprefix("--cache-") if modes else "classic"


def _show(found: dict[str, Any]) -> None:
    console.out(f"sweeper {found['sweeper']}, Python {found['python']}, {found['platform']}")
    console.out(f"{found['free_bytes'] / 2**30:.1f} GiB free here; stdout is {sys.stdout.encoding}")
    if found["packages"]:
        console.out()
        console.table(("package", "version"), [(name, has or "missing") for name, has in found["packages"].items()])
    console.out()
    for told in found["targets"]:
        facts = [f"{name} {told[name]}" for name in ("url", "dialect", "version", "cache") if told.get(name)]
        if told["ok"] and told["key"]:
            facts.append(f"key accepted ({told['key']})")
        console.out(f"{told['target']}: {', '.join(facts) or 'ok'}" if told["ok"] else f"{told['target']}: not usable")
        if not told["ok"]:
            for line in told["problem"].splitlines():
                console.error(line)
