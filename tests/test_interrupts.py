"""Calls that are interrupted from outside their thread."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from scheduler_app.worker import interrupts
from scheduler_app.worker.interrupts import InterruptibleCall, TimeLimitExceeded

PAUSE = 0.0002  # seconds


class Enough(Exception):
    pass


def spin() -> None:
    while True:
        pass


def run(function: Callable[[], Any], *, limit: float = 60) -> Any:
    return InterruptibleCall().run(function, limit=limit)


def test_the_result_of_the_function_is_returned() -> None:
    assert run(lambda: 17) == 17
    assert run(lambda: None) is None


def test_what_the_function_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_the_time_limit_interrupts_busy_python_code() -> None:
    started = time.monotonic()
    with pytest.raises(TimeLimitExceeded, match=r"^Stopped after 0\.1 s, its time limit\.$"):
        run(spin, limit=0.1)
    assert 0.1 <= time.monotonic() - started < 1


def test_a_handler_of_all_exceptions_does_not_keep_the_function_running() -> None:
    def stubborn() -> None:
        while True:
            try:
                spin()
            except Exception:
                pytest.fail("caught")

    with pytest.raises(TimeLimitExceeded):
        run(stubborn, limit=0.1)


def test_an_interrupted_function_cleans_up() -> None:
    cleaned = []

    def careful() -> None:
        try:
            spin()
        finally:
            cleaned.append(True)

    with pytest.raises(TimeLimitExceeded):
        run(careful, limit=0.1)
    assert cleaned == [True]


def test_a_result_that_is_there_wins() -> None:
    def finish_all_the_same() -> str:
        try:
            spin()
        except BaseException:
            return "done"

    assert run(finish_all_the_same, limit=0.1) == "done"


def test_a_call_is_interrupted_once_for_the_first_reason() -> None:
    call = InterruptibleCall()

    def interrupt_itself() -> None:
        call.interrupt(Enough("first"))
        call.interrupt(Enough("second"))
        spin()

    with pytest.raises(Enough, match="first"):
        call.run(interrupt_itself, limit=60)


def test_an_interrupt_before_or_after_the_function_does_nothing() -> None:
    call = InterruptibleCall()
    call.interrupt(Enough())
    assert call.run(lambda: 17, limit=60) == 17
    call.interrupt(Enough())
    assert sum(range(10_000)) == 49_995_000


def test_only_the_thread_that_makes_the_call_is_interrupted() -> None:
    outcomes = {}

    def work(limit: float) -> None:
        try:
            outcomes[limit] = run(lambda: threading.Event().wait(0.6), limit=limit)
            outcomes[limit] = run(spin, limit=limit)
        except TimeLimitExceeded as error:
            outcomes[limit] = str(error)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (0.7, 0.8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert outcomes == {limit: f"Stopped after {limit} s, its time limit." for limit in (0.7, 0.8)}


def test_an_interrupt_never_reaches_the_code_after_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of calls end while another thread is in the midst of interrupting them."""
    send = interrupts._set_async_exception

    def send_slowly(*arguments: Any) -> None:
        time.sleep(PAUSE)
        send(*arguments)
        time.sleep(PAUSE)

    monkeypatch.setattr(interrupts, "_set_async_exception", send_slowly)
    calls = [InterruptibleCall() for _ in range(600)]
    about_to_end = threading.Semaphore(0)

    def interrupt_each() -> None:
        for call in calls:
            about_to_end.acquire()
            call.interrupt(Enough())

    thread = threading.Thread(target=interrupt_each)
    thread.start()
    outcomes = [race(call, about_to_end, pause=PAUSE * (number % 9) / 3) for number, call in enumerate(calls)]
    thread.join()
    assert set(outcomes) == {"ended", "interrupted"}


def race(call: InterruptibleCall, about_to_end: threading.Semaphore, *, pause: float) -> str:
    def function() -> str:
        about_to_end.release()
        time.sleep(pause)
        return "ended"

    try:
        outcome: str = call.run(function, limit=60)
    except Enough:
        outcome = "interrupted"
    for _ in range(10):  # steps in which an interrupt that comes late would be raised
        time.sleep(0)
    return outcome
