"""The folder of a dataset. A list in it names the files of sweeper, and a later export replaces only these."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from sweeper.errors import ResultsError, UsageError
from sweeper.files import atomic_write, describe_write_error
from sweeper.store.containment import is_plain_path, refuse_links
from sweeper.store.link_files import link_files
from sweeper.tables.export import encode_line

LIST_NAME: Final = ".sweeper-export.json"


def write_export(
    out: Path, kind: str, folder: str, *, sources: Mapping[Path, str], texts: Mapping[str, str], keep: Collection[str]
) -> None:
    """Write `texts` into `out`, by file name, and link the pictures `sources` into its subfolder `folder`.

    Files of an earlier export of the same kind are removed first, except those in `keep`, which people edit: these are
    written only if they are absent. Raises UsageError if `out` holds anything else, and ResultsError if the folder
    cannot be written.
    """
    pictures = {f"{folder}/{name}" for name in sources.values()}
    earlier = _read_list(out, kind, folder)
    refuse_links(out / folder, *(out / parent for parent in PurePosixPath(folder).parents), out / LIST_NAME, inside=out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        # The list is written before the files, so that an export that was interrupted can be repeated.
        _write_list(out, kind, {*earlier, *pictures, *texts})
        for name in earlier:
            if name not in keep:
                (out / name).unlink(missing_ok=True)
        link_files(sources, out / folder)
        for name, text in texts.items():
            if name not in keep or not (out / name).exists():
                with atomic_write(out / name) as file:
                    file.write(encode_line(text))
        _write_list(out, kind, {*pictures, *texts})
    except OSError as error:
        raise ResultsError(f"{out}: cannot be written: {describe_write_error(out / LIST_NAME, error)}") from error


def _read_list(out: Path, kind: str, folder: str) -> list[str]:
    """The files of an earlier export in `out`; none if it is empty or absent. Raises UsageError for other contents."""
    # A folder beside it, because a dataset in the folder of another one would become a part of that.
    other = f"write to a new folder, such as {out.with_name(f'{out.name}-{kind}') if out.name else kind}"
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file, and a folder is needed there; {other}")
    if not out.is_dir() or not any(out.iterdir()):
        return []
    try:
        content = json.loads((out / LIST_NAME).read_bytes())
        earlier, names = content["to"], content["files"]
        valid = all(isinstance(name, str) and _is_in_export(name, folder) for name in names)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{out}: contains files that are not of an earlier export; {other}") from None
    if earlier != kind:
        raise UsageError(f"{out}: contains an export for {earlier}; {other}")
    if not valid:
        raise UsageError(f"{out / LIST_NAME}: names files outside of the folder, so it is not of sweeper; {other}")
    return list(names)


def _is_in_export(name: str, folder: str) -> bool:
    return is_plain_path(name) and name.rpartition("/")[0] in ("", folder)


def _write_list(out: Path, kind: str, names: Iterable[str]) -> None:
    with atomic_write(out / LIST_NAME) as file:
        file.write(json.dumps({"to": kind, "files": sorted(names)}, indent=1).encode() + b"\n")
