"""Numbers, durations and times as people read them. Each is a filter of the templates."""

import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup, escape

from scheduler_app.dashboard.frame import blp
from scheduler_app.operations import USUAL_PAUSES
from scheduler_app.services.counts import MOST

TIMES: dict[float, str] = {1: "a second", 60: "a minute", 3_600: "an hour", 86_400: "a day"}
UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


@blp.app_template_filter()
def number(value: float | None) -> str:
    """12,412"""
    return "" if value is None else f"{value:,.0f}"


@blp.app_template_filter()
def rate(value: float | None) -> str:
    """212, 0.4"""
    return "" if value is None else f"{value:.1f}" if 0 < value < 9.95 and value != int(value) else f"{value:,.0f}"


@blp.app_template_filter()
def capped(value: int, most: int = MOST) -> str:
    """12, or 10,000+ where the count stopped."""
    return f"{value:,}+" if value >= most else f"{value:,}"


@blp.app_template_filter()
def plural(value: float, word: str, words: str = "") -> str:
    """1 task, 2 tasks"""
    return f"{number(value)} {word if value == 1 else words or word + 's'}"


@blp.app_template_filter()
def share(value: float | None) -> str:
    """Of a part of one: 3.1 %, 0.06 %, 25 %."""
    if value is None:
        return ""
    percent = 100 * value
    digits = 0 if percent >= 10 or percent == 0 else 1 if percent >= 0.95 else 2
    return f"{percent:.{digits}f} %"


@blp.app_template_filter()
def duration(seconds: float | timedelta | None) -> str:
    """26 ms, 1.6 s, 42 s, 4 min 12 s, 3 h 4 min, 2 d 5 h; empty for None."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds))
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 or not seconds else f"{seconds * 1000:.1f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for unit, size in UNITS:
        if left >= size or parts:
            parts.append(f"{left // size} {unit}" if left >= size else "")
            left %= size
    return " ".join(filter(None, parts[:2]))


@blp.app_template_filter()
def pauses(stored: dict[str, float] | None) -> str:
    """Between attempts, as a task keeps them: 1.0 s to 10 min, up to 2 times as long each time."""
    least, most, factor = ((stored or USUAL_PAUSES)[name] for name in USUAL_PAUSES)
    if least == most or factor == 1:
        return duration(least)
    return f"{duration(least)} to {duration(most)}, up to {factor:g} times as long each time"


@blp.app_template_filter()
def pace(given: Mapping[str, float]) -> str:
    """Of a limit's rate: 10 a second, 600 a minute, 3 in 2.5 s, 5 of them at once after a pause."""
    count, seconds, burst = given["count"], given["seconds"], given.get("burst", 1)
    time = TIMES.get(seconds)
    return f"{number(count)} {time or 'in ' + duration(seconds)}" + (
        f", {number(burst)} at once after a pause" if burst > 1 else ""
    )


@blp.app_template_filter()
def limited(one: dict[str, Any], *, short: bool = False) -> str:
    """The numbers of a limit: at most 4 at once, 10 a second for each group."""
    parts = [f"{number(one['max_running'])} at once"] if one["max_running"] else []
    parts += [pace(one["rate"])] if one["rate"] else []
    if not parts:
        return "lifted"
    group = (" per group" if short else " for each group") if one.get("per") == "group" else ""
    return ("" if short else "at most ") + ", ".join(parts) + group


@blp.app_template_filter()
def since(then: datetime | None, now: datetime) -> timedelta | None:
    return None if then is None else now - then


@blp.app_template_filter()
def iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@blp.app_template_filter()
def shell(text: str) -> str:
    """One word of a command line, whatever it holds."""
    return shlex.quote(text)


@blp.app_template_filter()
def quoted(value: str) -> str:
    """A value for the search, which has spaces only between quotes."""
    return f'"{value}"' if re.search(r"\s", value) else value


@blp.app_template_filter()
def ticked(text: str) -> Markup:
    """What is between backticks becomes code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (it is escaped)


@blp.app_template_filter()
def paragraphs(text: str) -> Markup:
    """Of a docstring: empty lines part them."""
    return Markup("").join(Markup("<p>{}</p>").format(ticked(part)) for part in re.split(r"\n\s*\n", text))
