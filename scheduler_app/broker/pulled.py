"""What a worker process has pulled from Redis and Redis has not heard the end of."""

from collections import defaultdict, deque
from collections.abc import Iterable
from contextlib import suppress

Message = tuple[str, str]  # queue and Redis id


class Pulled:
    """The books of one worker process. Its methods may be called by several threads at once.

    A message is held from its pull until it is given back, or until Redis has heard that it is done. One that is done
    is acknowledged with the next pull. Until then it only looks as if it were still being worked on: that it is done
    stands in the database already, so a worker that got it a second time would find it done.
    """

    def __init__(self) -> None:
        self.in_doubt = False  # a reply was lost: Redis may count messages as ours that no thread here has
        self._held: defaultdict[str, set[str]] = defaultdict(set)
        self._done: deque[Message] = deque()

    def hold(self, queue_name: str, message_id: str) -> None:
        self._held[queue_name].add(message_id)

    def release(self, queue_name: str, ids: Iterable[str]) -> None:
        """They are not held any more: they go back, or to the dead letters."""
        self._held[queue_name].difference_update(ids)

    def held(self, queue_name: str) -> set[str]:
        return self._held[queue_name]

    def finish(self, queue_name: str, message_id: str) -> None:
        """It is done; the next pull acknowledges it."""
        self._done.append((queue_name, message_id))

    def any_done(self) -> bool:
        return bool(self._done)

    def take_done(self, limit: int) -> list[Message]:
        """At most so many that are to be acknowledged. They come back with `return_done` if Redis does not answer."""
        taken: list[Message] = []
        with suppress(IndexError):  # empty, or emptied by another thread
            while len(taken) < limit:
                taken.append(self._done.popleft())
        return taken

    def return_done(self, messages: Iterable[Message]) -> None:
        self._done.extend(messages)  # to acknowledge twice does no harm

    def acknowledged(self, messages: Iterable[Message]) -> None:
        for queue_name, message_id in messages:
            self._held[queue_name].discard(message_id)
