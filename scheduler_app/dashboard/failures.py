"""What broke, and since when?"""

from datetime import datetime, timedelta
from typing import Any

from flask import Response, request

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.dashboard.frame import blp, page
from scheduler_app.database import clock
from scheduler_app.services import callers, causes, statistics
from scheduler_app.services.shared import shared

ORDERS = {
    "most": lambda cause: (-cause["count"], -cause["last_at"].timestamp()),
    "newest": lambda cause: -cause["first_at"].timestamp(),
    "latest": lambda cause: -cause["last_at"].timestamp(),
}
COLUMNS = 30  # of a strip
HOUR, A_DAY = 3_600, 86_400
STRIPS = {"10 min": 600, "1 h": HOUR, "6 h": 6 * HOUR, "1 day": A_DAY, "3 days": 3 * A_DAY, "7 days": 7 * A_DAY}
STRIPS |= {"14 days": 14 * A_DAY, "30 days": 30 * A_DAY}
LONGEST = ("30 days", STRIPS["30 days"])
SHOWN = 50  # causes of a page
RECENT = timedelta(minutes=10)  # a cause that made a task fail within it goes on
DAY = timedelta(days=1)


@blp.get("/failures")
@needs(Scope.READ)
def failures() -> Response:
    order = request.args.get("order", "most")
    order = order if order in ORDERS else "most"
    first = min(max(request.args.get("from", 0, type=int), 0), causes.LATEST)
    found = shared.get(("failures", callers.bounds()), _found)
    shown: dict[str, Any] = {
        "ordered": sorted(found["causes"], key=ORDERS[order]),
        "order": order,
        "first": first,
        "most": SHOWN,
    }
    return page("failures.html", here="failures", **found, **shown)


def _found() -> dict[str, Any]:
    now, found = clock(), causes.latest()
    strip = _strip(found, now)
    retrying = causes.retrying()
    for cause in found:
        cause["columns"] = _columns(cause.pop("times"), strip, now)
        cause["retrying"] = retrying[cause["cause"]]
        cause["goes_on"] = cause["last_at"] >= now - RECENT
    since_yesterday = statistics.failed_since(now - DAY) if callers.bounds() is None else None
    figures = {"total": sum(cause["count"] for cause in found), "since_yesterday": since_yesterday}
    return {"causes": found, "strip": strip, "headline": _headline(found, now), **figures}


def _headline(found: list[dict[str, Any]], now: datetime) -> str:
    if not found:
        return ""
    most, total = max(found, key=lambda cause: cause["count"]), sum(cause["count"] for cause in found)
    goes_on = ", and it goes on" if most["goes_on"] else ""
    if len(found) == 1:
        return f"All failures have one cause{goes_on}."
    if most["count"] * 2 >= total:
        return f"One cause makes {100 * most['count'] / total:.0f} % of the failures{goes_on}."
    new = sum(cause["first_at"] >= now - DAY for cause in found)
    return f"{len(found):,} causes{f', {new:,} of them new since yesterday' if new else ', none new since yesterday'}."


def _strip(found: list[dict[str, Any]], now: datetime) -> dict[str, Any]:
    """The shortest stretch of time that has all failures, or the longest one."""
    oldest = min((cause["first_at"] for cause in found), default=now)
    name, seconds = next((one for one in STRIPS.items() if now - oldest <= timedelta(seconds=one[1])), LONGEST)
    return {"name": name, "column": seconds // COLUMNS}


def _columns(times: list[datetime], strip: dict[str, Any], now: datetime) -> list[int]:
    """How many failed in each column of the strip. Columns begin at round times, so that they seldom change."""
    latest, columns = now.timestamp() // strip["column"], [0] * COLUMNS
    for moment in times:
        columns[max(0, COLUMNS - 1 - int(latest - moment.timestamp() // strip["column"]))] += 1
    return columns
