"""Describes how to rerun trials of a run: the options of a command, and the keys of a smaller experiment.

A report must not contain an API key. Targets name environment variables for their keys; anything else in such a setting
is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.images.metrics.registry import find_unknown_metrics
from sweeper.loading.parse import parse_yaml
from sweeper.loading.search_builder import name_metrics
from sweeper.model.experiment import Experiment
from sweeper.model.source import SourceError
from sweeper.store.records import RunRecord, TableLayout


def describe_rerun(record: RunRecord, layout: TableLayout, experiment: Experiment | None) -> dict[str, Any]:
    """Build the page's `asked`; `experiment` is None if it can no longer be read.

    `options`: the options of `sweeper run` except those that select trials, as words; None if a command cannot express
    them. `kept`: the keys of an experiment of some trials except those that select them.
    """
    value = experiment.source.value if experiment is not None and experiment.source is not None else {}
    own = not record.targets or _list_target_names(value.get("target", "embedded")) == tuple(
        map(_normalize_name, record.targets)
    )
    settings = [_format_setting(name, one) for name, one in record.overrides.items()]
    targets = [] if own else [word for name in record.targets for word in ("--target", name)]
    kept: dict[str, Any] = {}
    if not own:
        kept["target"] = record.targets[0] if len(record.targets) == 1 else list(record.targets)
    elif "target" in value:
        kept["target"] = _remove_secrets(value["target"])
    if "targets" in value:
        kept["targets"] = {name: _remove_secrets(one) for name, one in value["targets"].items()}
    entries = value.get("metrics", [])
    judges = {name: entry for name, entry in zip(name_metrics(entries), entries, strict=True) if name != entry}
    known = [name for name in layout.metrics if name in judges or not find_unknown_metrics([name])]
    if known:
        kept["metrics"] = [judges.get(name, name) for name in known]
    if value.get("run"):
        kept["run"] = value["run"]
    return {
        "options": None if None in settings else [*targets, *(word for one in settings if one for word in one)],
        "kept": kept,
    }


def _format_setting(name: str, value: Any) -> tuple[str, str] | None:
    """Format `--set name=value`; None if parsing that text would give another value."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        same = json.dumps(parse_yaml(text, "--set").value) == json.dumps(value)
    except (SourceError, UnicodeEncodeError):  # a command cannot contain half a surrogate pair
        return None
    return ("--set", f"{name}={text}") if same else None


def _list_target_names(target: Any) -> tuple[str, ...]:
    """The names of an experiment's targets in the store, as far as they are known without connecting."""
    specs: Sequence[Any] = target if isinstance(target, list) else [target]
    named = (one.get("name") or one.get("url") or "" if isinstance(one, Mapping) else str(one) for one in specs)
    return tuple(map(_normalize_name, named))


def _normalize_name(name: str) -> str:
    return name.strip().rstrip("/").casefold() if "://" in name else name.strip()


def _remove_secrets(setting: Any) -> Any:
    """Leave out values of `..._env` settings that are not names of variables, and could be keys."""
    if isinstance(setting, list):
        return [_remove_secrets(one) for one in setting]
    if isinstance(setting, Mapping):
        return {name: one for name, one in setting.items() if not name.endswith("_env") or _is_variable_name(one)}
    return setting


def _is_variable_name(name: Any) -> bool:
    """Whether this is the name of a variable, and not a key that was put there by mistake."""
    return isinstance(name, str) and name.isupper() and len(name) <= 64
