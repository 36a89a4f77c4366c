"""One HTTP client on one connection, as cheap as Python has it: it shares the machine with what it measures."""

import json
from http.client import HTTPConnection
from typing import Any

JSON = {"Content-Type": "application/json"}


class Client:
    def __init__(self, port: int, *, key: str = "") -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = JSON | ({"Authorization": f"Bearer {key}"} if key else {})

    def post(self, path: str, body: bytes) -> bytes:
        return self._call("POST", path, body)

    def get(self, path: str) -> bytes:
        return self._call("GET", path, None)

    def get_json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        self.connection.request(method, path, body, self.headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
        return content
