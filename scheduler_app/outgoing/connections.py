"""Connections to checked addresses. A name is looked up once, and only a checked address is connected to."""

import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from functools import cache
from ipaddress import ip_address
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection

from scheduler_app.outgoing.egress import Address, Allowed, refusal
from scheduler_app.outgoing.errors import Refused
from scheduler_app.outgoing.messages import Target

log = logging.getLogger(__name__)

Found = tuple[int, int, int, str, Any]  # an address of a name, as getaddrinfo gives it
Resolver = Callable[[str, int], Sequence[Found]]


def resolve(host: str, port: int) -> Sequence[Found]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def connection_to(target: Target, *, allowed: Allowed | None, lookup: Resolver, deadline: float) -> HTTPConnection:
    """A connection that is not connected yet. Its connect() raises Refused, OSError and urllib3's errors.

    `allowed` is None when the operator has set the address: then every address may be called. `deadline` is by
    time.monotonic(). Proxy settings in the environment are ignored, because a proxy would look the name up itself.
    """

    def reach() -> socket.socket:
        found = lookup(target.host, target.port)
        return _first_that_answers(found if allowed is None else permitted(target.host, found, allowed), deadline)

    timeout = max(deadline - time.monotonic(), 0.001)
    connection: _Plain | _Encrypted
    if target.scheme == "https":
        connection = _Encrypted(target.host, target.port, timeout=timeout, ssl_context=_tls())
    else:
        connection = _Plain(target.host, target.port, timeout=timeout)
    connection.reach = reach
    return connection


def permitted(host: str, found: Sequence[Found], allowed: Allowed) -> list[Found]:
    """The addresses that may be called. Other addresses of the same name are left out; the name is not refused.

    Raises Refused when none may be called.
    """
    reasons = [refusal(address_of(each), host, allowed) for each in found]
    if found and all(reasons):
        log.info("%s is not called: %s", host, ", ".join(str(address_of(each)) for each in found))
        raise Refused(reasons[0])
    return [each for each, reason in zip(found, reasons, strict=True) if reason is None]


def address_of(found: Found) -> Address:
    *_, endpoint = found
    return ip_address(str(endpoint[0]).partition("%")[0])


class _Plain(HTTPConnection):
    reach: Callable[[], socket.socket]

    def _new_conn(self) -> socket.socket:
        return self.reach()


class _Encrypted(HTTPSConnection):
    reach: Callable[[], socket.socket]

    def _new_conn(self) -> socket.socket:
        return self.reach()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _first_that_answers(found: Sequence[Found], deadline: float) -> socket.socket:
    failure = OSError("the name has no address")
    for each in found:
        try:
            return _connected(each, deadline)
        except OSError as error:
            failure = error
    raise failure


def _connected(found: Found, deadline: float) -> socket.socket:
    family, kind, protocol, _, endpoint = found
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        sock.connect(endpoint)
    except BaseException:
        sock.close()
        raise
    return sock
