"""Listens for published messages, so that an idle worker starts at once."""

from collections.abc import Callable

import redis

from scheduler_app.broker.listener import Listener


class WakeUp(Listener):
    """Beside what every listener calls, it calls

    on_publish   for each wake-up,
    on_pause     when a queue is paused.
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
        def hear(message: bytes) -> None:
            (on_pause if message == b"paused" else on_publish)()

        channel = f"{namespace}:__wake_up__"
        super().__init__(client, channel, name="wake-up", on_connect=on_connect, on_message=hear, on_tick=on_tick)
