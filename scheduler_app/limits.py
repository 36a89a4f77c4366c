"""How many tasks of an operation may run at once, and how many may begin in a time."""

import re
from dataclasses import dataclass
from typing import Any

OPERATION, GROUP = PER = ("operation", "group")
MOST_RUNNING = 10_000
MOST_COUNT = 1_000_000
LONGEST = 86_400  # seconds
NAME = "[a-z][a-z0-9_.:-]{0,79}"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` tasks begin in `seconds`, evenly. After a pause, `burst` of them may begin at once.

    So in no time of that length more than count + burst begin.
    """

    count: int
    seconds: float = 1
    burst: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.count <= MOST_COUNT and 0 < self.seconds <= LONGEST and 1 <= self.burst <= MOST_COUNT):
            raise ValueError(f"count and burst are 1 to {MOST_COUNT}, and seconds up to {LONGEST}")

    def __str__(self) -> str:
        return f"{self.count} in {self.seconds:g} s" + (f", {self.burst} at once" if self.burst > 1 else "")


@dataclass(frozen=True, slots=True)
class Limit:
    """Of an operation: for all its tasks together, or for those of each group. Tasks without a group are one group.

    The name is by default the operation's, or "operation:group" for a limit per group. By it people change the limit.
    """

    max_running: int | None = None
    rate: Rate | None = None
    per: str = OPERATION
    name: str = ""

    def __post_init__(self) -> None:
        if self.per not in PER:
            raise ValueError(f"per is one of {', '.join(PER)}")
        if self.max_running is None and self.rate is None:
            raise ValueError("a limit has max_running, a rate, or both")
        if self.max_running is not None and not 1 <= self.max_running <= MOST_RUNNING:
            raise ValueError(f"max_running is 1 to {MOST_RUNNING}")
        if self.name and not re.fullmatch(NAME, self.name):
            raise ValueError(f"a limit's name is like {NAME}")

    def for_scripts(self) -> dict[str, Any]:
        """As the scripts in broker/ read it."""
        given: dict[str, Any] = {"name": self.name, "per": self.per}
        given |= {"max_running": self.max_running} if self.max_running else {}
        if self.rate:
            given |= {"count": self.rate.count, "seconds": self.rate.seconds, "burst": self.rate.burst}
        return given


def default_name(operation: str, per: str) -> str:
    return operation if per == OPERATION else f"{operation}:group"
