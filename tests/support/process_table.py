"""The processes of this machine, as `ps` shows them."""

import subprocess
from typing import NamedTuple


class Row(NamedTuple):
    pid: int
    parent: int
    state: str
    command: str


def processes() -> list[Row]:
    command = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=3) for line in listing.splitlines()]
    return [Row(int(pid), int(parent), state, "".join(command)) for pid, parent, state, *command in rows]


def descendants(pid: int) -> set[int]:
    rows = processes()
    family = {pid}
    while more := {row.pid for row in rows if row.parent in family} - family:
        family |= more
    return family


def alive(pids: set[int]) -> set[int]:
    return {row.pid for row in processes() if row.pid in pids and not row.state.startswith("Z")}
