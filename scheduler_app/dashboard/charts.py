"""From values to the coordinates of charts. The macros of templates/macros.html draw them."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from scheduler_app.dashboard.texts import UNITS, number
from scheduler_app.services.verdict import length

WIDTH, HEIGHT, LOW, MID = 600, 140, 28, 56  # of the view boxes
FEW = 4  # failures: a single one is no full column
STEPS = {1: 2, 2: 2, 2.5: 5, 3: 3, 4: 4, 5: 5, 6: 3, 8: 4, 10: 5}  # the ends of axes, each with its number of parts


def throughput(slices: Sequence[dict[str, Any]], *, form: str = "minute") -> dict[str, Any]:
    """From `statistics.series`: what came in, ended and failed, as rates a minute. `form` is that of its times."""
    minutes = slices[0]["seconds"] / 60
    came, went = ([one[name] / minutes for one in slices] for name in ("created", "finished"))
    top, whole = nice(max(*came, *went)), sum(one["complete"] for one in slices)
    failed_top = max(*(one["failed"] for one in slices), FEW)
    step, count = WIDTH / (len(slices) - 1), parts(top)
    return {
        "ys": [_rate(top * part / count) for part in range(count, -1, -1)],
        "lines": [round(HEIGHT * part / count, 1) for part in range(count)],
        "in_line": line(came[:whole], top, step=step),
        "out_line": line(went[:whole], top, step=step),
        "out_area": area(went[:whole], [0] * whole, top, step=step),
        "between": area(
            [max(pair) for pair in zip(came[:whole], went[:whole], strict=True)], went[:whole], top, step=step
        ),
        "unfinished": [
            {"kind": kind, **_column(place, values[place], top, step, HEIGHT)}
            for place in range(whole, len(slices))
            for kind, values in (("in", came), ("out", went))
        ],
        "failed": [
            _column(place, one["failed"], failed_top, step, LOW) for place, one in enumerate(slices) if one["failed"]
        ],
        "failed_total": sum(one["failed"] for one in slices),
        "slices": [_slice(place, one, step) for place, one in enumerate(slices)],
        "xs": [slices[place]["begins_at"] for place in range(0, len(slices) - 1, len(slices) // 6)] + [None],
        "form": form,
        "grows": any(came[place] > 1.2 * went[place] for place in range(whole)),
    }


def pair(slices: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """From `statistics.series`: the p50 and p95 of `name`, waiting or running. Gaps where nothing ended."""
    low, high = ([one[f"{name}_{part}"] for one in slices] for part in ("p50", "p95"))
    top, label = _longest(max((value for value in high if value), default=0.001))
    step = WIDTH / (len(slices) - 1)
    return {
        "ys": [label, "0"],
        "low_line": line(low, top, step=step, height=MID),
        "high_line": line(high, top, step=step, height=MID),
        "area": area(high, low, top, step=step, height=MID),
        "low": _latest(low),
        "high": _latest(high),
    }


def depth(slices: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """From `statistics.depth`: the highest of `name` in each slice."""
    values = [one[name] for one in slices]
    top, step = nice(max(values)), WIDTH / (len(slices) - 1)
    says = length if name == "oldest_seconds" else number
    whole = values[:-1]  # the last slice is not over
    return {
        "ys": [says(top), "0"],
        "line": line(whole, top, step=step, height=MID),
        "area": area(whole, [0] * len(whole), top, step=step, height=MID),
        "highest": says(max(values)),
        "xs": [slices[place]["begins_at"] for place in range(0, len(slices) - 1, len(slices) // 6)] + [None],
    }


def line(values: Sequence[float | None], top: float, *, step: float, height: float = HEIGHT) -> str:
    """A path through the values from 0 to `top`. It begins anew after each gap."""
    return "".join(_joined(points, "M") for points in _runs(values, top, step, height))


def area(
    upper: Sequence[float | None], lower: Sequence[float | None], top: float, *, step: float, height: float = HEIGHT
) -> str:
    """The surface between two lines that have their gaps at the same places."""
    above, below = _runs(upper, top, step, height), _runs(lower, top, step, height)
    return "".join(_joined(a, "M") + _joined(b[::-1], "L") + "Z" for a, b in zip(above, below, strict=True))


def nice(value: float) -> float:
    """The next number above that is good to read at an axis."""
    if value <= 0:
        return 1
    size = 10.0 ** math.floor(math.log10(value))
    return float(next(step for step in STEPS if step * size >= value * 0.999) * size)


def _longest(seconds: float) -> tuple[float, str]:
    """The end of an axis of durations in seconds, and its label."""
    unit, size = next((unit for unit in UNITS if seconds > 0.9 * unit[1]), ("ms", 0.001))
    top = nice(seconds / size)
    return top * size, f"{top:g} {unit}"


def parts(top: float) -> int:
    """Into how many an axis to a nice number is divided."""
    digits = top / 10.0 ** math.floor(math.log10(top))
    return STEPS[min(STEPS, key=lambda step: abs(step - digits))]


Point = tuple[float, float]


def _runs(values: Sequence[float | None], top: float, step: float, height: float) -> list[list[Point]]:
    places = groupby(enumerate(values), key=lambda one: one[1] is None)
    return [
        [(place * step, height - height * min(value or 0, top) / top) for place, value in run]
        for is_gap, run in places
        if not is_gap
    ]


def _joined(points: Sequence[Point], first: str) -> str:
    text = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return first + text + ("h.1" if len(points) == 1 else "")


def _column(place: int, value: float, top: float, step: float, height: float) -> dict[str, float]:
    tall = height * min(value, top) / top if top else 0
    width = min(step, 9)
    x = min(max(place * step - width / 2, 0), WIDTH - width)
    return {"x": round(x, 1), "y": round(height - tall, 1), "width": round(width, 1), "height": round(tall, 1)}


def _slice(place: int, one: dict[str, Any], step: float) -> dict[str, Any]:
    at = f"{one['begins_at']:%d %b, %H:%M} UTC"
    still = "" if one["complete"] else ", not over yet"
    says = f"{at}: {number(one['created'])} in, {number(one['finished'])} out, {number(one['failed'])} failed{still}"
    return {"x": round((place - 0.5) * step, 1), "width": round(step, 1), "says": says}


def _latest(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
