"""One HTTP client on one connection, as cheap as Python has it: it shares the machine with what it measures."""

import json
import socket
from http.client import HTTPConnection
from typing import Any

from tests.support.processes import eventually

JSON = {"Content-Type": "application/json"}


class Client:
    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path: str, body: bytes) -> bytes:
        return self._call("POST", path, body)

    def get(self, path: str) -> bytes:
        return self._call("GET", path, None)

    def get_json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def wait_until_served(self, path: str) -> None:
        eventually(lambda: self._answers(path), within=30)

    def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        self.connection.request(method, path, body, JSON)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
        return content

    def _answers(self, path: str) -> bool:
        try:
            self.get(path)
        except ConnectionError:
            self.connection.close()
            return False
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
