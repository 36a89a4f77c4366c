"""A piece of network between one client and one server. It can be cut, or hold back what is sent."""

import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Proxy:
    """Listens in a folder of its own, on a socket with the server's name. Passes on data in both directions."""

    def __init__(self, server: Path) -> None:
        self.server = server
        self.folder = Path(tempfile.mkdtemp(prefix="proxy-"))
        self._connections: set[socket.socket] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._is_cut = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / server.name))
        self._listener.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._drop()
        self._flowing.set()
        shutil.rmtree(self.folder)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Connections are dropped, and new ones too."""
        self._is_cut = True
        self._drop()
        try:
            yield
        finally:
            self._is_cut = False

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Connections stay, and new ones are made; what is sent arrives when the stall is over."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def _accept(self) -> None:
        with self._listener, suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        ends = (client, server)
        try:
            if self._is_cut:
                raise ConnectionResetError
            server.connect(str(self.server))
        except OSError:  # the server is away: the client sees a connection that ends
            for end in ends:
                end.close()
            return
        self._connections.update(ends)
        for source, target in (ends, reversed(ends)):
            threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while sent := source.recv(1 << 16):
                self._flowing.wait()
                target.sendall(sent)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # so that the thread of the other direction ends, too
        self._connections.discard(source)
        source.close()

    def _drop(self) -> None:
        for end in list(self._connections):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def postgres_proxy(url: str) -> tuple[Proxy, str]:
    """A proxy in front of a PostgreSQL on a socket, and the URL that leads through the proxy."""
    folder = url.partition("host=")[2]
    proxy = Proxy(Path(folder) / ".s.PGSQL.5432")
    return proxy, url.replace(folder, str(proxy.folder))


def redis_proxy(url: str) -> tuple[Proxy, str]:
    proxy = Proxy(Path(url.removeprefix("unix://")))
    return proxy, f"unix://{proxy.folder / proxy.server.name}"
