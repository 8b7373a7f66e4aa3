"""From the name of a metric to its function: sweeper's own, a plug-in's (entry point), or the user's `module:function`.

No picture is opened here, and no formula written. Names are checked without importing anything of the user's.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.did_you_mean import suggest
from sweeper.errors import ExperimentError, Problem, SweeperError
from sweeper.images.metrics.formulas import FORMULAS
from sweeper.images.metrics.learned import LEARNED_NAMES, load_learned
from sweeper.model.result import RESERVED_COLUMNS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

METRIC_NAMES: Final = (*FORMULAS, *LEARNED_NAMES)
ENTRY_POINT_GROUP: Final = "sweeper.metrics"  # of the entry points

_FUNCTION_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_FORMULAS_VERSION: Final = "1"  # to be raised when a formula gives another value for the same picture


@dataclass(frozen=True, slots=True)
class Metric:
    """How a column comes about: `function(picture)`, or `function(picture, params)` where `reads_params`.

    `picture` is uint8 RGB of shape (height, width, 3), `params` maps every slot of the trial to its value. What comes
    back is a finite number or a text. While `version` stays the same, so does the value of the same input: the cache
    of another version is not used. `alone`: two threads must not be in it at once.
    """

    function: Callable[..., Any]
    version: str
    reads_params: bool = False
    single_threaded: bool = False


def find_unknown_metrics(names: Iterable[str]) -> list[tuple[str, str]]:
    """(name, sentence) for each that is no metric, or that is given twice.

    `module:function` passes here and is not imported, and so does the name of an entry point.
    """
    found: list[tuple[str, str]] = []
    for name, count in Counter(names).items():
        if count > 1:
            found.append((name, f"'{name}' is given {count} times; once makes its column"))
        if name in METRIC_NAMES or _FUNCTION_PATH.fullmatch(name):
            continue
        plugged = _find_entry_points()
        if name not in plugged:
            known = (*METRIC_NAMES, *plugged)
            found.append((name, f"unknown metric '{name}' (your own is written module:function){suggest(name, known)}"))
    return found


def load_metrics(names: Iterable[str]) -> dict[str, Metric]:
    """The metrics of these names, those of the user imported (from the current folder too).

    Raises ExperimentError with every name that is no metric, cannot be imported, or lacks its package or model file.
    """
    wanted = list(names)
    unknown = find_unknown_metrics(wanted)
    said = [sentence for _, sentence in unknown]
    found: dict[str, Metric] = {}
    for name in dict.fromkeys(wanted):
        if name in (bad for bad, _ in unknown):
            continue
        try:
            found[name] = _load_metric(name)
        except SweeperError as error:
            said.append(f"metric '{name}' {error}")
        except Exception as error:  # noqa: BLE001 - importing runs the user's module, which may raise anything
            said.append(f"metric '{name}' cannot be imported: {_describe_error(error)}")
    if said:
        raise ExperimentError([Problem("", 0, "", sentence) for sentence in said])
    return found


def _describe_error(error: Exception) -> str:
    plain = isinstance(error, (ImportError, AttributeError, TypeError))
    return str(error) if plain else f"{type(error).__name__}: {error}"


def _load_metric(name: str) -> Metric:
    if name in FORMULAS:
        return Metric(FORMULAS[name], _FORMULAS_VERSION)
    if name in LEARNED_NAMES:
        model = load_learned(name)
        return Metric(model.function, model.version, model.reads_params)
    if _FUNCTION_PATH.fullmatch(name):
        return _wrap_function(_import_function(name))
    return _wrap_function(_find_entry_points()[name].load())


def _find_entry_points() -> Mapping[str, EntryPoint]:
    """The entry points of installed packages, by name; one that names a column of the table could only confuse."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - 20 ms that most experiments never need

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name not in RESERVED_COLUMNS}


def _import_function(name: str) -> Any:
    module, _, function = name.partition(":")
    # `sweeper` is a console script: unlike `python -m`, it does not look for modules where the user stands.
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), function)
    finally:
        sys.path.remove(here)


def _wrap_function(function: Any) -> Metric:
    """A function of somebody else's; its source is its version. Raises TypeError where it cannot be called as one."""
    if not callable(function):
        raise TypeError(f"{function!r} is not a function")
    return Metric(function, _hash_source(function), reads_params=_takes_params(function), single_threaded=True)


def _takes_params(function: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C and silent about it
        return False
    for arguments in (("picture", "params"), ("picture",)):
        needed = [one for one in signature.parameters.values() if one.default is one.empty and one.kind in _POSITIONAL]
        if len(arguments) == 2 and len(needed) < 2 and "params" not in signature.parameters:
            continue  # a second argument with a default of its own is the function's, unless it is called params
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 2
    raise TypeError(f"it is called with the picture, or with the picture and params, and takes {signature}")


_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _hash_source(function: Callable[..., Any]) -> str:
    """SHA-256 of the file that a function was written in: edit it, and everything is measured anew."""
    try:
        source = inspect.getsourcefile(inspect.unwrap(function))
        return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
    except (TypeError, OSError):  # built in, or an object that is called
        return ""
