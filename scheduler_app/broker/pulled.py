"""The messages that a worker process has pulled and that Redis does not yet know to be settled."""

from collections import defaultdict, deque
from collections.abc import Iterable
from contextlib import suppress

Message = tuple[str, str]  # queue and Redis id


class Pulled:
    """The books of one worker process. Several threads may call its methods at once.

    A message is held from its pull until it is given back, or until Redis has been told that it is done. The next pull
    acknowledges finished messages. Until then Redis counts a finished message as running. That does no harm: the
    database already says that the task is done, so a worker that got the message again would find it done.
    """

    def __init__(self) -> None:
        self.in_doubt = False  # a reply was lost: Redis may count messages as ours that no thread here has
        self._held: defaultdict[str, set[str]] = defaultdict(set)
        self._done: deque[Message] = deque()

    def hold(self, queue_name: str, message_id: str) -> None:
        self._held[queue_name].add(message_id)

    def release(self, queue_name: str, ids: Iterable[str]) -> None:
        """These messages are no longer held: they go back to their queue, or to the dead letters."""
        self._held[queue_name].difference_update(ids)

    def held(self, queue_name: str) -> set[str]:
        return self._held[queue_name]

    def finish(self, queue_name: str, message_id: str) -> None:
        """The message is done. The next pull acknowledges it."""
        self._done.append((queue_name, message_id))

    def any_done(self) -> bool:
        return bool(self._done)

    def take_done(self, limit: int) -> list[Message]:
        """At most `limit` messages to acknowledge. Give them to `return_done` if Redis does not answer."""
        taken: list[Message] = []
        with suppress(IndexError):  # empty, or emptied by another thread
            while len(taken) < limit:
                taken.append(self._done.popleft())
        return taken

    def return_done(self, messages: Iterable[Message]) -> None:
        self._done.extend(messages)  # acknowledging twice does no harm

    def acknowledged(self, messages: Iterable[Message]) -> None:
        for queue_name, message_id in messages:
            self._held[queue_name].discard(message_id)
