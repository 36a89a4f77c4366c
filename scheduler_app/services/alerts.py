"""Tells somebody elsewhere when something begins to need attention, and when that ends. The schedulers call this.

One row for each kind of need says what was told last. Whoever changes it, by compare-and-set, sends the message. So any
number of schedulers tell everything once. A message that is not taken is sent again, with the same id, until it is
taken or a newer one of its kind takes its place.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Row, select, update

from scheduler_app import outgoing
from scheduler_app.config import Settings, SettingsError
from scheduler_app.database import insert
from scheduler_app.extensions import db, settings
from scheduler_app.models import Alert
from scheduler_app.outgoing import Refused, Request, SecretsUnreadable
from scheduler_app.services import attention, health
from scheduler_app.services.attention import Need
from scheduler_app.services.sightings import Sightings

log = logging.getLogger(__name__)

SECRET = "backbeat.alerts"  # the name of the secret that signs  # noqa: S105
LASTING = 5.0  # seconds that something must be seen before it is told: a restart is no news
APART = timedelta(minutes=1)  # between two messages of one kind
BEAT = timedelta(seconds=55)  # between two heartbeats, which fall on a look
TIMEOUT = 10.0  # seconds
MOST_SHOWN = 20  # needs of a kind that a message names
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 600.0  # seconds before a message is sent again, doubled each time
EACH = ("worker", "paused_priority")  # kinds of which each need is told by itself
HEARTBEAT = "heartbeat"  # stands in the place of a kind, for the row of the heartbeat
WELL = ("database", "broker", "migrations", "scheduler", "workers")  # checks that must be ok for a heartbeat

Told = dict[str, dict[str, Any]]  # the needs of one kind by their key


def check(settings: Settings) -> None:
    """Raises SettingsError when alerts could not be signed."""
    if not settings.alert_url:
        return
    try:
        outgoing.check(_request(settings.alert_url, b"", ""))
    except (Refused, SecretsUnreadable) as error:
        raise SettingsError(f"BACKBEAT_ALERT_URL: its messages are signed with {SECRET!r}: {error}") from None


class Watch:
    """Of one scheduler process."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seen = Sightings[tuple[str, str]](monotonic)

    def alert(self, *, now: datetime) -> int:
        """Tells what has begun and what has ended. Returns 0."""
        if settings.alert_url:
            present = _by_kind(attention.needs(now=now))
            db.session.rollback()
            lasting = self._seen.look((kind, key) for kind, needs in present.items() for key in needs).lasting(LASTING)
            for kind in attention.KINDS:
                begun = {key for begun_kind, key in lasting if begun_kind == kind}
                _note(kind, present.get(kind, {}), begun, now)
            for row in _due(now):
                _deliver(row, now)
        return 0


def beat(*, now: datetime) -> int:
    """Calls the heartbeat's URL, once in a minute, by one scheduler, while all is well. Returns 0."""
    if settings.heartbeat_url:
        found = health.checks()
        _row(HEARTBEAT, now)
        if all(found[name] == "ok" for name in WELL) and _take(HEARTBEAT, Alert.told_at <= now - BEAT, told_at=now):
            _call(Request(settings.heartbeat_url, timeout=TIMEOUT), "the heartbeat")
    return 0


def _by_kind(needs: list[Need]) -> dict[str, Told]:
    found: dict[str, Told] = {}
    for need in needs:
        key = need.target.id or "" if need.kind in EACH and need.target else ""
        shown = {"severity": need.severity.value, "text": need.text, "since": need.since and need.since.isoformat()}
        found.setdefault(need.kind, {})[key] = shown
    return found


def _note(kind: str, present: Told, begun: set[str], now: datetime) -> None:
    """Writes down what is to be told of this kind, if there is news and the last was long enough ago."""
    row = _row(kind, now)
    began = {key: present[key] for key in begun - row.told.keys()}
    ended = {key: need for key, need in row.told.items() if key not in present}
    if not (began or ended) or row.told_at > now - APART:
        return
    told = {key: need for key, need in row.told.items() if key in present} | began
    message = {
        "type": f"attention.{'changed' if began and ended else 'began' if began else 'ended'}",
        "timestamp": now.isoformat(),
        "data": {"kind": kind, "began": _shown(began), "ended": _shown(ended), "present": _shown(told)},
    }
    _take(
        kind,
        Alert.told_at == row.told_at,
        told=told,
        told_at=now,
        message_id=f"alert_{uuid4().hex}",
        message=message,
        tries=0,
        next_try_at=now,
    )


def _row(kind: str, now: datetime) -> Row[Any]:
    columns = Alert.__table__.c
    query = select(*columns).where(columns.kind == kind)
    if row := db.session.execute(query).one_or_none():
        db.session.rollback()
        return row
    new = {"kind": kind, "told": {}, "told_at": now - 2 * APART, "tries": 0}
    db.session.execute(insert(Alert).values(new).on_conflict_do_nothing())
    db.session.commit()
    return db.session.execute(query).one()


def _take(kind: str, condition: ColumnElement[bool], **values: Any) -> bool:
    """Whether this process is the one that changes the row."""
    mine = update(Alert).where(Alert.kind == kind, condition).values(**values)
    taken = db.session.execute(mine.execution_options(synchronize_session=False))
    db.session.commit()
    return bool(taken.rowcount)  # type: ignore[attr-defined]


def _due(now: datetime) -> list[Row[Any]]:
    columns = Alert.__table__.c
    rows = db.session.execute(select(*columns).where(columns.next_try_at <= now).order_by(columns.told_at)).all()
    db.session.rollback()
    return list(rows)


def _deliver(row: Row[Any], now: datetime) -> None:
    pause = timedelta(seconds=min(LONGEST_PAUSE, FIRST_PAUSE * 2**row.tries))
    same = (Alert.message_id == row.message_id) & (Alert.tries == row.tries)
    if not _take(row.kind, same & (Alert.next_try_at <= now), tries=row.tries + 1, next_try_at=now + pause):
        return  # another scheduler sends it
    request = _request(settings.alert_url, json.dumps(row.message).encode(), row.message_id)
    if _call(request, f"the alert about {row.kind}"):
        _take(row.kind, Alert.message_id == row.message_id, told_at=row.told_at, message=None, next_try_at=None)


def _request(url: str, body: bytes, message_id: str) -> Request:
    headers = {"content-type": "application/json", "user-agent": "Backbeat"}
    return Request(url, "POST", headers, body, TIMEOUT, sign_with=SECRET, message_id=message_id)


def _call(request: Request, what: str) -> bool:
    """The operator has set the address, so it may be any."""
    try:
        status = outgoing.send(request, trusted=True).status
    except (Refused, SecretsUnreadable, OSError) as error:
        log.warning("%s was not taken: %s", what, error)
        return False
    if not 200 <= status < 300:
        log.warning("%s was not taken: %s answered %d", what, request.target, status)
    return 200 <= status < 300


def _shown(needs: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [need for _, need in sorted(needs.items())][:MOST_SHOWN]
