"""Dramatiq's Redis broker with a queue a priority, bulk publishing and pulling by weight."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import current_millis
from dramatiq.errors import ActorNotFound
from redis.backoff import NoBackoff
from redis.retry import Retry

from scheduler_app.broker.delivery import Delivery, queue_name
from scheduler_app.broker.marker import Marker
from scheduler_app.config import PRIORITIES

T = TypeVar("T")

ANY_OPERATION = "*"  # name of the actor, if one is declared, that gets what no other actor is declared for
DEFAULT_WEIGHTS = tuple(2.0 ** (9 - priority) for priority in PRIORITIES)
BATCH = 1000  # messages or ids that one round trip carries
HEARTBEAT_TIMEOUT = 15_000  # milliseconds without a heartbeat after which a worker's messages are given back


class PriorityBroker(RedisBroker):
    """Its keys are Dramatiq's own, so that other Dramatiq tools work on them. Every method may raise RedisError.

    No middleware of Dramatiq's is used: retries, time limits and delays live in the task table.
    """

    def __init__(
        self,
        url: str,
        *,
        weights: Sequence[float] = DEFAULT_WEIGHTS,
        heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
    ) -> None:
        client = _client(url, retries=1)
        super().__init__(client=client, middleware=[], heartbeat_timeout=heartbeat_timeout)  # type: ignore[no-untyped-call]
        self.weights = {queue_name(priority): weight for priority, weight in enumerate(weights)}
        self._next_beat = 0.0
        self._maintained_at = 0.0
        self.marker = Marker(self.client, self.namespace)
        self._publish = self.client.register_script(_source("publish"))
        self._holds = self.client.register_script(_source("holds"))
        # Repeating a pull whose reply was lost would forget the messages in that reply.
        self._pull = _client(url, retries=0).register_script(_source("pull"))
        for name in self.weights:
            self.declare_queue(name)

    def declare_queue(self, queue_name: str) -> None:
        """Declares no delay queue beside it. Raises ValueError for a queue that no worker would pull from."""
        if queue_name not in self.weights:
            raise ValueError(f"queue {queue_name!r}: the queues are {', '.join(self.weights)}")
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_actor(self, actor_name: str) -> "dramatiq.Actor[Any, Any]":
        """An operation that this worker does not know goes to the actor ANY_OPERATION, which can say so in its task.

        Without such an actor it would end in Dramatiq's dead letters, and the task would wait for ever.
        """
        try:
            return super().get_actor(actor_name)
        except ActorNotFound:
            if ANY_OPERATION not in self.actors:
                raise
            return super().get_actor(ANY_OPERATION)

    def publish(self, items: Iterable[Delivery]) -> int:
        """Sends them, a thousand a round trip; returns how many were new. What is still in Redis is not sent again."""
        timestamp = current_millis()
        parts = ((queue_name(item.priority), item.message_id, item.encode(timestamp)) for item in items)
        return sum(self._publish(keys=[self.namespace], args=_flat(batch)) for batch in _batches(parts))

    def pull(
        self, queues: Collection[str], count: int, *, done: Iterable[tuple[str, str]] = ()
    ) -> list[tuple[str, str, bytes]]:
        """At most so many messages out of these queues, by weight: queue, Redis id and message of each.

        In the same round trip it acknowledges what is done: queue and Redis id of each.
        """
        weights = _flat((name, str(self.weights[name])) for name in queues)
        arguments = [str(current_millis()), self.broker_id, str(count), str(len(queues)), *weights, *_flat(done)]
        parts = iter(self._pull(keys=[self.namespace], args=arguments))
        return [
            (name.decode(), message_id.decode(), data)
            for name, message_id, data in zip(parts, parts, parts, strict=True)
        ]

    def pulled(self, queue_name: str) -> set[str]:
        """Ids of the messages that this process pulled and has not settled, as Redis has it."""
        key = f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"
        return {cast(bytes, message_id).decode() for message_id in self.client.smembers(key)}

    def holds(self, ids: Mapping[int, Iterable[str]]) -> set[str]:
        """Which of these message ids, given by priority, are still in Redis: waiting, or pulled by a worker."""
        found: set[str] = set()
        for batch in _batches((queue_name(priority), id_) for priority, some in ids.items() for id_ in some):
            held = self._holds(keys=[self.namespace], args=_flat(batch))
            found.update(id_ for (_, id_), there in zip(batch, held, strict=True) if there)
        return found

    def waiting(self) -> list[int]:
        """How many messages wait at each priority."""
        with self.client.pipeline(transaction=False) as pipeline:
            for name in self.weights:
                pipeline.llen(f"{self.namespace}:{name}")
            return pipeline.execute()

    def heads(self) -> list[int | None]:
        """The id of the task that waits longest at each priority."""
        with self.client.pipeline(transaction=False) as pipeline:
            for name in self.weights:
                pipeline.lindex(f"{self.namespace}:{name}", 0)
            return [int(head.partition(b".")[0]) if head else None for head in pipeline.execute()]

    def ping(self) -> None:
        self.client.ping()

    def beat(self) -> None:
        """Keeps this worker from being taken for dead: to be called every second or so. Raises nothing."""
        now = time.monotonic()
        if now < self._next_beat:
            return
        with suppress(redis.RedisError):  # it is tried again with the next call
            self.client.zadd(f"{self.namespace}:__heartbeats__", {self.broker_id: current_millis()})
            self._next_beat = now + self.heartbeat_timeout / 3000

    def maintain(self) -> bool:
        """Gives back what dead workers had pulled: to be called every five seconds. False when it skipped a round.

        When Redis, or this process, has stood still, every heartbeat looks old: the workers get a round to renew them.
        """
        self.ping()
        previous, self._maintained_at = self._maintained_at, time.monotonic()
        if self._maintained_at - previous > self.heartbeat_timeout / 2000:
            return False
        for name in self.weights:
            self.do_maintain(name)
        return True

    def _should_do_maintenance(self, command: str) -> int:
        # Dramatiq does it by chance, as part of any command. Here only of one that does nothing else.
        return int(command == "maintain")


def _client(url: str, *, retries: int) -> redis.Redis:
    # redis-py's own defaults would wait for minutes, and a web request with them. A timeout is never tried again.
    retry = Retry(NoBackoff(), retries, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=5, retry=retry)


def _source(script: str) -> bytes:
    return Path(__file__).with_name(f"{script}.lua").read_bytes()


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _flat(rows: Iterable[Iterable[T]]) -> list[T]:
    return [value for row in rows for value in row]
