"""Finds messages that stand in no list, and puts them back: a list can be lost while its messages stay.

A queue's messages are in a hash. Its list, or the ack set of the worker that pulled it, names each of them. What
neither names, no worker would ever get, and publishing it again does nothing, as the hash still has it.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import redis

from scheduler_app.broker.connection import batches, script

SLICE = 100_000  # messages that are looked for at once: some ten megabytes
PAGE = 5_000  # ids that one look into a list brings: Redis serves nobody else meanwhile


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
        """Puts back what no list has; returns how many messages. Cheap when nothing is missing."""
        return sum(self._restore(queue) for queue, missing in self.missing().items() if missing)

    def missing(self) -> dict[str, int]:
        """How many of each queue's messages stand in no list. Exact: nothing moves while Redis counts."""
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
        """The ids of all messages, in slices, so that a million of them are no burden."""
        ids: set[bytes] = set()
        cursor = None
        while cursor != b"0":
            cursor, page = self._ids(keys=[self.namespace], args=[queue, cursor or 0])
            ids.update(page)
            if len(ids) >= SLICE or cursor == b"0":
                yield ids
                ids = set()

    def _unlisted(self, queue: str, ids: set[bytes]) -> set[bytes]:
        """Which of them stand in no list. It looks twice: what moves during the first look, the second one sees."""
        for _ in range(2):
            for page in self._waiting(queue):
                ids.difference_update(page)
            ids.difference_update(self._pulled(queue))
        return ids

    def _waiting(self, queue: str) -> Iterator[list[Any]]:
        # From the tail to the head: what workers take from the head meanwhile moves nothing that is yet to be read.
        last = -1
        while page := self.client.lrange(f"{self.namespace}:{queue}", last - PAGE + 1, last):
            yield page
            last -= PAGE

    def _pulled(self, queue: str) -> Iterator[Any]:
        workers = cast(list[bytes], self.client.zrange(f"{self.namespace}:__heartbeats__", 0, -1))
        for worker in workers:
            yield from self.client.smembers(f"{self.namespace}:__acks__.{worker.decode()}.{queue}")


def _age(message_id: bytes) -> tuple[int, bytes]:
    return len(message_id), message_id  # the ids of tasks grow
