"""Operations that go wrong, or take their time, on purpose."""

import contextvars
import logging
import sys
import threading
import time
from typing import Any

from marshmallow import Schema, fields

from scheduler_app.operations import PermanentError, Retry, RetryLater, current_task, operation


class Nothing(Schema):
    pass


class Value(Schema):
    value = fields.Raw(required=True, allow_none=True)


class Seconds(Schema):
    seconds = fields.Float(required=True)


@operation("trial.echo", params=Value)
def echo(value: Any) -> Any:
    "Returns what it is given."
    return value


@operation("trial.wait", params=Seconds)
def wait(seconds: float) -> None:
    "Takes so many seconds."
    threading.Event().wait(seconds)


@operation("trial.spin", params=Nothing, time_limit=0.5, max_retries=0)
def spin() -> None:
    "Never ends by itself."
    while True:
        time.monotonic()


@operation("trial.fail", params=Nothing, max_retries=2)
def fail() -> None:
    "Fails, and says at which attempt."
    raise RuntimeError(f"attempt {current_task.attempt} of task {current_task.task_id}")


@operation("trial.fail_once", params=Nothing)
def fail_once() -> int:
    "Succeeds at the second attempt."
    if current_task.attempt == 1:
        raise RuntimeError("not yet")
    return current_task.attempt


@operation("trial.retry", params=Nothing, retry=Retry(max_retries=3, min_seconds=30, max_seconds=30, factor=1))
def fail_with_pauses() -> None:
    "Fails, and is tried again after 30 s."
    raise RuntimeError("no")


@operation("trial.later", params=Seconds)
def fail_until_later(seconds: float) -> None:
    "Fails, and asks to be tried again after so many seconds."
    raise RetryLater("busy", seconds=seconds)


@operation("trial.give_up", params=Nothing)
def give_up() -> None:
    "Fails for good."
    raise PermanentError("no use")


@operation("trial.exit", params=Nothing, max_retries=0)
def leave() -> None:
    "Tries to end the process."
    sys.exit(3)


@operation("trial.unprintable", params=Nothing, max_retries=0)
def unprintable() -> None:
    "Fails with a message that PostgreSQL would not store."
    raise RuntimeError("a\0b\ud800" + "x" * 10_000)


@operation("trial.object", params=Nothing)
def give_object() -> object:
    "Returns what is not JSON."
    return object()


@operation("trial.deep", params=Nothing)
def give_depth() -> Any:
    "Returns JSON that is nested 900 deep."
    value: list[Any] = []
    for _ in range(900):
        value = [value]
    return value


@operation("trial.ask", params=Nothing)
def ask() -> None:
    "Runs until it is cancelled."
    while True:
        current_task.check_cancelled()
        threading.Event().wait(0.05)


@operation("trial.spin_for_ever", params=Nothing)
def spin_for_ever() -> None:
    "Never asks whether it is cancelled."
    while True:
        time.monotonic()


@operation("trial.shield", params=Seconds)
def shield(seconds: float) -> str:
    "Goes on when it is cancelled."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            threading.Event().wait(0.05)
        except BaseException:  # noqa: S112
            continue
    return "done"


@operation("trial.fail_late", params=Seconds)
def fail_late(seconds: float) -> None:
    "Fails after so many seconds."
    threading.Event().wait(seconds)
    raise RuntimeError("too late")


@operation("trial.report", params=Seconds)
def report(seconds: float) -> None:
    "Tells how far it is."
    current_task.progress(50, "half")
    threading.Event().wait(seconds)
    current_task.progress(100, "all")


@operation("trial.who", params=Nothing)
def who() -> list[int]:
    "Says which task and which attempt it is."
    return [current_task.task_id, current_task.attempt]


@operation("trial.log", params=Nothing)
def log() -> None:
    "Logs a message of two lines, and an error."
    try:
        raise ValueError("as an example")
    except ValueError:
        logging.getLogger("trial").warning("first line\nsecond line", exc_info=True)


class Talk(Schema):
    lines = fields.Integer(load_default=3)
    length = fields.Integer(load_default=0)
    then = fields.String(load_default="")


@operation("trial.talk", params=Talk, max_retries=0)
def talk(lines: int, length: int, then: str) -> None:
    "Logs so many lines, of a length, and then waits or fails."
    for number in range(1, lines + 1):
        logging.getLogger("talk").info("line %d%s", number, " " + "x" * length if length else "")
    if then == "wait":
        for _ in range(600):
            current_task.check_cancelled()
            time.sleep(0.1)
    elif then == "fail":
        raise ValueError("after all that was said")


@operation("trial.whisper", params=Talk, max_retries=0, logs="failures")
def whisper(lines: int, length: int, then: str) -> None:
    "The same, and only failures keep it."
    talk(lines, length, then)


@operation("trial.mute", params=Talk, max_retries=0, logs="off")
def mute(lines: int, length: int, then: str) -> None:
    "The same, and nothing keeps it."
    talk(lines, length, then)


@operation("trial.choir", params=Nothing)
def choir() -> None:
    "Logs from a thread with a copied context, from one without, and by the task itself; prints as well."
    logger = logging.getLogger("choir")
    logger.warning("one\ntwo")
    context = contextvars.copy_context()
    for target in (lambda: context.run(logger.warning, "copied"), lambda: logger.warning("astray")):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    logger.debug("too much")
    current_task.log("by hand \0 \ud800")
    print("printed")


class Dive(Schema):
    depth = fields.Integer(load_default=0)
    password = fields.String(load_default="")


@operation("trial.dive", params=Dive, max_retries=0)
def dive(depth: int, password: str) -> None:
    "Calls itself so often, and then waits until it is cancelled."
    if depth:
        dive(depth - 1, password)
    else:
        ask()
