"""Processes whose clock is wrong, by libfaketime. Only their wall clock is: the monotonic one goes on as it does."""

import os
from pathlib import Path

import pytest

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

needed = pytest.mark.skipif(not LIBRARY.exists(), reason="libfaketime is missing; on Debian: apt install faketime")


class WrongClock:
    """The clock of the processes that are started with its environment: so many seconds ahead, or behind."""

    def __init__(self, folder: Path, ahead: float = 0) -> None:
        self.file = folder / "faketime"
        self.set(ahead)

    def set(self, ahead: float) -> None:
        """At once, also for processes that run."""
        written = self.file.with_suffix(".new")
        written.write_text(f"{ahead:+f}\n")
        written.replace(self.file)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its fix for an old glibc takes moments of the monotonic clock, until which somebody waits, for such of the
            # wall clock, which are over. So nobody waits for the interpreter's lock, but asks for it again and again.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent / "site"), str(Path.cwd()))),
        }
