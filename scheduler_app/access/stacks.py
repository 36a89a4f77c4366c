"""Asking a running task where it stands, for the API and the dashboard alike."""

from functools import partial

from scheduler_app.access.quiet import look_until
from scheduler_app.database import clock
from scheduler_app.errors import SOON, Unavailable
from scheduler_app.services import stacks
from scheduler_app.services.stacks import Stack

LONGEST = 2.0  # seconds
LOOK = 0.1  # seconds between two looks for the answer


def stack_of(task_id: int) -> Stack:
    """Raises TaskNotFound; WrongState when the task does not run, or ends meanwhile; Unavailable without an answer."""
    number = stacks.ask(task_id, now=clock())
    found = look_until(partial(stacks.answer_to, task_id, number), within=LONGEST, every=LOOK)
    if found is None:
        message = f"The worker of task {task_id} has not answered within {LONGEST:g} s: it is busy, or lost."
        raise Unavailable(message, headers=SOON)
    return found
