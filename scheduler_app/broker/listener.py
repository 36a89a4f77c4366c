"""Listens to one of Redis' channels, for as long as the process lives."""

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress

import redis

log = logging.getLogger(__name__)

TICK = 1.0  # seconds


class Listener(threading.Thread):
    """Listens until it is stopped, and outlives any outage. It calls

    on_connect   when it has subscribed, at first and after each lost connection: it may have missed messages before,
    on_message   with each message,
    on_tick      about every second, and after each of the others; also while Redis is away.
    """

    def __init__(
        self,
        client: redis.Redis,
        channel: str,
        *,
        name: str,
        on_connect: Callable[[], None],
        on_message: Callable[[bytes], None],
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.client = client
        self.channel = channel
        self.on_connect = on_connect
        self.on_message = on_message
        self.on_tick = on_tick
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                log.debug("%s: no messages until Redis is back: %s", self.name, error)
            except Exception:
                log.exception("%s: the listener starts again", self.name)
            self.stopped.wait(random.uniform(0.5, 1) * TICK)
            with suppress(redis.RedisError):
                self.on_tick()

    def _listen(self) -> None:
        with self.client.pubsub() as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(self.channel)
            while not self.stopped.is_set():
                message = subscription.get_message(timeout=TICK)
                if message and message["type"] == "subscribe":
                    self.on_connect()
                elif message:
                    self.on_message(message["data"])
                self.on_tick()
