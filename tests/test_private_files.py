"""Files that hold what people post are their owner's alone."""

import stat
from pathlib import Path

import pytest

from scheduler_app import standalone
from scheduler_app.config import Settings, SettingsError
from scheduler_app.extensions import db
from scheduler_app.private_files import UMASK
from scheduler_app.web import create_web_app


def open_to_others(folder: Path) -> list[str]:
    paths = [folder, *folder.rglob("*")]
    return [path.name for path in paths if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & UMASK]


def write(file: Path) -> None:
    """As an application with this database does."""
    app = create_web_app(Settings.from_env({"DATABASE_URL": f"sqlite:///{file}"}))
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS mark (number INTEGER)")
        assert {"backbeat.db", "backbeat.db-wal", "backbeat.db-shm"} <= {path.name for path in file.parent.iterdir()}
    assert open_to_others(file.parent) in ([], [file.parent.name])
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()


def test_the_files_of_sqlite_are_made_for_their_owner_and_closed_if_they_were_open(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    file = folder / "backbeat.db"
    write(file)
    file.chmod(0o644)
    write(file)


def test_a_folder_in_which_everybody_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SettingsError, match="DATABASE_URL: everybody can write in "):
        create_web_app(Settings.from_env({"DATABASE_URL": f"sqlite:///{tmp_path}/backbeat.db"}))
    with pytest.raises(SettingsError, match="BACKBEAT_DATA_DIR: everybody can write in "):
        standalone.hold(tmp_path)
    tmp_path.chmod(0o700)


def test_files_of_valkey_that_were_open_are_closed(tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    folder.mkdir(mode=0o755)
    (folder / "appendonly.aof.1.incr.aof").touch(mode=0o644)
    lock = standalone.hold(tmp_path)
    assert open_to_others(tmp_path) == []
    standalone.os.close(lock)
