"""Where commands take node classes from: a target, a file with a server's object_info, or by default ours.

A command that must convert or check uses `NodeInfo` made of it; here the JSON is fetched and its options declared.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sweeper.cli.targets_file import load_named_targets
from sweeper.errors import InputError, Problem, UsageError

if TYPE_CHECKING:
    from sweeper.model.node_classes import NodeInfo

_F = TypeVar("_F", bound=Callable[..., Any])

_target_option = click.option(
    "-t",
    "--target",
    metavar="TARGET",
    help="Take node classes from this server: cloud, a URL or a name of the targets file. [default: embedded]",
)
object_info_option = click.option(
    "--object-info",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take node classes from this file: a server's answer to GET /object_info, saved.",
)


def add_class_options(function: _F) -> _F:
    """The two options; the command gets `target` and `object_info`."""
    return _target_option(object_info_option(function))


@dataclass(frozen=True)
class NodeClassSource:
    """The node classes that a command goes by. `target` and `file` as given on the command line; not both."""

    target: str | None = None
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.target is not None and self.file is not None:
            raise UsageError("--target and --object-info both say where node classes come from; give one")

    @property
    def is_default(self) -> bool:
        """Whether nobody chose: then these are the embedded server's, which has the core classes only."""
        return self.target is None and self.file is None

    @cached_property
    def object_info(self) -> Mapping[str, Any]:
        """The JSON. Raises UsageError for a wrong option or file, TargetError for a server that does not tell."""
        from sweeper.running.node_class_cache import get_embedded_object_info, get_object_info  # noqa: PLC0415 - only where asked for

        if self.file is not None:
            return _read_object_info(self.file)
        if self.target is None:
            return get_embedded_object_info()
        from sweeper.comfy.target import resolve_targets  # noqa: PLC0415

        (target,) = resolve_targets([self.target], named=load_named_targets(), environ=os.environ)
        return asyncio.run(get_object_info(target))

    @cached_property
    def classes(self) -> NodeInfo:
        """The classes as a template should hold to them: any name of a model file fits, for those come and go."""
        from sweeper.model.node_classes import NodeInfo  # noqa: PLC0415 - not for --help

        return NodeInfo.from_object_info(self.object_info).with_any_model()


def load_classes(file: Path) -> NodeInfo:
    """The classes in a saved answer to GET /object_info, with the lists of that server. Raises UsageError."""
    from sweeper.model.node_classes import NodeInfo  # noqa: PLC0415 - not for --help

    return NodeInfo.from_object_info(_read_object_info(file))


def _read_object_info(path: Path) -> Mapping[str, Any]:
    from sweeper.model.node_classes import NodeInfo  # noqa: PLC0415

    try:
        value = json.loads(path.read_text("utf-8-sig"))
        NodeInfo.from_object_info(value)
    except OSError as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be read: {error.strerror}")) from error
    except InputError as error:
        raise UsageError(Problem(str(path), 0, "", str(error))) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(Problem(str(path), 0, "", f"is not JSON: {error}")) from error
    if not value:
        raise UsageError(Problem(str(path), 0, "", "describes no node class"))
    found: Mapping[str, Any] = value
    return found
