"""Operations for the fault suite: each leaves a line for every attempt that ran to its end."""

import os
import signal
import threading

from marshmallow import Schema, fields

from scheduler_app.operations import current_task, operation


class Seconds(Schema):
    seconds = fields.Float(required=True)


class Nothing(Schema):
    pass


@operation("fault.work", params=Seconds)
def work(seconds: float) -> int:
    "Takes so many seconds; returns which attempt it was."
    threading.Event().wait(seconds)
    _leave_a_line()
    return current_task.attempt


@operation("fault.fail_once", params=Nothing)
def fail_once() -> int:
    "Fails at the first attempt."
    if current_task.attempt == 1:
        raise RuntimeError("not yet")
    _leave_a_line()
    return current_task.attempt


@operation("fault.kill_worker", params=Nothing)
def kill_worker() -> None:
    "Ends its process at once."
    os.kill(os.getpid(), signal.SIGKILL)


def _leave_a_line() -> None:
    line = f"{current_task.task_id} {current_task.attempt}\n".encode()
    file = os.open(os.environ["FAULT_EFFECTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, line)
    finally:
        os.close(file)
