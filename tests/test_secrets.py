"""Secrets by reference: where they may go, how they are replaced, and that they are never shown."""

import base64
import json
import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from actors.http_request import HttpRequestParams, http_request
from scheduler_app import outgoing
from scheduler_app.config import Settings
from scheduler_app.extensions import Base, db
from scheduler_app.operations import PermanentError
from scheduler_app.outgoing import MAX_CONTENT
from scheduler_app.outgoing.blackening import MARK, Blackening
from scheduler_app.outgoing.client import Client
from scheduler_app.outgoing.egress import Allowed
from scheduler_app.outgoing.errors import Refused, SecretsUnreadable
from scheduler_app.outgoing.messages import Answer, Request
from scheduler_app.outgoing.secrets_file import Secret, SecretsFile
from tests.support.http_server import Server, raw_server
from tests.support.lookups import looked_up
from tests.support.processes import Process
from tests.support.spellings import SPELLINGS, traces
from tests.support.tasks import finished, get, submit

MARKER = "mArKeR/0123+4567?89 ab%41c\"d'e&f<g>h\\nend=~"
TOKEN = {"authorization": "Bearer ${secret:TOKEN}"}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the file of secrets: TOKEN, for loopback unless told otherwise."""

    def write(value: str = MARKER, hosts: Any = ("127.0.0.1",), mode: int = 0o600, **more: Any) -> Path:
        return write_text(tmp_path, json.dumps({"TOKEN": {"value": value, "hosts": hosts, **more}}), mode)

    return write


def write_text(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "secrets.json"
    path.write_text(text)
    path.chmod(mode)
    return path


def client(path: Path) -> Client:
    return Client(Allowed.of(["local"]), SecretsFile(path))


def authorization(server: Server) -> list[str]:
    return [headers["Authorization"] for _, _, headers, _ in server.requests]


def test_a_header_is_sent_with_the_secrets_that_it_names(server: Server, write: Write) -> None:
    headers = TOKEN | {"x-both": "${secret:TOKEN};${secret:TOKEN}", "x-none": "$secret {secret:TOKEN}"}
    client(write("0123456789abcdef")).send(Request(f"{server.url}/hello", headers=headers))
    [(_, _, sent, _)] = server.requests
    assert sent["Authorization"] == "Bearer 0123456789abcdef"
    assert sent["X-Both"] == "0123456789abcdef;0123456789abcdef"
    assert sent["X-None"] == "$secret {secret:TOKEN}"


def test_an_unknown_secret_is_a_permanent_error_that_names_it(server: Server, write: Write) -> None:
    outgoing.configure(Settings.from_env({"BACKBEAT_HTTP_ALLOW": "local", "BACKBEAT_SECRETS_FILE": str(write())}))
    params = {"url": f"{server.url}/hello", "headers": {"X-A": "${secret:OTHER}"}}
    with pytest.raises(PermanentError, match="There is no secret 'OTHER'"):
        http_request(**HttpRequestParams().load(params))
    assert server.requests == []


def test_without_a_file_no_secret_is_known(server: Server) -> None:
    with pytest.raises(Refused, match="There is no secret 'TOKEN'"):
        Client(Allowed.of(["local"])).send(Request(f"{server.url}/hello", headers=TOKEN))
    assert server.requests == []


@pytest.mark.parametrize(
    "hosts", [["api.example.com"], ["127.0.0.2"], ["127.0.0.1:1"], ["7.0.0.1"], ["27.0.0.1", "127.0.0.1.example"]]
)
def test_a_secret_does_not_go_to_a_host_that_is_not_named_for_it(
    server: Server, write: Write, hosts: list[str]
) -> None:
    outgoing.configure(
        Settings.from_env({"BACKBEAT_HTTP_ALLOW": "local", "BACKBEAT_SECRETS_FILE": str(write(hosts=hosts))})
    )
    params = {"url": f"{server.url}/hello", "headers": TOKEN}
    with pytest.raises(
        PermanentError, match=rf"The secret 'TOKEN' is not for 127\.0\.0\.1:{server.server_port}"
    ) as error:
        http_request(**HttpRequestParams().load(params))
    assert not found_in(str(error.value))
    assert server.requests == []


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.example.com/", "API.example.COM"),
        ("https://API.EXAMPLE.COM/", "api.example.com"),
        ("https://api.example.com/", "api.example.com:443"),
        ("http://api.example.com:8080/", "api.example.com:8080"),
        ("https://[::1]:8443/", "[::1]:8443"),
        ("https://[0:0::1]/", "[::1]"),
    ],
)
def test_a_host_is_named_in_any_case_with_or_without_its_port(write: Write, url: str, host: str) -> None:
    chosen = SecretsFile(write(hosts=[host])).chosen(Request(url, headers=TOKEN))
    assert list(chosen) == ["TOKEN"]


@pytest.mark.parametrize("name", ["host", "Host"])
def test_a_host_header_cannot_lead_a_secret_to_another_site_of_the_server(
    server: Server, write: Write, name: str
) -> None:
    for request in (
        Request(f"{server.url}/", headers=TOKEN | {name: "b"}),
        Request(f"{server.url}/", headers={name: "b"}, sign_with="TOKEN"),
    ):
        with pytest.raises(Refused, match=r"^Host: "):
            client(write()).send(request)
    assert server.requests == []


def test_a_secret_does_not_cross_the_internet_unencrypted(server: Server, write: Write) -> None:
    def send(*addresses: str, scheme: str = "http", **request: Any) -> None:
        path = write(hosts=["shop.example"])
        sender = Client(Allowed.of(["local"]), SecretsFile(path), lookup=looked_up(*addresses))
        sender.send(Request(f"{scheme}://shop.example:{server.server_port}/hello", **request))

    for addresses in (["93.184.216.34"], ["127.0.0.1", "93.184.216.34"]):
        with pytest.raises(Refused, match="The secret 'TOKEN' is not sent to a public address without encryption"):
            send(*addresses, headers=TOKEN)
    send("127.0.0.1", headers=TOKEN)
    send("127.0.0.1", "93.184.216.34")
    with pytest.raises(ConnectionError, match="SSL"):  # it got as far as to loopback, which knows none
        send("127.0.0.1", "93.184.216.34", scheme="https", headers=TOKEN)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644])
def test_a_file_that_others_can_use_is_refused(write: Write, mode: int) -> None:
    with pytest.raises(SecretsUnreadable, match="its owner alone can read"):
        SecretsFile(write(mode=mode)).read()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"TOKEN": "' + MARKER.replace("\\", "").replace('"', "") + '"}',
        *(
            json.dumps({"TOKEN": {"value": MARKER, "hosts": ["a.example"]} | wrong})
            for wrong in (
                {"value": MARKER[:15]},
                {"value": f"{MARKER}\n"},
                {"value": f" {MARKER}"},
                {"value": f"{MARKER}ü"},
                {"value": MARKER * 100},
                {"value": 1_234_567_890_123_456},
                {"previous": MARKER[:15]},
                {"hosts": []},
                {"hosts": "a.example"},
                {"hosts": ["https://a.example"]},
                {"hosts": ["*"]},
                {"hosts": ["a.example/path"]},
                {"host": "a.example"},
            )
        ),
        json.dumps({"two words": {"value": MARKER, "hosts": ["a.example"]}}),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_without_a_value(tmp_path: Path, text: str) -> None:
    path = write_text(tmp_path, text)
    with pytest.raises(SecretsUnreadable) as error:
        SecretsFile(path).read()
    assert re.fullmatch(rf"BACKBEAT_SECRETS_FILE: '{path}' cannot be used: .+", str(error.value))
    assert MARKER[:15] not in str(error.value)


def test_a_file_that_is_not_there_is_worth_a_retry(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SecretsUnreadable, match="No such file"):
        client(tmp_path / "none.json").send(Request(f"{server.url}/hello", headers=TOKEN))
    assert client(tmp_path / "none.json").send(Request(f"{server.url}/hello")).status == 200


def test_a_secret_is_replaced_without_a_restart(server: Server, write: Write, tmp_path: Path) -> None:
    values = [f"value number {number} of the secret" for number in range(4)]
    sender = client(write(values[0]))
    sender.send(Request(f"{server.url}/hello", headers=TOKEN))
    write(values[1])  # in place, of the same length
    sender.send(Request(f"{server.url}/hello", headers=TOKEN))
    new = tmp_path / "new.json"
    new.write_text((tmp_path / "secrets.json").read_text().replace(values[1], values[2]))
    new.chmod(0o600)
    status = (tmp_path / "secrets.json").stat()
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(tmp_path / "secrets.json")  # in one step, and as old as the one before
    sender.send(Request(f"{server.url}/hello", headers=TOKEN))
    assert authorization(server) == [f"Bearer {value}" for value in values[:3]]


def test_a_file_that_is_opened_to_others_later_is_refused(server: Server, write: Write) -> None:
    path = write()
    sender = client(path)
    sender.send(Request(f"{server.url}/hello", headers=TOKEN))
    path.chmod(0o644)
    with pytest.raises(SecretsUnreadable):
        sender.send(Request(f"{server.url}/hello", headers=TOKEN))


def test_a_process_can_tell_the_names_that_it_knows(write: Write) -> None:
    outgoing.configure(Settings.from_env({"BACKBEAT_SECRETS_FILE": str(write())}))
    assert outgoing.secret_names() == ["TOKEN"]
    outgoing.configure(Settings.from_env({}))
    assert outgoing.secret_names() == []


def found_in(text: str) -> list[str]:
    return [trace for trace in traces(MARKER) if trace in text]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_blackened_however_it_is_written(spelling: str) -> None:
    text = f'{{"token": "{SPELLINGS[spelling](MARKER)}"}}'
    shown = Blackening([Secret("TOKEN", MARKER, frozenset())]).apply(text)
    assert MARK in shown
    assert shown.startswith('{"token": "')
    assert shown.endswith('"}')
    assert not found_in(re.sub(r"\s|\\n", "", shown))


def test_what_base64_mixes_with_a_secret_is_blackened_with_it() -> None:
    written = base64.b64encode(b"abcd" + b"0123456789abcdef" + b"z").decode()
    shown = Blackening([Secret("A", "0123456789abcdef", frozenset())]).apply(written)
    assert (
        shown == f"YWJjZ{MARK}{written[27:]}"
    )  # of 8 bits each, four times: 5 characters; 20 times: 26 and two thirds


VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16, max_size=60)


@given(VALUES, st.sampled_from(sorted(SPELLINGS)), st.text(max_size=20), st.text(max_size=20))
def test_no_secret_stays_in_any_text(value: str, spelling: str, before: str, behind: str) -> None:
    written = SPELLINGS[spelling](value)
    shown = Blackening([Secret("A", value, frozenset())]).apply(f"{before} {written} {behind}")
    assert MARK in shown
    assert written.strip() not in shown


@given(st.text(max_size=300), st.integers(0, 300))
def test_a_text_without_the_secret_stays_as_it_is(text: str, keep: int) -> None:
    blackening = Blackening([Secret("A", MARKER, frozenset())])
    assert blackening.apply(text) == text
    assert blackening.apply(text, keep) == text[:keep]


def test_a_previous_value_and_every_other_secret_of_the_request_are_blackened_too() -> None:
    blackening = Blackening([Secret("A", "a" * 16, frozenset(), "b" * 16), Secret("C", "c" * 16, frozenset())])
    assert blackening.apply(f"1{'a' * 16}2{'b' * 16}3{'c' * 16}4") == f"1{MARK}2{MARK}3{MARK}4"


@pytest.mark.parametrize("kept", range(0, len(MARKER) + 1, 6))
@pytest.mark.parametrize("charset", ["utf-8", "utf-16le", "utf-32be"])
def test_a_secret_is_blackened_before_a_body_is_cut(write: Write, kept: int, charset: str) -> None:
    before = "x" * (MAX_CONTENT // len("x".encode(charset)) - kept)
    answer = answered(write, f"{before}{MARKER}{'y' * 100}".encode(charset), charset)
    assert answer.truncated
    assert answer.body == before + (MARK if kept else "")


@pytest.mark.parametrize("charset", ["utf-16le", "utf-16be", "utf-32le"])
def test_a_secret_is_blackened_in_a_body_whose_charset_is_not_named(write: Write, charset: str) -> None:
    answer = answered(write, f"token {MARKER}".encode(charset), "utf-8")
    assert not found_in(answer.body.replace("\ufffd", ""))
    assert MARK in answer.body


def answered(write: Write, content: bytes, charset: str) -> Answer:
    """What is kept of such a body."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset={charset}\r\nContent-Length: {len(content)}\r\n\r\n"
    with raw_server(lambda connection: connection.sendall(head.encode() + content)) as address:
        return client(write()).send(Request(f"http://{address}/", headers=TOKEN))


def echoed(server: Server, write: Write, path: str) -> Answer:
    return client(write()).send(Request(f"{server.url}/{path}", headers=TOKEN))


@pytest.mark.parametrize("path", ["echo/200", "echo/302", "echo/500"])
def test_an_answer_is_without_the_secret_in_body_and_headers(server: Server, write: Write, path: str) -> None:
    answer = echoed(server, write, path)
    assert not found_in(re.sub(r"\s", "", answer.body))
    assert not found_in("\n".join([*answer.headers, *answer.headers.values()]))
    assert answer.body.count(MARK) == len(SPELLINGS)
    assert list(answer.headers.values()).count(MARK) > 5
    assert authorization(server) == [f"Bearer {MARKER}"]


def test_a_name_of_a_header_is_blackened_too(write: Write) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-0123456789ABCDEF-0: a\r\nContent-Length: 0\r\n\r\n"
    with raw_server(lambda connection: connection.sendall(head)) as address:
        answer = client(write("0123456789ABCDEF")).send(Request(f"http://{address}/", headers=TOKEN))
    assert "0123456789abcdef" not in str(answer.headers)


def test_an_error_and_its_traceback_are_without_the_secret(server: Server, write: Write) -> None:
    with pytest.raises(ConnectionError) as error:
        echoed(server, write, "broken")
    assert MARK in str(error.value)
    assert error.value.__context__ is None
    assert not found_in("".join(traceback.format_exception(error.value)))


def test_a_header_that_cannot_be_sent_is_refused_without_its_value(server: Server, write: Write) -> None:
    for value in ("${secret:TOKEN}\r\nX-Evil: 1", "${secret:TOKEN}" * 1_000):
        with pytest.raises(Refused, match=r"^x-a: ") as error:
            client(write()).send(Request(f"{server.url}/hello", headers={"x-a": value}))
        assert not found_in(str(error.value))
    assert server.requests == []


def test_no_secret_is_in_any_row_or_line_that_a_worker_writes(
    client: FlaskClient, worker: Callable[..., Process], server: Server, write: Write, app: Flask
) -> None:
    process = worker(BACKBEAT_SECRETS_FILE=str(write()), BACKBEAT_HTTP_ALLOW="127.0.0.1", BACKBEAT_LOG_LEVEL="debug")
    ids = submit(
        client, *(call(f"{server.url}/{path}") for path in ("echo/200", "echo/302", "echo/404", "echo/500", "broken"))
    )
    ids += submit(client, call(f"http://localhost:{server.server_port}/echo/200"), call(server.url, "${secret:OTHER}"))
    tasks = finished(client, ids)
    assert [task["status"] for task in tasks] == ["SUCCESS"] + ["ERROR"] * 6
    assert authorization(server) == [f"Bearer {MARKER}"] * 5
    assert [MARK in json.dumps(task) for task in tasks] == [True] * 5 + [False] * 2
    assert "The secret 'TOKEN' is not for localhost" in tasks[5]["error"]["message"]
    assert "There is no secret 'OTHER'" in tasks[6]["error"]["message"]
    process.stop()
    written = [json.dumps([get(client, task_id) for task_id in ids]), rows(app), process.output]
    assert "gave up after 1 attempts" in process.output
    assert [found_in(text) for text in written] == [[], [], []]


def call(url: str, credentials: str = "Bearer ${secret:TOKEN}") -> dict[str, Any]:
    params = {"url": url, "headers": {"Authorization": credentials}}
    return {"operation": "http_request", "params": params, "max_retries": 0}


def rows(app: Flask) -> str:
    """All that the database holds."""
    with app.app_context():
        tables = Base.metadata.sorted_tables
        return "\n".join(str(tuple(row)) for table in tables for row in db.session.execute(table.select()))


def test_what_the_tests_look_for_is_found_where_it_is() -> None:
    for name, spell in SPELLINGS.items():
        if "lines" not in name:
            assert found_in(spell(MARKER))
