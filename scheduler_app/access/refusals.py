"""How often keys were refused, and why. Counted in Redis, so that all web processes count together."""

from contextlib import suppress

from redis import RedisError

from scheduler_app.broker import PriorityBroker

WRONG_KEY, SCOPE, RATE = "wrong_key", "scope", "rate"
REASONS = (WRONG_KEY, SCOPE, RATE)


def count(broker: PriorityBroker, reason: str) -> None:
    """While Redis is away it counts nothing."""
    with suppress(RedisError), broker.asked() as client:
        client.hincrby(_key(broker), reason, 1)


def find(broker: PriorityBroker) -> dict[str, int]:
    """Since Redis last lost its data. Raises RedisError."""
    with broker.asked() as client:
        found = client.hgetall(_key(broker))
    return {reason: int(found.get(reason.encode(), 0)) for reason in REASONS}


def _key(broker: PriorityBroker) -> str:
    return f"{broker.namespace}:__refused__"
