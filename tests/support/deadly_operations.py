"""For a worker that is killed right before or right after the end of a task with a callback is committed."""

import os
import signal
from typing import Any

from sqlalchemy import event

from scheduler_app.extensions import db
from scheduler_app.services.callbacks import MADE


def die(session: Any) -> None:
    if session.info.get(MADE):
        os.kill(os.getpid(), signal.SIGKILL)


event.listen(db.session, os.environ["KILLED"], die, insert=True)  # before anything is published
