"""The requests that the client sends, and the answers that it returns."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv6Address

from urllib3.util import Url, parse_url
from werkzeug.http import parse_date


@dataclass(frozen=True)
class Request:
    url: str  # of http or https, without user and password
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case; ${secret:NAME} is filled in
    body: bytes | None = None
    timeout: float = 30.0  # seconds for the whole exchange, without the look-up of the name
    sign_with: str | None = None  # the name of the secret that signs it, as Standard Webhooks say
    message_id: str = ""  # its webhook-id, when it is signed: the same whenever the same message is sent again

    @property
    def target(self) -> "Target":
        return Target.of(parse_url(self.url))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: str
    truncated: bool  # whether headers or body were cut

    @property
    def retry_after(self) -> float:
        """Seconds, as its `Retry-After` says; 0 when it does not say, or says what cannot be read."""
        text = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", text):
            return float(text)
        until = parse_date(text)
        # Both by the server's clock, if it tells its time.
        since = parse_date(self.headers.get("date")) or datetime.now(UTC)
        return max((until - since).total_seconds(), 0.0) if until else 0.0


@dataclass(frozen=True)
class Target:
    """Where a request goes.

    An IPv6 address is written in the usual way, without a zone: only link-local ones need it, which are refused.
    """

    scheme: str
    host: str  # in lower case; an IPv6 address without brackets
    port: int
    uri: str

    @classmethod
    def of(cls, url: Url) -> "Target":
        host = url.host or ""
        if host.startswith("["):
            host = host.strip("[]").partition("%")[0]
            with suppress(ValueError):  # the look-up will say so
                host = str(IPv6Address(host))
        scheme = url.scheme or "http"
        return cls(scheme, host, url.port or (443 if scheme == "https" else 80), url.request_uri)

    @property
    def names(self) -> set[str]:
        """The names that mean it in a list of hosts: `host` and `host:port`."""
        return {self._host, f"{self._host}:{self.port}"}

    def __str__(self) -> str:
        usual = self.port == (443 if self.scheme == "https" else 80)
        return self._host if usual else f"{self._host}:{self.port}"

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host
