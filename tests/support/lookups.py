"""Results of name look-ups, as data."""

import socket
from collections.abc import Sequence
from ipaddress import ip_address

from scheduler_app.outgoing.connections import Found, Resolver


def found(*addresses: str, port: int = 80) -> list[Found]:
    """As getaddrinfo gives them. No socket of the family that others than loopback get can send them a packet."""
    return [(_family(address), socket.SOCK_STREAM, 6, "", _endpoint(address, port)) for address in addresses]


def looked_up(*addresses: str) -> Resolver:
    def lookup(_: str, port: int) -> Sequence[Found]:
        return found(*addresses, port=port)

    return lookup


def _family(address: str) -> socket.AddressFamily:
    if not ip_address(address).is_loopback:
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _endpoint(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    return (address, port, 0, 0) if ":" in address else (address, port)
