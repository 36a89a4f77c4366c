"""A client that posts tasks while the system is harmed, and records which tasks were accepted."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import urllib3

HANG = 20.0  # seconds after which an answer counts as never given


@dataclass(frozen=True)
class Post:
    began: float  # as time.time()
    seconds: float  # until it was answered
    answer: str  # its status, or the error of a post without an answer


class Client:
    """Posts tasks in batches and one by one until it is told to stop. Records which tasks were accepted."""

    def __init__(self, url: str, random_: random.Random, *, pause: float = 0.02, failing: float = 0.03) -> None:
        self.url = url
        self.random = random_
        self.pause = pause  # seconds between two posts, on average
        self.failing = failing  # the share of the tasks whose first attempt fails
        self.limited = 0.2  # the share of those that are limited
        self.accepted: dict[int, float] = {}  # by task: when its 202 arrived
        self.posts: list[Post] = []
        self.http = urllib3.PoolManager(retries=False, timeout=HANG)

    @property
    def answers(self) -> Counter[str]:
        """Statuses and errors."""
        return Counter(post.answer for post in self.posts)

    @property
    def slowest(self) -> float:
        """Seconds."""
        return max((post.seconds for post in self.posts), default=0.0)

    def post(self, *requests: dict[str, Any]) -> list[int]:
        """The tasks that were accepted: all or none."""
        single = len(requests) == 1
        path, body = ("/tasks/", requests[0]) if single else ("/tasks/batch-request/", requests)
        began, clock = time.time(), time.monotonic()
        try:
            answer = self.http.request("POST", self.url + path, json=body)
            said = str(answer.status)
        except urllib3.exceptions.HTTPError as error:
            said = type(error).__name__
        self.posts.append(Post(began, time.monotonic() - clock, said))
        if said != "202":
            return []
        created = [answer.json()] if single else answer.json()["tasks"]
        ids = [task["task_id"] for task in created]
        self.accepted.update(dict.fromkeys(ids, time.time()))
        return ids

    @contextmanager
    def posting(self) -> Iterator[None]:
        stopping = threading.Event()

        def post() -> None:
            while not stopping.wait(self.random.uniform(0, 2 * self.pause)):
                size = self.random.choice((1, 1, 5, 15))
                self.post(*(self._request() for _ in range(size)))

        thread = threading.Thread(target=post)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def _request(self) -> dict[str, Any]:
        priority = self.random.randrange(10)
        chance = self.random.random()
        if chance < self.failing:
            return {"operation": "fault.fail_once", "priority": priority}
        if chance > 1 - self.limited:
            params, group = {"seconds": self.random.uniform(0.003, 0.03)}, f"customer-{self.random.randrange(6)}"
            return {"operation": "fault.limited", "params": params, "priority": priority, "group": group}
        seconds = self.random.uniform(1, 3) if chance < self.failing + 0.02 else self.random.uniform(0.003, 0.05)
        return {"operation": "fault.work", "params": {"seconds": seconds}, "priority": priority}
