"""The log of every process: one line per event, on standard error."""

import logging

CHATTY = ("alembic", "apscheduler")  # at INFO they log every step


def configure(level: str) -> None:
    """`level` is a name of the standard library's: debug, info, warning. To be called once, at a process's start."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")  # does nothing where there is a handler
    logging.getLogger().setLevel(level.upper())
    if level != "debug":
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
