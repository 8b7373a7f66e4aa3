"""Where a command gets node classes: `--target`, a saved object_info (`--object-info`), or the embedded server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from sweeper import embedded
from sweeper.comfy.target import resolve_targets
from sweeper.errors import InputError, Problem, UsageError
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.object_info import ClassReader
from sweeper.running.node_class_cache import get_object_info

_MAX_CLASS: Final = 64 * 2**20  # characters
_PIECE: Final = 2**16  # bytes of the file that are read at once


@dataclass(frozen=True)
class NodeClassSource:
    """The node classes that a command uses: those of `target` or in `file`, as given on the command line (not both)."""

    target: str | None = None
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.target is not None and self.file is not None:
            raise UsageError("--target and --object-info both say where node classes come from; give one")

    @property
    def is_default(self) -> bool:
        """Whether the classes are the embedded server's (the core classes only) because neither option was given."""
        return self.target is None and self.file is None

    @cached_property
    def object_info(self) -> Mapping[str, Any]:
        """The object_info as JSON. Raises UsageError for a wrong option or file, TargetError if the server lacks it."""
        if self.file is not None:
            return read_object_info(self.file)
        if self.target is None:
            return embedded.node_classes()
        target, *_ = resolve_targets([self.target], named=load_named_targets(), environ=os.environ)
        return asyncio.run(get_object_info(target))

    @cached_property
    def classes(self) -> NodeInfo:
        """The classes to check a template against. Any name of a model file is allowed, because those come and go."""
        return NodeInfo.from_object_info(self.object_info, is_embedded=self.is_default).with_any_model()


def load_classes(file: Path) -> NodeInfo:
    """The classes in a saved response to GET /object_info, with that server's model files. Raises UsageError."""
    return NodeInfo.from_object_info(read_object_info(file))


def read_object_info(path: Path) -> Mapping[str, Any]:
    """The JSON of a saved object_info, with equal lists as one object.

    Raises UsageError if it cannot be read or describes no node classes.
    """
    try:
        reader = ClassReader(_MAX_CLASS)
        with path.open("rb") as file:
            for piece in iter(partial(file.read, _PIECE), b""):
                reader.feed(piece)
        value = reader.finish()
        NodeInfo.from_object_info(value, only=())
    except OSError as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be read: {error.strerror}")) from error
    except InputError as error:
        raise UsageError(Problem(str(path), 0, "", str(error))) from error
    except (ValueError, OverflowError) as error:
        raise UsageError(Problem(str(path), 0, "", f"is not the JSON of an object_info: {error}")) from error
    if not value:
        raise UsageError(Problem(str(path), 0, "", "describes no node class"))
    return value
