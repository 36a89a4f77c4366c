"""`http_request`: calls a URL, once per attempt."""

import re
import time
import uuid
from dataclasses import asdict
from json import dumps
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from scheduler_app.operations import PermanentError, RetryLater, operation, running_task
from scheduler_app.outgoing import (
    MAX_CONTENT,
    MAX_URL,
    NAME,
    Answer,
    Refused,
    Request,
    check_secret_name,
    check_url,
    references,
    send,
)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_SENT_HEADERS = 50
MAX_TIMEOUT = 300
SUCCESS = range(200, 300)
RETRIED = {408, 425, 429, *range(500, 600)}  # a later attempt can get another answer

_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}"
_HEADER_VALUE = r"[\t\x20-\x7e\xa0-\xff]{0,8192}"
_FRAMING = {"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"}
_OURS = ("backbeat-", "webhook-")  # prefixes of headers by which receivers recognise our calls


def _check_headers(headers: dict[str, str]) -> None:
    if len(headers) > MAX_SENT_HEADERS:
        raise ValidationError(f"More than {MAX_SENT_HEADERS} headers.")
    for name, value in headers.items():
        if not re.fullmatch(_HEADER_NAME, name):
            raise ValidationError(f"{name[:100]!a} is not a name of a header.")
        if name.lower() in _FRAMING:
            raise ValidationError(f"{name} is not allowed: the connection sets it.")
        if name.lower().startswith(_OURS):
            raise ValidationError(f"{name} is not allowed: Backbeat sets it.")
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
        validate=[validate.Length(max=MAX_URL), check_url],
        metadata={"description": "http or https, without user and password.", "example": "https://example.com/hook"},
    )
    headers = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        load_default=dict,
        validate=_check_headers,
        metadata={
            "description": "Headers to send. The task shows them to whoever can read it: write a secret as "
            "`${secret:NAME}`, and the worker fills in what its file of secrets has for that name and this host.",
            "example": {"Accept": "application/json", "Authorization": "Bearer ${secret:SHOP_TOKEN}"},
            "maxProperties": MAX_SENT_HEADERS,
        },
    )
    json = fields.Raw(
        metadata={"description": "Sent as JSON. Not allowed together with `body`.", "example": {"id": 17}}
    )
    body = fields.String(
        validate=_check_size, metadata={"description": "Sent as UTF-8.", "example": "id=17", "maxLength": MAX_CONTENT}
    )
    timeout = fields.Float(
        load_default=30.0,
        validate=validate.Range(0.1, MAX_TIMEOUT),
        metadata={"description": "Seconds for the whole exchange, without the look-up of the name.", "example": 30},
    )
    expected_status = fields.List(
        fields.Integer(strict=True, validate=validate.Range(200, 599)),
        load_default=lambda: list(SUCCESS),
        validate=validate.Length(1, 100),
        metadata={
            "description": "Status codes that make the task a success. Without it, 200 to 299.",
            "example": [200, 404],
        },
    )
    sign_with = fields.String(
        validate=check_secret_name,
        metadata={
            "description": "The name of the secret that signs the call as Standard Webhooks say.",
            "example": "SHOP_SIGNING_KEY",
            "pattern": f"^{NAME}$",
        },
    )

    @validates_schema
    def check_secrets(self, params: dict[str, Any], **_: Any) -> None:
        try:
            references(params["headers"], params.get("sign_with"))
        except ValueError as error:
            raise ValidationError(str(error), "headers") from None

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


@operation("http_request", params=HttpRequestParams, takes_secrets=True)
def http_request(
    url: str,
    method: str,
    headers: dict[str, str],
    timeout: float,
    expected_status: list[int],
    json: Any = None,
    body: str | None = None,
    sign_with: str | None = None,
) -> dict[str, Any]:
    """Calls a URL; succeeds when the status of the answer is an expected one.

    Result: `status`, `headers` (names in lower case), `body`, `truncated` (whether headers or body were cut) and
    `elapsed` seconds. The body is decoded with the charset that the response names, else with UTF-8. Bytes that do not
    fit, such as binary content, become U+FFFD.

    Retried: no answer within the timeout, a broken connection, and the statuses 408, 425, 429 and 5xx, unless they are
    expected; not before the time that the answer gives in `Retry-After`, up to an hour. Permanent: every other status
    that is not expected, and a call that BACKBEAT_HTTP_ALLOW or BACKBEAT_SECRETS_FILE does not allow. Redirects are not
    followed: a 3xx is a status like any other.

    Headers: `User-Agent: backbeat`, and `Content-Type: application/json` with `json`. Headers of the task replace them.
    Proxy settings in the environment are ignored.

    Delivery is at least once. A receiver recognises a repetition by `Backbeat-Task`, the task's id, which stays the
    same; `Backbeat-Attempt` counts its attempts, from 1. A signed call has the same `webhook-id` each time. Receivers
    that know `Idempotency-Key` get one when the task names it in its headers.
    """
    content = body if json is None else dumps(json)
    sent = _defaults(is_json=json is not None) | {name.lower(): value for name, value in headers.items()}
    encoded = None if content is None else content.encode()
    started = time.monotonic()
    answer = _answer(Request(url, method, sent, encoded, timeout, sign_with, _message_id()))
    if answer.status not in expected_status:
        raise _unexpected(answer)
    return {**asdict(answer), "elapsed": round(time.monotonic() - started, 3)}


class UnexpectedStatus(RetryLater):
    """The answer has an unexpected status. A later attempt can get another one."""


def _unexpected(answer: Answer) -> Exception:
    message = f"The answer was {answer.status}: {answer.body[:200].strip() or '(no body)'}"
    if answer.status not in RETRIED:
        return PermanentError(message)
    return UnexpectedStatus(message, seconds=answer.retry_after)


def _defaults(*, is_json: bool) -> dict[str, str]:
    headers = {"user-agent": "backbeat"}
    if task := running_task.get(None):
        headers |= {"backbeat-task": str(task.task_id), "backbeat-attempt": str(task.attempt)}
    return headers | ({"content-type": "application/json"} if is_json else {})


def _message_id() -> str:
    """The same at each attempt."""
    task = running_task.get(None)
    return f"task_{task.task_id if task else uuid.uuid4()}"


def _answer(request: Request) -> Answer:
    task = running_task.get(None)
    try:
        return send(request, given_up=lambda: task is not None and task.cancelled)
    except Refused as error:
        raise PermanentError(str(error)) from None
    except (ConnectionError, TimeoutError):
        if task:
            task.check_cancelled()
        raise
