"""A traceback, or a stack, as a page shows it: frame by frame, those of libraries folded."""

import re
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import PurePath

from scheduler_app.services.stacks import OUTERMOST, Stack

FRAME = re.compile(r'  File "(.+)", line (\d+), in (.+)')
LIBRARY = re.compile(
    r"/(?:site|dist)-packages/([^/]+)|/lib/python3[.\d]*/(?!(?:site|dist)-packages)([^/]+)|<frozen ([^>]+)>"
)


@dataclass
class Frame:
    place: str  # the end of the path
    line: str
    function: str
    library: str | None  # to which it belongs; None: the operation's own code
    code: list[str] = field(default_factory=list)


@dataclass
class Part:
    """Frames that stand together, or another line."""

    frames: list[Frame] = field(default_factory=list)
    library: str | None = None
    text: str = ""


def parts(traceback: str) -> list[Part]:
    found: list[Frame | str] = []
    for line in traceback.splitlines():
        if frame := FRAME.match(line):
            found.append(_frame(*frame.groups()))
        elif line.startswith("    ") and found and isinstance(found[-1], Frame):
            if line.strip(" ~^"):  # no line of marks below the code
                found[-1].code.append(line.strip())
        elif line.strip() and not line.startswith("Traceback (most recent"):
            found.append(line)
    return _grouped(found)


def parts_of_stack(stack: Stack) -> list[Part]:
    found: list[Frame | str] = [
        Frame(one["file"], str(one["line"]), one["function"], one["library"], [one["code"]] if one["code"] else [])
        for one in stack.frames
    ]
    if stack.left_out:
        found.insert(OUTERMOST, f"{stack.left_out:,} calls left out")
    return _grouped(found or ["Its operation was between two calls."])


def _grouped(found: list[Frame | str]) -> list[Part]:
    return [part for key, group in groupby(found, _kind) for part in _parts(key, list(group))]


def _frame(path: str, line: str, function: str) -> Frame:
    library = LIBRARY.search(path)
    place = "/".join(PurePath(path).parts[-3:] if library else PurePath(path).parts[-2:])
    return Frame(place, line, function, next(filter(None, library.groups())).removesuffix(".py") if library else None)


def _kind(one: Frame | str) -> tuple[bool, str | None]:
    return isinstance(one, Frame), one.library if isinstance(one, Frame) else None


def _parts(key: tuple[bool, str | None], group: list[Frame | str]) -> list[Part]:
    if not key[0]:
        return [Part(text=str(line)) for line in group]
    return [Part([one for one in group if isinstance(one, Frame)], key[1])]
