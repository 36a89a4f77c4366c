"""The messages that a worker process has pulled, each until Redis knows that it is settled.

pulled ─▶ claimed ─▶ begun ─▶ ended ─▶ recorded ─▶ acknowledged
"""

from collections import deque
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from scheduler_app.broker import Message
from scheduler_app.services.attempts import Attempt

T = TypeVar("T")


class Claimed(NamedTuple):
    """A message whose task this process has claimed."""

    message: Message
    attempt: Attempt


class Ended(NamedTuple):
    """An attempt that has succeeded, which the table does not know yet. Its times are of the monotonic clock."""

    message: Message
    attempt: Attempt
    result: str  # JSON
    progress: str | None  # JSON
    began: float
    ended: float


class Ledger:
    """One per worker process. Several threads may call its methods at once.

    A message is held from its pull until it goes back to its queue, or until Redis has been told that it is settled.
    The next pull tells that. Until then Redis counts a settled message as running. That does no harm: the table already
    says that the task has moved on, so a worker that got the message again would find nothing to do.
    """

    def __init__(self) -> None:
        self.frees_slots = False  # among the settled messages are some that have slots in limits
        self.in_doubt = False  # a reply was lost: Redis may count messages as ours that are not held
        self._held: dict[tuple[int, int], Message] = {}
        self._ended: deque[Ended] = deque()
        self._settled: deque[Message] = deque()

    def hold(self, messages: Iterable[Message]) -> list[Message]:
        """Returns those that were not held before: after a silence, Redis may give what is already here once more."""
        return [message for message in messages if self._held.setdefault(message.claim, message) is message]

    def release(self, messages: Iterable[Message]) -> None:
        """They are no longer held: they go back to their queue."""
        for message in messages:
            self._held.pop(message.claim, None)

    def held(self, queue: str) -> set[str]:
        """The ids of the messages of a queue."""
        return {message.message_id for message in self._held.copy().values() if message.queue == queue}

    def attempts(self) -> set[tuple[int, int]]:
        """Task and claims of each attempt that is here, or is about to be."""
        return {*self._held.copy()}

    def end(self, ended: Ended) -> None:
        self._ended.append(ended)

    def oldest_end(self) -> float | None:
        """When the attempt ended whose success has waited longest to be recorded."""
        with suppress(IndexError):
            return self._ended[0].ended
        return None

    def take_ended(self, limit: int) -> list[Ended]:
        """Those that have waited longest. Give them to `return_ended` if the database does not take them."""
        return _take(self._ended, limit)

    def return_ended(self, ended: Collection[Ended]) -> None:
        self._ended.extendleft(reversed([*ended]))

    def settle(self, messages: Iterable[Message]) -> None:
        """All is done about these messages. The next pull acknowledges them, which frees their slots."""
        for message in messages:
            self._settled.append(message)
            if message.epoch:
                self.frees_slots = True

    def any_settled(self) -> bool:
        return bool(self._settled)

    def take_settled(self, limit: int) -> list[Message]:
        """At most `limit` messages to acknowledge. Give them to `return_settled` if Redis does not answer."""
        self.frees_slots = False
        return _take(self._settled, limit)

    def return_settled(self, messages: Iterable[Message]) -> None:
        self._settled.extend(messages)  # acknowledging twice does no harm


def _take(queue: deque[T], limit: int) -> list[T]:
    taken: list[T] = []
    with suppress(IndexError):  # empty, or emptied by another thread
        while len(taken) < limit:
            taken.append(queue.popleft())
    return taken
