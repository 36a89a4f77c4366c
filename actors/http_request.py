"""`http_request`: calls a URL, once an attempt."""

import codecs
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from email.message import Message
from functools import cache
from json import dumps
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema
from urllib3 import HTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Url, parse_url

from scheduler_app.operations import CurrentTask, PermanentError, operation, running_task

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_CONTENT = 65_536  # bytes of a body, sent or kept
MAX_HEADERS = 16_384  # characters of the response's headers that are kept
MAX_SENT_HEADERS = 50
MAX_TIMEOUT = 300
WATCH_INTERVAL = 0.25  # seconds between two looks whether the task is cancelled
SUCCESS = range(200, 300)
RETRIED = {408, 425, 429, *range(500, 600)}  # a later attempt can meet another answer

_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}"
_HEADER_VALUE = r"[\t\x20-\x7e\xa0-\xff]{0,8192}"
_FRAMING = {"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"}
# A list, because Python also knows codecs that are slow on purpose, or no text.
_CHARSET = r"utf-(8|16|32)([bl]e)?|us-ascii|iso-8859-\d{1,2}|windows-\d{3,4}|koi8-[ru]|shift_jis|euc-(jp|kr)|gb\w+|big5"


def _check_url(text: str) -> None:
    if not re.fullmatch(r"https?://[\x21-\x7e]+", text, re.IGNORECASE):
        raise ValidationError("Not a URL of http:// or https://, all else than printable ASCII percent-encoded.")
    try:
        url = parse_url(text)
        host = (url.host or "").encode("idna")
    except (LocationParseError, UnicodeError):
        host = b""
    if not host:
        raise ValidationError("Not a valid URL.")
    if url.auth:
        raise ValidationError("User and password belong into the Authorization header.")


def _check_headers(headers: dict[str, str]) -> None:
    if len(headers) > MAX_SENT_HEADERS:
        raise ValidationError(f"More than {MAX_SENT_HEADERS} headers.")
    for name, value in headers.items():
        if not re.fullmatch(_HEADER_NAME, name):
            raise ValidationError(f"{name[:100]!a} is not a name of a header.")
        if name.lower() in _FRAMING:
            raise ValidationError(f"{name} is not allowed: the connection sets it.")
        if not re.fullmatch(_HEADER_VALUE, value):
            raise ValidationError(
                f"{name} has a line break, another character that headers cannot hold, or more than 8192."
            )


def _check_size(body: str) -> None:
    try:
        size = len(body.encode())
    except UnicodeEncodeError:
        raise ValidationError("Not valid Unicode: it has a lone surrogate.") from None
    if size > MAX_CONTENT:
        raise ValidationError(f"Longer than {MAX_CONTENT} bytes.")


class HttpRequestParams(Schema):
    method = fields.String(
        load_default="GET",
        validate=validate.OneOf(METHODS),
        metadata={"description": "The HTTP method.", "example": "POST"},
    )
    url = fields.String(
        required=True,
        validate=[validate.Length(max=2_048), _check_url],
        metadata={"description": "http or https, without user and password.", "example": "https://example.com/hook"},
    )
    headers = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        load_default=dict,
        validate=_check_headers,
        metadata={
            "description": "Headers to send. The task shows them to whoever can read it.",
            "example": {"Accept": "application/json"},
            "maxProperties": MAX_SENT_HEADERS,
        },
    )
    json = fields.Raw(metadata={"description": "Sent as JSON; not beside `body`.", "example": {"id": 17}})
    body = fields.String(
        validate=_check_size, metadata={"description": "Sent as UTF-8.", "example": "id=17", "maxLength": MAX_CONTENT}
    )
    timeout = fields.Float(
        load_default=30.0,
        validate=validate.Range(0.1, MAX_TIMEOUT),
        metadata={"description": "Seconds for the whole exchange, looking up the name excepted.", "example": 30},
    )
    expected_status = fields.List(
        fields.Integer(strict=True, validate=validate.Range(200, 599)),
        load_default=lambda: list(SUCCESS),
        validate=validate.Length(1, 100),
        metadata={
            "description": "Status codes that make the task a success; 200 to 299 when not given.",
            "example": [200, 404],
        },
    )

    @validates_schema
    def check_content(self, params: dict[str, Any], **_: Any) -> None:
        if "json" not in params:
            return
        if "body" in params:
            raise ValidationError("Not allowed beside json.", "body")
        try:
            _check_size(dumps(params["json"], allow_nan=False))
        except (ValidationError, ValueError, RecursionError) as error:
            raise ValidationError(str(error), "json") from None


@operation("http_request", params=HttpRequestParams)
def http_request(
    url: str,
    method: str,
    headers: dict[str, str],
    timeout: float,
    expected_status: list[int],
    json: Any = None,
    body: str | None = None,
) -> dict[str, Any]:
    """Calls a URL; succeeds when the status is an expected one.

    The result has `status`, `headers` (names in lower case), `body`, `truncated` (whether headers or body were cut)
    and `elapsed` seconds. The body is text, in the charset that the response names, else UTF-8; what is no such text,
    binary content too, shows as U+FFFD.
    Redirects are not followed: a 3xx is a status like any other. Proxy settings of the environment do not count.
    Delivery is at least once, so the receiver can tell a repetition by the headers `Backbeat-Task` and
    `Backbeat-Attempt`. Receivers that know `Idempotency-Key` get one when the task names it in its headers.
    No answer within the timeout, a broken connection and the statuses 408, 425, 429 and 5xx are worth another attempt;
    every other unexpected status is a PermanentError.
    """
    content = body if json is None else dumps(json)
    sent = _defaults(is_json=json is not None) | {name.lower(): value for name, value in headers.items()}
    started = time.monotonic()
    result = _exchange(parse_url(url), method, sent, content, timeout)
    if result["status"] not in expected_status:
        raise _unexpected(result["status"], result["body"])
    return {**result, "elapsed": round(time.monotonic() - started, 3)}


class UnexpectedStatus(Exception):
    """The answer's status is none of the expected ones; a later attempt can meet another."""


def _unexpected(status: int, body: str) -> Exception:
    message = f"The answer was {status}: {body[:200].strip() or '(no body)'}"
    return UnexpectedStatus(message) if status in RETRIED else PermanentError(message)


def _defaults(*, is_json: bool) -> dict[str, str]:
    headers = {"user-agent": "backbeat"}
    if task := running_task.get(None):
        headers |= {"backbeat-task": str(task.task_id), "backbeat-attempt": str(task.attempt)}
    return headers | ({"content-type": "application/json"} if is_json else {})


def _exchange(url: Url, method: str, headers: dict[str, str], content: str | None, timeout: float) -> dict[str, Any]:
    """One request, on a connection of its own: a kept one may be closed at the other end, which costs an attempt."""
    deadline = time.monotonic() + timeout
    encoded = None if content is None else content.encode()
    task = running_task.get(None)
    try:
        with closing(_connection(url, timeout)) as connection:
            connection.connect()
            with _hung_up(connection.sock, deadline, task):
                connection.request(method, url.request_uri, body=encoded, headers=headers, preload_content=False)
                with connection.getresponse() as response:
                    result = _read(response)
    except (OSError, HTTPError, http.client.HTTPException) as error:
        if task:
            task.check_cancelled()
        _check_deadline(deadline, timeout)
        raise ConnectionError(f"{url.netloc}: {error.__cause__ or error}") from error
    _check_deadline(deadline, timeout)  # the end of a body may have been the hanging up
    return result


def _connection(url: Url, timeout: float) -> HTTPConnection:
    host = url.host or ""
    if url.scheme == "https":
        return HTTPSConnection(host, url.port, timeout=timeout, ssl_context=_tls())
    return HTTPConnection(host, url.port, timeout=timeout)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@contextmanager
def _hung_up(sock: socket.socket, deadline: float, task: CurrentTask | None) -> Iterator[None]:
    """At the deadline, and when the task is cancelled.

    A socket's timeout bounds each read only: without this a peer that drips single bytes would hold on for ever.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(min(WATCH_INTERVAL, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline or (task and task.cancelled):
                # The plain socket's shutdown: that of a TLS socket takes the session away from the thread that reads.
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


def _check_deadline(deadline: float, timeout: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeoutError(f"No complete answer within {timeout:g} s.") from None


def _read(response: HTTPResponse) -> dict[str, Any]:
    content = response.read(MAX_CONTENT + 1, decode_content=True)
    headers, size = {}, 0
    for name, value in response.headers.itermerged():
        size += len(name) + len(value)
        if size <= MAX_HEADERS:
            headers[name.lower()] = value
    cut = len(content) > MAX_CONTENT
    text = _text(content[:MAX_CONTENT], response.headers.get("content-type", ""), whole=not cut)
    return {"status": response.status, "headers": headers, "body": text, "truncated": cut or size > MAX_HEADERS}


def _text(content: bytes, content_type: str, *, whole: bool) -> str:
    message = Message()
    message["content-type"] = content_type
    charset = message.get_content_charset("utf-8")
    known = re.fullmatch(_CHARSET, charset)
    try:
        decoder = codecs.getincrementaldecoder(charset if known else "utf-8")("replace")
    except LookupError:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(content, final=whole).replace("\0", "\ufffd")
