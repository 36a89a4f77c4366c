"""The relay and what happens when Redis has lost its memory. Time is passed in."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from scheduler_app.extensions import broker, db
from scheduler_app.models import Status, Task
from scheduler_app.services import dispatch, tasks

pytestmark = pytest.mark.usefixtures("context")

NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=5)
REQUEST = {"operation": "calculate", "params": {"expression": "1+1"}, "max_retries": 5}


def create(count: int = 1, *, priority: int = 5, run_at: datetime | None = None) -> list[int]:
    """Committed, but not published: as a process leaves it that dies in between."""
    rows = tasks.create([REQUEST | {"priority": priority, "run_at": run_at}] * count, now=NOW)
    db.session.commit()
    return [row.task_id for row in rows]


def waiting(valkey: Any, priority: int = 5) -> list[str]:
    return [id_.decode() for id_ in valkey.client.lrange(f"dramatiq:tasks.p{priority}", 0, -1)]


def sent() -> set[int]:
    db.session.rollback()
    return set(db.session.scalars(select(Task.task_id).where(Task.enqueued_at.is_not(None))))


def test_what_was_not_published_is_sent_once_its_poster_must_be_dead(app: Flask, valkey: Any) -> None:
    ids = create(3)
    assert dispatch.relay(now=NOW + timedelta(seconds=1)) == 0
    assert dispatch.relay(now=LATER) == 3
    assert waiting(valkey) == [f"{task_id}.0" for task_id in ids]
    assert sent() == set(ids)
    assert dispatch.relay(now=LATER) == 0


def test_a_task_is_sent_when_its_time_has_come(app: Flask, valkey: Any) -> None:
    [task_id] = create(run_at=NOW + timedelta(hours=1))
    assert dispatch.relay(now=NOW + timedelta(minutes=59)) == 0
    assert dispatch.relay(now=NOW + timedelta(hours=1)) == 1
    assert waiting(valkey) == [f"{task_id}.0"]


def test_the_most_urgent_are_sent_first(app: Flask, valkey: Any) -> None:
    late, early = create(4, priority=9), create(2, priority=0)
    assert dispatch.relay(now=LATER, limit=3) == 3
    assert sent() == {*early, late[0]}


def test_sending_again_what_is_there_changes_nothing(app: Flask, valkey: Any) -> None:
    ids = create(2)
    dispatch.relay(now=LATER)
    db.session.execute(update(Task).values(enqueued_at=None))
    db.session.commit()
    assert dispatch.relay(now=LATER) == 2
    assert waiting(valkey) == [f"{task_id}.0" for task_id in ids]


def test_two_relays_at_once_send_each_task_once(app: Flask, valkey: Any) -> None:
    ids = create(500)

    def send() -> None:
        with app.app_context():
            while dispatch.relay(now=LATER, limit=50):
                pass

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(waiting(valkey)) == sorted(f"{task_id}.0" for task_id in ids)
    assert sent() == set(ids)


def test_a_task_that_failed_meanwhile_is_not_taken_for_sent(app: Flask, valkey: Any) -> None:
    create()
    [task] = dispatch._unsent(LATER, 10)
    db.session.execute(update(Task).values(claims=1, status=Status.RETRYING))
    dispatch._mark([task], enqueued_at=LATER)
    assert sent() == set()


def test_while_redis_is_down_nothing_counts_as_sent(
    app: Flask, own_valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create()
    gone = type(broker._get_current_object())(own_valkey.url)
    monkeypatch.setitem(app.extensions, "backbeat.broker", gone)
    own_valkey.kill()
    assert dispatch.relay(now=LATER) == 0
    assert sent() == set()
    own_valkey.start()
    assert dispatch.relay(now=LATER) == 1
    assert len(sent()) == 1


def lose(valkey: Any, ids: list[int]) -> None:
    for task_id in ids:
        valkey.client.lrem("dramatiq:tasks.p5", 0, f"{task_id}.0")
        valkey.client.hdel("dramatiq:tasks.p5.msgs", f"{task_id}.0")


def test_after_a_loss_exactly_what_is_missing_is_sent_again(
    app: Flask, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "RESYNC_BATCH", 7)
    ids = create(20)
    dispatch.relay(now=LATER)
    assert dispatch.resync(now=LATER) == 0
    lose(valkey, ids[5:15])
    valkey.client.delete(broker.marker.key)
    assert dispatch.resync(now=LATER) == 10
    assert sent() == {*ids[:5], *ids[15:]}
    assert dispatch.relay(now=LATER) == 10
    assert sorted(waiting(valkey)) == sorted(f"{task_id}.0" for task_id in ids)


def test_while_the_marker_is_there_nothing_is_checked(app: Flask, valkey: Any) -> None:
    ids = create(3)
    dispatch.relay(now=LATER)
    dispatch.resync(now=LATER)
    lose(valkey, ids)
    assert dispatch.resync(now=LATER) == 0
    assert sent() == set(ids)


def test_a_thorough_check_finds_what_is_missing_without_a_sign_of_a_loss(app: Flask, valkey: Any) -> None:
    ids = create(3)
    dispatch.relay(now=LATER)
    dispatch.resync(now=LATER)
    lose(valkey, ids[1:])
    assert dispatch.resync(now=LATER, thorough=True) == 2
    assert sent() == {ids[0]}


def test_a_restart_of_redis_is_noticed_although_its_data_is_there(app: Flask, own_valkey: Any) -> None:
    marker = type(broker.marker)(own_valkey.client, "dramatiq")
    marker.end(marker.begin())
    assert marker.intact()
    own_valkey.kill()
    own_valkey.start()
    marker.client = own_valkey.client
    assert own_valkey.client.exists(marker.key)
    assert not marker.intact()


def test_a_loss_in_the_midst_of_a_check_is_not_missed(app: Flask, valkey: Any) -> None:
    begun = broker.marker.begin()
    valkey.client.flushall()
    broker.marker.end(begun)
    assert not broker.marker.intact()


def test_of_two_checks_at_once_the_later_one_counts(app: Flask, valkey: Any) -> None:
    first, second = broker.marker.begin(), broker.marker.begin()
    broker.marker.end(first)
    assert not broker.marker.intact()
    broker.marker.end(second)
    assert broker.marker.intact()
