"""Whether the system keeps up, in a sentence and in figures."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from redis import RedisError

from scheduler_app.models import Status
from scheduler_app.services import pauses, queues, statistics, workers

BEHIND_AFTER = 30.0  # seconds that a due task may wait for its turn
RATES_KEPT = timedelta(seconds=60)  # for which the latest rates still tell of now
UNITS = (("day", "days", 86_400), ("h", "h", 3_600), ("min", "min", 60), ("s", "s", 1))


class State(StrEnum):
    """The answer in a word."""

    IDLE = "idle"  # nothing to do
    KEEPING_UP = "keeping_up"  # no due task has waited for BEHIND_AFTER
    FALLING_BEHIND = "falling_behind"  # one has
    NO_WORKER = "no_worker"  # no worker runs
    UNKNOWN = "unknown"  # Redis, which has what waits, does not answer


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Priorities that are paused do not count: nothing of theirs should begin."""

    state: State
    text: str
    in_per_minute: float | None  # of all tasks; None while no scheduler counts them
    out_per_minute: float | None
    waiting: int | None  # that are due; None while Redis does not answer
    running: int
    priority: int | None = None  # of those that fall behind, the one where most wait
    oldest_seconds: float | None = None  # for which the first task there has been due
    empty_in_seconds: float | None = None  # until nothing waits there, at the rates of now; None: it does not get less


def reach(*, now: datetime) -> Verdict:
    """Needs neither Redis nor a scheduler, but then knows less."""
    rates = _rates(now)
    figures: dict[str, Any] = {"in_per_minute": rates and rates["in"], "out_per_minute": rates and rates["out"]}
    try:
        found = queues.depths(now=now)
    except RedisError:
        figures |= {"waiting": None, "running": sum(queues.count(Status.STARTED).values())}
        text = "Redis does not answer: running tasks go on, and no others begin."
        return Verdict(state=State.UNKNOWN, text=text, **figures)
    paused = pauses.find()
    depths = [one for one in found if one["priority"] not in paused]
    figures |= {"waiting": sum(one["waiting"] for one in depths), "running": sum(one["running"] for one in depths)}
    if not workers.living(now=now):
        return Verdict(state=State.NO_WORKER, text=f"No worker runs: {_waits(figures['waiting'])}.", **figures)
    behind = [one for one in depths if (one["oldest_waiting_seconds"] or 0.0) >= BEHIND_AFTER]
    # Where most wait: at a low priority a few wait for long, as they should while others have more to do.
    return _behind(max(behind, key=lambda one: one["waiting"]), now, figures) if behind else _keeping_up(figures)


def length(seconds: float) -> str:
    """As people say it: 40 s, 4 min, 2 days."""
    one, many, size = next((unit for unit in UNITS if seconds >= unit[-1]), UNITS[-1])
    return f"{seconds / size:.0f} {one if round(seconds / size) == 1 else many}"


def _rates(now: datetime, priority: int | None = None) -> dict[str, float] | None:
    is_counted = statistics.counted_to() >= now - RATES_KEPT
    return statistics.rates(now=now, priority=priority) if is_counted else None


def _behind(fullest: dict[str, Any], now: datetime, figures: dict[str, Any]) -> Verdict:
    priority, waiting, oldest = (fullest[name] for name in ("priority", "waiting", "oldest_waiting_seconds"))
    rates = _rates(now, priority)
    gain = rates["out"] - rates["in"] if rates else 0.0  # tasks a minute
    empty_in = waiting * 60 / gain if gain > 0 else None
    figures |= {"priority": priority, "oldest_seconds": oldest, "empty_in_seconds": empty_in}
    text = f"Falling behind at priority {priority}: {_waits(waiting)}, the oldest {length(oldest)}"
    return Verdict(state=State.FALLING_BEHIND, text=f"{text}{_trend(gain, empty_in)}.", **figures)


def _trend(gain: float, empty_in: float | None) -> str:
    if empty_in is not None:
        return f", empty in about {length(empty_in)} at this rate"
    return f", and {-gain:,.0f} more a minute come than go" if gain <= -1 else ""


def _keeping_up(figures: dict[str, Any]) -> Verdict:
    came, went = figures["in_per_minute"] or 0.0, figures["out_per_minute"] or 0.0
    if not (came or went or figures["waiting"] or figures["running"]):
        return Verdict(state=State.IDLE, text="Nothing to do.", **figures)
    if came or went:
        alike = abs(came - went) <= max(came, went) / 20
        text = f"{_per_minute(went)} in and out" if alike else f"{_per_minute(came)} in, {_number(went)} out"
    else:
        text = f"{figures['running']:,} {'runs' if figures['running'] == 1 else 'run'}, {_waits(figures['waiting'])}"
    return Verdict(state=State.KEEPING_UP, text=f"Keeping up: {text}.", **figures)


def _per_minute(rate: float) -> str:
    return f"{_number(rate)} a minute"


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 1 or not rate else "less than 1"


def _waits(tasks: int) -> str:
    return f"{tasks:,} {'waits' if tasks == 1 else 'wait'}" if tasks else "nothing waits"
