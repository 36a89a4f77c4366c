"""Files that only their owner may read and write: they hold what people post, secrets in it too."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from scheduler_app.config import SettingsError

FOLDER, FILE = 0o700, 0o600
UMASK = 0o077


def own_folder(folder: Path, *, setting: str) -> None:
    """Makes it if it is not there. Raises SettingsError where everybody can write: they could exchange its files."""
    try:
        folder.mkdir(mode=FOLDER, parents=True, exist_ok=True)
        writable = folder.stat().st_mode & stat.S_IWOTH
    except OSError as error:
        raise SettingsError(f"{setting}: {str(folder)!r} cannot be used: {error.strerror}") from None
    if writable:
        raise SettingsError(f"{setting}: everybody can write in {str(folder)!r}; name a folder of your own")


def close_to_others(paths: Iterable[Path]) -> None:
    """Those that are there, whatever the umask was when they were made. What somebody else owns stays as it is."""
    for path in paths:
        with suppress(FileNotFoundError, PermissionError):
            mode = path.stat().st_mode
            path.chmod(mode & ~UMASK)


def own_database(file: Path) -> None:
    """SQLite gives its other files the mode of this one. Raises SettingsError."""
    own_folder(file.parent, setting="DATABASE_URL")
    with suppress(OSError):  # SQLite itself says what is wrong
        os.close(os.open(file, os.O_CREAT, FILE))
    close_to_others(file.with_name(file.name + suffix) for suffix in ("", "-wal", "-shm"))
