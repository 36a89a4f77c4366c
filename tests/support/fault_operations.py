"""Operations for the fault suite: each leaves a line for every attempt that ran to its end."""

import os
import signal
import threading

from marshmallow import Schema, fields

from scheduler_app.operations import Limit, current_task, operation
from tests.support.limit_operations import append, leave

AT_ONCE = 3  # attempts of fault.limited


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


@operation("fault.limited", params=Seconds, limits=[Limit(AT_ONCE), Limit(1, per="group")])
def limited(seconds: float) -> int:
    "Like fault.work, AT_ONCE at once."
    leave("begin")
    threading.Event().wait(seconds)
    leave("end")
    _leave_a_line()
    return current_task.attempt


@operation("fault.kill_worker", params=Nothing)
def kill_worker() -> None:
    "Ends its process at once."
    os.kill(os.getpid(), signal.SIGKILL)


def _leave_a_line() -> None:
    append("FAULT_EFFECTS", f"{current_task.task_id} {current_task.attempt}")
