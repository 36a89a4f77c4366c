"""Python imports this by itself, in processes that run under libfaketime.

The library (0.9.10) fails clock_nanosleep until a moment of the monotonic clock, which is how time.sleep sleeps.
"""

import select
import time


def sleep(seconds: float) -> None:
    select.select((), (), (), seconds)


time.sleep = sleep
