"""Runs a command beside a watcher. The watcher stops the command when the supervisor is gone, however it ended.

    python guard.py LIFELINE GRACE COMMAND [ARGUMENT ...]

LIFELINE is the read end of a pipe. When nobody holds its other end any more, the command gets SIGTERM. GRACE seconds
later its whole process group gets SIGKILL. The command must be the leader of that group.
The command takes over this process, so that the supervisor sees the command's own id and exit code.
It imports nothing of the project, so that a watcher costs only a few megabytes and milliseconds.
"""

import os
import signal
import sys
import time


def main(lifeline: int, grace: float, command: list[str]) -> None:
    leader = os.getpid()
    if os.fork():
        os.execv(command[0], command)  # noqa: S606
    os.read(lifeline, 1)  # nothing is ever written: this returns at the end of the pipe
    if os.getppid() == leader:
        os.kill(leader, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while os.getppid() == leader and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(leader, signal.SIGKILL)  # what is left of the group, this watcher too


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
