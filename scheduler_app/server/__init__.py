"""The web server: waitress, which reads whole requests before a thread sees them, with what it lacks for strangers.

Bytes go in and out in one thread, which never waits; the other threads only run views. So half-sent requests and
answers that nobody reads hold no thread. Added here: deadlines for heads and bodies, a body that is too large is read
to its end and answered in our shape, one thread that only answers probes, as many connections as the system allows,
a stop that finishes what runs, and threads for requests that only wait.
"""

import logging
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from scheduler_app.server.channel import Channel
from scheduler_app.server.parser import MAX_HEAD

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# Far more than may be inside the database at once: those that wait for their turn hold a thread too.
THREADS = 32
READY = "web process ready"  # what a process that serves says on standard error
PROBE = "/livez"  # has a thread of its own, because what restarts a process that does not answer asks for it
TURN = 0.0005  # seconds that a thread computes while others wait: beside THREADS of them a probe still gets its turn
STOP_DEADLINE = 10.0  # seconds that a stopping server gives its requests to finish
MOST_CONNECTIONS = 10_000
FILES = 2  # that a connection may have open: its socket, and a large body or answer
SPARE_FILES = 200  # for everything else
LOOK = 1.0  # seconds between two looks at the deadlines


class Server(TcpWSGIServer):
    channel_class = Channel

    def __init__(
        self, application: "WSGIApplication", listening: socket.socket, adjustments: Adjustments, *, max_body: int
    ) -> None:
        self.max_body = max_body  # bytes
        self.clock = 0.0  # seconds that this process has been awake
        self.looked_at = time.monotonic()
        self.probes = dispatcher(threads=1)
        self.threads = THREADS
        self.stopping = False
        self._waiting: dict[Channel, tuple[threading.Event, ...]] = {}
        self._waiting_changes = threading.Lock()
        super().__init__(
            application,
            {},
            _sock=listening,
            dispatcher=dispatcher(threads=THREADS),
            adj=adjustments,
            sockinfo=(listening.family, listening.type, listening.proto, listening.getsockname()),
            bind_socket=False,
        )

    def add_task(self, channel: Channel) -> None:
        request = channel.requests[0]
        is_probe = not request.error and request.path == PROBE
        (self.probes if is_probe else self.task_dispatcher).add_task(channel)

    def readable(self) -> bool:
        elapsed = time.monotonic() - self.looked_at
        if elapsed >= LOOK:
            self.looked_at += elapsed
            self.clock += min(elapsed, 2 * LOOK)  # the time in which the whole process stood still is not the clients'
            self._hang_up_on_late()
            self._end_waits()
        return bool(super().readable())

    def maintenance(self, now: float) -> None:
        """Does nothing: waitress calls it by the wall clock, which may be set."""

    def _hang_up_on_late(self) -> None:
        for channel in self.active_channels.values():
            if channel.is_late(self.clock):
                channel.will_close = True

    @contextmanager
    def only_waits(self, channel: Channel, over: threading.Event) -> Iterator[threading.Event]:
        """Here a request only waits for `over`: one more thread serves the others meanwhile.

        `over` and the event that this gives are set when the request's client has left, which is noticed within LOOK,
        and when the server stops.
        """
        given_up = threading.Event()
        with self._waiting_changes:
            self._waiting[channel] = over, given_up
            self._keep_threads(at_least=self.threads)
        if self.stopping:
            _set(over, given_up)
        try:
            yield given_up
        finally:
            with self._waiting_changes:
                del self._waiting[channel]

    def _end_waits(self) -> None:
        with self._waiting_changes:
            self._keep_threads(at_least=THREADS)
            waiting = list(self._waiting.items())
        for channel, events in waiting:
            if self.stopping or channel.has_left():
                _set(*events)

    def _keep_threads(self, *, at_least: int) -> None:
        wanted = max(at_least, THREADS + len(self._waiting))
        if wanted != self.threads and not self.stopping:
            self.threads = wanted
            self.task_dispatcher.set_thread_count(wanted)

    def serve(self) -> None:
        """Until SIGTERM or SIGINT; then it finishes what runs."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stopping = True
            self.pull_trigger()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        self._loop(lambda: self.stopping)
        self._end_waits()
        self._finish()

    def _finish(self) -> None:
        """New connections are refused, or go to the processes that share the socket."""
        deadline = time.monotonic() + STOP_DEADLINE
        self.accepting = False
        self.del_channel()
        self.socket.close()
        self._loop(lambda: self._hang_up_on_idle() or time.monotonic() > deadline)
        for threads in (self.probes, self.task_dispatcher):
            threads.shutdown(timeout=max(0.0, deadline - time.monotonic()))
        wasyncore.close_all(self._map)

    def _hang_up_on_idle(self) -> bool:
        """Whether no others are left."""
        channels = list(self.active_channels.values())
        for channel in channels:
            channel.will_close = channel.will_close or not channel.is_busy()
        return not channels

    def _loop(self, until: Callable[[], bool]) -> None:
        while not until():
            wasyncore.loop(timeout=LOOK, use_poll=True, map=self._map, count=1)


def serve(application: "WSGIApplication", listening: socket.socket, *, max_body: int) -> None:
    """Answers requests on this socket, which several processes may share, until it is told to stop."""
    sys.setswitchinterval(TURN)
    logging.getLogger("waitress").setLevel(logging.WARNING)  # at INFO it tells of clients that have left
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a request that waits for a thread is no fault
    adjustments = Adjustments(
        sockets=[listening],
        ident=None,
        connection_limit=_connections(),
        max_request_header_size=MAX_HEAD,
        max_request_body_size=1 << 62,  # our parser knows the limit
        clear_untrusted_proxy_headers=False,  # the application knows which proxies it trusts
    )
    Server(application, listening, adjustments, max_body=max_body).serve()


def listen(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    family, *_, endpoint = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(endpoint)
        listening.listen(1024)
    except OSError:
        listening.close()
        raise
    return listening


def dispatcher(*, threads: int) -> ThreadedTaskDispatcher:
    started = ThreadedTaskDispatcher()
    started.set_thread_count(threads)
    return started


def _set(*events: threading.Event) -> None:
    for event in reversed(events):
        event.set()


def _connections() -> int:
    """As many as this process may open files for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES * MOST_CONNECTIONS + SPARE_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return (allowed - SPARE_FILES) // FILES
