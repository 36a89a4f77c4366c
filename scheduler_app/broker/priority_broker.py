"""Dramatiq's Redis broker with one queue per priority, publishing in bulk and pulling by weight."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar, NamedTuple, cast

import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import current_millis

from scheduler_app.broker.breaker import Breaker
from scheduler_app.broker.connection import batches, connect, flat, script
from scheduler_app.broker.delivery import Delivery, queue_name
from scheduler_app.broker.ends import Ends
from scheduler_app.broker.limits import Limits
from scheduler_app.broker.lists import Lists
from scheduler_app.broker.marker import Marker
from scheduler_app.broker.pauses import Ask, Pauses
from scheduler_app.config import PRIORITIES

DEFAULT_WEIGHTS = tuple(2.0 ** (9 - priority) for priority in PRIORITIES)
MAX_AHEAD = 10_000  # messages of a queue that a search for one looks at: it takes Redis less than a millisecond
HEARTBEAT_TIMEOUT = 15_000  # milliseconds without a heartbeat after which a worker's messages are given back
LONG = 5.0  # seconds that a worker or a duty of the scheduler waits for an answer
SHORT = 1.0  # seconds that a request waits
PROBE = 0.5  # seconds that a probe waits


class Place(NamedTuple):
    """How many messages wait before a given one."""

    ahead: int  # in its queue, among those of its group if it has one; MAX_AHEAD at most
    more_urgent: int  # in more urgent queues
    limit: str | None = None  # the name of the one that it waits for
    seconds: float | None = None  # until there is room by its rate


class Pulled(NamedTuple):
    """What a pull brings."""

    messages: list[tuple[str, str]]  # (queue, Redis id)
    limited: int = 0  # how many of them, the first ones, have slots in limits
    epoch: int = 0  # while the table has this epoch, these may be claimed
    wait: float | None = None  # seconds until there will be more, if it is known


class PriorityBroker(RedisBroker):
    """Its keys are Dramatiq's own, so that other Dramatiq tools work on them. Every method may raise RedisError.

    It uses no middleware of Dramatiq, because retries, time limits and delays live in the task table. It uses none of
    Dramatiq's commands: they depend on the caller's clock, and Redis refuses them while it is full.
    """

    ends_class: ClassVar[type[Ends]] = Ends

    def __init__(
        self,
        url: str,
        *,
        weights: Sequence[float] = DEFAULT_WEIGHTS,
        heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
        ask_paused: Ask = set,
        ask_limits: Callable[[], None] | None = None,
    ) -> None:
        client = connect(url, retries=1, timeout=LONG)
        super().__init__(client=client, middleware=[], heartbeat_timeout=heartbeat_timeout)  # type: ignore[no-untyped-call]
        self.weights = {queue_name(priority): weight for priority, weight in enumerate(weights)}
        self.marker = Marker(self.client, self.namespace)
        self.lists = Lists(self.client, self.namespace, self.weights, self.broker_id)
        self._next_beat = 0.0
        self._breaker = Breaker()
        self._quick = connect(url, retries=1, timeout=SHORT)  # only inside the breaker
        self._probe = connect(url, retries=1, timeout=PROBE)
        self._publish, self._discard, self._place, self._heads = (
            script(self._quick, name) for name in ("publish", "discard", "place", "heads")
        )
        self.pauses = Pauses(self._quick, self.namespace, ask_paused, self._breaker.call)
        self.limits = Limits(self._quick, self.namespace, self.weights, ask_limits, self._breaker.call)
        self.ends = self.ends_class(self._quick, self.namespace, self._breaker.call)
        self._holds, self._requeue, self._nack, self._maintain = (
            script(self.client, name) for name in ("holds", "requeue", "nack", "maintain")
        )
        # Repeating a pull whose reply was lost would forget the messages in that reply.
        self._pull = script(connect(url, retries=0, timeout=LONG), "pull")
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

    def publish(self, items: Iterable[Delivery], *, first: bool = False) -> int:
        """Sends the items, a thousand per round trip. Returns how many were new: what Redis still has stays as it is.

        first: they come before all that waits at their priority.

        Raises NotAsked while earlier calls get no answer from Redis, and OutOfMemoryError while it is full.
        """
        timestamp = current_millis()
        parts = ((queue_name(item.priority), item.message_id, item.encode(timestamp)) for item in items)
        return sum(self._publish_batch(batch, "lpush" if first else "rpush") for batch in batches(parts))

    def _publish_batch(self, parts: list[tuple[str, str, str]], command: str) -> int:
        with self._breaker.call():
            return int(self._publish(keys=[self.namespace], args=[command, *flat(parts)]))

    def pull(
        self, queues: Collection[str], count: int, *, idle: int | None = None, done: Iterable[tuple[str, str]] = ()
    ) -> Pulled:
        """At most `count` messages from these queues, chosen by weight and by turn.

        Paused queues give none. Where a limit has little room, it brings no more than begin at once in `idle` threads,
        `count` if that is not given. The same round trip acknowledges the messages in `done`, as (queue, Redis id).
        """
        weights = flat((name, str(self.weights[name])) for name in queues)
        numbers = (count, count if idle is None else idle, len(queues))
        arguments = [self.broker_id, *map(str, numbers), *weights]
        pulled = self._pull(keys=[self.namespace], args=[*arguments, *flat(done)])
        if pulled is None and self._renew_copies():
            pulled = self._pull(keys=[self.namespace], args=arguments)
        wait, epoch, limited, *rest = pulled or (-1, 0, 0)
        parts: Iterator[bytes] = iter(rest)
        messages = [(name.decode(), message_id.decode()) for name, message_id in zip(parts, parts, strict=True)]
        return Pulled(messages, limited, epoch, wait / 1000 if wait >= 0 else None)

    def _renew_copies(self) -> bool:
        """Of what the table says, if Redis has lost them. False if they are not to be had."""
        has_pauses = self.client.exists(f"{self.namespace}:__paused__")
        return bool(has_pauses or self.pauses.renew()) and self.limits.renew()

    def discard(self, priority: int, ids: Iterable[str]) -> int:
        """Deletes waiting messages whose tasks wait no longer, if they are near the head. Returns how many."""
        deleted = 0
        for batch in batches(ids):
            with self._breaker.call():
                deleted += int(self._discard(keys=[self.namespace], args=[queue_name(priority), MAX_AHEAD, *batch]))
        return deleted

    def requeue(self, queue_name: str, *ids: str) -> None:
        """Gives back what this process has pulled."""
        self._requeue(keys=[self.namespace], args=[self.broker_id, queue_name, *ids])

    def nack(self, queue_name: str, message_id: str) -> None:
        """Sends what this process has pulled to the dead letters."""
        self._nack(keys=[self.namespace], args=[self.broker_id, queue_name, message_id])

    def pulled(self, queue_name: str) -> set[str]:
        """Ids of the messages that, according to Redis, this process has pulled and not settled."""
        key = f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"
        return {cast(bytes, message_id).decode() for message_id in self.client.smembers(key)}

    def holds(self, ids: Mapping[int, Iterable[str]]) -> set[str]:
        """Which of these message ids, given by priority, are still in Redis: waiting, or pulled by a worker."""
        found: set[str] = set()
        for batch in batches((queue_name(priority), id_) for priority, some in ids.items() for id_ in some):
            held = self._holds(keys=[self.namespace], args=flat(batch))
            found.update(id_ for (_, id_), there in zip(batch, held, strict=True) if there)
        return found

    @contextmanager
    def asked(self) -> Iterator[redis.Redis]:
        """A client for what a request asks beside; raises NotAsked while Redis does not answer others."""
        with self._breaker.call():
            yield self._quick

    def waiting(self) -> list[int]:
        """How many messages wait at each priority."""
        with self._breaker.call(), self._quick.pipeline(transaction=False) as pipeline:
            for name in self.weights:
                pipeline.llen(f"{self.namespace}:{name}")
                pipeline.hlen(f"{self.namespace}:{name}.heads")
                pipeline.hget(f"{self.namespace}:{name}.heads", "")
            counts = iter(pipeline.execute())
        # As laned in lanes.lua counts: a field for each lane, and one that says how many its list has.
        return [
            plain + lanes + (max(0, int(listed)) - 1 if listed else 0)
            for plain, lanes, listed in zip(counts, counts, counts, strict=True)
        ]

    def place(self, priority: int, message_id: str) -> Place | None:
        """The message's place in line; None when Redis does not have it. Raises RedisError within about a second."""
        queues = [*self.weights][: priority + 1]
        with self._breaker.call():
            place = self._place(keys=[self.namespace], args=[MAX_AHEAD, message_id, *queues])
        if place is None:
            return None
        ahead, length, more_urgent, limit, wait = place
        if ahead is None:  # it is far back in the queue, or a worker has pulled it already
            ahead = MAX_AHEAD if length > MAX_AHEAD else 0
        return Place(ahead, more_urgent, limit.decode() or None, wait / 1000 if wait else None)

    def heads(self) -> list[int]:
        """The ids of the tasks that wait longest, by priority and by group; of some groups only, if there are many."""
        with self._breaker.call():
            found = self._heads(keys=[self.namespace], args=[*self.weights])
        return [int(head.partition(b".")[0]) for heads in found for head in heads]

    def ping(self) -> None:
        """Waits for at most PROBE seconds."""
        self._probe.ping()

    def status(self) -> str:
        """ "ok", or why Redis refuses writes. Waits for at most PROBE seconds."""
        try:
            self._probe.setrange(f"{self.namespace}:__probe__", 0, "")  # counts as a write, but changes nothing
        except redis.OutOfMemoryError:
            return "is full: it refuses writes; raise its maxmemory, or delete what fills it"
        except redis.ResponseError as error:
            return f"refuses writes: {error}"
        return "ok"

    def beat(self) -> None:
        """Shows that this worker lives. Call it about every second. Raises nothing."""
        now = time.monotonic()
        if now < self._next_beat:
            return
        with suppress(redis.RedisError):  # it is tried again with the next call
            self.pull([], 0)
            self._next_beat = now + self.heartbeat_timeout / 3000

    def maintain(self) -> bool:
        """Gives back what dead workers had pulled. Call it every five seconds. Returns False when it skipped a round.

        After a freeze of Redis or of the scheduler every heartbeat looks old. Then it skips a round, in which the
        workers renew them.
        """
        arguments = [self.heartbeat_timeout, self.dead_message_ttl, *self.weights]
        return bool(self._maintain(keys=[self.namespace], args=arguments))

    def _should_do_maintenance(self, command: str) -> int:
        return 0  # Dramatiq would do maintenance at random, as part of any command
