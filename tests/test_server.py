"""The web server: what strangers send half, too large or never read costs nobody else anything."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus

import pytest
import urllib3

from scheduler_app.headers import HEADERS
from tests.support.process_table import descendants, processes
from tests.support.processes import Process, eventually, free_port
from tests.support.system import WEB, WEB_READY

LIMIT = 4096  # bytes of a body
# A server with a small application, and deadlines that a test can wait for.
SMALL = """
import sys
from flask import Flask, request
from scheduler_app import server
from scheduler_app.server import channel

app = Flask("small")
channel.HEAD_DEADLINE, channel.BODY_DEADLINE, channel.IDLE_DEADLINE, server.LOOK = map(float, sys.argv[2:])

@app.get("/livez")
def livez():
    return "ok"

@app.post("/large")
def large():
    return "x" * (1 << 20)

@app.post("/length")
def length():
    return {"length": len(request.get_data()), "root": request.script_root}

@app.get("/slow")
def slow():
    print("slow began", flush=True)
    sys.stdin.readline()
    return "done"

listening = server.listen("127.0.0.1", 0)
print("listening on", listening.getsockname()[1], flush=True)
server.serve(app, listening, max_body=int(sys.argv[1]))
print("stopped", flush=True)
"""


class Small:
    def __init__(self, *deadlines: float) -> None:
        command = [sys.executable, "-c", SMALL, str(LIMIT), *map(str, deadlines)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.port = int(self.line().split()[-1])

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(sent)
        return connection

    def livez(self) -> None:
        answer = urllib3.request("GET", f"http://127.0.0.1:{self.port}/livez", timeout=20, retries=False)
        assert answer.data == b"ok"

    def answer(self, sent: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer; the connection is to be closed after it."""
        with self.connect(sent) as connection:
            return parsed(rest(connection))

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def is_refused(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        return False


def rest(connection: socket.socket) -> bytes:
    """Until the server closes."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def parsed(answer: bytes) -> tuple[int, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.fixture
def small() -> Iterator[Callable[..., Small]]:
    """Starts a server of the test's own."""
    servers: list[Small] = []

    def start(head: float = 30, body: float = 60, idle: float = 60, look: float = 1) -> Small:
        servers.append(Small(head, body, idle, look))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[Small]:
    """A server that many tests share: nothing that they send may harm it, or be told of in its log."""
    server = Small(30, 60, 60, 1)
    yield server
    server.process.terminate()
    assert server.process.communicate(timeout=30) == ("stopped\n", "")


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def request(*headers: str, body: bytes = b"") -> bytes:
    """After its answer the connection is closed."""
    return head("POST /length", "Connection: close", *headers) + body


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


LIVEZ = head("GET /livez")
HALF_HEAD = b"GET /livez HTTP/1.1\r\nHost: loc"
HALF_BODY = head("POST /length", "Content-Length: 100") + b"half"
UNREAD = head("POST /large", "Content-Length: 0")
TOO_LARGE = {
    "code": 413,
    "status": HTTPStatus(413).phrase,
    "message": f"The body is too large: at most {LIMIT:,} bytes.",
}


@pytest.mark.parametrize(
    "sent",
    [HALF_HEAD, HALF_BODY, UNREAD, UNREAD * 80, LIVEZ],
    ids=["half a head", "half a body", "an answer unread", "80 answers unread", "keep-alive"],
)
def test_100_clients_that_stall_keep_nobody_waiting(server: Small, sent: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(server.connect(sent))
        server.livez()
        assert server.answer(request("Content-Length: 1", body=b"x"))[0] == 200


@pytest.mark.parametrize(
    ("sent", "deadlines"),
    [(HALF_HEAD, (0.2, 60, 60)), (HALF_BODY, (60, 0.2, 60)), (b"", (60, 60, 0.2)), (LIVEZ, (60, 60, 0.2))],
    ids=["head", "body", "nothing", "idle"],
)
def test_a_client_that_sends_no_more_is_hung_up_on(
    small: Callable[..., Small], sent: bytes, deadlines: tuple[float, ...]
) -> None:
    with small(*deadlines, look=0.05).connect(sent) as connection:
        rest(connection)


@pytest.mark.parametrize("half", [b"GET /livez HTTP/1.1\r\nX: ", HALF_BODY], ids=["head", "body"])
def test_a_client_that_sends_byte_by_byte_is_hung_up_on(small: Callable[..., Small], half: bytes) -> None:
    with small(head=0.5, body=0.5, look=0.05).connect(half) as connection:

        def hung_up() -> bool:
            try:
                connection.sendall(b"x")
            except OSError:
                return True
            return False

        eventually(hung_up)


def test_the_time_in_which_the_machine_slept_counts_against_nobody(small: Callable[..., Small]) -> None:
    server = small(head=1, body=1, idle=1, look=0.1)
    with server.connect(HALF_BODY) as body, server.connect(LIVEZ) as idle:
        server.livez()  # the others are connected before it
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        body.sendall(bytes(96))
        idle.sendall(head("GET /livez", "Connection: close"))
        server.process.send_signal(signal.SIGCONT)
        assert rest(idle).endswith(b"ok")
        assert body.recv(65_536).startswith(b"HTTP/1.1 200")
    server.process.terminate()
    assert server.process.communicate(timeout=20) == ("stopped\n", "")


@pytest.mark.parametrize("size", [LIMIT + 1, 10 * 1024 * 1024])
def test_a_body_above_the_limit_is_answered_after_the_client_has_sent_it(server: Small, size: int) -> None:
    body = bytes(size)
    for sent in (
        request(f"Content-Length: {size}", body=body),
        request("Transfer-Encoding: chunked", body=chunked(body)),
        request(f"Content-Length: {size}", "Expect: 100-continue"),
    ):
        status, answer = server.answer(sent)
        assert (status, json.loads(answer)) == (413, TOO_LARGE)


def test_a_body_at_the_limit_is_accepted(server: Small) -> None:
    body = bytes(LIMIT)
    for sent in (
        request(f"Content-Length: {LIMIT}", body=body),
        request("Transfer-Encoding: chunked", body=chunked(body)),
    ):
        status, answer = server.answer(sent)
        assert (status, json.loads(answer)["length"]) == (200, LIMIT)


def test_a_client_that_asks_first_is_told_to_go_on(server: Small) -> None:
    with server.connect(request("Content-Length: 3", "Expect: 100-continue")) as connection:
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        status, answer = parsed(rest(connection))
    assert (status, json.loads(answer)["length"]) == (200, 3)


@pytest.mark.parametrize("length", ["", "Content-Length: 0"])
def test_a_client_that_asks_first_but_sends_nothing_is_answered(server: Small, length: str) -> None:
    headers = [length] if length else []
    assert server.answer(request("Expect: 100-continue", *headers))[0] == 200


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    "sent",
    [
        request(CHUNKED, body=b"zz\r\nabc\r\n0\r\n\r\n"),
        request(CHUNKED, body=b"3\r\nabcXX0\r\n\r\n"),
        request(CHUNKED, body=b"-1\r\n\r\n"),
        request(CHUNKED, body=b"1" * 9_000),
        request(CHUNKED, body=b"0\r\n" + b"X: y\r\n" * 2_000),
        request("Content-Length: -1"),
        request("Content-Length: " + "9" * 5_000),
        request("Content-Length: 1x", "Expect: 100-continue"),
        b"nonsense\r\n\r\n",
    ],
)
def test_a_misbuilt_request_is_a_bad_request(server: Small, sent: bytes) -> None:
    status, answer = server.answer(sent)
    assert (status, json.loads(answer)["code"]) == (400, 400)


def test_an_answer_that_does_not_reach_the_application_has_the_headers_of_all(server: Small) -> None:
    with server.connect(b"nonsense\r\n\r\n") as connection:
        answer = rest(connection).decode()
    assert all(f"\r\n{name}: {value}\r\n" in answer for name, value in HEADERS.items())


def test_a_head_that_is_too_large_is_refused(server: Small) -> None:
    status, answer = server.answer(b"GET / HTTP/1.1\r\nX: ".ljust(65_536, b"x"))
    assert (status, json.loads(answer)["message"]) == (431, "The head is too large: at most 65,536 bytes.")


def test_a_header_cannot_move_the_application(server: Small) -> None:
    _, answer = server.answer(request("Content-Length: 0", "SCRIPT_NAME: /elsewhere", "Script-Name: /elsewhere"))
    assert json.loads(answer) == {"length": 0, "root": ""}


def test_requests_that_are_sent_at_once_are_answered_in_their_order(server: Small) -> None:
    lengths = [3, 0, 4_000, 1, 2]
    sent = b"".join(head("POST /length", f"Content-Length: {length}") + bytes(length) for length in lengths)
    with server.connect(sent + request("Content-Length: 0")) as connection:
        found = re.findall(rb'"length":\s*(\d+)', rest(connection))
    assert list(map(int, found)) == [*lengths, 0]


def test_a_connection_serves_one_request_after_the_other(server: Small) -> None:
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(LIVEZ)
            answer = b""
            while not answer.endswith(b"\r\n\r\nok"):
                answer += (received := connection.recv(65_536))
                assert received


def test_head_is_answered_without_a_body(server: Small) -> None:
    with server.connect(head("HEAD /livez", "Connection: close")) as connection:
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\nContent-Length: 2\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_server_that_is_told_to_stop_finishes_what_runs_and_takes_nothing_new(small: Callable[..., Small]) -> None:
    server = small()
    with (
        server.connect(HALF_HEAD),
        server.connect(LIVEZ),
        server.connect(head("GET /slow")) as connection,
    ):
        assert server.line() == "slow began"
        server.process.terminate()
        eventually(server.is_refused)
        assert server.process.stdin
        server.process.stdin.write("go on\n")
        server.process.stdin.flush()
        assert rest(connection).endswith(b"done")
        assert server.line() == "stopped"
    assert server.process.wait(20) == 0


@pytest.mark.usefixtures("no_template")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_several_processes_share_one_port_and_one_that_is_killed_comes_back(environ: dict[str, str]) -> None:
    port = free_port()
    process = Process(WEB, environ | {"PORT": str(port), "BACKBEAT_WEB_PROCESSES": "2"}, WEB_READY)

    def servers() -> list[int]:
        family = descendants(process.popen.pid) - {process.popen.pid}
        return [row.pid for row in processes() if row.pid in family and "guard.py" not in row.command]

    try:
        process.wait_until_ready()
        first, second = servers()
        for ready, killed in enumerate((first, second), 2):
            os.kill(killed, signal.SIGKILL)
            eventually(lambda: killed not in servers())  # noqa: B023
            assert urllib3.request("GET", f"http://127.0.0.1:{port}/livez", timeout=20).status == 200
            eventually(lambda: len(servers()) == 2)
            eventually(lambda: process.output.count("web process ready") == ready)  # noqa: B023
        assert process.stop() == 0
    finally:
        process.kill()
