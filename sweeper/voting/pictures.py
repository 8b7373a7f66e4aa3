"""The pictures of a results folder that votes can compare, and the axes in which they differ."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from sweeper.did_you_mean import join_names
from sweeper.errors import UsageError
from sweeper.images.file_types import PICTURE_SUFFIXES
from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.workflow import encode_canonical
from sweeper.store import Store
from sweeper.store.records import TableLayout
from sweeper.store.remote_artifacts import is_url, local_path
from sweeper.store.votes import VOTES_METRIC
from sweeper.tables.export import format_number, to_json_text
from sweeper.tables.select_rows import OptionErrors

_LABEL: Final = ".label"
# Of two pictures with different seeds or prompts, nobody can say which setting is better.
_PROMPTS: Final = ("prompt", "text")
_NOT_COMPARED: Final = ("seed", *_PROMPTS)


@dataclass(frozen=True, slots=True)
class VotePicture:
    """A picture of a row of the table. `path` is as recorded; `output` says which output of the workflow it is."""

    row: Result
    path: str
    sha256: str
    output: tuple[str, int]


@dataclass(frozen=True, slots=True)
class VoteAxis:
    """An axis, or several that vary together, such as those of a zip.

    `values` are texts in the order of the experiment. `value_of[p]` is the index of the value of picture p, and
    `context_of[p]` is the same number for pictures that are equal in everything but this axis.
    """

    name: str
    columns: tuple[str, ...]
    values: tuple[str, ...]
    value_of: Sequence[int]
    context_of: Sequence[int]

    @property
    def is_compared(self) -> bool:
        """Whether votes compare its values unless the user chooses the axes."""
        return len(self.values) > 1 and not any(word in self.name.lower() for word in _NOT_COMPARED)


class VotePictures:
    """The pictures in the table of a folder, and its axes.

    `trials`: only these (None: all). `missing` counts the pictures whose file is gone. Raises UsageError if the
    experiment itself has a column with the name of the metric of votes.
    """

    def __init__(self, store: Store, trials: Collection[int] | None = None) -> None:
        self.all: list[VotePicture] = []
        self.missing = 0
        self.layout = layout = store.layout()
        rows = []
        _check_names(store, layout)
        for outcome in store.outcomes():
            row = outcome.result
            rows.append(row)
            if row.status != SUCCEEDED or (trials is not None and row.trial not in trials):
                continue
            for file in outcome.files:
                if PurePosixPath(file.path).suffix.lower() in PICTURE_SUFFIXES:
                    is_here = is_url(file.path) or local_path(store.path.parent, file.path, file.sha256).is_file()
                    self.missing += not is_here
                    if is_here:
                        self.all.append(VotePicture(row, file.path, file.sha256, (file.node, file.position)))
        self.axes = _build_axes(layout, rows, self.all)
        self._indices: dict[Hashable, int] = {}
        for index, picture in enumerate(self.all):
            for key in ((picture.row.digest, picture.sha256), picture.row.digest, picture.sha256):
                self._indices.setdefault(key, index)

    def find(self, digest: str, sha256: str) -> int | None:
        """The index of a picture that was voted on; if its trial has another picture now, the index of that one."""
        index = self._indices.get((digest, sha256))
        return self._indices.get(digest, self._indices.get(sha256)) if index is None else index

    def list_prompts(self, one: int, other: int) -> list[tuple[str, str]]:
        """The prompts that two pictures have in common: (name, text) of each."""
        first, second = ({**row.params, **row.columns} for row in (self.all[one].row, self.all[other].row))
        return [
            (name, text)
            for name, text in first.items()
            if isinstance(text, str) and text == second.get(name) and any(word in name.lower() for word in _PROMPTS)
        ]

    def get_axes(self, columns: Sequence[str], option: str) -> list[VoteAxis]:
        """The axes with these columns. Raises UsageError, which names the option, if there is no such column."""
        by_column = {column: axis for axis in self.axes for column in axis.columns}
        errors = OptionErrors()
        errors.check_columns(option, columns, list(by_column))
        errors.raise_if_any()
        return list({by_column[name].name: by_column[name] for name in columns}.values())

    def select_axes(self, between: Sequence[str]) -> list[VoteAxis]:
        """The axes with these columns; without any, those whose values people can compare. Raises UsageError."""
        chosen = self.get_axes(between, "--between") or [axis for axis in self.axes if axis.is_compared]
        single = [axis.name for axis in chosen if len(axis.values) < 2]
        if chosen and not single:
            return chosen
        several = [axis.name for axis in self.axes if len(axis.values) > 1]
        found = f"--between {single[0]}: there are not two values" if single else "there is no axis to compare"
        raise UsageError(
            f"{found} among the {len(self.all)} pictures; "
            + (f"give --between with one of: {join_names(several)}" if several else "run a sweep with more values")
        )


def _check_names(store: Store, layout: TableLayout) -> None:
    names = [*layout.axis_columns, *layout.slot_names, *layout.metrics]
    if VOTES_METRIC in names and not (store.votes.has_any() and names.index(VOTES_METRIC) == len(names) - 1):
        raise UsageError(
            f"{store.path.parent}: the experiment has a column '{VOTES_METRIC}', which is the name of the metric of "
            "votes; give it another name in the experiment, and run it again"
        )


def _build_axes(layout: TableLayout, rows: Sequence[Result], pictures: Sequence[VotePicture]) -> list[VoteAxis]:
    groups = _group_columns(layout)
    keys = [[_to_key(columns, picture.row) for picture in pictures] for columns in groups]
    axes = []
    for index, columns in enumerate(groups):
        others = [*keys[:index], *keys[index + 1 :], [picture.output for picture in pictures]]
        contexts: dict[Hashable, int] = {}
        context_of = [contexts.setdefault(point, len(contexts)) for point in zip(*others, strict=True)]
        texts = {key: _format_value(columns, picture.row) for key, picture in zip(keys[index], pictures, strict=True)}
        order = [key for key in _list_keys_in_order(columns, layout, rows) if key in texts]
        positions = {key: position for position, key in enumerate(order)}
        value_of = [positions[key] for key in keys[index]]
        axes.append(VoteAxis(columns[0], columns, tuple(texts[key] for key in order), value_of, context_of))
    return axes


def _group_columns(layout: TableLayout) -> list[tuple[str, ...]]:
    """The axis columns, those that vary together in one group. A group begins with a column that is not a label."""
    names = layout.axis_columns
    pairs = [*(layout.together or ()), *((name, name.removesuffix(_LABEL)) for name in names if name.endswith(_LABEL))]
    group_of = {name: {name} for name in names}
    for one, other in pairs:
        if one in group_of and other in group_of and group_of[one] is not group_of[other]:
            group_of[one] |= group_of[other]
            group_of |= dict.fromkeys(group_of[other], group_of[one])
    groups = {id(group): group for group in group_of.values()}.values()
    return [tuple(sorted(group, key=lambda name: (name.endswith(_LABEL), names.index(name)))) for group in groups]


def _list_keys_in_order(columns: Sequence[str], layout: TableLayout, rows: Sequence[Result]) -> list[tuple[bytes, ...]]:
    """The values of a group of columns in the order of the experiment."""
    first_of = layout.value_order.get(columns[0], ())
    ordered = [rows[trial] for trial in first_of] if len(columns) == 1 else []
    return list(dict.fromkeys(_to_key(columns, row) for row in (*ordered, *rows)))


def _to_key(columns: Sequence[str], row: Result) -> tuple[bytes, ...]:
    return tuple(encode_canonical(row.columns.get(name)) for name in columns)


def _format_value(columns: Sequence[str], row: Result) -> str:
    """A value as people know it: its label, if it has one. Values of several columns are joined."""
    labels = [name for name in columns if name.endswith(_LABEL)]
    plain = [name for name in columns if f"{name}{_LABEL}" not in labels and name not in labels]
    return ", ".join(_format_cell(row.columns.get(name)) for name in (*labels, *plain))


def _format_cell(value: Any) -> str:
    if isinstance(value, float):
        return format_number(value)
    return value if isinstance(value, str) else to_json_text(value)
