"""Tells whether Redis still has everything that was written to it."""

from uuid import uuid4

import redis

# A check must not leave its mark if another check has begun meanwhile, or if the marker was lost meanwhile.
_MARK = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('set', KEYS[1], ARGV[2]) end"


class Marker:
    """A key in Redis that names a run of the server: the run in which a check last found all waiting messages.

    If Redis has lost its data, the key is lost too. If Redis was restarted, the key names the run before, and the last
    second of writes may be lost. Every method may raise RedisError.
    """

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self.client = client
        self.key = f"{namespace}:__marker__"
        self._mark = client.register_script(_MARK)

    def intact(self) -> bool:
        return bool(self.client.get(self.key) == self._run())

    def begin(self) -> tuple[bytes, bytes]:
        """Call this before a check. Pass what it returns to `end`."""
        token, run = uuid4().hex.encode(), self._run()
        self.client.set(self.key, token)
        return token, run

    def end(self, begun: tuple[bytes, bytes]) -> None:
        self._mark(keys=[self.key], args=begun)

    def _run(self) -> bytes:
        info: dict[str, str] = self.client.info("server")
        return info["run_id"].encode()
