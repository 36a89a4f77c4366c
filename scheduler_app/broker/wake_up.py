"""Listens for published messages, so that an idle worker starts at once."""

import logging
import random
import threading
from collections.abc import Callable

import redis

log = logging.getLogger(__name__)

TICK = 1.0  # seconds


class WakeUp(threading.Thread):
    """Listens until it is stopped, and outlives any outage. It calls

    on_connect   when it has subscribed, at first and after each lost connection: it may have missed wake-ups before,
    on_publish   for each wake-up,
    on_pause     when a queue is paused,
    on_tick      about every second, and after each of the others.
    """

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        *,
        on_connect: Callable[[], None],
        on_publish: Callable[[], None],
        on_pause: Callable[[], None],
        on_tick: Callable[[], None],
    ) -> None:
        super().__init__(name="wake-up", daemon=True)
        self.client = client
        self.channel = f"{namespace}:__wake_up__"
        self.on_connect = on_connect
        self.on_publish = on_publish
        self.on_pause = on_pause
        self.on_tick = on_tick
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                log.debug("no wake-ups until Redis is back: %s", error)
            except Exception:
                log.exception("the wake-up listener starts again")
            self.stopped.wait(random.uniform(0.5, 1) * TICK)

    def _listen(self) -> None:
        with self.client.pubsub() as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(self.channel)
            while not self.stopped.is_set():
                message = subscription.get_message(timeout=TICK)
                if message and message["type"] == "subscribe":
                    self.on_connect()
                elif message and message["data"] == b"paused":
                    self.on_pause()
                elif message:
                    self.on_publish()
                self.on_tick()
