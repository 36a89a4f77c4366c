"""The work queue of a worker process. It pulls from Redis only as many messages as idle threads can start now."""

import logging
import random
import threading
import time
from collections import defaultdict
from contextlib import suppress
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, TypeVar, cast

import dramatiq
import redis
from dramatiq import Message, MessageProxy
from dramatiq.common import iter_queue
from dramatiq.errors import DecodeError

from scheduler_app.broker.consumer import AckConsumer, WorkerBroker
from scheduler_app.broker.wake_up import WakeUp

if TYPE_CHECKING:
    from dramatiq.worker import ConsumerThread

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL = 1.0  # seconds between looks at Redis when no wake-up comes, and between tries while it is away
LOOKAHEAD = 0.02  # seconds of work that may be fetched beyond what the idle threads take, while tasks are short
SHORT = 0.05  # seconds; tasks that take less are short
MOST_DONE = 1_000  # messages that one pull acknowledges
STALLED = 0.25  # seconds that fetched messages may wait before they go back for other workers


class FairQueue(Queue[Any]):
    """Replaces Dramatiq's work queue, which consumers fill with the messages that they prefetch.

    First in, first out, without Dramatiq's heap: Redis has already put the messages in order, by weight.

    An idle thread that finds the queue empty fetches for all idle threads. The others wait for the result.
    """

    def __init__(self, broker: WorkerBroker, worker: dramatiq.Worker) -> None:
        super().__init__()
        self.broker = broker
        self.books = broker.books
        self.worker = worker
        self.consumers: dict[str, ConsumerThread] = {}  # by queue; empty until the queue may pull
        self.closed = False
        self.away = False  # Redis does not answer
        self.idle = 0  # number of threads inside `get`
        self.fetching = False  # whether one of them is asking Redis
        self.more = True  # whether Redis may have more messages than were fetched
        self.next_poll = 0.0
        self.pauses = 0  # of a queue, of which this process has been told
        self.taken_at = 0.0
        self.thread = threading.local()  # started_at: when it got its item; reserved: the item that it gets next
        self.task_time = 1.0  # seconds that recent tasks took
        self.wake_up = WakeUp(
            broker.client,
            broker.namespace,
            on_connect=self.doubt,
            on_publish=self.wake,
            on_pause=self.pause,
            on_tick=self.tidy,
        )

    def open(self) -> None:
        """Starts to pull. Every consumer must exist by now, since pulled messages are acknowledged through them."""
        with self.not_empty:
            self.consumers = self.worker.consumers
            self.not_empty.notify_all()
        self.wake_up.start()

    def close(self) -> None:
        """Stops pulling, and gives back the messages that no thread has taken."""
        with self.not_empty:
            self.closed = True
            self.not_empty.notify_all()
        self.wake_up.stop()
        self.give_back()

    def acknowledge_all(self) -> None:
        """For a worker that ends. While Redis is away it does nothing: another worker will find those tasks done."""
        while self.books.any_done() and not self.away:
            self._pull(0)

    def wake(self) -> None:
        with self.not_empty:
            self.more = True
            self.not_empty.notify()

    def pause(self) -> None:
        """A queue was paused. What was fetched ahead goes back: some of it may be from that queue."""
        self.pauses += 1
        self.give_back()
        self.wake()  # what goes back and is not paused is fetched again

    def doubt(self) -> None:
        """Call this when Redis may have been restarted, and may have lost its last second of writes."""
        self.books.in_doubt = True
        self.wake()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not block:  # a stopping worker drains the queue: it gets only what is here
            return super().get(block=False)
        if reserved := self.take_reserved():
            self.thread.started_at = self.taken_at = time.monotonic()
            return reserved
        with self.not_empty:
            self.idle += 1
            try:
                self._wait_for_work(time.monotonic() + (POLL if timeout is None else timeout))
            finally:
                self.idle -= 1
            if self.more:  # perhaps this thread was to fetch; another must do it now
                self.not_empty.notify()
            self.thread.started_at = self.taken_at = time.monotonic()
            return self._get()

    def reserve(self) -> MessageProxy | None:
        """Sets a message aside for this thread to get next. None when no message is here."""
        if self.closed:
            return None
        with suppress(Empty):
            self.thread.reserved = super().get(block=False)
            return cast(MessageProxy, self.thread.reserved.message)
        return None

    def take_reserved(self) -> Any:
        return self.thread.__dict__.pop("reserved", None)

    def task_done(self) -> None:
        took = time.monotonic() - self.thread.started_at
        self.task_time = max(took, 0.8 * self.task_time + 0.2 * took)  # rises at once, falls slowly
        super().task_done()

    def tidy(self) -> None:
        """While long tasks occupy all threads: acknowledges what is done, and gives back what was fetched ahead."""
        if self.books.any_done() and time.monotonic() - self.taken_at > STALLED:
            self._pull(0)
        if self.qsize() and time.monotonic() - self.taken_at > STALLED:
            self.give_back()

    def give_back(self) -> None:
        messages = defaultdict(list)
        for item in iter_queue(self):  # type: ignore[no-untyped-call]
            messages[item.message.queue_name].append(item.message)
            super().task_done()
        for queue_name, some in messages.items():
            self.consumers[queue_name].requeue_messages(some)

    def _wait_for_work(self, deadline: float) -> None:
        while not self._qsize():
            now = time.monotonic()
            if self.closed or now >= deadline:
                raise Empty
            if self.fetching or not self.consumers:
                self.not_empty.wait(deadline - now)
            elif self.more or now >= self.next_poll:
                self._fetch()
            else:
                self.not_empty.wait(min(deadline, self.next_poll) - now)

    def _fetch(self) -> None:
        # The flag is cleared before Redis is asked, so that a wake-up in the meantime is not lost.
        self.fetching, self.more = True, False
        wanted, pauses = self.idle + self._ahead(), self.pauses
        self.mutex.release()
        try:
            messages = self._pull(wanted)
            for message in messages:
                self.consumers[message.queue_name].handle_message(message)  # puts it here
            if self.closed or self.pauses != pauses:
                self.give_back()
        finally:
            self.mutex.acquire()
            self.fetching = False
            self.next_poll = time.monotonic() + random.uniform(0.75, 1) * POLL
        self.more = self.more or len(messages) == wanted

    def _ahead(self) -> int:
        """How many messages the threads would start within LOOKAHEAD, while tasks are short."""
        threads = self.worker.worker_threads
        return min(4 * threads, int(threads * LOOKAHEAD / self.task_time)) if self.task_time < SHORT else 0

    def _pull(self, count: int) -> list[MessageProxy]:
        """Fetches at most `count` messages, and acknowledges the finished ones."""
        done = self.books.take_done(MOST_DONE)
        try:
            if self.books.in_doubt:
                self._settle_doubts()
            pulled = self.broker.pull(self.consumers, count, done=done)
        except redis.RedisError as error:
            self.books.return_done(done)
            if not self.away:
                log.warning("Redis does not answer; trying again every second: %s", error)
            self.away = self.books.in_doubt = True
            return []
        self.books.acknowledged(done)
        if self.away:
            log.warning("Redis answers again")
            self.away = False
        return [message for one in pulled if (message := self._hold(*one))]

    def _hold(self, queue_name: str, message_id: str, data: bytes) -> MessageProxy | None:
        try:
            message = MessageProxy(Message.decode(data))
        except DecodeError:
            log.error("message %s of %s is unreadable and goes to the dead letters", message_id, queue_name)
            self._consumer(queue_name).settle(self.broker.nack, message_id)
            return None
        self.books.hold(queue_name, message_id)
        return message

    def _settle_doubts(self) -> None:
        """Makes up for what Redis may have lost. Gives back messages that it counts as ours but no thread here has.

        Their pull was carried out but its reply was lost, or their acknowledgement was lost.
        """
        self.books.in_doubt = False
        self.broker.ping()  # once Redis answers this, it has also carried out any pull that had timed out here
        self.broker.pauses.renew()  # a restarted Redis may have an old copy
        for queue_name in self.consumers:
            # The held messages are read last: a message that is pulled in between is held, so it is not given back.
            # One that is acknowledged in between is no longer in the ack set, so requeue leaves it alone.
            lost = self.broker.pulled(queue_name) - self.books.held(queue_name)
            if lost:
                self.broker.requeue(queue_name, *lost)

    def _consumer(self, queue_name: str) -> AckConsumer:
        return cast(AckConsumer, self.consumers[queue_name].consumer)


class FairScheduling(dramatiq.Middleware):
    """Puts FairQueue into the worker that the stock `dramatiq` command starts."""

    queue: FairQueue

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self.queue = FairQueue(cast(WorkerBroker, broker), worker)
        worker.work_queue = cast(Any, self.queue)

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        while not all(thread.consumer for thread in worker.consumers.values()):
            time.sleep(0.001)  # the consumers' threads are just starting
        self.queue.open()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self.queue.close()

    def before_worker_thread_shutdown(self, broker: dramatiq.Broker, thread: Any) -> None:
        if reserved := self.queue.take_reserved():
            thread.process_message(reserved.message)

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self.queue.acknowledge_all()
