"""Threads that stop at named points and go on when a test says so: the test chooses how calls interleave.

`points.py` puts the points before what the code does with its servers, so the code itself needs none.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

LOOK = 0.005  # seconds between two looks at a thread that has not arrived
BLOCKED = 0.03  # seconds that a thread must have waited for a lock: by then the server has resolved any deadlock
HANGS = 60.0  # seconds after which a thread that waits for nothing known fails the test

_here = threading.local()


class Killed(BaseException):
    """The process of this thread was killed: nothing of what it would do next happens."""


class Actor:
    """A thread that does one thing and stops at each point on its way there."""

    def __init__(self, name: str, body: Callable[[], Any], process: Any = None) -> None:
        self.name = name
        self.process = process  # that it is a thread of, if that matters
        self.point = ""
        self.ended = self.killed = False
        self.free = False  # it stops only where it always does
        self.in_command = False  # what it sends now is part of a command at whose point it has been
        self.outcome = ""  # what an operation that it runs is to do
        self.fault = ""  # what happens to the next command that it sends
        self.may_pass: Callable[[], bool] = lambda: True
        self.result: Any = None
        self.error: BaseException | None = None
        self.backend: int | None = None  # process of PostgreSQL's that serves it
        self.arrived, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(body,), name=name, daemon=True)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.point}>" if self.point else f"<{self.name}>"

    def let_go(self) -> None:
        self.arrived.clear()
        if self._thread.ident:
            self._go.set()
        else:
            self._thread.start()

    def stop_at(self, point: str) -> None:
        self.point = point
        self.arrived.set()
        self._go.wait()
        self._go.clear()

    def take_fault(self) -> str:
        fault, self.fault = self.fault, ""
        return fault

    def _run(self, body: Callable[[], Any]) -> None:
        _here.actor = self
        try:
            self.result = body()
        except BaseException as error:
            self.error = error
        self.point, self.ended = "ended", True
        self.arrived.set()


def current() -> Actor | None:
    """The actor whose thread this is; None for the test's own."""
    return getattr(_here, "actor", None)


def reach(
    point: str, *, always: bool = False, may_pass: Callable[[], bool] = lambda: True, backend: int | None = None
) -> None:
    """Stops the actor whose thread this is. One that was let go for good stops only where it always does.

    It is not let go on before may_pass. The backend is what serves the statement that comes next.
    """
    actor = current()
    if actor is None:
        return
    actor.backend = backend
    if not actor.killed and (always or not actor.free):
        actor.may_pass = may_pass
        actor.stop_at(point)
    if actor.killed:
        raise Killed


class Stage:
    """All actors of one example. One of them moves at a time; others may wait in the database for what it holds.

    While one waits, only what holds it up goes on. If two waited for one lock, nothing would say who gets it first.
    """

    def __init__(self, blockers: Callable[[int], Sequence[int]], is_busy: Callable[[int], bool]) -> None:
        # Of a process of PostgreSQL's: whom it waits for, and whether it is in a transaction.
        self.blockers, self.is_busy = blockers, is_busy
        self.actors: list[Actor] = []
        self._moving: list[Actor] = []  # let go and not arrived: they wait for a lock

    @property
    def waits(self) -> bool:
        """Whether an actor waits for a lock."""
        return bool(self._moving)

    def stopped(self) -> list[Actor]:
        """Those that can go on."""
        stopped = [a for a in self.actors if a.arrived.is_set() and not a.ended and a.may_pass()]
        holding = {pid for waiting in self._moving for pid in self.blockers(waiting.backend or 0)}
        return [a for a in stopped if a.backend in holding] or stopped

    def enter(self, actor: Actor) -> Actor:
        """Brings it to its first point."""
        self.actors.append(actor)
        self._let_go(actor)
        return actor

    def go_on(self, actor: Actor, points: int | None = None) -> None:
        """Over so many points, or as far as it can: to its end, to where it always stops, or to a lock."""
        actor.free = points is None
        for _ in range(1 if points is None else points):
            if actor.arrived.is_set() and not actor.ended and actor.may_pass():
                self._let_go(actor)

    def kill(self, actor: Actor) -> None:
        actor.killed = True
        if actor.arrived.is_set() and not actor.ended:
            self._let_go(actor)
            self._await_rollback(actor)
            self._settle()

    def close(self) -> None:
        """Ends all threads, whatever they were at."""
        for actor in self.actors:
            actor.killed = True
        for actor in self.actors:
            self.kill(actor)
        assert not self._moving, self._moving

    def _await_rollback(self, actor: Actor) -> None:
        # The server notices by itself that a process is gone, and then frees what it had locked.
        deadline = time.monotonic() + HANGS
        while actor.backend and self.is_busy(actor.backend):
            assert time.monotonic() < deadline, f"the server does not notice the end of {actor}"
            time.sleep(LOOK)

    def _let_go(self, actor: Actor) -> None:
        actor.let_go()
        self._moving.append(actor)
        self._settle(new=actor)

    def _settle(self, new: Actor | None = None) -> None:
        # What one gives free lets others go on, which give free more.
        while [actor for actor in self._moving.copy() if self._arrives(actor, waited=actor is not new)]:
            pass
        self.actors = [actor for actor in self.actors if not actor.ended]

    def _arrives(self, actor: Actor, *, waited: bool) -> bool:
        began, blocked_since = time.monotonic(), None
        while not actor.arrived.wait(LOOK):
            now = time.monotonic()
            if actor.backend is None or not self.blockers(actor.backend):
                blocked_since = None
                assert now - began < HANGS, f"{actor} hangs"
            elif waited or now - (blocked_since := blocked_since or now) > BLOCKED:
                return False
        self._moving.remove(actor)
        return True
