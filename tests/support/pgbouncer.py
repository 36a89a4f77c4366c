"""A real PgBouncer in front of a PostgreSQL of the tests."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from tests.support.processes import eventually
from tests.support.servers import Postgres

MISSING = "pgbouncer is missing: apt-get install pgbouncer"
BINARY = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")

CONFIGURATION = """
[databases]
{database} = host={host} port={port} dbname={database} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 500
"""


class PgBouncer:
    """In session or transaction mode; it prepares nothing itself, as old ones and `max_prepared_statements=0`."""

    def __init__(self, postgres: Postgres, database: str, *, mode: str, size: int) -> None:
        assert BINARY
        self.folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self.folder.chmod(0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = conninfo_to_dict(postgres.url(database))
        configuration = CONFIGURATION.format(
            database=database,
            host=server["host"],
            port=server.get("port", 5432),
            listen_port=port,
            mode=mode,
            size=size,
        )
        if _version() >= (1, 21):
            configuration += "max_prepared_statements = 0\n"
        file = self.folder / "pgbouncer.ini"
        # It refuses to run as root, and must reach the server's socket.
        user = f"user = {postgres.server.system_user}\n" if os.geteuid() == 0 else ""
        file.write_text(configuration + user)
        self.url = f"postgresql://postgres@127.0.0.1:{port}/{database}"
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen([BINARY, str(file)], stdout=log, stderr=log, start_new_session=True)
        eventually(lambda: self.process.poll() is not None or _listens(port))
        assert self.process.poll() is None, (self.folder / "log").read_text()

    def close(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder)


def _version() -> tuple[int, ...]:
    output = subprocess.run([str(BINARY), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", output)
    assert found
    return int(found[1]), int(found[2])


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
