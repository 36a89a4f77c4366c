"""The results: one Markdown table, and a line that describes the machine."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

HEAD = "| work | ours | compared with | theirs | ratio | goal | |\n| --- | ---: | --- | ---: | ---: | ---: | --- |"


@dataclass(frozen=True)
class Row:
    """One figure; met is None where there is no goal."""

    work: str
    ours: str
    peer: str = ""
    theirs: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "ok", False: "**missed**", None: ""}[self.met]
        cells = (self.work, self.ours, self.peer, self.theirs, self.ratio, self.goal, verdict)
        return f"| {' | '.join(cells)} |"


def rate(value: float) -> str:
    return f"{value:,.0f}/s"


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest of the values that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def compared(work: str, ours: Sequence[float], peer: str, theirs: Sequence[float], *, goal: float | None = None) -> Row:
    """Rates of rounds that alternated: the ratio is the median of the rounds' ratios."""
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    return Row(
        work,
        rate(statistics.median(ours)),
        peer,
        rate(statistics.median(theirs)),
        f"{ratio:.2f}",
        "" if goal is None else f"≥ {goal:g} x",
        None if goal is None else ratio >= goal,
    )


def within(work: str, times: Sequence[float], percent: int, goal: float, **peer: str) -> Row:
    """A percentile of times in seconds, and its limit; 100 percent is the longest."""
    value = percentile(times, percent)
    name = "longest" if percent == 100 else f"p{percent}"
    return Row(f"{work}, {name}", milliseconds(value), goal=f"≤ {1000 * goal:g} ms", met=value <= goal, **peer)


def machine() -> str:
    packages = ("dramatiq", "redis", "hiredis", "SQLAlchemy", "psycopg", "Flask", "waitress")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores, {_processor()}, "
        f"load {os.getloadavg()[0]:.1f} at the start; {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
