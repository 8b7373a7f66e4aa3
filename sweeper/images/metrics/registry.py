"""Find the function for a metric's name: a built-in one, a package's (entry point), or the user's `module:function`.

Checking names imports neither NumPy nor any module of the user.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import MAX_PROBLEMS, ExperimentError, Problem, SweeperError
from sweeper.model.experiment import Likeness
from sweeper.model.result import PIXEL_HASH, RESERVED_COLUMNS, SAMPLING_METRIC
from sweeper.schemas.values import format_value
from sweeper.wording import suggest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FORMULA_NAMES: Final = (
    "brightness", "contrast", "sharpness", "colourfulness", "entropy", "edge_density", "unique_colours",
    "perceptual_hash",
)  # fmt: skip
LEARNED_NAMES: Final = ("aesthetic", "prompt_similarity")
METRIC_NAMES: Final = (*FORMULA_NAMES, *LEARNED_NAMES, SAMPLING_METRIC)

_FUNCTION_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_FORMULAS_VERSION: Final = "1"  # increase it if a formula gives another value for the same picture
_PIXEL_HASH_VERSION: Final = "1"  # increase it if `hash_frames` or the decoding gives another hash
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Metric:
    """How to compute a column: `function(picture)`, or `function(picture, params)` if `reads_params`.

    `picture` is uint8 RGB of shape (height, width, 3), and `params` maps every slot of the trial to its value. The
    result is a finite number or a text. Cached values of another `version` are not used. If `single_threaded`, only one
    thread at a time may call the function.
    """

    function: Callable[..., Any]
    version: str
    reads_params: bool = False
    single_threaded: bool = False


@dataclass(frozen=True, slots=True)
class MetricInput:
    """An artifact to measure: the SHA-256 of its content, its path, and the digest, params and columns of its trial."""

    sha256: str
    path: Path
    digest: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)

    def cache_key(self, metric: Metric) -> str:
        """The key of a value in the store's cache: the content, and the trial too if the metric reads params."""
        return f"{self.sha256}:{self.digest}" if metric.reads_params else self.sha256


def find_unknown_metrics(names: Iterable[str], known: Collection[str] = ()) -> list[tuple[str, str]]:
    """(name, message) for the first names that are unknown or listed twice. `known`: other names that are allowed.

    Names of entry points, and those of the form `module:function`, are accepted without importing anything.
    """
    problems: list[tuple[str, str]] = []
    plugins: Mapping[str, EntryPoint] | None = None
    for name, count in Counter(names).items():
        if len(problems) >= MAX_PROBLEMS:
            break
        if count > 1:
            problems.append((name, f"{format_value(name)} is listed {count} times; list it once"))
        if name in METRIC_NAMES or name in known or _FUNCTION_PATH.fullmatch(name):
            continue
        plugins = _find_entry_points() if plugins is None else plugins
        if name not in plugins:
            hint = suggest(name, (*METRIC_NAMES, *plugins))
            problems.append((name, f"unknown metric {format_value(name)} (your own is written module:function){hint}"))
    return problems


def load_metrics(
    names: Iterable[str], folder: Path | None = None, likenesses: Mapping[str, Likeness] = MappingProxyType({})
) -> dict[str, Metric]:
    """Load the metrics of these names. The user's modules are imported from `folder` or the current folder first.

    `sampling_s` is left out, because the server's events measure it while a job runs. `PIXEL_HASH` counts as a metric
    here, so that a file is decoded once for it and for the metrics.

    Raises ExperimentError with every name that is unknown, cannot be imported, or lacks its package or model file.
    """
    names = list(names)
    unknown = dict(find_unknown_metrics(names, {PIXEL_HASH, *likenesses}))
    messages = list(unknown.values())
    metrics: dict[str, Metric] = {}
    for name in dict.fromkeys(names):
        if name in unknown or name == SAMPLING_METRIC:
            continue
        try:
            if name in likenesses:
                from sweeper.images.metrics.learned import load_likeness

                functions, version = load_likeness(likenesses[name]), likenesses[name].version
                metrics |= {column: Metric(function, version) for column, function in functions.items()}
            else:
                metrics[name] = _load_metric(name, folder)
        except SweeperError as error:
            messages.append(f"metric '{name}' {error}")
        except Exception as error:  # noqa: BLE001 - importing runs the user's module, which may raise anything
            is_clear = isinstance(error, (ImportError, AttributeError, TypeError))
            text = str(error) if is_clear else f"{type(error).__name__}: {error}"
            messages.append(f"metric '{name}' cannot be imported: {text}{_describe_search(error, folder)}")
    if messages:
        raise ExperimentError([Problem("", 0, "", message) for message in messages])
    return metrics


def _describe_search(error: Exception, folder: Path | None) -> str:
    """Where a module was looked for, if it was not found."""
    if not isinstance(error, ModuleNotFoundError):
        return ""
    beside = "" if folder is None else "beside the experiment, "
    return f"; looked {beside}in the current folder and among installed packages"


def _load_metric(name: str, folder: Path | None) -> Metric:
    if name in FORMULA_NAMES:
        return Metric(partial(_compute_formula, name), _FORMULAS_VERSION)
    if name == PIXEL_HASH:
        return Metric(_hash_pixels, _PIXEL_HASH_VERSION)
    if name in LEARNED_NAMES:
        from sweeper.images.metrics.learned import load_learned

        return Metric(*load_learned(name))
    if _FUNCTION_PATH.fullmatch(name):
        return _wrap_function(_import_function(name, folder))
    return _wrap_function(_find_entry_points()[name].load())


def _compute_formula(name: str, picture: Any) -> float | str:
    from sweeper.images.metrics.formulas import FORMULAS

    return FORMULAS[name](picture)


def _hash_pixels(picture: Any) -> str:
    from sweeper.images.decoding import hash_frames

    return hash_frames([picture])


def _find_entry_points() -> Mapping[str, EntryPoint]:
    """The entry points of installed packages by name, without those that have the name of a table column."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group="sweeper.metrics") if entry.name not in RESERVED_COLUMNS}


class _UserFinder:
    """Finds one module or package of the user, before any other of that name."""

    def __init__(self, spec: ModuleSpec) -> None:
        self._spec = spec

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        return self._spec if fullname == self._spec.name else None


def _import_function(name: str, folder: Path | None) -> Any:
    """Import the module from `folder`, the current folder or installed packages, and return its function.

    What the module itself imports is looked for beside it, but last. So a file `json.py` there is imported by nobody.
    """
    module, _, function = name.partition(":")
    home, spec = _find_user_module(module.partition(".")[0], folder)
    added = [] if home is None or home in sys.path else [home]
    finders = [] if spec is None or spec.loader is None else [_UserFinder(spec)]
    sys.path += added
    sys.meta_path[:0] = finders
    try:
        return getattr(importlib.import_module(module), function)
    finally:
        for finder in finders:
            sys.meta_path.remove(finder)
        for path in added:
            sys.path.remove(path)


def _find_user_module(name: str, folder: Path | None) -> tuple[str | None, ModuleSpec | None]:
    """The folder of the user that has a module, and where in it. A module of Python itself is never the user's."""
    for home in () if name in sys.stdlib_module_names else (folder, Path.cwd()):
        path = str(home.absolute()) if home is not None else None
        spec = path and PathFinder.find_spec(name, [path])
        if spec:
            return path, spec
    return None, None


def _wrap_function(function: Any) -> Metric:
    """A Metric for a function that is not ours. Raises TypeError if it cannot be called as a metric."""
    if not callable(function):
        raise TypeError(f"{function!r} is not a function")
    return Metric(function, _hash_source(function), reads_params=_takes_params(function), single_threaded=True)


def _takes_params(function: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C, without a signature
        return False
    parameters = signature.parameters.values()
    required = [each for each in parameters if each.default is each.empty and each.kind in _POSITIONAL]
    # A second parameter with a default is an option of the function, unless its name is `params`.
    may_take_params = len(required) >= 2 or "params" in signature.parameters
    if may_take_params and _accepts(signature, "picture", "params"):
        return True
    if _accepts(signature, "picture"):
        return False
    raise TypeError(f"it must accept (picture) or (picture, params), but takes {signature}")


def _accepts(signature: inspect.Signature, *arguments: str) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _hash_source(function: Callable[..., Any]) -> str:
    """SHA-256 of the source file of a function, so that all pictures are measured again after an edit."""
    try:
        source = inspect.getsourcefile(inspect.unwrap(function))
        return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
    except (TypeError, OSError):  # a built-in function, or a callable object
        return ""
