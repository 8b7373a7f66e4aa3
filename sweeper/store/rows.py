"""How a row of the table is put together from a trial, the job that stands for it, its files and their metrics.

The query belongs to the reading of its columns, so both are here; who runs it is `store`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sweeper import result
from sweeper.result import Result
from sweeper.store.records import STATUS_OF_STATE

ROWS: Final = """
SELECT t.idx, t.columns, t.params, t.digest, j.state, j.target, j.prompt_id, j.attempt, j.submitted, j.started, j.ended,
       j.error_type, j.error,
       (SELECT json_group_array(json_array(a.place, a.path, a.sha256)) FROM artifacts a WHERE a.job = j.id)
FROM trials t LEFT JOIN claims c ON c.run = t.run AND c.digest = t.digest LEFT JOIN jobs j ON j.id = c.job
WHERE t.run = ? ORDER BY t.idx
"""


def row_of(row: tuple[Any, ...], cached: Mapping[str, Mapping[str, Any]]) -> Result:
    """A row of `ROWS` as a Result. `cached`: by metric, the value for each sha256."""
    index, columns, params, digest, state, target, prompt_id, attempt, *times, error_type, error, files = row
    submitted, started, ended = times
    outputs = sorted(json.loads(item) if isinstance(item, str) else item for item in json.loads(files))
    sha256 = tuple(item[2] for item in outputs)
    return Result(
        trial=index,
        columns=json.loads(columns),
        params=json.loads(params),
        digest=digest,
        status=STATUS_OF_STATE.get(state, result.PENDING),
        outputs=tuple(item[1] for item in outputs),
        sha256=sha256,
        target=target,
        prompt_id=prompt_id,
        attempts=attempt or 0,
        queued_s=_seconds(submitted, started),
        ran_s=_seconds(started, ended),
        error_type=error_type,
        error=error,
        metrics={name: cell for name, known in cached.items() if (cell := _cell(sha256, digest, known)) is not None},
    )


def _seconds(since: float | None, until: float | None) -> float | None:
    """Never below zero: the two clocks may be two machines'."""
    return None if since is None or until is None else round(max(0.0, until - since), 6)


def _cell(sha256: Sequence[str], digest: str, known: Mapping[str, Any]) -> float | int | str | None:
    """The mean of the outputs' numbers, or their texts; a metric of the params is kept under the trial's digest too."""
    found = [known.get(one, known.get(f"{one}:{digest}")) for one in sha256]
    if not found or None in found:
        return None
    numbers = [value for value in found if isinstance(value, int | float)]
    if len(numbers) < len(found):
        return " ".join(map(str, found))
    return numbers[0] if len(numbers) == 1 else sum(numbers) / len(numbers)
