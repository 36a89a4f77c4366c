"""Finds messages that are in no list, and puts them back. A list can be lost while its messages stay.

A hash has the messages of a queue. The queue's list names each message that waits, and the ack set of a worker names
each message that it has pulled. No worker would ever get a message that neither names. Publishing it again would do
nothing, because the hash still has it.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import redis

from scheduler_app.broker.connection import batches, script

SLICE = 100_000  # messages that are searched for at once: some ten megabytes
PAGE = 5_000  # ids per read of a list: Redis serves nobody else during a read


class Lists:
    """The lists of these queues. Every method may raise RedisError."""

    def __init__(self, client: redis.Redis, namespace: str, queues: Iterable[str], process: str) -> None:
        self.client = client
        self.namespace = namespace
        self.queues = queues
        self.process = process  # its id: only one process at a time puts messages back
        self._relist = script(client, "relist")
        self._ids = script(client, "ids")

    def restore(self) -> int:
        """Puts back the messages that no list has, and returns how many. Cheap when nothing is missing."""
        return sum(self._restore(queue) for queue, missing in self.missing().items() if missing)

    def missing(self) -> dict[str, int]:
        """How many messages of each queue are in no list. Exact, because nothing moves while Redis counts."""
        with self.client.pipeline(transaction=False) as pipeline:
            for queue in self.queues:
                self._relist(keys=[self.namespace], args=[self.process, queue], client=pipeline)
            return {queue: missing for queue, (_, missing) in zip(self.queues, pipeline.execute(), strict=True)}

    def _restore(self, queue: str) -> int:
        restored = 0
        for ids in self._messages(queue):
            for batch in batches(sorted(self._unlisted(queue, ids), key=_age)):
                put, missing = self._relist(keys=[self.namespace], args=[self.process, queue, *batch])
                restored += int(put)
                if not missing:
                    return restored
        return restored

    def _messages(self, queue: str) -> Iterator[set[bytes]]:
        """The ids of all messages, in slices, so that a million of them do not fill the memory."""
        ids: set[bytes] = set()
        cursor = None
        while cursor != b"0":
            cursor, page = self._ids(keys=[self.namespace], args=[queue, cursor or 0])
            ids.update(page)
            if len(ids) >= SLICE or cursor == b"0":
                yield ids
                ids = set()

    def _unlisted(self, queue: str, ids: set[bytes]) -> set[bytes]:
        """Which of these ids are in no list. It looks twice: the second look sees what moved during the first.

        What moves twice can still be missed; relist.lua looks once more at the ends of its list.
        """
        for _ in range(2):
            for page in self._waiting(queue):
                ids.difference_update(page)
            ids.difference_update(self._pulled(queue))
        return ids

    def _waiting(self, queue: str) -> Iterator[list[Any]]:
        key = f"{self.namespace}:{queue}"
        yield from self._pages(key)
        for lane, value in self.client.hscan_iter(f"{key}.heads", count=PAGE):
            head, more, _ = value.partition(b"+")  # see lanes.lua; the empty lane has a count in its place
            yield [head]
            if more:
                yield from self._pages(f"{key}.lane.{lane.decode()}")

    def _pages(self, name: str) -> Iterator[list[Any]]:
        # From the tail to the head: workers take from the head meanwhile, which does not move what is still unread.
        last = -1
        while page := self.client.lrange(name, last - PAGE + 1, last):
            yield page
            last -= PAGE

    def _pulled(self, queue: str) -> Iterator[Any]:
        workers = cast(list[bytes], self.client.zrange(f"{self.namespace}:__heartbeats__", 0, -1))
        for worker in workers:
            yield from self.client.smembers(f"{self.namespace}:__acks__.{worker.decode()}.{queue}")


def _age(message_id: bytes) -> tuple[int, bytes]:
    return len(message_id), message_id  # the ids of tasks grow
