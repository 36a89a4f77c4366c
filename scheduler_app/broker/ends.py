"""Tells of the ends of tasks for which somebody waits. Nothing depends on it: who waits also looks at the table."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, suppress

import redis

from scheduler_app.broker.connection import batches, script
from scheduler_app.broker.listener import Listener

RECENT = 2.0  # seconds for which a worker knows what has ended: so late it may hear that somebody waits


class Ends:
    """Any number of processes ask, and any number tell."""

    def __init__(
        self, client: redis.Redis, namespace: str, in_turn: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.in_turn = in_turn  # wraps one round trip
        self._ask, self._tell = script(client, "ask"), script(client, "tell")

    def ask(self, task_ids: Iterable[int], *, seconds: int) -> None:
        """For so many seconds the ends of these tasks are to be told. Raises RedisError."""
        for batch in batches(task_ids):
            with self.in_turn():
                self._ask(keys=[self.namespace], args=[seconds, *batch])

    def tell(self, task_ids: Collection[int]) -> None:
        """To be called after the commit by which these tasks ended. Raises nothing while Redis is away."""
        with suppress(redis.RedisError):
            for batch in batches(task_ids):
                with self.in_turn():
                    self._tell(keys=[self.namespace], args=batch)

    def listener(
        self,
        *,
        on_end: Callable[[list[int]], None],
        on_connect: Callable[[], None],
        on_tick: Callable[[], None],
    ) -> Listener:
        """Hears of the ends that were asked for."""

        def hear(message: bytes) -> None:
            on_end(_numbers(message))

        channel = f"{self.namespace}:__ended__"
        return Listener(self.client, channel, name="ends", on_connect=on_connect, on_message=hear, on_tick=on_tick)


class WorkersEnds(Ends):
    """Of a worker process, which knows who waits for what: an end for which nobody waits costs no round trip.

    A worker hears that somebody waits a moment later than Redis. What has ended meanwhile is told then.
    """

    def __init__(
        self, client: redis.Redis, namespace: str, in_turn: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__(client, namespace, in_turn)
        self._asked: dict[int, float] = {}  # by task: until when somebody waits for its end
        self._recent: deque[tuple[float, Collection[int]]] = deque()  # what has ended, and when
        self._read = script(client, "asked")

    def start(self) -> Listener:
        """Begins to listen for those who ask."""

        def hear(message: bytes) -> None:
            seconds, *task_ids = _numbers(message)
            self._note(dict.fromkeys(task_ids, seconds))

        channel = f"{self.namespace}:__asked__"
        listener = Listener(self.client, channel, name="asked", on_connect=self._read_all, on_message=hear)
        listener.start()
        return listener

    def tell(self, task_ids: Collection[int]) -> None:
        now = time.monotonic()
        self._recent.append((now, task_ids))
        with suppress(IndexError):  # another thread may have emptied it
            while self._recent[0][0] < now - RECENT:
                self._recent.popleft()
        if self._asked:
            self._publish(task_ids)

    def _read_all(self) -> None:
        with self.in_turn():
            found = list(map(int, self._read(keys=[self.namespace])))
        self._note(dict(zip(found[::2], found[1::2], strict=True)))

    def _note(self, asked: dict[int, int]) -> None:
        now = time.monotonic()
        for task_id in [task_id for task_id, until in self._asked.copy().items() if until < now]:
            self._asked.pop(task_id, None)
        for task_id, seconds in asked.items():
            self._asked[task_id] = max(now + seconds, self._asked.get(task_id, 0.0))
        # In this order: what ends from now on finds that it is asked for.
        self._publish([task_id for _, task_ids in self._recent.copy() for task_id in task_ids if task_id in asked])

    def _publish(self, task_ids: Iterable[int]) -> None:
        """Redis may have lost what it was asked, so all that this process knows to be waited for is told."""
        ended = [task_id for task_id in task_ids if task_id in self._asked]
        if ended:
            with suppress(redis.RedisError), self.in_turn():
                self.client.publish(f"{self.namespace}:__ended__", " ".join(map(str, ended)))


def _numbers(message: bytes) -> list[int]:
    return [int(number) for number in message.split()]
