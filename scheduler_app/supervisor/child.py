"""Starts one child process, keeps it running and stops it. Its output goes to the common log."""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")
START_TIMEOUT = 120.0  # seconds until a child must be ready
FIRST_DELAY, LAST_DELAY = 0.5, 30.0  # seconds before a child is started again, doubled each time
STEADY = 30.0  # seconds; a child that ran for so long is started again after FIRST_DELAY
LONGEST_LINE = 1 << 20
HELD_BACK = 200  # lines of output that are held back while a child starts
COLOURS = (36, 33, 32, 35, 34)


class StartError(Exception):
    """A child did not become ready; the message is one line."""


@dataclass(frozen=True)
class Service:
    name: str
    command: tuple[str, ...]  # the first is an absolute path
    ready: str | Callable[[], Awaitable[bool]] = ""  # a text in its log, or a function to call until it is true
    grace: float = 10.0  # seconds between SIGTERM and SIGKILL
    directory: Path | None = None
    umask: int = -1  # the parent's
    files: tuple[int, ...] = ()  # open ones that each of its processes gets, as a socket to listen on


class Log:
    """Lines with their process's name, on standard output."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.colours: dict[str, int] = {}
        self.coloured = os.isatty(1)

    def write(self, name: str, line: str) -> None:
        text = _as_object(name, line) if self.as_json else self._with_prefix(name, line)
        # A reader that is gone (`| tee` gets Ctrl-C too) must not keep the children from stopping in order.
        with suppress(OSError):
            os.write(1, f"{text}\n".encode(errors="replace"))

    def _with_prefix(self, name: str, line: str) -> str:
        prefix = f"{name:<9} |"
        if self.coloured:
            colour = self.colours.setdefault(name, COLOURS[len(self.colours) % len(COLOURS)])
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        return f"{prefix} {line}"


def _as_object(name: str, line: str) -> str:
    if line.startswith("{"):
        return line
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": now, "level": "info", "process": name, "message": line})


class Child:
    """A service's process, in a session of its own, so that Ctrl-C reaches only the supervisor."""

    def __init__(
        self,
        service: Service,
        log: Log,
        environ: Mapping[str, str],
        lifeline: int,
        inherited: tuple[int, ...],
        *,
        verbose: bool = False,
    ) -> None:
        self.service = service
        self.log = log
        self.environ = environ
        self.lifeline = lifeline
        self.inherited = inherited
        self.verbose = verbose  # shows what it writes while it starts, too
        self.process: asyncio.subprocess.Process | None = None
        self.keeper: asyncio.Task[None] | None = None
        self.logged_ready = asyncio.Event()
        self.held_back: deque[str] | None = None  # what it wrote before it was ready

    async def start(self) -> None:
        """Starts it and waits until it is ready. From then on it is kept running."""
        process = await self._quietly(self._until_ready)
        self._say("is ready")
        self.keeper = asyncio.create_task(self._keep(process))

    async def run(self) -> None:
        """To its end, once."""
        await self._quietly(self._until_done)
        self._say("is done")

    async def stop(self) -> None:
        self.abandon()
        process = self.process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self.service.grace):
                await process.wait()
        except TimeoutError:
            self._say(f"did not stop within {self.service.grace:g} s")
            self.kill()
        self._say(_ending(await self._end(process)))

    def abandon(self) -> None:
        """Gives it up: it is not started again."""
        if self.keeper:
            self.keeper.cancel()

    def kill(self) -> None:
        """Kills the whole process group. While its watcher lives, no other group can have its id."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def _spawn(self) -> asyncio.subprocess.Process:
        guard = (sys.executable, "-I", "-S", str(GUARD), str(self.lifeline), str(self.service.grace))
        # A pipe of our own: with asyncio's, wait() returns only when nothing holds it any more (before Python 3.12.4).
        output, write_end = os.pipe()
        try:
            self.process = await asyncio.create_subprocess_exec(
                *guard,
                *self.service.command,
                cwd=self.service.directory,
                env=self.environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=asyncio.subprocess.STDOUT,
                umask=self.service.umask,
                pass_fds=(self.lifeline, *self.inherited, *self.service.files),
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        self.output = asyncio.create_task(self._relay(output))
        return self.process

    async def _relay(self, output: int) -> None:
        stream = asyncio.StreamReader(limit=LONGEST_LINE)
        protocol = asyncio.StreamReaderProtocol(stream)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(output, "rb", 0))
        while not stream.at_eof():
            with suppress(ValueError):  # a line longer than LONGEST_LINE is left out
                self._show((await stream.readline()).decode(errors="replace"))

    def _show(self, line: str) -> None:
        if line and self.held_back is not None:
            self.held_back.append(line.rstrip())
        elif line:
            self.log.write(self.service.name, line.rstrip())
        if isinstance(self.service.ready, str) and self.service.ready in line:
            self.logged_ready.set()

    async def _quietly(
        self, until: Callable[[asyncio.subprocess.Process], Awaitable[None]]
    ) -> asyncio.subprocess.Process:
        """Starts a process. Its output until it is ready is shown only if it does not become ready."""
        self.held_back = None if self.verbose else deque(maxlen=HELD_BACK)
        try:
            process = await self._spawn()
            await until(process)
        except BaseException:
            for line in self.held_back or ():
                self.log.write(self.service.name, line)
            raise
        finally:
            self.held_back = None
        return process

    async def _until_done(self, process: asyncio.subprocess.Process) -> None:
        if code := await self._end(process):
            raise StartError(f"{self.service.name} {_ending(code)}")

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        ready, ended = asyncio.create_task(self._ready()), asyncio.create_task(process.wait())
        try:
            done, _ = await asyncio.wait({ready, ended}, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            ended.cancel()
        if ended in done:
            raise StartError(f"{self.service.name} {_ending(await self._end(process))} before it was ready")
        if ready not in done:
            raise StartError(f"{self.service.name} was not ready within {START_TIMEOUT:g} s")

    async def _ready(self) -> None:
        if isinstance(self.service.ready, str):
            await self.logged_ready.wait()
        else:
            while not await self.service.ready():
                await asyncio.sleep(0.05)

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        clock = asyncio.get_running_loop().time
        delay, since = FIRST_DELAY, clock()
        while True:
            code = await self._end(process)
            if clock() - since > STEADY:
                delay = FIRST_DELAY
            self._say(f"{_ending(code)}; it is started again in {delay:g} s")
            await asyncio.sleep(delay)
            delay, since = min(2 * delay, LAST_DELAY), clock()
            process = await self._spawn()

    async def _end(self, process: asyncio.subprocess.Process) -> int:
        code = await process.wait()
        self.kill()  # what it left behind, its watcher too
        await self.output
        return code

    def _say(self, what: str) -> None:
        self.log.write("backbeat", f"{self.service.name} {what}")


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
