"""What users may write beside `launch`: how sweeper starts a ComfyUI itself. `model/target_spec.py` reads the rest.

Relative paths are made absolute where it is known to what they are relative, by `anchor_launches`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sweeper.schemas.values import is_integer, is_number

ALL_GPUS: Final = "all"
CPU: Final = "cpu"
_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT])i?B?", re.IGNORECASE)
_OWN_ARGUMENTS: Final = ("--port", "--listen", "--cuda-device", "--cpu")  # that sweeper itself gives a ComfyUI
_MAX_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """A ComfyUI that sweeper starts. `folder` contains its `main.py`; `python` is None if it is looked for there.

    `gpus`: None for what ComfyUI chooses, else ALL_GPUS, CPU or numbers. `device` is the one of this process: a number,
    CPU, or None. `patience`: seconds without an answer, after which it is started again. `max_memory`: bytes.
    `key_variables`: the environment variables with keys of any target, which it does not get.
    """

    folder: str
    python: str | None = None
    gpus: str | tuple[int, ...] | None = None
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    keep: bool = False
    patience: float | None = None
    max_memory: int | None = None
    device: int | str | None = None
    key_variables: frozenset[str] = field(default=frozenset(), compare=False)

    def __str__(self) -> str:
        """The program and all that decides what it does and which node classes it has, but no port and no device."""
        facts = {"launch": self.folder, "python": self.python, "args": self.args, "env": dict(self.env)}
        return "the ComfyUI of " + json.dumps({key: value for key, value in facts.items() if value})


def make_launch_spec(settings: Mapping[str, Any]) -> LaunchSpec:
    """The launch of valid settings of a target."""
    names = asdict(LaunchSpec("")).keys() & settings.keys()
    return LaunchSpec(settings["launch"], **{name: settings[name] for name in names})


def anchor_launches(spec: Any, folder: Path) -> Any:
    """A target, or a list or mapping of targets, with the paths beside `launch` relative to a folder made absolute.

    Whatever is not as it should be stays as it is, for the checks of `target_spec`.
    """
    if isinstance(spec, list | tuple):
        return [anchor_launches(member, folder) for member in spec]
    if not isinstance(spec, Mapping) or not isinstance(spec.get("launch"), str):
        return spec
    python = spec.get("python")
    is_path = isinstance(python, str) and Path(python).name != python  # else the name of a program
    texts = {key: spec[key].strip() for key in ("launch", *(["python"] if is_path else []))}
    return {**spec, **{key: str(folder / Path(text).expanduser()) for key, text in texts.items() if text}}


def _are_gpus(value: Any) -> bool:
    if isinstance(value, list | tuple):
        numbers = {number for number in value if is_integer(number) and 0 <= number < 1_000}
        return 0 < len(numbers) == len(value)
    return value in (ALL_GPUS, CPU)


def _are_arguments(value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return False
    words = [str(word) for word in value if isinstance(word, str) or is_number(word)]
    return len(words) == len(value) and not any(word.partition("=")[0] in _OWN_ARGUMENTS for word in words)


def _are_variables(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and re.fullmatch(r"[A-Za-z_]\w*", name) and (isinstance(text, str) or is_number(text))
        for name, text in value.items()
    )


def _parse_bytes(value: Any) -> int | None:
    """`24 GB`, or a number of gigabytes; None for anything else."""
    if is_number(value):
        size = value * 2**30
    elif isinstance(value, str) and (found := _BYTES.fullmatch(value.strip())):
        size = float(found[1]) * 2 ** (10 * ("KMGT".index(found[2].upper()) + 1))
    else:
        return None
    return int(size) if 0 < size < 2**60 else None


# As in `target_spec`: whether a value is valid, what it becomes, and what to say if it is not.
LAUNCH_CHECKS: Final[Mapping[str, tuple[Callable[[Any], bool], Callable[[Any], Any], str]]] = {
    "launch": (lambda value: isinstance(value, str) and bool(value.strip()), str.strip,
               "give the folder of a ComfyUI, in which its main.py is"),
    "python": (lambda value: isinstance(value, str) and bool(value.strip()), str.strip,
               "give the Python that has ComfyUI's packages, such as venv/bin/python"),
    "gpus": (_are_gpus, lambda value: value if isinstance(value, str) else tuple(value),
             "{value} is neither all, nor cpu, nor a list of numbers such as [0, 2]"),
    "args": (_are_arguments, lambda value: tuple(map(str, value)),
             "give a list of ComfyUI's arguments, such as [--lowvram], but not --port, --listen, --cpu, --cuda-device"),
    "env": (_are_variables, lambda value: tuple((name, str(text)) for name, text in value.items()),
            "give names of environment variables with their values, such as {{HF_HUB_OFFLINE: 1}}"),
    "keep": (lambda value: isinstance(value, bool), bool, "{value} is neither true nor false"),
    "patience": (lambda value: is_number(value) and 0 < value <= _MAX_SECONDS, float,
                 f"{{value}} is not a number of seconds from above 0 to {_MAX_SECONDS}"),
    "max_memory": (lambda value: _parse_bytes(value) is not None, _parse_bytes,
                   "{value} is not a size such as 24 GB"),
}  # fmt: skip
