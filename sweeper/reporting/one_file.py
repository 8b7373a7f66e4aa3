"""A report as one HTML text: the page with its styles, script, data and files inside, for a notebook or a client.

It needs neither a folder nor a server, and sends no request: its policy allows only what is in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from shlex import quote
from typing import Any, Final

from PIL import Image

from sweeper.errors import ResultsError
from sweeper.files import atomic_write, describe_write_error
from sweeper.model.picture_size import PICTURE_SUFFIXES
from sweeper.reporting.contents import MEDIA_TYPES
from sweeper.reporting.dataset import iter_script, to_json, transpose_files
from sweeper.reporting.thumbnails import SMALLER_SIDES, THUMBS_FOLDER, UNREADABLE, is_whole_webp, open_picture
from sweeper.reporting.write_report import PAGE_FOLDER, Report
from sweeper.running.folder_lock import lock_itself
from sweeper.serving.page_files import read_page
from sweeper.store.artifacts import link_files

THUMBNAILS_ONLY: Final = "thumbnails only"
_FOLDER_PREFIX: Final = ".one-file-"
_NO_SPRITES: Final = {"across": 1, "sheets": [], "count": 0}
_BASE64: Final = 4 / 3  # bytes of a file inside the page, for one of its own
_SMALL_SIDE: Final = 2048  # pixels of the longer side of a picture that is made smaller
_SMALL_QUALITY: Final = 85
_LEAST_SMALL_BYTES: Final = 20_000  # of such a picture, to guess whether they can fit
Choice = Mapping[str, Path | bytes]  # the content of each file, by the name that the page uses


def write_one_file(
    results: Path, file: Path, max_bytes: int, write_report: Callable[[Path], Report], *, address: str = ""
) -> tuple[Report, str]:
    """Write the page of a results folder as one file of at most `max_bytes`. `write_report` writes it to a folder.
    `address`: the view that it opens with, as it stands in an address behind `#`.

    It has the files themselves if they fit, otherwise pictures as WebP of at most 2048 pixels, otherwise thumbnails.
    Returns the report and a sentence that says which.

    Raises ResultsError if the results cannot be read, not even the smallest thumbnails fit, or the file cannot be
    written.
    """
    with _make_folder(results) as folder:
        out = folder / "report"
        thumbs = results / "report" / THUMBS_FOLDER  # of the page itself, if it was written: they take longest
        if thumbs.is_dir() and not thumbs.is_symlink():
            made = (
                path for path in thumbs.iterdir() if path.is_file() and not path.is_symlink() and is_whole_webp(path)
            )
            link_files(((path, path.name) for path in made), out / THUMBS_FOLDER)
        report = write_report(out)
        if not report.trial_count:
            raise ResultsError(f"{results}: none of its trials is selected, so the page would be empty")
        data = json.loads((out / "data.json").read_text("utf-8"))
        room = int((max_bytes - len(make_page(data, data["files"], {}))) / _BASE64)
        selected = select_files(data["files"], out, room, with_smaller=True)
        if selected is None:
            megabytes = max_bytes / 1e6
            raise ResultsError(
                f"{file}: {report.trial_count} trials do not fit into {megabytes:g} MB, not even as thumbnails of "
                f"{SMALLER_SIDES[-1]} pixels; give --max-mb more, or select some by --where, --limit or --marked"
            )
        files, contents, words = selected
        # The file must not tell where things are on this machine.
        data |= {"results": results.name, "file": Path(data["file"] or "").name, "first": {"address": address}}
        if "check" in data:
            baseline = Path(data["check"]["baseline"]).name
            data["check"] |= {"baseline": baseline, "accept_command": f"sweeper accept {quote(results.name)}"}
        if "workflow_missing" in data:  # its reason after the colon has the path of the experiment
            data["workflow_missing"] = data["workflow_missing"].partition(": ")[0]
        page = make_page(data, files, contents)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as opened:
            opened.write(page.encode())
    except OSError as error:
        raise ResultsError(f"{file}: cannot be written: {describe_write_error(file, error)}") from error
    return Report(file, report.trial_count, report.missing_count), f"{len(page.encode()) / 1e6:.1f} MB, {words}"


@contextmanager
def _make_folder(results: Path) -> Iterator[Path]:
    """A folder for the report: in the results, where links to the artifacts take no space, if they can be written.

    It is locked, so that the next call removes what a killed process left, and nothing that another one uses.
    """
    for path in filter(Path.is_dir, results.glob(f"{_FOLDER_PREFIX}*")):
        with suppress(OSError), lock_itself(path) as is_locked:
            if is_locked:
                shutil.rmtree(path)
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=results)))
            stack.enter_context(lock_itself(folder))
        except OSError:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sweeper-one-file-")))
        yield folder


def select_files(
    files: Sequence[Mapping[str, Any]], report: Path, max_bytes: int, *, with_smaller: bool = False
) -> tuple[list[dict[str, Any]], Choice, str] | None:
    """Select what fits into a page: its files, the content of each by the name that the page uses, and words for that.

    The files themselves are best; then, `with_smaller`, pictures as smaller WebP; then thumbnails. None if not even the
    smallest thumbnails fit.
    """
    for words, is_whole, choice in _iter_choices(files, report, max_bytes, with_smaller=with_smaller):
        if sum(map(_measure, choice.values())) <= max_bytes:
            return [_place_file(file, choice, is_whole=is_whole) for file in files], choice, words
    return None


def _iter_choices(
    files: Sequence[Mapping[str, Any]], report: Path, max_bytes: int, *, with_smaller: bool
) -> Iterator[tuple[str, bool, Choice]]:
    thumbs = {file["thumb"] for file in files if "thumb" in file}
    originals = {file["path"] for file in files if "path" in file}
    yield "with all files", True, {name: report / name for name in thumbs | originals}
    if with_smaller and len(originals) * _LEAST_SMALL_BYTES <= max_bytes:
        choice: dict[str, Path | bytes] = {name: report / name for name in thumbs}
        used = sum(map(_measure, choice.values()))
        for name in originals:
            choice[name] = _make_smaller(report / name)
            used += _measure(choice[name])
            if used > max_bytes:
                break
        else:
            yield f"pictures as WebP of at most {_SMALL_SIDE} pixels", True, choice
    for suffix in ("", *(f"-{side}" for side in SMALLER_SIDES)):
        paths = {report / name: (report / name).with_stem(f"{Path(name).stem}{suffix}") for name in thumbs}
        # A thumbnail that is not larger than that has no smaller ones.
        small = [smaller if smaller.is_file() else path for path, smaller in paths.items()]
        yield THUMBNAILS_ONLY, False, dict(zip(thumbs, small, strict=True))


def _make_smaller(path: Path) -> Path | bytes:
    """A still picture as WebP if that is smaller, otherwise the file itself."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        return path
    try:
        image, _, frames, _ = open_picture(path, (_SMALL_SIDE, _SMALL_SIDE))
        if frames > 1:
            return path
        image.thumbnail((_SMALL_SIDE, _SMALL_SIDE), Image.Resampling.LANCZOS)
        small = BytesIO()
        image.save(small, "WEBP", quality=_SMALL_QUALITY)
    except UNREADABLE:
        return path
    return small.getvalue() if small.tell() < path.stat().st_size else path


def _measure(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _place_file(file: Mapping[str, Any], choice: Choice, *, is_whole: bool) -> dict[str, Any]:
    """The entry of a file; if only thumbnails are there, its thumbnail takes the place of the file."""
    entry = {key: value for key, value in file.items() if key != "sprite"}
    if isinstance(choice.get(file.get("path", "")), bytes):  # made anew, without the workflow that a PNG carries
        entry |= {"workflow": False}
    if is_whole or file["kind"] == "missing":
        return entry
    if "thumb" in file:
        return entry | {"kind": "image", "path": file["thumb"], "workflow": False}
    return {key: value for key, value in entry.items() if key != "path"} | {"kind": "outside"}


def _make_data_url(name: str, content: Path | bytes) -> str:
    if isinstance(content, bytes):
        media = "image/webp"
    else:
        media = MEDIA_TYPES.get(Path(name).suffix.lower(), "application/octet-stream")
        content = content.read_bytes()
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def make_page(data: Mapping[str, Any], files: Sequence[Mapping[str, Any]], contents: Choice) -> str:
    """The page as one HTML text, with its styles, scripts and data, and the contents of these files inside."""
    data = {**data, "files": transpose_files(files), "sprites": _NO_SPRITES, "sides": []}
    inline = {name: _make_data_url(name, content) for name, content in contents.items()}
    parts = read_page(PAGE_FOLDER)
    index = parts.pop("index.html")
    # In a string of a script, `<` could end the script.
    script = "".join(iter_script(data)) + f"sweeper.inline = JSON.parse({json.dumps(to_json(inline))});\n"
    parts["data.js"] = script.replace("<", "\\u003c")
    # A text among the data cannot contain the nonce, which depends on it.
    nonce = hashlib.sha256("".join(parts.values()).encode()).hexdigest()[:32]
    index = re.sub(r'<link rel="stylesheet" href="([^"]+)">', _embed("style", parts, nonce), index)
    index = re.sub(r'<script src="([^"]+)"></script>', _embed("script", parts, nonce), index)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data: blob:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )
    return re.sub(r'(http-equiv="Content-Security-Policy" content=")[^"]*', lambda match: match[1] + policy, index)


def _embed(tag: str, parts: Mapping[str, str], nonce: str) -> Any:
    return lambda match: f'<{tag} nonce="{nonce}">{parts[match[1]]}</{tag}>'
