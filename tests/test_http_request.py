"""`http_request` against real servers on loopback."""

import json
import socket
import threading
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError

from actors.http_request import HttpRequestParams, UnexpectedStatus, http_request
from scheduler_app import outgoing
from scheduler_app.config import Settings
from scheduler_app.operations import PermanentError, running_task
from scheduler_app.outgoing import MAX_CONTENT
from scheduler_app.outgoing.answers import text as text_of
from tests.support.http_server import Server, drip, raw_server


@pytest.fixture(autouse=True)
def _loopback_is_allowed() -> None:
    outgoing.configure(Settings.from_env({"BACKBEAT_HTTP_ALLOW": "local"}))


def call(url: str, **params: Any) -> dict[str, Any]:
    result: dict[str, Any] = http_request(**HttpRequestParams().load({"url": url, **params}))
    json.dumps(result, allow_nan=False).encode()
    return result


def refused(**params: Any) -> dict[str, Any]:
    with pytest.raises(ValidationError) as error:
        HttpRequestParams().load({"url": "http://example.com/"} | params)
    return error.value.messages_dict


def test_the_result_has_status_headers_body_and_elapsed_time(server: Server) -> None:
    result = call(f"{server.url}/hello")
    headers, elapsed = result.pop("headers"), result.pop("elapsed")
    assert result == {"status": 200, "body": "hello", "truncated": False}
    assert headers["content-type"] == "text/plain"
    assert headers["x-two"] == "a"
    assert 0 < elapsed < 2


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_each_method_reaches_the_server(server: Server, method: str) -> None:
    assert call(f"{server.url}/hello?a=1#part", method=method)["body"] == ("" if method == "HEAD" else "hello")
    assert [request[:2] for request in server.requests] == [(method, "/hello?a=1")]


def test_json_is_sent_as_json(server: Server) -> None:
    call(f"{server.url}/hello", method="POST", json={"name": "Zoë"})
    _, _, headers, body = server.requests[0]
    assert json.loads(body) == {"name": "Zoë"}
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("value", [0, False, "", [], {}])
def test_json_that_is_false_in_python_is_sent(server: Server, value: Any) -> None:
    call(f"{server.url}/hello", method="POST", json=value)
    assert json.loads(server.requests[0][3]) == value


def test_a_body_is_sent_as_utf_8_with_the_headers_given(server: Server) -> None:
    headers = {"Content-Type": "text/csv", "X-Name": "Zoë", "USER-AGENT": "mine", "Host": "inner.example"}
    call(f"{server.url}/hello", method="PUT", body="Zoë", headers=headers)
    _, _, sent, body = server.requests[0]
    assert body.decode() == "Zoë"
    assert sent["Content-Type"] == "text/csv"
    assert sent.get_all("User-Agent") == ["mine"]
    assert sent.get_all("Host") == ["inner.example"]


def test_the_request_tells_the_task_and_the_attempt(server: Server) -> None:
    class Running:
        task_id, attempt = 17, 2

    token = running_task.set(Running())
    call(f"{server.url}/hello")
    running_task.reset(token)
    call(f"{server.url}/hello")
    told = [(headers["Backbeat-Task"], headers["Backbeat-Attempt"]) for _, _, headers, _ in server.requests]
    assert told == [("17", "2"), (None, None)]
    assert server.requests[0][2]["User-Agent"] == "backbeat"


def test_proxies_of_the_environment_do_not_count(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert call(f"{server.url}/hello")["status"] == 200


def test_a_redirect_is_not_followed(server: Server) -> None:
    result = call(f"{server.url}/redirect", expected_status=[302])
    assert (result["status"], result["headers"]["location"]) == (302, "/hello")
    with pytest.raises(PermanentError, match=r"^The answer was 302: \(no body\)$"):
        call(f"{server.url}/redirect")
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 599, 408, 425, 429])
def test_a_status_that_can_pass_is_worth_a_retry(server: Server, status: int) -> None:
    with pytest.raises(UnexpectedStatus, match=f"^The answer was {status}: it broke$"):
        call(f"{server.url}/status/{status}")


@pytest.mark.parametrize("status", [300, 400, 401, 404, 409, 422])
def test_any_other_status_fails_for_good(server: Server, status: int) -> None:
    with pytest.raises(PermanentError, match=f"^The answer was {status}"):
        call(f"{server.url}/status/{status}")


def test_the_task_says_which_status_is_expected(server: Server) -> None:
    assert call(f"{server.url}/status/503", expected_status=[200, 503])["status"] == 503
    assert call(f"{server.url}/status/299")["status"] == 299
    with pytest.raises(PermanentError, match="The answer was 200"):
        call(f"{server.url}/hello", expected_status=[201])


def test_an_error_shows_only_the_start_of_the_body(server: Server) -> None:
    with pytest.raises(PermanentError) as error:
        call(f"{server.url}/bytes/1000", expected_status=[204])
    assert str(error.value) == f"The answer was 200: {'x' * 200}"


@pytest.mark.parametrize(("size", "truncated"), [(MAX_CONTENT, False), (MAX_CONTENT + 1, True), (5_000_000, True)])
def test_a_body_is_kept_up_to_its_bound(server: Server, size: int, truncated: bool) -> None:
    result = call(f"{server.url}/bytes/{size}")
    assert (len(result["body"]), result["truncated"]) == (min(size, MAX_CONTENT), truncated)


def test_a_gzip_bomb_is_not_unpacked_beyond_the_bound(server: Server) -> None:
    tracemalloc.start()
    result = call(f"{server.url}/bomb")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(result["body"]), result["truncated"]) == (MAX_CONTENT, True)
    assert peak < 3_000_000


def test_a_packed_body_is_unpacked(server: Server) -> None:
    assert call(f"{server.url}/gzip")["body"] == "hello"
    with pytest.raises(ConnectionError, match="decompressing"):
        call(f"{server.url}/broken-gzip")


def test_headers_are_kept_up_to_their_bound(server: Server) -> None:
    result = call(f"{server.url}/headers/60")
    assert result["truncated"]
    assert 10 < len(result["headers"]) < 20


@pytest.mark.parametrize(
    ("content", "content_type", "text"),
    [
        ("Zoë".encode(), "text/plain", "Zoë"),
        ("Zoë".encode("latin-1"), "text/plain; charset=iso-8859-1", "Zoë"),
        ("Zoë".encode("utf-16"), 'text/plain; charset="UTF-16"', "Zoë"),
        ("Zoë".encode("latin-1"), "text/plain", "Zo\ufffd"),
        (b"\x89PNG\0\xff", "image/png", "\ufffdPNG\ufffd\ufffd"),
        (b"plain", "text/plain; charset=no-such", "plain"),
        (b"\\ud800", "text/plain; charset=unicode_escape", "\\ud800"),
        (b"x" * 65_536, "text/plain; charset=punycode", "x" * 65_536),
        (b"plain", "", "plain"),
    ],
)
def test_the_body_is_text_in_the_charset_that_the_response_names(content: bytes, content_type: str, text: str) -> None:
    assert text_of(content, content_type, whole=True) == text


def test_a_character_that_the_bound_cuts_in_two_is_left_out() -> None:
    assert text_of("Zoë".encode()[:-1], "text/plain", whole=False) == "Zo"


@settings(max_examples=50)
@given(st.binary(max_size=50), st.text(max_size=20).map("text/plain; charset={}".format))
def test_any_body_is_text_that_can_be_stored(content: bytes, content_type: str) -> None:
    text = text_of(content, content_type, whole=True)
    assert "\0" not in text
    text.encode()


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_a_server_that_drips_is_left_at_the_timeout(start: bytes, piece: bytes) -> None:
    before = time.monotonic()
    with (
        raw_server(drip(start, piece)) as address,
        pytest.raises(TimeoutError, match=r"No complete answer within 0\.2 s"),
    ):
        call(f"http://{address}/", timeout=0.2)
    assert time.monotonic() - before < 30  # on a busy machine; the server would go on for a minute


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_says_nothing_is_left_at_the_timeout(scheme: str) -> None:
    with (
        raw_server(drip(b"", b"")) as address,
        pytest.raises(TimeoutError, match=r"No complete answer within 0\.2 s"),
    ):
        call(f"{scheme}://{address}/", timeout=0.2)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n"],
)
def test_a_broken_answer_is_worth_a_retry(answer: bytes) -> None:
    with raw_server(lambda connection: connection.sendall(answer)) as address, pytest.raises(ConnectionError) as error:
        call(f"http://{address}/")
    assert str(error.value).startswith(f"{address}: ")


def test_a_refused_connection_is_worth_a_retry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=f"^{address}: .*refused$"):
        call(f"http://{address}/")


def test_https_is_refused_by_a_server_without_it(server: Server) -> None:
    with pytest.raises(ConnectionError, match="SSL"):
        call(server.url.replace("http:", "https:"))


def test_no_thread_stays_behind(server: Server) -> None:
    call(f"{server.url}/hello")
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "/path",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://example.com:99999/",
        "http://example.com:port/",
        "http://user:secret@example.com/",
        "http://example.com/a b",
        "http://example.com/\r\nX-Evil: 1",
        "http://example.com/\0",
        "http://example.com/\ud800",
        "http://[::1/",
        "http://exämple.com/",
        "http://exa mple.com/",
        f"http://{'a' * 64}.com/",
        "http://example.com/" + "a" * 2_048,
        None,
        7,
    ],
)
def test_a_bad_url_is_refused_at_submission(url: object) -> None:
    messages = refused(url=url)
    assert list(messages) == ["url"]
    assert "secret" not in str(messages)


@pytest.mark.parametrize(
    "url", ["http://example.com", "https://[::1]:8443/a?b=c", "http://example.com/%C3%A4", "HTTP://a/"]
)
def test_a_good_url_is_taken(url: str) -> None:
    HttpRequestParams().load({"url": url})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "FETCH"),
        ("method", "GET / HTTP/1.1\r\n"),
        ("headers", {"X-A": "1\r\nX-Evil: 1"}),
        ("headers", {"X-A": "1\n"}),
        ("headers", {"X-A\r\nX-Evil": "1"}),
        ("headers", {"X-A\n": "1"}),
        ("headers", {"X A": "1"}),
        ("headers", {"": "1"}),
        ("headers", {"X-A": "\u20ac"}),
        ("headers", {"X-A": "\0"}),
        ("headers", {"X-A": 1}),
        ("headers", {"X-A": "a" * 8_193}),
        ("headers", {"Content-Length": "0"}),
        ("headers", {"transfer-encoding": "chunked"}),
        ("headers", {f"X-{number}": "" for number in range(51)}),
        ("headers", ["X-A"]),
        ("headers", {"Backbeat-Task": "1"}),
        ("headers", {"backbeat-anything": "1"}),
        ("headers", {"Webhook-Signature": "v1,"}),
        ("headers", {"X-A": "${secret:}"}),
        ("headers", {"X-A": "${secret:two words}"}),
        ("headers", {"X-A": "${secret:NEVER_CLOSED"}),
        ("headers", {"X-A": f"${{secret:{'a' * 65}}}"}),
        ("headers", {"Authorization": "${secret:A}", "host": "other.example"}),
        ("sign_with", ""),
        ("sign_with", "two words"),
        ("sign_with", "A\n"),
        ("sign_with", None),
        ("json", None),
        ("json", float("nan")),
        ("json", "a" * MAX_CONTENT),
        ("body", None),
        ("body", {}),
        ("body", "\ud800"),
        ("body", "ä" * (MAX_CONTENT // 2 + 1)),
        ("timeout", 0),
        ("timeout", 301),
        ("timeout", float("nan")),
        ("timeout", True),
        ("timeout", None),
        ("expected_status", []),
        ("expected_status", [99]),
        ("expected_status", [600]),
        ("expected_status", [200.5]),
        ("expected_status", 200),
        ("expected_status", [200] * 101),
        ("follow_redirects", True),
    ],
)
def test_a_bad_parameter_is_refused_with_its_name(field: str, value: object) -> None:
    assert list(refused(**{field: value})) == [field]


def test_json_and_body_exclude_each_other() -> None:
    assert refused(json={}, body="") == {"body": ["Not allowed beside json."]}
