"""Servers on loopback. Some answer correctly, and some badly on purpose."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.spellings import SPELLINGS

BOMB = gzip.compress(bytes(30_000_000))


class Handler(BaseHTTPRequestHandler):
    """Stores each request, and gives the answer that the path names."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.requests.append((self.command, self.path, self.headers, body))
        name, _, argument = urlsplit(self.path).path.removeprefix("/").partition("/")
        ANSWERS[name](self, argument)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def echo(request: Handler, status: str) -> None:
    """Sends the received credentials back in every spelling, in the body and in the headers."""
    credentials = request.headers["Authorization"].removeprefix("Bearer ")
    written = [write(credentials) for write in SPELLINGS.values()]
    headers = {f"X_{n}": text for n, text in enumerate(written) if "\n" not in text}
    request.send("\n".join(written).encode(), int(status), Location=f"/?token={written[1]}", **headers)


def busy(request: Handler, until: str) -> None:
    """Says when to come again, and which time it is here, if the query gives one."""
    if asked := parse_qs(urlsplit(request.path).query).get("date"):
        request.date_time_string = lambda timestamp=None: asked[0]  # type: ignore[method-assign]
    request.send(b"busy", 503, Retry_After=unquote(until))


def break_off(request: Handler, _: str) -> None:
    """Sends back what was received, where a status line belongs."""
    request.wfile.write(f"{request.headers['Authorization']}\r\n\r\n".encode())
    request.close_connection = True


ANSWERS: dict[str, Callable[[Handler, str], None]] = {
    "hello": lambda request, _: request.send(b"hello", Content_Type="text/plain", X_Two="a"),
    "status": lambda request, code: request.send(b"it broke", int(code)),
    "busy": busy,
    "redirect": lambda request, _: request.send(b"", 302, Location="/hello"),
    "bytes": lambda request, count: request.send(b"x" * int(count)),
    "bomb": lambda request, _: request.send(BOMB, Content_Encoding="gzip"),
    "broken-gzip": lambda request, _: request.send(b"no gzip", Content_Encoding="gzip"),
    "gzip": lambda request, _: request.send(gzip.compress(b"hello"), Content_Encoding="gzip"),
    "echo": echo,
    "broken": break_off,
    "v1": lambda request, _: request.send(b"", Content_Type="application/x-protobuf"),  # as a collector of traces
    "headers": lambda request, count: request.send(b"", **{f"X_{n}": "v" * 1_000 for n in range(int(count))}),
}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), Handler)
        self.requests: list[tuple[str, str, Any, bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Quiet: some clients hang up on purpose."""


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Gives one connection to `answer` once its request has come."""

    def serve() -> None:
        connection, _ = listener.accept()
        with closing(connection):
            connection.recv(65_536)
            try:
                answer(connection)
            except OSError:
                done.set()

    done = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)
        assert not thread.is_alive()


def drip(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """Sends a piece every 20 ms, for a minute at most, until the other side hangs up."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        connection.settimeout(0.02)
        for _ in range(3000):
            try:
                assert connection.recv(1) == b""
                return
            except TimeoutError:
                connection.sendall(piece)

    return answer
