"""The stack of the thread that runs an operation: which lines of which functions, and no value of any variable."""

import linecache
import re
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

from scheduler_app.services.stacks import INNERMOST, OUTERMOST
from scheduler_app.worker.interrupts import InterruptibleCall

LONGEST = 200  # characters of each text
OURS = InterruptibleCall.run.__code__  # it calls the operation, by a function of worker/execution.py


def taken(call: InterruptibleCall) -> dict[str, Any]:
    """The frames of the function that is called, the innermost last. There are none once it has ended."""
    frames = call.look(_frames) or []
    left_out = max(0, len(frames) - OUTERMOST - INNERMOST)
    kept = frames[:OUTERMOST] + frames[OUTERMOST + left_out :]
    return {"frames": [_described(*frame) for frame in kept], "left_out": left_out}


def _frames(thread: int) -> list[tuple[str, int, str]]:
    """File, line and function, the outermost first. No frame is kept: it would keep its variables."""
    found: list[tuple[str, int, str]] = []
    frame = sys._current_frames().get(thread)
    while frame and frame.f_code is not OURS:
        found.append((frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name))
        frame = frame.f_back
    return found[-2::-1]


def _described(file: str, line: int, function: str) -> dict[str, Any]:
    place, library = located(file)
    code = linecache.getline(file, line).strip()
    texts = {"file": place, "function": function, "code": code or None, "library": library}
    return {"line": line} | {name: _printable(text) if text else None for name, text in texts.items()}


@cache
def located(file: str) -> tuple[str, str | None]:
    """The file as seen from the folder that it was imported from, and the library to which it belongs."""
    if frozen := re.fullmatch("<frozen (.+)>", file):
        return file, frozen[1]
    if folder := next(filter(file.startswith, _library_folders()), ""):
        inside = file.removeprefix(folder)
        return inside, inside.partition("/")[0].removesuffix(".py")
    folders = sorted((f"{Path(folder).absolute()}/" for folder in sys.path), key=len, reverse=True)
    if folder := next(filter(file.startswith, folders), ""):
        return file.removeprefix(folder), None
    return "/".join(Path(file).parts[-2:]), None


@cache
def _library_folders() -> list[str]:
    """Those of installed packages before the standard library's own, which may be around them."""
    paths = sysconfig.get_paths()
    return [f"{paths[name]}/" for name in ("purelib", "platlib", "stdlib", "platstdlib")]


def _printable(text: str) -> str:
    # PostgreSQL stores neither NUL nor lone surrogates.
    return text[:LONGEST].encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
