"""Which addresses tasks may call. Addresses are data here: connections are made to loopback only."""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.http_request import HttpRequestParams, http_request
from scheduler_app import outgoing
from scheduler_app.config import Settings
from scheduler_app.operations import PermanentError
from scheduler_app.outgoing.client import Client
from scheduler_app.outgoing.connections import Found, permitted, resolve
from scheduler_app.outgoing.egress import NEVER, Allowed, refusal
from scheduler_app.outgoing.errors import Refused
from scheduler_app.outgoing.messages import Request
from tests.support.http_server import Server, serving
from tests.support.lookups import found, looked_up

ALWAYS_REFUSED = [
    *("169.254.169.254", "169.254.0.1", "fe80::1", "fe80::a9fe:a9fe"),
    *("0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "239.255.255.250", "255.255.255.255", "ff02::1"),
    *("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "::169.254.169.254"),
    *("::ffff:0:169.254.169.254", "2001:0:a9fe:a9fe::1", "64:ff9b::", "::ffff:0.0.0.0"),
]
LOCAL = ["127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "::1", "fd12:3456::1"]
LOCAL_SPELLED_AS_IPV6 = ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1"]
RESERVED = [
    *("100.64.0.1", "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1"),
    *(
        "2001:db8::1",
        "2001:10::1",
        "2002:5db8:d822::1",
        "3fff::1",
        "64:ff9b:1::5db8:d822",
        "fec0::1",
        "100::1",
        "4000::1",
    ),
]
PUBLIC = ["93.184.216.34", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"]


def allowed(setting: str) -> Allowed:
    return Allowed.of(Settings.from_env({"BACKBEAT_HTTP_ALLOW": setting}).http_allow)


def reason(address: str, setting: str = "", host: str = "shop.example") -> str | None:
    return refusal(ip_address(address), host, allowed(setting))


@pytest.mark.parametrize("address", ALWAYS_REFUSED)
@pytest.mark.parametrize("setting", ["", "local", "0.0.0.0/0,::/0", "shop.example"])
def test_some_addresses_are_never_called_whatever_the_setting_says(address: str, setting: str) -> None:
    assert "are never called, whatever BACKBEAT_HTTP_ALLOW says" in str(reason(address, setting))


@pytest.mark.parametrize("address", [*LOCAL, *LOCAL_SPELLED_AS_IPV6, *RESERVED])
def test_loopback_private_and_reserved_addresses_need_the_setting(address: str) -> None:
    assert "only where BACKBEAT_HTTP_ALLOW names it" in str(reason(address))
    assert "only where BACKBEAT_HTTP_ALLOW names it" in str(reason(address, "other.example,203.0.113.77"))
    assert reason(address, "0.0.0.0/0,::/0") is None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_called(address: str) -> None:
    assert reason(address) is None


@pytest.mark.parametrize("address", [*LOCAL, *LOCAL_SPELLED_AS_IPV6])
def test_local_stands_for_all_that_is_loopback_or_private(address: str) -> None:
    assert reason(address, "local") is None


@pytest.mark.parametrize("address", RESERVED)
def test_local_stands_for_nothing_that_is_shared_or_reserved(address: str) -> None:
    assert reason(address, "local") is not None


@pytest.mark.parametrize("setting", ["10.0.0.5", "10.0.0.0/29", "fd00::/8, 10.0.0.5", "shop.example", "SHOP.example."])
def test_the_setting_names_addresses_networks_and_hosts(setting: str) -> None:
    assert reason("10.0.0.5", setting) is None
    assert reason("10.0.0.5", setting, "SHOP.example.") is None
    assert reason("10.0.0.9", setting, "other.example") is not None


@given(st.ip_addresses())
def test_what_python_calls_not_global_is_refused(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global:
        assert refusal(address, "shop.example", Allowed()) is not None


@given(
    st.sampled_from([*NEVER, *Allowed.of(["local"]).networks]).flatmap(lambda network: st.ip_addresses(network=network))
)
def test_every_address_of_a_forbidden_range_is_refused(address: IPv4Address | IPv6Address) -> None:
    assert refusal(address, "shop.example", Allowed()) is not None


def numbers(address: IPv4Address) -> st.SearchStrategy[str]:
    """The address as inet_aton takes it: one to four numbers, each decimal, octal or hexadecimal."""
    a, b, c, d = address.packed
    parts = st.sampled_from([(a, b, c, d), (a, b, c << 8 | d), (a, b << 16 | c << 8 | d), (int(address),)])
    digit = st.sampled_from([str, "0{:o}".format, "0x{:x}".format, "0X{:X}".format, "0x000{:x}".format])
    return parts.flatmap(lambda ps: st.tuples(*(digit.map(lambda write, p=p: write(p)) for p in ps)).map(".".join))


def within_ipv6(address: IPv4Address) -> st.SearchStrategy[str]:
    number = int(address)
    prefixes = st.sampled_from(["::ffff:0:0", "64:ff9b::", "64:ff9b:1::", "::ffff:0:0:0"])
    carried = prefixes.map(lambda prefix: IPv6Address(int(IPv6Address(prefix)) | number))
    six_to_four = st.just(IPv6Address(0x2002 << 112 | number << 80 | 1))
    written = st.sampled_from([str, lambda a: a.exploded, lambda a: a.exploded.upper()])
    zone = st.sampled_from(["", "%25lo", "%25eth0", "%lo"])
    return st.builds(lambda a, write, zone: f"[{write(a)}{zone}]", st.one_of(carried, six_to_four), written, zone)


FORBIDDEN_IPV4 = st.one_of(
    st.sampled_from(["127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.0.1", "0.0.0.0", "100.100.100.200"]),
    st.sampled_from(["127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"]).flatmap(
        lambda network: st.ip_addresses(network=network).map(str)
    ),
).map(IPv4Address)


def numeric(host: str, port: int) -> Sequence[Found]:
    """The system's own reading of numbers; nothing is asked for over the network."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)


@given(FORBIDDEN_IPV4.flatmap(lambda address: st.one_of(numbers(address), within_ipv6(address))))
def test_every_spelling_of_a_forbidden_address_is_refused(host: str) -> None:
    params = HttpRequestParams().load({"url": f"http://{host}/"})
    target = Request(params["url"]).target
    with pytest.raises(Refused, match="BACKBEAT_HTTP_ALLOW"):
        permitted(target.host, numeric(target.host, target.port), Allowed())


def test_of_a_name_with_several_addresses_only_those_allowed_are_called() -> None:
    both = found("10.0.0.1", "93.184.216.34", "::1", "169.254.169.254")
    assert permitted("shop.example", both, Allowed()) == found("93.184.216.34")
    assert permitted("shop.example", both, allowed("10.0.0.0/8")) == found("10.0.0.1", "93.184.216.34")
    with pytest.raises(Refused):
        permitted("shop.example", found("10.0.0.1", "::1"), Allowed())


def test_a_refusal_does_not_tell_which_address_a_name_has() -> None:
    with pytest.raises(Refused) as error:
        permitted("intranet.example", found("10.20.30.40"), Allowed())
    assert "10.20.30.40" not in str(error.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]"])
def test_a_refusal_is_permanent_names_the_setting_and_comes_before_the_connection(scheme: str, host: str) -> None:
    outgoing.configure(Settings.from_env({}))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{scheme}://{host}:{listener.getsockname()[1]}/"
        with pytest.raises(PermanentError, match="BACKBEAT_HTTP_ALLOW"):
            http_request(**HttpRequestParams().load({"url": url}))
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"])
def test_a_proxy_of_the_environment_is_no_way_around(
    server: Server, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, server.url)
    outgoing.configure(Settings.from_env({}))
    for url in ("http://127.0.0.1:9/", "https://127.0.0.1:9/"):
        with pytest.raises(PermanentError, match="BACKBEAT_HTTP_ALLOW"):
            http_request(**HttpRequestParams().load({"url": url}))
    assert server.requests == []


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(server: Server) -> None:
    answers = iter([found("127.0.0.1", port=server.server_port), found("10.0.0.1"), found("169.254.169.254")])
    client = Client(allowed("127.0.0.1"), lookup=lambda *_: next(answers))
    request = Request(f"http://changing.example:{server.server_port}/hello")
    assert client.send(request).body == "hello"
    with pytest.raises(Refused):
        client.send(request)
    with pytest.raises(Refused):
        client.send(request)
    assert [headers["Host"] for *_, headers, _ in server.requests] == [f"changing.example:{server.server_port}"]


def test_an_address_that_is_not_allowed_is_passed_over_for_one_that_is(server: Server) -> None:
    client = Client(allowed("127.0.0.1"), lookup=looked_up("169.254.169.254", "10.0.0.1", "127.0.0.1"))
    assert client.send(Request(f"http://mixed.example:{server.server_port}/hello")).status == 200


def test_the_next_address_is_tried_when_one_does_not_answer(server: Server) -> None:
    client = Client(allowed("local"), lookup=looked_up("127.0.0.2", "127.0.0.1"))
    assert client.send(Request(f"http://two.example:{server.server_port}/hello")).status == 200


def test_a_name_without_an_address_is_worth_a_retry() -> None:
    def unknown(*_: Any) -> Sequence[Found]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(ConnectionError, match=r"^no\.example: .*Name or service not known$"):
        Client(lookup=unknown).send(Request("http://no.example/"))


def test_a_host_that_the_setting_names_may_be_called(server: Server) -> None:
    client = Client(allowed("inner.example"), lookup=looked_up("127.0.0.1"))
    assert client.send(Request(f"http://inner.example:{server.server_port}/hello")).status == 200
    with pytest.raises(Refused):
        client.send(Request(f"http://outer.example:{server.server_port}/hello"))


def test_an_address_that_the_operator_sets_is_not_under_the_rules(server: Server) -> None:
    request = Request(f"{server.url}/hello")
    with pytest.raises(Refused):
        Client().send(request)
    assert Client().send(request, trusted=True).status == 200


def test_a_redirect_leads_nowhere(server: Server) -> None:
    client = Client(allowed("local"))
    assert client.send(Request(f"{server.url}/redirect")).status == 302
    assert len(server.requests) == 1


class ServerOnIPv6(Server):
    address_family = socket.AF_INET6

    def __init__(self) -> None:
        super().__init__("::1")


@pytest.mark.parametrize("host", ["[::1]", "[0:0:0:0:0:0:0:1]", "[::1%25lo]"])
def test_an_ipv6_literal_works_and_its_host_header_is_well_formed(host: str) -> None:
    with serving(ServerOnIPv6()) as server:
        answer = Client(allowed("::1")).send(Request(f"http://{host}:{server.server_port}/hello"))
        assert answer.body == "hello"
        [(*_, headers, _)] = server.requests
        assert headers["Host"] == f"[::1]:{server.server_port}"


def test_the_real_look_up_reads_an_address_without_asking_anybody() -> None:
    assert resolve("127.0.0.1", 80) == found("127.0.0.1")
