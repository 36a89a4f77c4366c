"""Which addresses a task may call. This is decided by the address that a name leads to, never by its spelling.

The ranges are those of IANA's registries of special-purpose addresses. They are listed here because Python's own idea
of a private address differs between its versions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


# Addresses, besides the link-local 169.254.169.254, at which clouds answer with credentials.
METADATA = _networks(
    "100.100.100.200",  # Alibaba
    "168.63.129.16",  # Azure, among public addresses
    "192.0.0.192",  # Oracle
    "fd00:42::42",  # Scaleway
    "fd00:ec2::/32",  # Amazon
    "fd20:ce::254",  # Google
)
UNSPECIFIED = _networks("0.0.0.0/8", "::")
LINK_LOCAL = _networks("169.254.0.0/16", "fe80::/10")
MULTICAST = _networks("224.0.0.0/4", "255.255.255.255", "ff00::/8")
NEVER = (*METADATA, *UNSPECIFIED, *LINK_LOCAL, *MULTICAST)

LOCAL = _networks("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1", "fc00::/7")
NOT_PUBLIC = (
    *LOCAL,
    *_networks(
        "100.64.0.0/10",  # shared by the customers of a provider
        "192.0.0.0/24",  # protocols
        "192.0.2.0/24",  # documentation, as 198.51.100.0/24 and 203.0.113.0/24
        "192.88.99.0/24",  # relays of 6to4
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",  # reserved
        "2001::/23",  # protocols, with Teredo
        "2001:db8::/32",  # documentation, as 3fff::/20
        "2002::/16",  # 6to4
        "3fff::/20",
    ),
)
NAT64 = ip_network("64:ff9b::/96")  # how a network of IPv6 alone reaches public IPv4
PUBLIC_IPV6 = (ip_network("2000::/3"), NAT64)
# IPv6 ranges in which the last 32 bits are an IPv4 address, to which the packet finally goes.
CARRIERS = (NAT64, *_networks("64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96"))


@dataclass(frozen=True)
class Allowed:
    """The addresses that may be called in addition to public ones."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, entries: Iterable[Network | str]) -> "Allowed":
        """From networks and lower-case host names. `local` stands for all loopback and private addresses."""
        networks: list[Network] = []
        hosts: list[str] = []
        for entry in entries:
            if entry == "local":
                networks.extend(LOCAL)
            elif isinstance(entry, str):
                hosts.append(entry)
            else:
                networks.append(entry)
        return cls(tuple(networks), frozenset(hosts))


PUBLIC_ONLY = Allowed()


def refusal(address: Address, host: str, allowed: Allowed) -> str | None:
    """Why the address of this host may not be called. None when it may be called."""
    reached = _reached(address)
    if any(_within(each, NEVER) for each in reached):
        return (
            f"{host}: link-local, metadata, unspecified and multicast addresses are never called,"
            " whatever BACKBEAT_HTTP_ALLOW says."
        )
    named = host.lower().rstrip(".") in allowed.hosts
    if named or all(_is_public(each) or _within(each, allowed.networks) for each in reached):
        return None
    return (
        f"{host}: its address is loopback, private or reserved,"
        " and such a one is called only where BACKBEAT_HTTP_ALLOW names it."
    )


def is_public(address: Address) -> bool:
    """Whether the address, and every address that a packet to it is sent on to, is on the public internet."""
    return all(_is_public(each) for each in _reached(address))


def _reached(address: Address) -> list[Address]:
    """The address, and those embedded in it, because a translator or a tunnel sends the packet on to them."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]  # another spelling of it, no more
    carried = [address.sixtofour, *(address.teredo or ())]
    if _within(address, CARRIERS) and not address.is_loopback:
        carried.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(each for each in carried if each)]


def _is_public(address: Address) -> bool:
    usual = isinstance(address, IPv4Address) or _within(address, PUBLIC_IPV6)
    return usual and not _within(address, NOT_PUBLIC)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
