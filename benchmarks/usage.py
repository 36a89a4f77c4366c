"""The memory and time that a process and its children use, as the kernel counts them."""

import os
import subprocess
from pathlib import Path
from typing import Any

Group = subprocess.Popen[Any]  # the first process of its own group


def cpu_seconds(process: Group) -> float:
    ticks = sum(sum(map(int, _stat(pid)[11:13])) for pid in _pids(process))
    return ticks / os.sysconf("SC_CLK_TCK")


def rss(process: Group) -> int:
    """Bytes of memory that its processes hold, shared pages counted in each."""
    return sum(int(_stat(pid)[21]) for pid in _pids(process)) * os.sysconf("SC_PAGE_SIZE")


def _pids(process: Group) -> list[int]:
    listed = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True, check=True)
    return [int(pid) for pid in listed.stdout.split()]


def _stat(pid: int) -> list[str]:
    """The fields of the system's line on a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
