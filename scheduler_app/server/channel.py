"""One connection: its requests one after the other, its deadlines, and errors in the shape of the API's."""

import json
import select
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask

from scheduler_app.headers import HEADERS
from scheduler_app.server.parser import MAX_HEAD, Parser

if TYPE_CHECKING:
    from scheduler_app.server import Server

HEAD_DEADLINE, BODY_DEADLINE = 30.0, 60.0  # seconds in which a client must have sent it
IDLE_DEADLINE = 60.0  # seconds without a byte in either direction
ONLY_WAITS = "backbeat.only_waits"  # in the WSGI environment, see Server.only_waits


class ErrorInOurShape(ErrorTask):
    """The answer to a request that does not reach the application."""

    def execute(self) -> None:
        status = HTTPStatus(self.request.error.code)
        payload = {"code": status.value, "status": status.phrase, "message": self._message(status)}
        body = json.dumps(payload).encode() + b"\n"
        self.status = f"{status.value} {status.phrase}"
        self.content_length = len(body)
        self.response_headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        self.response_headers += HEADERS.items()
        self.set_close_on_finish()
        self.write(body)

    def _message(self, status: HTTPStatus) -> str:
        reason = self.request.error.body.rstrip(".")
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return f"The body is too large: {reason}."
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            return f"The head is too large: at most {MAX_HEAD:,} bytes."
        return f"{reason}."


class RequestTask(WSGITask):
    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[ONLY_WAITS] = partial(self.channel.server.only_waits, self.channel)
        return environ


class Channel(HTTPChannel):
    task_class = RequestTask
    error_task_class = ErrorInOurShape
    request: Parser | None
    sent_continue: bool

    def __init__(self, server: "Server", *args: Any, **kwargs: Any) -> None:
        self.parser_class = partial(Parser, limit=server.max_body)
        self.unparsed = b""  # what came after the request that is being answered
        self.doing: tuple[Any, ...] = ()  # as of the last look
        self.since = server.clock
        super().__init__(server, *args, **kwargs)

    def received(self, data: bytes) -> bool:
        """Parses one request; what follows it waits until it is answered, so that no thread waits for a slow reader.

        waitress would begin a pipelined request, and keep its thread until the client has read the answers before it.
        """
        with self.requests_lock:
            self.unparsed += data
            while self._can_parse():
                self._parse()
        return True

    def _can_parse(self) -> bool:
        ends = self.will_close or self.close_when_flushed
        return bool(self.unparsed) and not (ends or self.is_busy())

    def _parse(self) -> None:
        self.request = self.request or self.parser_class(self.adj)
        self.unparsed = self.unparsed[self.request.received(self.unparsed) :]
        if self.request.expect_continue and self.request.headers_finished and not self.sent_continue:
            self.send_continue()
        if self.request.completed:
            request, self.request, self.sent_continue = self.request, None, False
            if not request.empty:
                self.requests.append(request)
                self.server.add_task(self)

    def writable(self) -> bool:
        return bool(super().writable()) or self._can_parse()

    def handle_write(self) -> None:
        super().handle_write()
        self.received(b"")

    def is_busy(self) -> bool:
        """Whether a request runs, or its answer has not been sent."""
        return bool(self.requests or self.total_outbufs_len)

    def has_left(self) -> bool:
        """Whether the client has hung up. While a request runs nothing is read, so this must be asked."""
        poll = select.poll()
        poll.register(self._fileno, select.POLLRDHUP)
        return bool(poll.poll(0))

    def is_late(self, now: float) -> bool:
        """Whether the client has not sent its head or its body in time, or has been silent for too long."""
        doing, allowed = self._doing()
        if doing != self.doing:
            self.doing, self.since = doing, now
        return now - self.since > allowed

    def _doing(self) -> tuple[tuple[Any, ...], float]:
        """What changes when the client gets on, and how many seconds it may take until then."""
        if self.requests:
            return (), float("inf")
        if self.request is None:
            return (self.last_activity,), IDLE_DEADLINE
        return (self.request, self.request.headers_finished), (
            BODY_DEADLINE if self.request.headers_finished else HEAD_DEADLINE
        )
