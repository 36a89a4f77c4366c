"""A running Backbeat, as a client of its HTTP API sees it."""

from typing import Any

import urllib3

from tests.support.processes import eventually


class Api:
    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        # Each call has a connection of its own: a kept one may lead to a process that has been killed since.
        self.headers = {"Connection": "close"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def call(self, method: str, path: str, body: object = None) -> Any:
        return urllib3.request(
            method, self.url + path, headers=self.headers, json=body, timeout=20, retries=False
        ).json()

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def finished(self, task_id: int) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            task = self.get(f"/tasks/{task_id}/")
            return task if task["finished_at"] else {}

        return eventually(look)
