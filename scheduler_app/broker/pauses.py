"""Which queues are paused. The table knows it; Redis has a copy, which every pull reads."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

import redis

from scheduler_app.broker.connection import script

Ask = Callable[[], Collection[str] | None]


class Pauses:
    """The copy in Redis. Every method may raise RedisError."""

    def __init__(
        self, client: redis.Redis, namespace: str, ask: Ask, in_turn: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.client = client
        self.namespace = namespace
        self._ask = ask  # the paused queues by the table; None when it does not tell
        self._in_turn = in_turn  # wraps one round trip
        self._copy = script(client, "pauses")

    def copy(self, queues: Collection[str]) -> None:
        """Pauses exactly these queues, in all workers."""
        with self._in_turn():
            self._copy(keys=[self.namespace], args=sorted(queues))

    def renew(self) -> bool:
        """Copies what the table says. If the table does not tell, no worker pulls until it does; that returns False."""
        queues = self._ask()
        if queues is not None:
            self.copy(queues)
            return True
        with self._in_turn():
            self.client.delete(f"{self.namespace}:__paused__")
        return False
