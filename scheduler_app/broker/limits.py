"""Which operations are limited, and who has a slot. The table and the code know the limits; Redis counts the slots."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import redis

from scheduler_app.broker.connection import flat, script

Running = tuple[str, str, str]  # message id, operation, group or ""
MOST = 10_000  # keys whose slots are counted for people


class State(NamedTuple):
    """What Redis says that it goes by."""

    epoch: int
    digest: str  # of the limits


class Limits:
    """The copy in Redis, and the slots. Every method may raise RedisError."""

    def __init__(
        self, client: redis.Redis, namespace: str, queues: Iterable[str], ask: Callable[[], None] | None
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.queues = queues
        self._ask = ask
        self._open, self._sweep, self._free = (script(client, name) for name in ("limits", "sweep", "free"))

    def state(self) -> State | None:
        """None if Redis has lost it, or was restarted since: then nobody has it count anew who runs."""
        key, fields = f"{self.namespace}:__limits_state__", ("run", "epoch", "digest")
        run, epoch, digest = (str(value or b"", "utf-8") for value in cast(list[bytes], self.client.hmget(key, fields)))
        known = self.client.hexists(f"{self.namespace}:__limits__", "")
        server: dict[str, str] = self.client.info("server")
        if not known or run != server["run_id"]:
            return None
        return State(int(epoch), digest)

    def open(self, state: State, limits: Mapping[str, Sequence[Mapping[str, Any]]], running: Iterable[Running]) -> bool:
        """Makes these limits count, by operation, with the slots of what runs. False if Redis has a later epoch."""
        texts = flat((operation, json.dumps(some)) for operation, some in limits.items())
        arguments: list[str | int] = [state.epoch, state.digest, len(limits), *texts, *flat(running)]
        return bool(self._open(keys=[self.namespace], args=arguments))

    def renew(self) -> bool:
        """After a loss. False if the limits are not to be had."""
        if self.state() is None:
            if self._ask is None:
                return self.open(State(0, ""), {}, ())
            self._ask()
        return self.state() is not None

    def sweep(self) -> tuple[int, list[str]]:
        """Wakes what waits beside free slots. Returns how many lanes, and the ids with slots that no worker holds."""
        woken, ids = self._sweep(keys=[self.namespace], args=[*self.queues])
        return woken, [id_.decode() for id_ in ids]

    def free(self, ids: Sequence[str]) -> None:
        if ids:
            self._free(keys=[self.namespace], args=ids)

    def used(self) -> Counter[tuple[str, str]]:
        """How many slots are in use, by name of the limit and group; MOST keys at most."""
        keys = cast(list[bytes], self.client.srandmember(f"{self.namespace}:__used__", MOST))
        with self.client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.scard(f"{self.namespace}:__slots__.{key.decode()}")
            counts = pipeline.execute()
        used: Counter[tuple[str, str]] = Counter()
        for key, count in zip(keys, counts, strict=True):
            name, _, group = key.decode().partition("|")
            used[name, group] = count
        return used
