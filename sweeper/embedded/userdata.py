"""`/userdata` and `/settings`, for both dialects: files that clients store on the server, such as saved workflows.

The dialects differ in what a listing contains. Refusals are plain text, as published. The files are in `user/` below
the server's data folder; the server does not read them.
"""

from __future__ import annotations

import json
import mimetypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from sweeper.embedded.folders import PathEscapeError, ServerFolders, resolve_inside, write_atomically
from sweeper.embedded.http_helpers import json_response, read_body, read_json, read_object, refuse_in_text


@dataclass(eq=False)
class UserDataRoutes:
    """Endpoints for the files of users."""

    folders: ServerFolders
    cloud: bool  # listings always contain all details

    async def list_files(self, request: Request) -> Response:
        """GET /userdata?dir=: the files of a folder, with `recurse` of its subfolders too. Paths are relative to it."""
        query = request.query_params
        if not query.get("dir"):
            raise refuse_in_text(400, "Directory not provided")
        folder = self._resolve_path(query["dir"])
        if not folder.is_dir():
            raise refuse_in_text(404, "Directory not found")
        entries = folder.rglob("*") if _is_true(request, "recurse") else folder.iterdir()
        files = sorted(path for path in entries if path.is_file())
        return json_response([self._list_entry(request, path, path.relative_to(folder).as_posix()) for path in files])

    def _list_entry(self, request: Request, path: Path, name: str) -> Any:
        if self.cloud or _is_true(request, "full_info"):
            return self._file_info(path, name)
        return [name, *name.split("/")] if _is_true(request, "split") else name

    def _file_info(self, path: Path, name: str) -> dict[str, Any]:
        stat = path.stat()
        info = {"path": name, "size": stat.st_size, "modified": int(stat.st_mtime * 1000)}  # milliseconds
        return info if self.cloud else {**info, "created": int(stat.st_ctime * 1000)}

    async def read_file(self, request: Request) -> Response:
        """GET /userdata/{file}: the content of a file."""
        path = self._find_file(request.path_params["file"])
        kind = None if self.cloud else mimetypes.guess_type(path.name)[0]
        return Response(path.read_bytes(), media_type=kind or "application/octet-stream")

    async def write_file(self, request: Request) -> Response:
        """POST /userdata/{file}: write the body to a file. 409 if it exists and `overwrite=false`."""
        path = self._resolve_path(request.path_params["file"])
        if path == self.folders.user_dir.resolve():
            raise refuse_in_text(400, "The file needs a name")
        data = await read_body(request)
        self._check_overwrite(request, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)
        except (OSError, ValueError) as problem:  # name too long, a file instead of a folder, a folder with this name
            raise refuse_in_text(400, f"The file cannot be written: {problem.__class__.__name__}") from problem
        return self._respond_with_file(request, path)

    async def delete_file(self, request: Request) -> Response:
        """DELETE /userdata/{file}: 204."""
        self._find_file(request.path_params["file"]).unlink()
        return Response(status_code=204)

    async def move_file(self, request: Request) -> Response:
        """POST /userdata/{file}/move/{dest}: move a file (ComfyUI only)."""
        source = self._find_file(request.path_params["file"])
        path = self._resolve_path(request.path_params["dest"])
        self._check_overwrite(request, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            source.replace(path)
        except OSError as problem:
            raise refuse_in_text(400, f"The file cannot be moved: {problem.__class__.__name__}") from problem
        return self._respond_with_file(request, path)

    # --- ComfyUI only -----------------------------------------------------------------------------------------------

    async def list_tree(self, request: Request) -> Response:
        """GET /v2/userdata?path=: all files and folders below a folder, folders first."""
        folder = self._resolve_path(request.query_params.get("path", ""))
        if not folder.is_dir():
            raise refuse_in_text(404, "Requested path not found")
        root = self.folders.user_dir.resolve()
        paths = sorted(folder.rglob("*"), key=lambda path: (not path.is_dir(), path.name.lower()))
        return json_response([_tree_entry(path, path.relative_to(root).as_posix()) for path in paths])

    async def get_settings(self, request: Request) -> Response:
        """GET /settings and /settings/{id}; null for a setting without a value."""
        settings, name = self._load_settings(), request.path_params.get("id")
        return json_response(settings if name is None else settings.get(name))

    async def change_settings(self, request: Request) -> Response:
        """POST /settings (merge an object) and /settings/{id} (set one value)."""
        name = request.path_params.get("id")
        changes = await read_object(request) if name is None else {name: await read_json(request)}
        text = json.dumps({**self._load_settings(), **changes}, indent=4)
        write_atomically(self.folders.user_dir / SETTINGS, text.encode("ascii"))
        return Response(status_code=200)

    def _load_settings(self) -> dict[str, Any]:
        try:
            settings: Any = json.loads((self.folders.user_dir / SETTINGS).read_text("utf-8"))
        except (OSError, ValueError):
            return {}  # no settings yet, or the file was overwritten through /userdata
        return settings if isinstance(settings, dict) else {}

    # --- both --------------------------------------------------------------------------------------------------------

    def _respond_with_file(self, request: Request, path: Path) -> Response:
        name = path.relative_to(self.folders.user_dir.resolve()).as_posix()
        full = self.cloud or _is_true(request, "full_info")
        return json_response(self._file_info(path, name) if full else name)

    def _check_overwrite(self, request: Request, path: Path) -> None:
        overwrite = request.query_params.get("overwrite", "true")
        if self.cloud and overwrite not in {"true", "false"}:  # ComfyUI accepts any other word as true
            raise refuse_in_text(400, f"'overwrite' takes true or false, not {overwrite!r}")
        if path.exists() and overwrite == "false":
            raise refuse_in_text(409, "File already exists")

    def _find_file(self, name: str) -> Path:
        path = self._resolve_path(name)
        if not path.is_file():
            raise refuse_in_text(404, "File not found")
        return path

    def _resolve_path(self, name: str) -> Path:
        """The path of a name in the user's folder. Clients percent-encode slashes once or twice; accept both."""
        try:
            path = resolve_inside(self.folders.user_dir, unquote(name))
        except PathEscapeError as problem:
            raise refuse_in_text(403, "The path leads out of the user's folder") from problem
        if len(os.fsencode(path)) > PATH_BYTES or any(len(os.fsencode(part)) > NAME_BYTES for part in path.parts):
            raise refuse_in_text(400, "The path is too long")
        return path


SETTINGS = "comfy.settings.json"  # among the user's files, as in ComfyUI

# The limits of Linux. They are checked first, because `is_file` and `exists` raise for longer names.
PATH_BYTES, NAME_BYTES = 4095, 255


def _tree_entry(path: Path, name: str) -> dict[str, Any]:
    if path.is_dir():
        return {"name": path.name, "path": name, "type": "directory"}
    stat = path.stat()
    return {"name": path.name, "path": name, "type": "file", "size": stat.st_size, "modified": stat.st_mtime}


def _is_true(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() == "true"
