"""Calls signed as Standard Webhooks say; its own library is the receiver."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from actors.http_request import HttpRequestParams, http_request
from scheduler_app import outgoing
from scheduler_app.config import Settings
from scheduler_app.operations import PermanentError, running_task
from scheduler_app.outgoing.secrets_file import Secret
from scheduler_app.outgoing.signatures import signature_headers
from tests.support.http_server import Server

KEYS = [f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in range(3)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.json"
    path.touch(0o600)
    outgoing.configure(Settings.from_env({"BACKBEAT_HTTP_ALLOW": "local", "BACKBEAT_SECRETS_FILE": str(path)}))
    return path


def write(path: Path, value: str = KEYS[0], hosts: tuple[str, ...] = ("127.0.0.1",), **more: str) -> None:
    path.write_text(json.dumps({"HOOK": {"value": value, "hosts": hosts, **more}}))


def call(server: Server, **params: Any) -> tuple[dict[str, str], bytes]:
    """What the server received."""
    http_request(**HttpRequestParams().load({"url": f"{server.url}/hello", "sign_with": "HOOK", **params}))
    _, _, headers, body = server.requests[-1]
    return dict(headers), body


@pytest.mark.parametrize(
    "content",
    [{"json": {"name": "Zoë"}}, {"body": '{"line": "\\r\\n ü"}', "headers": {"Content-Type": "text/x"}}, {"json": []}],
)
def test_the_receiver_can_verify_a_call(server: Server, file: Path, content: dict[str, Any]) -> None:
    write(file)
    headers, body = call(server, method="POST", **content)
    Webhook(KEYS[0]).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(KEYS[1]).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(KEYS[0]).verify(body + b" ", headers)


def test_a_call_without_a_body_is_signed_too(server: Server, file: Path) -> None:
    write(file)
    headers, body = call(server)
    assert body == b""
    Webhook(KEYS[0]).verify(body, headers, json_parse=False)


def test_while_a_key_is_replaced_receivers_with_the_old_and_with_the_new_can_verify(server: Server, file: Path) -> None:
    write(file, value=KEYS[1], previous=KEYS[0])
    headers, body = call(server, method="POST", json=1)
    Webhook(KEYS[0]).verify(body, headers)
    Webhook(KEYS[1]).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(KEYS[2]).verify(body, headers)
    write(file, value=KEYS[1])
    headers, body = call(server, method="POST", json=1)
    with pytest.raises(WebhookVerificationError):
        Webhook(KEYS[0]).verify(body, headers)


def test_a_message_has_the_same_id_at_each_attempt_and_another_one_for_each_task(server: Server, file: Path) -> None:
    class Running:
        cancelled = False

        def __init__(self, task_id: int, attempt: int) -> None:
            self.task_id, self.attempt = task_id, attempt

    write(file)
    ids = []
    for task in (Running(17, 1), Running(17, 2), Running(18, 1)):
        token = running_task.set(task)
        ids.append(call(server)[0]["webhook-id"])
        running_task.reset(token)
    assert ids == ["task_17", "task_17", "task_18"]
    assert call(server)[0]["webhook-id"] != call(server)[0]["webhook-id"]


@given(st.binary(min_size=24, max_size=64), st.text(max_size=50), st.datetimes(min_value=datetime(1971, 1, 1)))  # noqa: DTZ001
def test_any_call_is_signed_as_the_library_signs_it(key: bytes, content: str, now: datetime) -> None:
    content = content.encode("utf-8", "replace").decode()
    secret = Secret("HOOK", base64.b64encode(key).decode(), frozenset())
    headers = signature_headers(secret, "task_1", content.encode(), now=now.replace(tzinfo=UTC))
    assert headers["webhook-signature"] == Webhook(key).sign("task_1", now, content)


def test_an_unsigned_call_has_no_signature(server: Server, file: Path) -> None:
    write(file)
    http_request(**HttpRequestParams().load({"url": f"{server.url}/hello"}))
    assert not [name for name in server.requests[0][2] if name.lower().startswith("webhook-")]


@pytest.mark.parametrize(
    "value", ["not base64, but long enough", base64.b64encode(bytes(23)).decode(), "whsec_" + "A" * 92]
)
def test_a_secret_that_is_no_key_signs_nothing(server: Server, file: Path, value: str) -> None:
    write(file, value=value)
    with pytest.raises(PermanentError, match="'HOOK' is no signing key") as error:
        call(server)
    assert value not in str(error.value)
    assert server.requests == []


def test_a_key_signs_only_for_its_hosts(server: Server, file: Path) -> None:
    write(file, hosts=("hooks.example.com",))
    with pytest.raises(PermanentError, match="The secret 'HOOK' is not for 127"):
        call(server)
    with pytest.raises(PermanentError, match="There is no secret 'OTHER'"):
        call(server, sign_with="OTHER")
    assert server.requests == []
