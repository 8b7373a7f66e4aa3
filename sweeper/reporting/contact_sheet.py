"""Contact sheets: the pictures of a run on labelled pages along two axes; other axes become sections.

This module decides what is on a sheet, and `sheet_pages` draws it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Final

from PIL import ExifTags, Image

from sweeper.answers.cells import format_rounded, join_values
from sweeper.errors import ResultsError, UsageError
from sweeper.files import atomic_write, describe_write_error
from sweeper.images.media import is_film
from sweeper.model.picture_size import PICTURE_FORMATS, PICTURE_SUFFIXES
from sweeper.model.result import Result
from sweeper.model.search_columns import SearchColumns, SearchedPoint
from sweeper.reporting.contents import LocatedFile, collect_artifacts
from sweeper.reporting.dataset import encode_axis, label_axis, select_axes
from sweeper.reporting.sheet_pages import Cell, Section, Sheet, draw_pages
from sweeper.reporting.thumbnails import UNREADABLE
from sweeper.store import Store
from sweeper.store.records import TableLayout
from sweeper.tables.searched_points import find_best_points, list_points
from sweeper.tables.select_rows import OptionErrors, select_results
from sweeper.wording import count_things, join_names

_MAX_POINTS: Final = 10  # on the sheet of a search
_Head = list[tuple[str, str]]  # the axis and the label of one or more values
_Artifacts = Mapping[str, LocatedFile]  # see `collect_artifacts`
_OURS: Final = Image.Exif()
_OURS[ExifTags.Base.Software] = "sweeper --sheet"  # so that no other file is replaced by a further page
# By suffix, the options with which Pillow saves a page. The default quality damages the letters. A PDF has 150 pixels
# an inch, so that a sheet of 50 megapixels is about a metre wide.
_FORMATS: Final[dict[str, dict[str, Any]]] = {
    ".png": {"exif": _OURS}, ".webp": {"quality": 92, "exif": _OURS}, ".pdf": {"quality": 92, "resolution": 150.0},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _SheetAxis:
    """An axis: the labels of its values, the index of each row's value (-1: none), and all indices in written order."""

    name: str
    labels: tuple[str, ...]
    indices: tuple[int, ...]
    order: tuple[int, ...]

    def name_value(self, index: int) -> tuple[str, str]:
        """The name of the axis, and the label of a value, which can be seen even if it is blank."""
        label = self.labels[index] if index >= 0 else "(none)"
        return self.name, label if label.strip() else json.dumps(label) if label else "(empty)"


def write_sheets(
    results: Path, file: Path, *, x: str | None = None, y: str | None = None, cell: int = 256, megapixels: float = 50.0,
    run: str | None = None, trials: Collection[int] | None = None,
) -> list[Path]:  # fmt: skip
    """Draw the sheet of a run, or of some of its `trials`, to `file`; further pages are `name-2.png` and so on.

    `x`, `y`: its axes. `cell`: the longer side of a cell in pixels. `megapixels`: the limit of a page. Returns the
    written files: one for a PDF, which has all pages.

    Raises UsageError for an unknown axis or suffix, or if not a single cell fits a page; ResultsError if the results
    cannot be read or the files cannot be written.
    """
    suffix = file.suffix.lower()
    if suffix not in _FORMATS:
        raise UsageError(f"--sheet {file}: the suffix chooses the format; use one of {', '.join(_FORMATS)}")
    with Store.open(results, readonly=True) as store:
        layout, rows = select_results(store.layout(run), list(store.results(run)), trials)
    recorded = {name: sha for row in rows for name, sha in zip(row.outputs, row.sha256, strict=True)}
    artifacts = collect_artifacts(recorded, results)
    axes = _collect_axes(rows, layout)
    if layout.search is not None and not (x or y):
        sheet = _build_search_sheet(rows, axes, layout.search, layout.experiment, artifacts)
    else:
        sheet = _build_sheet(rows, axes, _choose_axes(axes, x, y, layout), layout=layout, artifacts=artifacts)
    written = []
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # at its end, all pages replace older files, or none does
            for number, page in enumerate(draw_pages(sheet, cell, megapixels), 1):
                has_file = suffix == ".pdf" and number > 1
                if not has_file:
                    written.append(file if number == 1 else _name_further_page(file, number))
                    unfinished = stack.enter_context(atomic_write(written[-1])).name
                append = {"append": True} if has_file else {}
                page.save(unfinished, suffix[1:].upper(), **_FORMATS[suffix], **append)
    except OSError as error:
        raise ResultsError(f"{file}: cannot be written: {describe_write_error(file, error)}") from error
    return written


def _name_further_page(file: Path, number: int) -> Path:
    """The file of page `number`. Raises ResultsError if it is there and sweeper did not make it."""
    path, software = file.with_stem(f"{file.stem}-{number}"), None
    if path.exists():
        with suppress(*UNREADABLE), Image.open(path, formats=PICTURE_FORMATS) as image:
            software = image.getexif().get(ExifTags.Base.Software)
        if software != _OURS[ExifTags.Base.Software]:
            raise ResultsError(f"{path}: sweeper did not make this file; move it, or give --sheet another name")
    return path


def _collect_axes(rows: Sequence[Result], layout: TableLayout) -> dict[str, _SheetAxis]:
    """All axes of the run, by name."""
    axes = {}
    for name in select_axes(layout.axis_columns):
        values, of, none = encode_axis(name, [row.columns.get(name) for row in rows], layout)
        _, labels = label_axis(values, of, [row.columns.get(f"{name}.label") for row in rows])
        order = [*range(len(labels))]
        if none is not None:
            order.insert(none, -1)
        axes[name] = _SheetAxis(name, tuple(labels), tuple(of), tuple(order))
    return axes


def _choose_axes(
    axes: dict[str, _SheetAxis], across: str | None, down: str | None, layout: TableLayout
) -> tuple[_SheetAxis | None, _SheetAxis | None]:
    """Choose the axes across and down: as requested, else those with most values, longer labels down the side."""
    requested, errors = {"--x": across, "--y": down}, OptionErrors()
    for option, name in requested.items():
        errors.check_columns(option, [] if name is None else [name], list(axes), ("axis", "axes"))
    if across is not None and across == down:
        errors.add("--x, --y", f"both name '{across}', and need an axis each; axes: {join_names(axes)}")
    errors.raise_if_any()
    x, y = (None if name is None else axes[name] for name in requested.values())
    chosen = [axis for axis in (x, y) if axis is not None]
    for axis in sorted(axes.values(), key=lambda axis: -len(axis.order)):
        if len(chosen) < 2 and axis not in chosen and not _is_implied(axis, chosen, layout):
            chosen.append(axis)
    if x is None and y is None:
        chosen.sort(key=lambda axis: max(map(len, axis.labels)))
    rest = iter([axis for axis in chosen if axis not in (x, y)])
    return x or next(rest, None), y or next(rest, None)


def _is_implied(axis: _SheetAxis, shown: Sequence[_SheetAxis], layout: TableLayout) -> bool:
    """Whether a sheet along the axes `shown` need not show `axis`, because it has one value or a partner fixes it.

    A value that follows from the others by chance, as in a sample, must be shown, because no reader can know it.
    """
    partners = _find_partners(axis, shown, layout)
    return len(axis.order) < 2 or (bool(partners) and _is_determined(axis, partners))


def _find_partners(axis: _SheetAxis, others: Sequence[_SheetAxis], layout: TableLayout) -> list[_SheetAxis]:
    """The axes of `others` that are linked with `axis`."""
    return [other for other in others if {(axis.name, other.name), (other.name, axis.name)} & {*layout.together}]


def _list_heads(axis: _SheetAxis, others: Sequence[_SheetAxis], layout: TableLayout) -> dict[int, _Head]:
    """The head of each value in written order: this value, and those of the `others` that vary together with it."""
    partners = [
        other
        for other in _find_partners(axis, others, layout)
        if len(other.order) > 1 and _is_determined(axis, [other]) and _is_determined(other, [axis])
    ]
    heads = {index: [axis.name_value(index)] for index in axis.order}
    for row, index in enumerate(axis.indices if partners else ()):
        present = [partner for partner in partners if partner.indices[row] >= 0]
        heads[index] = [axis.name_value(index), *(partner.name_value(partner.indices[row]) for partner in present)]
    return heads


def _label(heads: Mapping[int, _Head] | None) -> tuple[tuple[int, str], ...]:
    return ((-1, ""),) if heads is None else tuple((index, _format_heads([head])) for index, head in heads.items())


def _format_heads(heads: Iterable[Iterable[tuple[str, str]]]) -> str:
    return join_values([*chain.from_iterable(heads)], " · ", named=True)


def _is_determined(axis: _SheetAxis, others: Sequence[_SheetAxis]) -> bool:
    """Whether the values of `others` fix the value of `axis` in all rows."""
    index_by_key: dict[tuple[int, ...], int] = {}
    return all(
        index_by_key.setdefault(tuple(other.indices[row] for other in others), index) == index
        for row, index in enumerate(axis.indices)
    )


def _build_sheet(
    rows: Sequence[Result],
    axes: dict[str, _SheetAxis],
    chosen: tuple[_SheetAxis | None, _SheetAxis | None],
    *,
    layout: TableLayout,
    artifacts: _Artifacts,
) -> Sheet:
    """Build the sheet along the chosen axes, across and down."""
    shown = [axis for axis in chosen if axis is not None]
    outer = [axis for axis in axes.values() if axis not in shown and not _is_implied(axis, shown, layout)]
    placed = [*shown, *outer]
    hidden = [axis for axis in axes.values() if axis not in placed]
    across, down = (_label(None if axis is None else _list_heads(axis, hidden, layout)) for axis in chosen)
    heads = [_list_heads(axis, hidden, layout) for axis in outer]
    x, y = chosen
    sections: dict[tuple[int, ...], dict[tuple[int, int], Cell]] = {}
    for row, result in enumerate(rows):
        cells = sections.setdefault(tuple(axis.indices[row] for axis in outer), {})
        at = (y.indices[row] if y else -1, x.indices[row] if x else -1)
        cells.setdefault(at, _build_cell(result, artifacts))
    titled = [
        Section(_format_heads(head[index] for head, index in zip(heads, key, strict=True)), cells)
        for key, cells in sorted(sections.items(), key=lambda section: _rank(outer, section[0]))
    ]
    return Sheet(
        layout.experiment, across, down, tuple(titled),
        f"{layout.experiment} · {count_things(len(rows), 'trial')} · made with sweeper",
    )  # fmt: skip


def _build_search_sheet(
    rows: Sequence[Result], axes: dict[str, _SheetAxis], search: SearchColumns, experiment: str, artifacts: _Artifacts
) -> Sheet:
    """Build the sheet of a search: a row for each of its best points, a column for each combination of `over`."""
    found = find_best_points(rows, search) or list_points(rows, search)
    index_of = {row.trial: index for index, row in enumerate(rows)}
    best = found[:_MAX_POINTS]
    over = [axes[name] for name in search.over if name in axes and len(axes[name].order) > 1]
    space = [axes[name] for name in search.space if name in axes]
    across: dict[tuple[int, ...], int] = {}
    cells: dict[tuple[int, int], Cell] = {}
    for down, point in enumerate(best):
        for row in map(index_of.__getitem__, point.trials):
            column = across.setdefault(tuple(axis.indices[row] for axis in over), len(across))
            cells[down, column] = _build_cell(rows[row], artifacts)
    columns = sorted(across, key=lambda key: _rank(over, key))
    goals = " and ".join(f"{'highest' if goal.maximize else 'lowest'} {goal.metric}" for goal in search.objectives)
    kind = "complete points" if len(search.objectives) == 1 else "points on the Pareto front"
    return Sheet(
        experiment, tuple((across[key], _format_heads([map(_SheetAxis.name_value, over, key)])) for key in columns),
        tuple((down, _describe_point(point, index_of, space)) for down, point in enumerate(best)),
        (Section("", cells),),
        f"{experiment} · {len(best)} of {len(found)} {kind}: {goals} · made with sweeper",
    )  # fmt: skip


def _describe_point(point: SearchedPoint, index_of: Mapping[int, int], space: Sequence[_SheetAxis]) -> str:
    goals = [f"{metric} {format_rounded(value)}" for metric, value in point.objectives.items()]
    row = index_of[point.trials[0]]
    return " · ".join([*goals, _format_heads([[axis.name_value(axis.indices[row]) for axis in space]])])


def _rank(axes: Sequence[_SheetAxis], indices: Sequence[int]) -> list[int]:
    """The key that sorts combinations of values in the written order of their axes."""
    return [axis.order.index(index) for axis, index in zip(axes, indices, strict=True)]


def _build_cell(result: Result, artifacts: _Artifacts) -> Cell:
    """Make the cell of a trial: its pictures, otherwise its films, otherwise the reason."""
    outputs = map(artifacts.__getitem__, result.outputs)
    present = [Path(artifact.path) for artifact in outputs if artifact.size is not None]
    pictures = tuple(path for path in present if path.suffix.lower() in PICTURE_SUFFIXES)
    films = tuple(path for path in present if is_film(path))
    if pictures or (films and find_spec("av") is not None):
        return Cell(pictures or films, "")
    if result.status == "succeeded":
        others = ", ".join(PurePosixPath(name).name for name in result.outputs)
        missing = "; the extra media shows the first frame of a film" if films else ""
        return Cell((), f"no picture, but {others}{missing}" if others else "no picture")
    return Cell((), ": ".join(part for part in (result.status, result.error) if part))
