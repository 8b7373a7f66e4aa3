"""The page's data about files and about the run itself; `dataset` has the data about its trials.

The report (`write_report`) and the live view (`sweeper.reporting.live`) share it. Workflows, and the rules that exclude
combinations of values, are known only if the experiment still plans exactly the trials of the rows.

A report must not contain an API key. Targets name environment variables for their keys; `describe_rerun` leaves out
anything else in such a setting.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from sweeper.errors import InputError
from sweeper.images.metrics.registry import find_unknown_metrics
from sweeper.loading.load import load_recorded
from sweeper.loading.parse import parse_yaml
from sweeper.loading.search_builder import name_metrics
from sweeper.model.experiment import Block, Experiment, select_settings
from sweeper.model.money import AT_LEAST, CURRENCY, format_usd, from_usd
from sweeper.model.result import MAX_COMPARED, SUCCEEDED, Result
from sweeper.model.source import SourceError
from sweeper.model.target_spec import expand_groups
from sweeper.model.template import Template
from sweeper.model.trial import InputFile, Trial
from sweeper.planning.grid import Grid
from sweeper.planning.plan import Plan
from sweeper.planning.plan_outline import outline_plan
from sweeper.planning.searching.search_plan import SearchPlan, SearchSpace
from sweeper.planning.searching.search_state import group_points
from sweeper.planning.trial_filters import iter_drop_reasons
from sweeper.reporting.dataset import TrialTable, encode_axis, encode_values, select_axes
from sweeper.reporting.thumbnails import THUMBS_FOLDER, Thumbnail, can_show
from sweeper.store import Store
from sweeper.store.records import RunRecord, TableLayout
from sweeper.store.remote_artifacts import download_artifacts, is_url, local_path
from sweeper.store.votes import Mark
from sweeper.wording import replace_surrogates

FILES_FOLDER: Final = "files"
MEDIA_TYPES: Final = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".bmp": "image/bmp", ".avif": "image/avif", ".apng": "image/apng", ".svg": "image/svg+xml",
    ".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg", ".opus": "audio/ogg",
    ".m4a": "audio/mp4", ".aac": "audio/aac",
}  # fmt: skip
"""The files that browsers can show, by suffix. The part before the slash is the kind of file on the page."""
_UploadedInputs = Mapping[str, Mapping[str, Any]]
"""By target, then by the file's content: the value that a workflow needs for an input file on that target."""
SPENT: Final = ("status", "cost", "cost_kind")  # the columns that `describe_spending` reads
_MAX_POINTS: Final = 200_000  # of all products together; a lookup among more would be slow in a browser
_NO_VALUE: Final = -1  # in place of the index of a value: there is no value
_UNKNOWN_VALUE: Final = -2  # the same: no trial has the value, so the page does not know it


class LocatedFile(NamedTuple):
    """An output: the results folder, its recorded path, its SHA-256, and its size in bytes (None if it is gone)."""

    home: str
    name: str
    sha256: str
    size: int | None

    @property
    def path(self) -> str:
        """The file where it can be read. A text, because making a Path of each of many files takes seconds."""
        if is_url(self.name):
            return str(local_path(Path(self.home), self.name, self.sha256))
        return f"{self.home}{os.sep}{self.name}"

    @property
    def page_name(self) -> str:
        """Its name beside the page. Of several results folders in one, each may have files of the same names."""
        folder, _, name = self.name.rpartition("/artifacts/")
        is_below = folder and not is_url(self.name)
        return f"{folder}-{name}" if is_below else os.path.basename(self.path)  # noqa: PTH119


def collect_artifacts(recorded: Mapping[str, str], results: Path) -> dict[str, LocatedFile]:
    """Locate outputs, given as recorded path -> SHA-256.

    Downloads artifacts that are stored at a URL. Raises ResultsError if that storage cannot be reached.
    """
    home = str(results.resolve())  # the store has checked the paths; `artifacts/` may be a link of the user
    download_artifacts(results, recorded.items())
    artifacts = {}
    for name, sha in recorded.items():
        artifact = LocatedFile(home, name, sha, None)
        artifacts[name] = artifact._replace(size=_find_size(artifact.path))
    return artifacts


def _find_size(path: str) -> int | None:
    try:
        facts = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None


def list_pictures(artifacts: Iterable[LocatedFile]) -> Iterator[tuple[str, str]]:
    """SHA-256 and path of the artifacts that can have a thumbnail."""
    for artifact in artifacts:
        if artifact.size is not None and can_show(artifact.name):
            yield artifact.sha256, artifact.path


def iter_file_entries(
    artifacts: Mapping[str, LocatedFile], thumbs: Mapping[str, Thumbnail | None], sprite_indices: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """The page's entry for each artifact.

    `sprite_indices`: the index on the sprite sheets by SHA-256. A picture without one appears when its thumbnail loads.
    """
    for was, artifact in artifacts.items():
        sha, size = artifact.sha256, artifact.size
        suffix = os.path.splitext(was)[1].lower()  # noqa: PTH122 - as above
        kind = MEDIA_TYPES.get(suffix, "other").partition("/")[0]
        entry: dict[str, Any] = {"kind": kind if size is not None else "missing", "sha256": sha, "was": was}
        if size is not None:
            entry |= {"path": f"{FILES_FOLDER}/{artifact.page_name}", "bytes": size}
        thumb = thumbs.get(sha)
        if thumb is not None and size is not None:  # of a file that is gone, an earlier report may have made one
            entry |= {"thumb": f"{THUMBS_FOLDER}/{sha}.webp", **thumb._asdict(), "look": thumb.look or None}
            entry["kind"] = "image" if kind in ("image", "other") else kind
            if sha in sprite_indices:
                entry["sprite"] = sprite_indices[sha]
        yield entry


def number_outputs(outputs: Iterable[Sequence[str]], artifacts: Iterable[str]) -> list[tuple[int, ...]]:
    """The page's `outputs`: for each row the indices of its files."""
    indices = {name: index for index, name in enumerate(artifacts)}
    return [tuple([indices[name] for name in names]) for names in outputs]


def describe_run(record: RunRecord, results: Path, table: TrialTable, store: Store | None) -> dict[str, Any]:
    """Build the page's data about the run. If its experiment can still be read, that includes workflows and exclusions.

    `store`: that of the run; None if nothing has run. Raises ResultsError.
    """
    uploaded: _UploadedInputs = {} if store is None else {
        name: {content: value for content, (value, _) in store.servers.load_uploads(name).items()}
        for name in set(table.facts["target"]) - {None}
    }  # fmt: skip
    data: dict[str, Any] = {
        "run": record.id, "file": record.file, "targets": list(record.targets), "started": record.started,
        "ended": record.ended, "stopped_by": record.stopped_by, "results": str(results), "workflow": None,
        "template": None, "description": "",
        # It identifies the folder, even after the folder moves or its sweep grows.
        "began": None if store is None else store.runs()[0].started,
        "spending": "" if store is None else describe_spending(store, zip(*map(table.facts.get, SPENT), strict=True)),
        "equal": [],
    }  # fmt: skip
    if store is not None and len(table) <= MAX_COMPARED:
        data["equal"] = describe_equal_pictures(store, table.iter_rows(), table.layout)
    experiment = None
    try:
        experiment = load_recorded(record.file, record.overrides, results=results)
        data["description"] = experiment.description
        value = experiment.source.value if experiment.source is not None else {}
        data["template"] = value.get("template") if isinstance(value, dict) else None
        if table.layout.search is None:
            planned = Plan(experiment)
            data["workflow"] = _encode_workflows(planned, table, uploaded)
            data["left_out"] = _encode_exclusions(planned, table)
        elif experiment.search is not None:
            data |= _describe_search(SearchSpace(experiment, experiment.search), table, uploaded)
    except (InputError, OSError) as error:
        data["workflow_missing"] = f"the experiment can no longer be read: {str(error).splitlines()[0]}"
    else:
        if data["workflow"] is None:
            data["workflow_missing"] = "the experiment has changed since this run"
    return data | {"asked": describe_rerun(record, table.layout, experiment)}


def _describe_search(space: SearchSpace, table: TrialTable, uploaded: _UploadedInputs) -> dict[str, Any]:
    """Build the workflows of the rows whose points are in the space, and `wanted`: how many trials each point gets.

    `where` may leave out some combinations of a point. A row that is not in the space any more has null.
    """
    cells = [space.read_cell(row.params, row.columns) for row in table.iter_rows()]
    known = [(0, *cell) for cell in cells if cell is not None]
    if not known:
        return {}
    points = list(dict.fromkeys(point for _, point, _ in known))
    wanted = dict(zip(points, map(len, space.find_allowed(points)), strict=True))
    plan_again = SearchPlan(space, group_points(known))
    return {
        "workflow": _encode_workflows(plan_again, table, uploaded),
        "wanted": [None if cell is None else wanted[cell[0]] for cell in cells],
    }


def _encode_workflows(planned: Plan, table: TrialTable, uploaded: _UploadedInputs) -> dict[str, Any] | None:
    """Return `{base, changes: [{node, input, values, of}], known: [0 or 1 per row]}`, or None if no workflow is known.

    That is little space: the first workflow in full, and for each trial only its differences, from which the page makes
    the others. A row has a workflow only if the experiment still makes exactly that trial, by its digest.

    Input files have the names that they have on the row's target, so that the target accepts the workflow unchanged.
    If those are unknown, they keep their names on this machine.
    """
    digests = table.facts["digest"]
    template = planned.experiment.template
    varying = {
        name for name, cells in table.slots.items()
        if any(type(cell) is not type(cells[0]) or cell != cells[0] for cell in cells)
    }  # fmt: skip
    files = {name for name, slot in template.slots.items() if slot.is_file}  # their names depend on the target, too
    target_of = dict(zip(digests, table.facts["target"], strict=True)) if files else {}
    swept = _select_inputs(template, varying | files)
    base: dict[str, Any] = {}
    cells: dict[tuple[str, str], list[Any]] = {}  # by node and input, for each known digest
    known = dict.fromkeys(digests, -1)  # the index of a digest's cells; -1 if it is unknown
    count = 0
    for trial in planned.written():
        if known.get(trial.digest) != -1:
            continue
        found = planned.files(trial) if files else ()
        used = [(file, uploaded.get(target_of[trial.digest] or "", {})) for file in found]
        if not base:
            base = _render(template, trial, used)
            keys = [(node, name) for node, content in base.items() for name in content.get("inputs", {})]
            cells = {(node, name): [] for node, name in keys if name in swept.graph.get(node, {}).get("inputs", {})}
        known[trial.digest], count = count, count + 1
        graph = _render(swept, trial, used)
        for (node, name), column in cells.items():
            column.append(graph[node]["inputs"].get(name))
    if not base:
        return None
    indices = list(map(known.__getitem__, digests))
    changes = []
    for (node, name), column in cells.items():
        values, of = encode_values(column)
        if len(set(of)) > 1:
            of.append(-1)  # at index -1, for the rows whose workflow is unknown
            changes.append({"node": node, "input": name, "values": values, "of": [of[index] for index in indices]})
    (base_coded,), _ = encode_values([base])
    return {"base": base_coded, "changes": changes, "known": [int(index >= 0) for index in indices]}


def _select_inputs(template: Template, slots: Collection[str]) -> Template:
    """The part of a template that depends on these slots, because the whole takes ten times as long to render.

    Slots change inputs and never nodes, so all graphs have the same nodes.
    """
    leaves = tuple(leaf for leaf in template.leaves if leaf.path[0] in template.branches or {*leaf.names} & {*slots})
    swept = {(leaf.path[0], leaf.path[2]) for leaf in leaves if len(leaf.path) > 2}
    graph = {}
    for node in {leaf.path[0]: None for leaf in leaves} | dict.fromkeys(template.branches):
        content = template.graph[str(node)]
        inputs = content.get("inputs", {})
        chosen = {name: value for name, value in inputs.items() if node in template.branches or (node, name) in swept}
        graph[str(node)] = {"inputs": chosen}
    return replace(template, graph=graph, leaves=leaves)


def _render(template: Template, trial: Trial, files: Iterable[tuple[InputFile, Mapping[str, Any]]]) -> dict[str, Any]:
    graph = template.render(trial.params)
    for file, names in files:
        graph[file.node]["inputs"][file.input] = names.get(file.content_key, file.value)
    return graph


def encode_marks(marks: Iterable[Mark]) -> dict[str, Any]:
    """Build the page's `marks`: digest -> mark."""
    return {mark.digest: {**mark.to_json(), "comment": replace_surrogates(mark.comment)} for mark in marks}


def describe_equal_pictures(store: Store, rows: Iterable[Result], layout: TableLayout) -> list[str]:
    """A sentence for each axis that changes no picture of these rows, or only some."""
    if not store.has_equal_pixels() or not (compared := list(rows)):
        return []
    from sweeper.tables.effect_axes import find_equal_pictures

    found = find_equal_pictures(compared, layout, store.load_pixel_hashes())
    return [replace_surrogates(str(equal)) for equal in found]


def describe_spending(store: Store, cells: Iterable[Sequence[Any]]) -> str:
    """What the results of some rows cost, of what all runs of the folder cost; empty if nothing has a price.

    `cells`: the columns `SPENT` of each row.
    """
    spent = store.charges.load_whole_cost()
    if spent is None:
        return ""
    shown = [(cost, kind or "") for status, cost, kind in cells if status == SUCCEEDED]
    is_bounded = not any(kind.endswith(AT_LEAST) for cost, kind in shown if cost is not None)
    kept = _format_cost(sum(from_usd(cost or 0) for cost, _ in shown), is_bounded=is_bounded)
    return f"kept {kept} of {_format_cost(spent.micros, is_bounded=not spent.kind.endswith(AT_LEAST))} spent"


def _format_cost(micros: int, *, is_bounded: bool) -> str:
    return f"{'' if is_bounded else 'at least '}{format_usd(micros)} {CURRENCY}"


def _encode_exclusions(planned: Plan, table: TrialTable) -> dict[str, Any] | None:
    """Return `{rules, blocks: [{sizes, axes: [{name, over, of}], by}]}`, or None if the reasons are unknown.

    `of` has the index of the axis' value for each combination of the dimensions in `over`. `by` has run-length coded
    pairs in written order: [number of points, index of their rule or -1 for a trial].
    """
    experiment, layout = planned.experiment, table.layout
    if sum(prod(block.sizes) for block in experiment.blocks) > _MAX_POINTS or len(planned) != len(table):
        return None
    if tuple(table.axes) != tuple(planned.axis_columns):  # of a store that somebody else made
        return None
    rows = zip(table.facts["trial"], *table.axes.values(), strict=True)
    if any(
        (trial.index, *map(trial.columns.get, table.axes)) != row
        for trial, row in zip(planned.written(), rows, strict=True)
    ):
        return None
    rules: dict[str, int] = {}
    values = {}  # by axis and the JSON text of a value: its index in the page's data
    for name in select_axes(layout.axis_columns):
        cells = table.axes[name]
        _, indices, _ = encode_axis(name, cells, layout)
        firsts = dict(zip(indices, cells, strict=True))
        values[name] = {_to_json(cell): index for index, cell in firsts.items()}
    blocks = []
    for block, outline in zip(experiment.blocks, outline_plan(planned).blocks, strict=True):
        suffix = f" (of sweep[{block.path[-1]}])" if len(experiment.blocks) > 1 else ""
        texts = {exclusion.reason: replace_surrogates(f"{exclusion}{suffix}") for exclusion in outline.excluded}
        blocks.append(_encode_block(Grid(experiment, block.dimensions, {}), block, values, rules, texts))
    return {"rules": list(rules), "blocks": blocks}


def _encode_block(
    grid: Grid, block: Block, values: Mapping[str, Mapping[str, int]], rules: dict[str, int], texts: Mapping[str, str]
) -> dict[str, Any]:
    axes = []
    for name, indices in values.items():
        column = grid.columns[name]
        point, of = [0] * len(grid.sizes), []
        for options in itertools.product(*(range(grid.sizes[dimension]) for dimension in column.dimensions)):
            for dimension, option in zip(column.dimensions, options, strict=True):
                point[dimension] = option
            value = column.get(point)
            of.append(_NO_VALUE if value is None else indices.get(_to_json(value), _UNKNOWN_VALUE))
        axes.append({"name": name, "over": list(column.dimensions), "of": of})
    by = [
        [len(list(run)), -1 if reason is None else rules.setdefault(texts[reason], len(rules))]
        for reason, run in itertools.groupby(iter_drop_reasons(grid, block))
    ]
    return {"sizes": list(grid.sizes), "axes": axes, "by": by}


def _to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def describe_rerun(record: RunRecord, layout: TableLayout, experiment: Experiment | None) -> dict[str, Any]:
    """Build the page's `asked`; `experiment` is None if it can no longer be read.

    `options`: the options of `sweeper run` except those that select trials, as words; None if a command cannot express
    them. `kept`: the keys of an experiment of some trials except those that select them.
    """
    value = experiment.source.value if experiment is not None and experiment.source is not None else {}
    own = not record.targets or _list_target_names(value) == tuple(map(_normalize_name, record.targets))
    settings = [_format_setting(*override) for override in select_settings(record.overrides).items()]
    targets = [] if own else [word for name in record.targets for word in ("--target", name)]
    kept: dict[str, Any] = {}
    if not own:
        kept["target"] = record.targets[0] if len(record.targets) == 1 else list(record.targets)
    elif "target" in value:
        kept["target"] = _remove_secrets(value["target"])
    if "targets" in value:
        kept["targets"] = {name: _remove_secrets(spec) for name, spec in value["targets"].items()}
    entries = value.get("metrics", [])
    judges = {name: entry for name, entry in zip(name_metrics(entries), entries, strict=True) if name != entry}
    known = [name for name in layout.metrics if name in judges or not find_unknown_metrics([name])]
    if known:
        kept["metrics"] = [judges.get(name, name) for name in known]
    if run := {key: setting for key, setting in value.get("run", {}).items() if key != "notify"}:  # a secret
        kept["run"] = run
    return {
        "options": None
        if None in settings
        else [*targets, *(word for setting in settings if setting for word in setting)],
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


def _list_target_names(experiment: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of an experiment's targets in the store, as far as they are known without connecting."""
    target = experiment.get("target", "embedded")
    used = expand_groups(target if isinstance(target, list) else [target], experiment.get("targets", {}))
    specs = [target.spec for target in used]
    named = (spec.get("name") or spec.get("url") or "" if isinstance(spec, Mapping) else str(spec) for spec in specs)
    return tuple(map(_normalize_name, named))


def _normalize_name(name: str) -> str:
    return name.strip().rstrip("/").casefold() if "://" in name else name.strip()


def _remove_secrets(setting: Any) -> Any:
    """Leave out values of `..._env` settings that are not names of variables, and could be keys."""
    if isinstance(setting, list):
        return [_remove_secrets(part) for part in setting]
    if isinstance(setting, Mapping):
        return {
            name: part
            for name, part in setting.items()
            if not name.endswith("_env") or (isinstance(part, str) and part.isupper() and len(part) <= 64)
        }
    return setting
