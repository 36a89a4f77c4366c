"""What a worker process has to say to Redis and to the database, and what it gets, for all its threads at once.

One round trip to Redis acknowledges what is settled and brings messages. One to the database records what has succeeded
and claims what was brought.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import chain, repeat
from typing import NamedTuple

import redis
from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from scheduler_app.broker import Message, WorkerBroker, parse
from scheduler_app.database import DatabaseClock, failures, not_settled
from scheduler_app.extensions import db
from scheduler_app.models import WAITING
from scheduler_app.services import attempts, dispatch
from scheduler_app.tracing.contexts import trace_id
from scheduler_app.worker.ledger import Claimed, Ended, Ledger
from scheduler_app.worker.patience import GaveUp, Patience
from scheduler_app.worker.status_writer import Settled, StatusWriter, Success

log = logging.getLogger(__name__)

MOST = 1_000  # messages that one round trip acknowledges, or successes that one statement records


class Fetched(NamedTuple):
    """What a pull brings."""

    messages: list[Message]
    wait: float | None = None  # seconds until there will be more, if it is known


class Brought(NamedTuple):
    """What became of the messages that a pull brought, but for those that are out of date."""

    claimed: list[Claimed]
    suspected: list[Message]  # to be claimed alone


NOTHING = Brought([], [])


class Exchange:
    """One per worker process. Several threads may call its methods at once."""

    def __init__(
        self,
        app: Flask,
        ledger: Ledger,
        writer: StatusWriter,
        patience: Patience,
        reject: Callable[[Ended, SQLAlchemyError], None],
    ) -> None:
        self.app = app
        self.broker: WorkerBroker = app.extensions["backbeat.broker"]
        self.clock: DatabaseClock = app.extensions["backbeat.clock"]
        self.ledger = ledger
        self.writer = writer
        self.patience = patience
        self.reject = reject  # is told of a result that cannot be stored
        self.away = False  # Redis does not answer

    def pull(self, queues: Collection[str], count: int, *, idle: int = 0) -> Fetched:
        """Fetches at most `count` messages, and acknowledges the settled ones. Returns none while Redis is away.

        idle: how many threads wait for them.
        """
        settled = self.ledger.take_settled(MOST)
        try:
            if self.ledger.in_doubt:
                self._settle_doubts(queues)
            pulled = self.broker.pull(queues, count, idle=idle, done=[message[:2] for message in settled])
        except redis.RedisError as error:
            self.ledger.return_settled(settled)
            if not self.away:
                log.warning("Redis does not answer; trying again every second: %s", error)
            self.away = self.ledger.in_doubt = True
            return Fetched([])
        self.ledger.release(settled)
        if self.away:
            log.warning("Redis answers again")
            self.away = False
        epochs = chain(repeat(pulled.epoch, pulled.limited), repeat(0))
        read = (self._read(*one, epoch) for one, epoch in zip(pulled.messages, epochs, strict=False))
        return Fetched(self.ledger.hold([message for message in read if message]), pulled.wait)

    def settle(self, messages: Sequence[Message] = (), *, begun: bool = False, suspected: bool = False) -> Brought:
        """Records what has succeeded, and claims the tasks of the messages. The options are as in StatusWriter.

        It waits while the database is away. A worker that is to stop gives back the messages instead.
        """
        wanted = [*messages]

        def change(again: bool) -> Brought:
            if again and self.patience.stopping.is_set():
                self._requeue(wanted)
            try:
                ended = self.ledger.take_ended(MOST)
                return self._settle(wanted, ended, begun=begun, suspected=suspected, again=again)
            except SQLAlchemyError as error:
                if wanted and not failures.is_outage(error):
                    self._requeue(wanted)  # it may be wrong only here: another worker may have the rights
                    self.patience.stopping.wait(1)  # they may come back at once
                raise

        try:
            return self.patience(change)
        except GaveUp:
            self._requeue(wanted)
        except SQLAlchemyError:
            log.exception("%d tasks cannot be claimed and are given back", len(messages))
        return NOTHING

    def give_back(self, claimed: Collection[Claimed]) -> None:
        """Undoes claims whose attempts have not begun. Their tasks come before all others at their priority again."""
        places = {one.attempt.task_id: place for place, one in enumerate(claimed)}

        def change(again: bool) -> None:
            with self.app.app_context():
                given = attempts.give_back([one.attempt for one in claimed], now=self.clock.now())
                db.session.commit()
                last_first = sorted(given, key=lambda task: places[task.task_id], reverse=True)
                dispatch.publish([task for task in last_first if task.status in WAITING], first=True)

        try:
            self.patience(change)
        except (GaveUp, SQLAlchemyError) as error:
            log.warning("%d tasks are begun again when they are missed: %s", len(claimed), error)
        self._refund([one.message for one in claimed])
        self.ledger.settle([one.message for one in claimed])

    def release(self, messages: Iterable[Message]) -> None:
        """Gives back messages whose tasks are not claimed."""
        self._requeue([*messages])

    def acknowledge_all(self, queues: Collection[str]) -> None:
        """For a worker that ends. While Redis is away it does nothing: another worker will find those tasks done."""
        while self.ledger.any_settled() and not self.away:
            self.pull(queues, 0)

    def _settle(self, messages: Sequence[Message], ended: Sequence[Ended], **how: bool) -> Brought:
        if not messages and not ended:
            return NOTHING
        try:
            now, monotonic = self.clock.now(), time.monotonic()
            successes = [_success(one, now, monotonic) for one in ended]
            settled = self.writer.settle(successes, messages, **how, now=now)
        except SQLAlchemyError as error:
            if not failures.is_of_the_data(error) or not ended:
                self.ledger.return_ended(ended)
                raise
            self._settle_one_by_one(ended, error)
            return self._settle(messages, [], **how)
        if not how.get("again"):
            _tell_late(ended, settled)
        self.ledger.settle(one.message for one in ended)
        if ended:
            self.broker.ends.tell([one.attempt.task_id for one in ended])
        return self._sort(messages, settled)

    def _settle_one_by_one(self, ended: Sequence[Ended], error: SQLAlchemyError) -> None:
        """One of the results cannot be stored. The others must not suffer from it."""
        if len(ended) == 1:
            self.reject(ended[0], error)
            return
        for place, one in enumerate(ended):
            try:
                self._settle([], [one])
            except SQLAlchemyError:
                self.ledger.return_ended(ended[place + 1 :])
                raise

    def _sort(self, messages: Sequence[Message], settled: Settled) -> Brought:
        self._requeue([*settled.refused])
        messages = [message for message in messages if message not in settled.refused]
        claimed = [Claimed(message, settled.claimed[message]) for message in messages if message in settled.claimed]
        suspected = [message for message in messages if message in settled.suspected]
        if len(claimed) + len(suspected) < len(messages):
            old = [one for one in messages if one not in settled.claimed and one not in settled.suspected]
            for message in old:
                about = {"task_id": message.task_id}
                log.info("task %d: message %d is out of date", message.task_id, message.claims, extra=about)
            self._refund(old)
            self.ledger.settle(old)
        return Brought(claimed, suspected)

    def _refund(self, messages: Iterable[Message]) -> None:
        """They do not begin. Without it, less would begin than the rates allow."""
        with suppress(redis.RedisError):
            self.broker.limits.refund([message[:2] for message in messages if message.epoch])

    def _requeue(self, messages: list[Message]) -> None:
        """Gives the messages back to their queues, and empties the list.

        While Redis is away this is not repeated: that would hold up the thread, and a stopping worker, until Redis is
        back. The ids stay in this process's ack set without being held. So they are given back as soon as Redis
        answers. If the process ends first, maintenance gives them back.
        """
        by_queue = defaultdict(list)
        for message in messages:
            by_queue[message.queue].append(message.message_id)
        self.ledger.release(messages)
        messages.clear()
        for queue, ids in by_queue.items():
            try:
                self.broker.requeue(queue, *ids)
            except redis.RedisError:
                self.ledger.in_doubt = True

    def _read(self, queue: str, message_id: str, epoch: int) -> Message | None:
        try:
            return parse(queue, message_id, epoch)
        except ValueError:
            log.error("message %s of %s is unreadable and goes to the dead letters", message_id, queue)
            with suppress(redis.RedisError):  # then it is given back with the dead worker's, and read again
                self.broker.nack(queue, message_id)
            return None

    def _settle_doubts(self, queues: Collection[str]) -> None:
        """Makes up for what Redis may have lost. Gives back messages that it counts as ours but that are not held.

        Their pull was carried out but its reply was lost, or their acknowledgement was lost.
        """
        self.ledger.in_doubt = False
        self.broker.ping()  # once Redis answers this, it has also carried out any pull that had timed out here
        self.broker.pauses.renew()  # a restarted Redis may have an old copy
        self.broker.limits.renew()
        for queue in queues:
            # The held messages are read last: a message that is pulled in between is held, so it is not given back.
            # One that is acknowledged in between is no longer in the ack set, so requeue leaves it alone.
            lost = self.broker.pulled(queue) - self.ledger.held(queue)
            if lost:
                self.broker.requeue(queue, *lost)


def _success(one: Ended, now: datetime, monotonic: float) -> Success:
    began, ended = (now - timedelta(seconds=monotonic - moment) for moment in (one.began, one.ended))
    return Success(one.attempt, one.result, one.progress, began, not_settled(ended, now))


def _tell_late(ended: Sequence[Ended], settled: Settled) -> None:
    if len(settled.succeeded) < len(ended):
        for one in ended:
            if one.attempt[:2] not in settled.succeeded:
                task_id, _, number, _, operation, *_ = one.attempt
                about = {"task_id": task_id, "operation": operation, "attempt": number}
                about |= {"trace_id": trace_id(one.attempt.trace)}
                log.warning("task %d: attempt %d came too late, dropped", task_id, number, extra=about)
