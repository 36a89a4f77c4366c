"""The work queue of a worker process. Dramatiq's threads run here what it has; it has only what they can start now.

An idle thread that finds nothing to run exchanges for all threads, see exchange.py; the others wait for what it brings.
While tasks are short, a little more is claimed than the idle threads take, so that a thread runs several in a row. The
keeper then fetches before that is used up, unless tasks are tiny.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any, NoReturn, TypeVar, cast

import dramatiq

from scheduler_app.broker import Message
from scheduler_app.broker.wake_up import WakeUp
from scheduler_app.worker.exchange import NOTHING, Brought, Exchange, Fetched
from scheduler_app.worker.ledger import Claimed

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL = 1.0  # seconds between looks at Redis when no wake-up comes, and between tries while it is away
SHORT = 0.05  # seconds; tasks that take less are short
TINY = 0.002  # seconds; while tasks take less, their own threads exchange, since to call the keeper costs more
LEAST = 1e-6  # seconds, for a clock that did not move
LOOKAHEAD = 0.02  # seconds of work that may be claimed beyond what the idle threads take, while tasks are short
MOST_AHEAD = 16  # the same in tasks, for each thread
TICK = 0.005  # seconds that a success waits to be recorded, at most about
STALLED = 10  # ticks in which no thread has taken anything, after which what was claimed ahead is given back


class WorkQueue:
    """Takes the place of Dramatiq's work queue, which its consumers fill with the messages that they prefetch.

    First in, first out: Redis has already put the messages in order, by weight.
    """

    def __init__(self, exchange: Exchange, perform: Callable[[Claimed], None], worker: dramatiq.Worker) -> None:
        self.exchange = exchange
        self.ledger = exchange.ledger
        self.perform = perform
        self.threads = worker.worker_threads
        self.queues: list[str] = []  # empty until it may pull
        self.ready: deque[Claimed] = deque()  # claimed, not begun
        self.suspected: deque[Message] = deque()  # each to be claimed alone, one at a time
        self.changed = threading.Condition()
        self.closed = False
        self.idle = 0  # number of threads that wait
        self.waking = False  # one of them was notified and is not awake yet
        self.exchanging = False  # one thread is at it
        self.more = True  # whether Redis may have more messages than were brought
        self.next_poll = 0.0
        self.pauses = 0  # of a queue, of which this process has been told
        self.taken = 0  # attempts that have begun here
        self.task_time = SHORT  # seconds that recent tasks took; nothing is known yet
        self._suspect_runs = threading.Lock()
        self._astir = threading.Event()
        self._finished = threading.Event()
        self._keeping = False
        self._seen = 0, 0  # how many had been taken at the keeper's last look, and for how many looks that has been so
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        broker = exchange.broker
        self.wake_up = WakeUp(
            broker.client,
            broker.namespace,
            on_connect=self.doubt,
            on_publish=self.wake,
            on_pause=self.pause,
            on_tick=self.acknowledge,
        )

    def open(self, queues: list[str]) -> None:
        """Starts to pull from these queues."""
        with self.changed:
            self.queues = queues
            self.changed.notify_all()
        self._keeper.start()
        self.wake_up.start()

    def close(self) -> None:
        """Stops pulling, and gives back what no thread has begun."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.wake_up.stop()
        self._stir()
        self.give_back()

    def finish(self) -> None:
        """Call this when all threads have ended: records and acknowledges what they have done."""
        self._finished.set()
        self._astir.set()
        if self._keeper.is_alive():
            self._keeper.join()
        self.exchange.settle()
        self.exchange.acknowledge_all(self.queues)

    def wake(self) -> None:
        with self.changed:
            self.more = True
            self.changed.notify()

    def pause(self) -> None:
        """A queue was paused. What was claimed ahead goes back: some of it may be from that queue."""
        self.pauses += 1
        self.give_back()
        self.wake()  # what goes back and is not paused is fetched again

    def doubt(self) -> None:
        """Call this when Redis may have been restarted, and may have lost its last second of writes."""
        self.ledger.in_doubt = True
        self.wake()

    def acknowledge(self) -> None:
        """While long tasks occupy all threads: tells Redis what is settled."""
        if self.ledger.any_settled() and not self.idle and not self.exchanging:
            self.exchange.acknowledge_all(self.queues)

    def get(self, block: bool = True, timeout: float = POLL) -> NoReturn:
        """Called by Dramatiq's threads. It runs what there is to run, and has no message left for Dramatiq.

        It ends when nothing came for `timeout` seconds, or the worker stops.
        """
        try:
            while block and self._run_next(time.monotonic() + timeout):
                pass
        except Exception:  # a thread that raised it would be gone
            log.exception("a worker's thread begins again")
            self.exchange.patience.stopping.wait(1)
        raise Empty

    def get_nowait(self) -> NoReturn:
        raise Empty

    def task_done(self) -> None:
        """Part of the interface that Dramatiq expects."""

    def tidy(self) -> None:
        """Records what has waited for long, fetches more, and gives back what no thread comes for."""
        oldest = self.ledger.oldest_end()
        waits_long = oldest is not None and time.monotonic() - oldest >= TICK
        if self.ledger.frees_slots or waits_long or (self._runs_low() and self._keeper_fetches()):
            self._exchange()
        # It counts its own looks, not the time: on a busy machine the threads have waited for a core as it has.
        taken, looks = self._seen
        self._seen = self.taken, looks + 1 if taken == self.taken else 0
        if (self.ready or self.suspected) and self._seen[1] >= STALLED and not self.exchanging:
            self.give_back()

    def give_back(self) -> None:
        """What no thread has begun."""
        if claimed := take_all(self.ready):
            self.exchange.give_back(claimed)
        if suspected := take_all(self.suspected):
            self.exchange.release(suspected)

    def _run_next(self, deadline: float) -> bool:
        """Runs one attempt, or more. False when nothing came until the deadline, or the worker stops."""
        if self._runs_low():
            if self._keeper_fetches():
                self._astir.set()
            else:
                self._exchange()
        if self.suspected and self._suspect_runs.acquire(blocking=False):
            self._run_suspected()
            return True
        with suppress(IndexError):
            claimed = self.ready.popleft()
            if self.ready:
                self._pass_on()
            self._run(claimed)
            return True
        return self._wait(deadline)

    def _runs_low(self) -> bool:
        return self.more and self.task_time < SHORT and len(self.ready) <= self._ahead() // 2

    def _keeper_fetches(self) -> bool:
        """So that no thread lets what is ready wait meanwhile."""
        return bool(self.ready) and self.task_time >= TINY

    def _run_suspected(self) -> None:
        """Such a task may end this process, and then only one of them must be to blame."""
        try:
            message = self.suspected.popleft()
            for claimed in self.exchange.settle([message], begun=True, suspected=True).claimed:
                self._run(claimed)
        except IndexError:  # another thread gave them back
            pass
        finally:
            self._suspect_runs.release()
            with self.changed:
                self.changed.notify()

    def _run(self, claimed: Claimed) -> None:
        began = time.monotonic()
        self.taken += 1
        try:
            self.perform(claimed)
        except Exception:
            log.exception("task %d: attempt %d is left", claimed.attempt.task_id, claimed.attempt.number)
            self.ledger.settle([claimed.message])
        # A geometric mean: one long task among many short ones changes little.
        self.task_time = self.task_time**0.8 * max(time.monotonic() - began, LEAST) ** 0.2
        if self.ready or self.closed:  # then this thread does not record at once what it has done
            self._stir()

    def _pass_on(self) -> None:
        """There is more: wakes another thread, unless one is about to wake. So threads wake one after the other."""
        if self.idle and not self.waking:
            with self.changed:
                self.waking = True
                self.changed.notify()

    def _wait(self, deadline: float) -> bool:
        with self.changed:
            while not self.ready and not self._suspect_may_run():
                now = time.monotonic()
                if self.closed or now >= deadline:
                    return False
                if self._has_business(now):
                    self.changed.release()
                    try:
                        self._exchange(calling=1)
                    finally:
                        self.changed.acquire()
                else:
                    self._sleep(deadline - now if self.exchanging else min(deadline, self.next_poll) - now)
        return True

    def _suspect_may_run(self) -> bool:
        return bool(self.suspected) and not self._suspect_runs.locked()

    def _has_business(self, now: float) -> bool:
        if self.exchanging or not self.queues:
            return False
        return self._is_called() or now >= self.next_poll

    def _is_called(self) -> bool:
        return self.more or self.ledger.frees_slots or self.ledger.oldest_end() is not None

    def _sleep(self, seconds: float) -> None:
        self.idle += 1
        self.changed.wait(seconds)
        self.idle -= 1
        self.waking = False

    def _exchange(self, *, calling: int = 0) -> None:
        """Does nothing while another thread is at it. calling: 1 if the calling thread waits for what it brings."""
        with self.changed:
            if self.exchanging or not self.queues:
                return
            self.exchanging = True
            waiting, pauses = self.idle + calling, self.pauses
            wanted = self._wanted(waiting)
            if wanted:  # cleared before Redis is asked, so that a wake-up in the meantime is not lost
                self.more = False
        brought, messages, wait = NOTHING, list[Message](), None
        try:
            messages, wait = self._fetch(wanted, waiting)
            begun = self.task_time > SHORT or (len(messages) == 1 and waiting > 0)
            brought = self.exchange.settle(messages, begun=begun)
        except BaseException:
            self.exchange.release(messages)
            raise
        finally:
            with self.changed:
                self.exchanging = False
                if wanted:
                    self.more = self.more or len(messages) == wanted
                    self._poll_in(wait)
                self._take_in(brought)
                if len(self.ready) > calling or self.suspected or self._is_called() or wait is not None:
                    self.changed.notify()
        if self.closed or self.pauses != pauses:
            self.give_back()
        elif self.ready:
            self._stir()

    def _fetch(self, wanted: int, waiting: int) -> Fetched:
        if wanted or self.ledger.frees_slots:
            return self.exchange.pull(self.queues, wanted, idle=waiting)
        return Fetched([])

    def _take_in(self, brought: Brought) -> None:
        """What has slots in limits comes first, since it was brought for threads that are idle."""
        self.ready.extend(one for one in brought.claimed if not one.message.epoch)
        self.ready.extendleft(one for one in reversed(brought.claimed) if one.message.epoch)
        self.suspected.extend(brought.suspected)

    def _poll_in(self, wait: float | None) -> None:
        usual = random.uniform(0.75, 1) * POLL
        self.next_poll = time.monotonic() + (usual if wait is None else min(wait, usual))

    def _wanted(self, waiting: int) -> int:
        """How many messages to ask Redis for; 0 when it has none or no thread would start them soon."""
        if self.closed or not (self.more or self.ledger.frees_slots or time.monotonic() >= self.next_poll):
            return 0
        return max(0, waiting + self._ahead() - len(self.ready) - len(self.suspected))

    def _ahead(self) -> int:
        """How many tasks the threads would start within LOOKAHEAD, while tasks are short."""
        if self.task_time >= SHORT:
            return 0
        return min(MOST_AHEAD * self.threads, int(self.threads * LOOKAHEAD / self.task_time))

    def _stir(self) -> None:
        """Makes the keeper look every TICK until there is nothing left to look after."""
        if not self._keeping:
            self._astir.set()

    def _keep(self) -> None:
        while not self._finished.is_set():
            self._keeping = False
            if not self._is_astir():
                self._astir.wait()
            self._astir.clear()
            self._keeping = True
            while self._is_astir() and not self._finished.is_set():
                self._astir.wait(TICK)
                self._astir.clear()
                try:
                    self.tidy()
                except Exception:
                    log.exception("tidying failed; it is tried again")
        self.exchange.writer.close()

    def _is_astir(self) -> bool:
        return any((self.ready, self.suspected, self.ledger.frees_slots)) or self.ledger.oldest_end() is not None


def take_all(queue: deque[T]) -> list[T]:
    """Several threads may take at once."""
    taken = []
    with suppress(IndexError):
        while True:
            taken.append(queue.popleft())
    return taken


class Scheduling(dramatiq.Middleware):
    """Puts the work queue into the worker that the stock `dramatiq` command starts."""

    queue: WorkQueue

    def __init__(self, exchange: Exchange, perform: Callable[[Claimed], None]) -> None:
        self.exchange = exchange
        self.perform = perform

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self.queue = WorkQueue(self.exchange, self.perform, worker)
        worker.work_queue = cast(Any, self.queue)

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self.queue.open(list(worker.consumers))

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self.queue.close()

    def before_worker_thread_shutdown(self, broker: dramatiq.Broker, thread: Any) -> None:
        self.exchange.writer.close()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self.queue.finish()
