"""Which queues are paused. The table knows it; Redis has a copy, which every pull reads."""

from collections.abc import Callable, Set
from contextlib import AbstractContextManager

import redis

from scheduler_app.broker.connection import script

Ask = Callable[[], Set[str] | None]


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

    def copy(self, read: Ask) -> bool:
        """Pauses exactly the queues that `read` names, in all workers; False if it names none because it cannot tell.

        Several processes may copy at once, and the one that read first may write last, as a worker that starts while a
        priority is resumed. So whoever has written reads again: what is written last is then what the table says.
        """
        queues = read()
        while queues is not None:
            with self._in_turn():
                self._copy(keys=[self.namespace], args=sorted(queues))
            written, queues = queues, read()
            if queues == written:
                return True
        return False

    def renew(self) -> bool:
        """Copies what the table says. If the table does not tell, no worker pulls until it does; that returns False."""
        if self.copy(self._ask):
            return True
        with self._in_turn():
            self.client.delete(f"{self.namespace}:__paused__")
        return False
