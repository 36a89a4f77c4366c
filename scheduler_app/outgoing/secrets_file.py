"""Secrets by reference. A request names a secret; a file of this process has its value and its allowed hosts.

The file is JSON. `previous` is only there while a secret is being replaced:

    {"SHOP_TOKEN": {"value": "…", "hosts": ["api.example.com"], "previous": "…"}}
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from scheduler_app.config import SettingsError
from scheduler_app.outgoing.errors import Refused, SecretsUnreadable
from scheduler_app.outgoing.messages import Request, Target

NAME = r"[A-Za-z0-9_.-]{1,64}"
MAX_FILE = 1_000_000  # bytes
MAX_LENGTH = 2_048  # characters of a secret
MAX_HEADER = 16_384  # characters of a header with its secrets
_HOST = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?\Z"
_REFERENCE = re.compile(rf"\$\{{secret:(?P<name>{NAME})\}}")
_SENDABLE = re.compile(rf"[\t\x20-\x7e\xa0-\xff]{{0,{MAX_HEADER}}}")


@dataclass(frozen=True)
class Secret:
    name: str
    value: str = field(repr=False)
    hosts: frozenset[str]  # `host` or `host:port`, in lower case
    previous: str | None = field(default=None, repr=False)  # while it is being replaced

    @property
    def values(self) -> tuple[str, ...]:
        """All values that must not be shown. The one in use comes first."""
        return (self.value, self.previous) if self.previous else (self.value,)


class _SecretSchema(Schema):
    value = fields.String(
        required=True,
        validate=validate.Regexp(
            rf"[\x21-\x7e][\x20-\x7e]{{14,{MAX_LENGTH - 2}}}[\x21-\x7e]\Z",
            error=f"Not 16 to {MAX_LENGTH} printable ASCII characters.",
        ),
    )
    hosts = fields.List(
        fields.String(validate=validate.Regexp(_HOST, error="Not host or host:port.")),
        required=True,
        validate=validate.Length(min=1),
    )
    previous = fields.String(validate=value.validate)


_FILE = fields.Dict(keys=fields.String(validate=validate.Regexp(rf"{NAME}\Z")), values=fields.Nested(_SecretSchema))


class SecretsFile:
    """Reads the file again whenever it has changed, so that a secret can be replaced without a restart."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._read: tuple[tuple[int, ...], dict[str, Secret]] = ((), {})  # the version of the file, and what it says

    def read(self) -> dict[str, Secret]:
        """The secrets by name; empty when no file is set. Raises SecretsUnreadable."""
        if self.path is None:
            return {}
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
                if version != self._read[0]:
                    _check_mode(status)
                    self._read = version, _parsed(file.read(MAX_FILE + 1))
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from None
        except (ValueError, RecursionError) as error:  # ValidationError is one
            raise self._unreadable(str(error)) from None
        return self._read[1]

    def check(self) -> None:
        """Raises SettingsError, which ends the process with one line."""
        try:
            self.read()
        except SecretsUnreadable as error:
            raise SettingsError(str(error)) from None

    def chosen(self, request: Request) -> dict[str, Secret]:
        """The secrets that the request names. Raises Refused for an unknown name, and for a host that it is not for.

        Raises SecretsUnreadable when the request names a secret and the file cannot be used.
        """
        try:
            names = references(request.headers, request.sign_with)
        except ValueError as error:
            raise Refused(str(error)) from None
        known = self.read() if names else {}
        return {name: _bound(known.get(name), name, request.target) for name in sorted(names)}

    def _unreadable(self, reason: str) -> SecretsUnreadable:
        return SecretsUnreadable(f"BACKBEAT_SECRETS_FILE: {str(self.path)!r} cannot be used: {reason}")


def references(headers: Mapping[str, str], sign_with: str | None = None) -> set[str]:
    """The names of the secrets that a request needs.

    Raises ValueError for a reference that is malformed. Also for a `Host` header: a server with many hosts would pass
    the request to another host than the one that the secret is for.
    """
    names = {sign_with} if sign_with else set()
    for header, value in headers.items():
        names.update(match["name"] for match in _REFERENCE.finditer(value))
        if "${secret:" in _REFERENCE.sub("", value):
            raise ValueError(f"{header}: a secret is named as ${{secret:NAME}}, with up to 64 of A-Z a-z 0-9 _ . -")
    if names and "host" in map(str.lower, headers):
        raise ValueError("Host: not allowed in a request with a secret.")
    return names


def filled(headers: Mapping[str, str], secrets: Mapping[str, Secret]) -> dict[str, str]:
    """The headers as they are sent. Raises Refused for a header that cannot be sent, without showing its value."""
    values = {name: _REFERENCE.sub(lambda m: secrets[m["name"]].value, value) for name, value in headers.items()}
    for name, value in values.items():
        if not _SENDABLE.fullmatch(value):
            raise Refused(f"{name}: has characters that a header cannot hold, or more than {MAX_HEADER} of them.")
    return values


def _bound(secret: Secret | None, name: str, target: Target) -> Secret:
    if secret is None:
        raise Refused(f"There is no secret {name!r} in the file that BACKBEAT_SECRETS_FILE names.")
    if not secret.hosts & target.names:
        raise Refused(f"The secret {name!r} is not for {target}: BACKBEAT_SECRETS_FILE does not name that host for it.")
    return secret


def _check_mode(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError("it must be a file that its owner alone can read, as chmod 600 makes it")


def _parsed(content: bytes) -> dict[str, Secret]:
    if len(content) > MAX_FILE:
        raise ValueError(f"it has more than {MAX_FILE} bytes")
    try:
        loaded: dict[str, dict[str, Any]] = _FILE.deserialize(json.loads(content))
    except ValidationError as error:
        raise ValueError(str(error.messages)) from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    return {name: _secret(name, **entry) for name, entry in loaded.items()}


def _secret(name: str, value: str, hosts: Iterable[str], previous: str | None = None) -> Secret:
    return Secret(name, value, frozenset(host.lower() for host in hosts), previous)
