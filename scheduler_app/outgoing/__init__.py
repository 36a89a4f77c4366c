"""Outgoing requests: egress rules, secrets by reference, signatures and one client.

Operations call `send`, and `create_app` calls `configure`. Before that, only public addresses can be called, and no
secret is known. This package knows nothing of tasks, Flask or the database.
"""

from collections.abc import Callable, Mapping

from scheduler_app.config import Settings
from scheduler_app.outgoing.answers import MAX_CONTENT
from scheduler_app.outgoing.checks import MAX_URL, check_secret_name, check_url
from scheduler_app.outgoing.client import Client
from scheduler_app.outgoing.egress import Allowed
from scheduler_app.outgoing.errors import Refused, SecretsUnreadable
from scheduler_app.outgoing.messages import Answer, Request
from scheduler_app.outgoing.secrets_file import NAME, SecretsFile, references

__all__ = [
    "MAX_CONTENT",
    "MAX_URL",
    "NAME",
    "Answer",
    "Refused",
    "Request",
    "SecretsUnreadable",
    "check",
    "check_secret_name",
    "check_url",
    "configure",
    "references",
    "secret_names",
    "send",
]

_client = Client()  # of this process
send = _client.send
check = _client.check


def configure(settings: Settings, *, check: bool = False, trace: Callable[[], Mapping[str, str]] = dict) -> None:
    """With `check`, raises SettingsError when the file of secrets cannot be used. Processes that send use `check`.

    trace: the headers that pass on the trace in which a request is sent.
    """
    _client.trace = trace
    _client.allowed = Allowed.of(settings.http_allow)
    _client.secrets = SecretsFile(settings.secrets_file)
    if check:
        _client.secrets.check()


def secret_names() -> list[str]:
    """The secrets that this process knows, without their values; raises SecretsUnreadable."""
    return sorted(_client.secrets.read())
