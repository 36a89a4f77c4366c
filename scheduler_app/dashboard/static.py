"""The files that pages load. Their address changes with them, so browsers keep them for a year."""

from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path

from flask import Response, request, send_from_directory, url_for

from scheduler_app.access import open_to_all
from scheduler_app.dashboard.frame import YEAR, blp

FOLDER = Path(__file__).parent / "static"


@blp.get("/static/<version>/<path:name>")
@open_to_all
def static(version: str, name: str) -> Response:
    return send_from_directory(FOLDER, name, max_age=YEAR if version == _version() else 0)


@blp.app_template_global("static")
def address(name: str) -> str:
    return _address(name, request.script_root)


@lru_cache(maxsize=256)
def _address(name: str, _root: str) -> str:
    """Kept, because each sign on a page needs it. It depends on the path prefix."""
    return url_for("dashboard.static", version=_version(), name=name)


@cache
def _version() -> str:
    digest = sha256()
    for file in sorted(file for file in FOLDER.rglob("*") if file.is_file()):
        digest.update(file.relative_to(FOLDER).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]
