"""The one client for outgoing requests. It checks the target, fills in secrets, signs, and reads the answer."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from scheduler_app.outgoing import answers
from scheduler_app.outgoing.blackening import Blackening
from scheduler_app.outgoing.connections import Found, Resolver, address_of, connection_to, resolve
from scheduler_app.outgoing.egress import PUBLIC_ONLY, Allowed, is_public
from scheduler_app.outgoing.errors import Refused
from scheduler_app.outgoing.messages import Answer, Request
from scheduler_app.outgoing.secrets_file import Secret, SecretsFile, filled, references
from scheduler_app.outgoing.signatures import signature_headers

TRACE = {"traceparent", "tracestate"}
WATCH_INTERVAL = 0.25  # seconds between two checks whether to give up the request


def _never() -> bool:
    return False


class Client:
    """Its methods may be called from many threads."""

    def __init__(
        self, allowed: Allowed = PUBLIC_ONLY, secrets: SecretsFile | None = None, lookup: Resolver = resolve
    ) -> None:
        self.allowed = allowed
        self.secrets = secrets or SecretsFile()
        self.lookup = lookup
        self.trace: Callable[[], Mapping[str, str]] = dict  # headers that pass on the trace of what sends

    def check(self, request: Request) -> None:
        """Raises Refused and SecretsUnreadable when its secrets could not be filled in or could not sign it."""
        _headers(request, self.secrets.chosen(request))

    def send(self, request: Request, *, trusted: bool = False, given_up: Callable[[], bool] = _never) -> Answer:
        """The answer, whatever its status. Redirects are not followed.

        With `trusted`, any address may be called; use it for addresses that the operator sets. When `given_up` returns
        true, the connection is closed at once.
        Raises Refused for a request that is not allowed, SecretsUnreadable, TimeoutError when there is no complete
        answer within the request's timeout, and ConnectionError for every other failure of the connection. No answer
        and no error contains a secret of the request.
        """
        secrets = self.secrets.chosen(request)
        blackening = Blackening(secrets.values())
        headers = _headers(request, secrets)
        if not headers.keys() & TRACE:  # the request may set them itself
            headers |= self.trace()
        deadline = time.monotonic() + request.timeout
        allowed = None if trusted else self.allowed

        def lookup(host: str, port: int) -> Sequence[Found]:
            found = self.lookup(host, port)
            _check_encrypted(request, found)
            return found

        connection = connection_to(request.target, allowed=allowed, lookup=lookup, deadline=deadline)
        try:
            with closing(connection):
                connection.connect()
                with _hung_up(connection.sock, deadline, given_up):
                    answer = _exchange(connection, request, headers, blackening)
        except (OSError, HTTPError, http.client.HTTPException) as error:
            failure = blackening.apply(f"{request.target}: {error.__cause__ or error}")
        else:
            _check_deadline(deadline, request)  # the body may have ended only because _hung_up closed the connection
            return answer
        # Raised outside the handler: the caught error may quote the response, and would be shown as the context.
        _check_deadline(deadline, request)
        raise ConnectionError(failure)


def _headers(request: Request, secrets: Mapping[str, Secret]) -> dict[str, str]:
    headers = filled(request.headers, secrets)
    if request.sign_with:
        key = secrets[request.sign_with]
        headers |= signature_headers(key, request.message_id, request.body or b"", now=datetime.now(UTC))
    return headers


def _check_encrypted(request: Request, found: Sequence[Found]) -> None:
    """Raises Refused when a secret would cross the internet unencrypted, where others could read it."""
    names = references(request.headers)
    if names and request.target.scheme == "http" and any(is_public(address_of(each)) for each in found):
        raise Refused(f"The secret {min(names)!r} is not sent to a public address without encryption; use https.")


def _exchange(
    connection: HTTPConnection, request: Request, headers: Mapping[str, str], blackening: Blackening
) -> Answer:
    """Sends one request, on a new connection. The peer may have closed a kept one, which would cost an attempt."""
    connection.request(request.method, request.target.uri, body=request.body, headers=headers, preload_content=False)
    with connection.getresponse() as response:
        return answers.read(response, blackening)


@contextmanager
def _hung_up(sock: socket.socket, deadline: float, given_up: Callable[[], bool]) -> Iterator[None]:
    """Closes the connection at the deadline, and when the request is given up.

    A socket's timeout only bounds each single read. A peer that sends one byte at a time could hold us for ever.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(min(WATCH_INTERVAL, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline or given_up():
                # The plain socket's shutdown: that of a TLS socket would take the session from the thread that reads.
                _shut_down(sock)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # closed already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _check_deadline(deadline: float, request: Request) -> None:
    if time.monotonic() >= deadline:
        raise TimeoutError(f"No complete answer within {request.timeout:g} s.")
