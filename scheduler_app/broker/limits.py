"""Which operations are limited, and who has a slot. The table and the code know the limits; Redis counts the slots."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
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
        self,
        client: redis.Redis,
        namespace: str,
        queues: Iterable[str],
        ask: Callable[[], None] | None,
        in_turn: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.queues = queues
        self.in_turn = in_turn  # wraps one round trip
        self._ask = ask  # renews the copy from the table; None: there are no limits
        self._open, self._sweep, self._free, self._refund = (
            script(client, name) for name in ("limits", "sweep", "free", "refund")
        )

    def state(self) -> State | None:
        """None if Redis has lost it, or was restarted since: then nobody has it count anew who runs."""
        key, fields = f"{self.namespace}:__limits_state__", ("run", "epoch", "digest")
        with self.in_turn(), self.client.pipeline(transaction=False) as pipeline:
            pipeline.hmget(key, fields)
            pipeline.hexists(f"{self.namespace}:__limits__", "")
            pipeline.info("server")
            values, known, server = pipeline.execute()
        run, epoch, digest = (str(value or b"", "utf-8") for value in values)
        if not known or run != server["run_id"]:
            return None
        return State(int(epoch), digest)

    def open(self, state: State, limits: Mapping[str, Sequence[Mapping[str, Any]]], running: Iterable[Running]) -> bool:
        """Makes these limits count, by operation, with the slots of what runs. False if Redis has a later epoch."""
        texts = flat((operation, json.dumps(some)) for operation, some in limits.items())
        arguments: list[str | int] = [state.epoch, state.digest, len(limits), *texts, *flat(running)]
        with self.in_turn():
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
        with self.in_turn():
            woken, ids = self._sweep(keys=[self.namespace], args=[*self.queues])
        return woken, [id_.decode() for id_ in ids]

    def free(self, ids: Sequence[str]) -> None:
        if ids:
            with self.in_turn():
                self._free(keys=[self.namespace], args=ids)

    def refund(self, messages: Sequence[tuple[str, str]]) -> None:
        """Gives back to the rates what these messages, as (queue, id), have taken: they do not begin."""
        if messages:
            with self.in_turn():
                self._refund(keys=[self.namespace], args=flat(messages))

    def used(self) -> Counter[tuple[str, str]]:
        """How many slots are in use, by name of the limit and group; MOST keys at most."""
        with self.in_turn():
            keys = cast(list[bytes], self.client.srandmember(f"{self.namespace}:__used__", MOST))
        with self.in_turn(), self.client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.scard(f"{self.namespace}:__slots__.{key.decode()}")
            counts = pipeline.execute()
        used: Counter[tuple[str, str]] = Counter()
        for key, count in zip(keys, counts, strict=True):
            name, _, group = key.decode().partition("|")
            used[name, group] = count
        return used

    def paced(self) -> set[str]:
        """The operations of which tasks wait for their turn by a rate; of MOST lanes at most."""
        with self.in_turn():
            lanes = cast(list[bytes], self.client.zrange(f"{self.namespace}:__until__", 0, MOST - 1))
        return {lane.decode().split("|")[1] for lane in lanes}
