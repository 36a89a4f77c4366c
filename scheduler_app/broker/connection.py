"""Connections to Redis with known timeouts, the Lua scripts, and the size of a batch."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

T = TypeVar("T")

BATCH = 1000  # messages or ids that one round trip carries


def connect(url: str, *, retries: int, timeout: float) -> redis.Redis:
    """A client that waits `timeout` seconds for an answer."""
    # With redis-py's own defaults a web request could wait for minutes. After a timeout it does not try again.
    retry = Retry(NoBackoff(), retries, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_url(url, socket_connect_timeout=min(1, timeout), socket_timeout=timeout, retry=retry)


def script(client: redis.Redis, name: str) -> Script:
    """The script in the file of that name.

    A script that begins with `#!lua flags=allow-oom` may also write while Redis is full. Such a script frees memory, or
    takes almost none. A line such as `-- lanes.lua` stands for the text of that file.
    """
    return client.register_script(_text(name))


def _text(name: str) -> str:
    text = Path(__file__).with_name(f"{name}.lua").read_text()
    return re.sub(r"^-- (\w+)\.lua$", lambda line: _text(line[1]), text, flags=re.MULTILINE)


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


def flat(rows: Iterable[Iterable[T]]) -> list[T]:
    return [value for row in rows for value in row]
