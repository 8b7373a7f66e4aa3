"""A user's own files, `/userdata`: saved workflows, settings, whatever a client keeps on the server.

Both dialects; they differ in what a listing says. Refusals are plain text, as published. The files lie
in `user/` below the server's data and are of no meaning to it.
"""

from __future__ import annotations

import json
import mimetypes
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.responses import Response

from sweeper.embedded.folders import ClimbingError, ServerFolders, contained
from sweeper.embedded.http_helpers import RefusedError, json_answer, read_body, read_json, read_object
from sweeper.embedded.upload_storage import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request


class UserDataRoutes:
    """Endpoint functions over one server's folders; `cloud`: listings and answers always tell everything."""

    def __init__(self, folders: ServerFolders, *, cloud: bool) -> None:
        self.folders = folders
        self.cloud = cloud

    async def listing(self, request: Request) -> Response:
        """GET /userdata?dir=: files in a folder, below it too with `recurse`; paths are relative to that folder."""
        query = request.query_params
        if not query.get("dir"):
            raise refused(400, "Directory not provided")
        folder = self._path(query["dir"])
        if not folder.is_dir():
            raise refused(404, "Directory not found")
        found = folder.rglob("*") if _true(request, "recurse") else folder.iterdir()
        files = sorted(path for path in found if path.is_file())
        return json_answer([self._listed(request, path, path.relative_to(folder).as_posix()) for path in files])

    def _listed(self, request: Request, path: Path, name: str) -> Any:
        if self.cloud or _true(request, "full_info"):
            return self._info(path, name)
        return [name, *name.split("/")] if _true(request, "split") else name

    def _info(self, path: Path, name: str) -> dict[str, Any]:
        stat = path.stat()
        info = {"path": name, "size": stat.st_size, "modified": stat.st_mtime}
        return info if self.cloud else {**info, "created": stat.st_ctime}

    async def read(self, request: Request) -> Response:
        """GET /userdata/{file}."""
        path = self._existing(request.path_params["file"])
        kind = None if self.cloud else mimetypes.guess_type(path.name)[0]
        return Response(path.read_bytes(), media_type=kind or "application/octet-stream")

    async def write(self, request: Request) -> Response:
        """POST /userdata/{file}: the body is the content. 409 if it is there and `overwrite=false`."""
        path = self._path(request.path_params["file"])
        if path == self.folders.user_dir.resolve():
            raise refused(400, "The file needs a name")
        data = await read_body(request)
        self._make_way(request, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except (OSError, ValueError) as problem:  # too long, a file where a folder should be, a folder of this name
            raise refused(400, f"The file cannot be written: {problem.__class__.__name__}") from problem
        return self._written(request, path)

    async def delete(self, request: Request) -> Response:
        """DELETE /userdata/{file}: 204."""
        self._existing(request.path_params["file"]).unlink()
        return Response(status_code=204)

    async def move(self, request: Request) -> Response:
        """POST /userdata/{file}/move/{dest} (ComfyUI only)."""
        source = self._existing(request.path_params["file"])
        path = self._path(request.path_params["dest"])
        self._make_way(request, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            source.replace(path)
        except OSError as problem:
            raise refused(400, f"The file cannot be moved: {problem.__class__.__name__}") from problem
        return self._written(request, path)

    # --- ComfyUI only -----------------------------------------------------------------------------------------------

    async def tree(self, request: Request) -> Response:
        """GET /v2/userdata?path=: files and folders below a folder, folders first."""
        folder = self._path(request.query_params.get("path", ""))
        if not folder.is_dir():
            raise refused(404, "Requested path not found")
        root = self.folders.user_dir.resolve()
        found = sorted(folder.rglob("*"), key=lambda path: (not path.is_dir(), path.name.lower()))
        return json_answer([_entry(path, path.relative_to(root).as_posix()) for path in found])

    async def users(self, _: Request) -> Response:
        """GET /users: one user, whose files are here."""
        return json_answer({"storage": "server", "migrated": True})

    async def settings(self, request: Request) -> Response:
        """GET /settings and /settings/{id}; null where nothing is set."""
        known, name = self._settings(), request.path_params.get("id")
        return json_answer(known if name is None else known.get(name))

    async def change_settings(self, request: Request) -> Response:
        """POST /settings (an object, merged) and /settings/{id} (its value)."""
        name = request.path_params.get("id")
        changes = await read_object(request) if name is None else {name: await read_json(request)}
        text = json.dumps({**self._settings(), **changes}, indent=4)
        write_whole(self.folders.user_dir / SETTINGS, text.encode("ascii"))
        return Response(status_code=200)

    def _settings(self) -> dict[str, Any]:
        try:
            known: Any = json.loads((self.folders.user_dir / SETTINGS).read_text("utf-8"))
        except (OSError, ValueError):
            return {}  # none yet, or spoilt through /userdata
        return known if isinstance(known, dict) else {}

    # --- both --------------------------------------------------------------------------------------------------------

    def _written(self, request: Request, path: Path) -> Response:
        name, stat = path.relative_to(self.folders.user_dir.resolve()).as_posix(), path.stat()
        if self.cloud:  # a date here, seconds in the listing: so it is published
            modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="milliseconds")
        elif _true(request, "full_info"):
            return json_answer(self._info(path, name))
        else:
            return json_answer(name)
        return json_answer({"path": name, "size": stat.st_size, "modified": modified})

    def _make_way(self, request: Request, path: Path) -> None:
        word = request.query_params.get("overwrite", "true")
        if self.cloud and word not in {"true", "false"}:  # ComfyUI takes any word for true
            raise refused(400, f"'overwrite' takes true or false, not {word!r}")
        if path.exists() and word == "false":
            raise refused(409, "File already exists")

    def _existing(self, name: str) -> Path:
        path = self._path(name)
        if not path.is_file():
            raise refused(404, "File not found")
        return path

    def _path(self, name: str) -> Path:
        """A path inside the user's folder. Clients encode a name's slashes once or twice: both are understood."""
        try:
            path = contained(self.folders.user_dir, unquote(name))
        except ClimbingError as problem:
            raise refused(403, "The path leads out of the user's folder") from problem
        if len(os.fsencode(path)) > PATH_BYTES or any(len(os.fsencode(part)) > NAME_BYTES for part in path.parts):
            raise refused(400, "The path is too long")
        return path


SETTINGS = "comfy.settings.json"  # lies among the user's files, as in ComfyUI

# What Linux allows; asked beforehand because `is_file` and `exists` raise for longer names.
PATH_BYTES, NAME_BYTES = 4095, 255


def refused(status: int, message: str) -> RefusedError:
    """A refusal in plain text."""
    return RefusedError(Response(message, status, media_type="text/plain"))


def _entry(path: Path, name: str) -> dict[str, Any]:
    if path.is_dir():
        return {"name": path.name, "path": name, "type": "directory"}
    stat = path.stat()
    return {"name": path.name, "path": name, "type": "file", "size": stat.st_size, "modified": stat.st_mtime}


def _true(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() == "true"
