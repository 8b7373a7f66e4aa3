"""Results as a pandas DataFrame, with a type for each column that holds every value exactly.

A list or mapping in a cell is JSON text, so that cells can be hashed, grouped and compared; only `outputs` and `sha256`
of `results` are lists. Importing this module loads pandas, which takes a quarter of a second.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import pandas as pd

from sweeper.images.html_thumbnail import make_thumbnail
from sweeper.store import Store
from sweeper.store.records import TableLayout
from sweeper.store.row_queries import Batch
from sweeper.tables.export import LIST_COLUMNS, build_arrays, make_table
from sweeper.tables.results_folder import find_picture, find_results_folder

_PICTURE: Final = "picture"


class ResultsFrame(pd.DataFrame):
    """A DataFrame that shows a thumbnail in each row in a notebook. Its selections do so too.

    `results_folder` and `results_run`: where its rows come from, for `sweeper.show`.
    """

    _metadata: ClassVar = ["results_folder", "results_run"]  # pandas copies these to selections
    results_folder: Path | None = None
    results_run: str | None = None

    @property
    def _constructor(self) -> type[ResultsFrame]:
        return ResultsFrame

    def _repr_html_(self) -> str | None:
        """The table as a notebook shows it, with thumbnails in the place of local paths in the column `picture`."""
        if list(self.columns).count(_PICTURE) != 1:
            return _to_html(pd.DataFrame(self))
        marked = pd.DataFrame(self)
        paths = marked[_PICTURE].tolist()
        # pandas escapes all texts, because a stranger may have written them. So it gets marks, which become thumbnails.
        marked[_PICTURE] = [f"\ue000{index}\ue000" for index in range(len(paths))]
        text = _to_html(marked)
        return text and re.sub("\ue000([0-9]+)\ue000", lambda mark: make_thumbnail(paths[int(mark[1])]), text)


def results(folder: str | os.PathLike[str], run: str | None = None) -> pd.DataFrame:
    """The table of a results folder as a typed DataFrame. An experiment file stands for its default results folder.

    Each trial of the latest run has the best result of all runs; `run` selects the results of one run. The columns are
    those of `results.csv`, with a list of texts in each row of `outputs` and `sha256`. Beside them the frame has
    `picture`: the absolute path, or the URL, of the first picture of each row, unless the experiment has a column of
    that name. A notebook shows thumbnails there. Raises ResultsError if there is nothing to read.
    """
    path = find_results_folder(folder).resolve()
    with Store.open(path, readonly=True) as store:
        frame = ResultsFrame(build_frame(store.batches(run), store.layout(run)))
    frame.results_folder, frame.results_run = path, run
    for name in LIST_COLUMNS:
        frame[name] = pd.Series([json.loads(cell) for cell in frame[name]], dtype="object")
    if _PICTURE not in frame.columns:
        pictures = [find_picture(path, paths) for paths in frame["outputs"]]
        frame[_PICTURE] = pd.Series(pictures, dtype="str" if int(pd.__version__.partition(".")[0]) >= 3 else "object")
    return frame


def build_frame(batches: Iterable[Batch], layout: TableLayout) -> pd.DataFrame:
    """The table as a DataFrame whose types hold every value exactly, those of `build_arrays`.

    Integers are nullable if a row has no value, and so are booleans. Floats and seconds are float64 (missing: NaN), and
    texts have pandas' own text type. A column of mixed types is `object`, with each value unchanged.
    """
    columns = build_arrays(batches, layout)
    arrays = {name: column for name, column in columns.items() if not isinstance(column, list)}
    frame: pd.DataFrame = make_table(arrays).to_pandas()
    for index, (name, column) in enumerate(columns.items()):
        if isinstance(column, list):
            frame.insert(index, name, pd.Series(column, dtype="object"))
    return frame


def _to_html(frame: pd.DataFrame) -> str | None:
    text: str | None = cast("Any", frame)._repr_html_()  # None if the user's pandas options say so
    return text
