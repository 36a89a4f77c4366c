"""Tells whether Redis still has all that it was given."""

from uuid import uuid4

import redis

# A check that was overtaken, by another or by the loss of the marker, must not leave its mark.
_MARK = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('set', KEYS[1], ARGV[2]) end"


class Marker:
    """A key of ours that names the run of the server in which all that waits was last known to be there.

    The key is gone when the data is gone, and names another run when the server was started again: then what it was
    told in its last second may be gone. Every method may raise RedisError.
    """

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self.client = client
        self.key = f"{namespace}:__marker__"
        self._mark = client.register_script(_MARK)

    def intact(self) -> bool:
        return bool(self.client.get(self.key) == self._run())

    def begin(self) -> tuple[bytes, bytes]:
        """Before a check of what is there; what it returns goes to end."""
        token, run = uuid4().hex.encode(), self._run()
        self.client.set(self.key, token)
        return token, run

    def end(self, begun: tuple[bytes, bytes]) -> None:
        self._mark(keys=[self.key], args=begun)

    def _run(self) -> bytes:
        info: dict[str, str] = self.client.info("server")
        return info["run_id"].encode()
