"""Every setting, defined in one place: its variable, default, meaning and check."""

import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Self

from dotenv import dotenv_values
from redis.connection import parse_url
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

PRIORITIES = range(10)  # 0 is the most urgent
PREFIX = "BACKBEAT_"
LOG_LEVELS = ("debug", "info", "warning")
LOG_FORMATS = ("text", "json")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class SettingsError(SystemExit):
    """A setting is wrong. It ends the process with one line: the variable, its value and what is allowed."""


def _text(value: str) -> str:
    return value


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"\d{1,9}", value) or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return number

    return parse


def _database_url(value: str) -> str:
    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", value)
    with suppress(ValueError, ArgumentError):  # such as a port that is no number
        if not url or (re.match(r"postgresql\+psycopg://|sqlite:////[^/]", url) and make_url(url)):
            return url
    raise ValueError("postgresql://user:password@host/database or sqlite:////path/to/file")


def _redis_url(value: str) -> str:
    with suppress(ValueError):
        if re.match(r"(rediss?|unix)://.", value) and parse_url(value):  # type: ignore[no-untyped-call]
            return value
    raise ValueError("redis://host:port/number, rediss://… or unix:///path/to/socket")


def _api_key(value: str) -> str:
    if value and not re.fullmatch(r"[\x21-\x7e]{16,200}", value):
        raise ValueError("empty, or 16 to 200 printable characters without spaces")
    return value


def _modules(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(","))
    if not all(re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name) for name in names):
        raise ValueError("names of Python modules, separated by commas")
    return names


def _weights(value: str) -> tuple[float, ...]:
    allowed = "ten numbers from 0.001 to 1000000, separated by commas, for priorities 0 to 9"
    try:
        weights = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise ValueError(allowed) from None
    if len(weights) != len(PRIORITIES) or not all(0.001 <= weight <= 1_000_000 for weight in weights):
        raise ValueError(allowed)
    return weights


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return value

    return parse


def _http_url(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^\s@/?#]+([/?#][\x21-\x7e]*)?", value):
        raise ValueError("a URL of http:// or https://, without user and password")
    return value


def _reachable(value: str) -> tuple[IPv4Network | IPv6Network | str, ...]:
    return tuple(_network_or_host(entry.strip()) for entry in value.split(",")) if value else ()


def _network_or_host(text: str) -> IPv4Network | IPv6Network | str:
    with suppress(ValueError):
        return ip_network(text)
    # A name that ends in a number is refused: resolvers read it as an address in an unusual spelling.
    if re.fullmatch(r"(?!(.*\.)?([0-9]+|0x[0-9a-f]*)\.?$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", text.lower()):
        return text.lower().rstrip(".")
    raise ValueError("`local`, networks, addresses or host names, separated by commas")


def _file(value: str) -> Path | None:
    return Path(value) if value else None


def _setting(variable: str, default: str, parse: Callable[[str], Any], meaning: str, *, secret: bool = False) -> Any:
    metadata = {"variable": variable, "default": default, "parse": parse, "meaning": meaning, "secret": secret}
    return field(metadata=metadata, repr=not secret)


@dataclass(frozen=True)
class Settings:
    """The settings from the environment. An empty variable counts as not set."""

    database_url: str = _setting(
        "DATABASE_URL",
        "",
        _database_url,
        "PostgreSQL or SQLite; when empty, SQLite in `BACKBEAT_DATA_DIR`",
        secret=True,
    )
    redis_url: str = _setting(
        "REDIS_URL",
        "redis://127.0.0.1:6379/0",
        _redis_url,
        "Redis or Valkey; when empty, `make run` brings its own Valkey",
        secret=True,
    )
    host: str = _setting(
        "HOST",
        "127.0.0.1",
        _text,
        "address that the web process listens on; any but loopback needs `BACKBEAT_API_KEY`",
    )
    port: int = _setting("PORT", "8000", _integer(1, 65535), "port that the web process listens on")
    api_key: str = _setting(
        "BACKBEAT_API_KEY",
        "",
        _api_key,
        "the admin key to begin with; when set, every call except probes and docs needs `Authorization: Bearer <key>`",
        secret=True,
    )
    data_dir: Path = _setting(
        "BACKBEAT_DATA_DIR", ".data", Path, "where `make run` keeps the SQLite file and Valkey's append-only file"
    )
    operations: tuple[str, ...] = _setting(
        "BACKBEAT_OPERATIONS", "actors", _modules, "Python modules that define operations, separated by commas"
    )
    priority_weights: tuple[float, ...] = _setting(
        "BACKBEAT_PRIORITY_WEIGHTS",
        "512,256,128,64,32,16,8,4,2,1",
        _weights,
        "how the starts are shared among priorities 0 to 9 while all of them have tasks waiting",
    )
    web_processes: int = _setting("BACKBEAT_WEB_PROCESSES", "1", _integer(1, 64), "web processes that share one port")
    worker_processes: int = _setting(
        "BACKBEAT_WORKER_PROCESSES", "1", _integer(1, 64), "worker processes of `make run`"
    )
    worker_threads: int = _setting(
        "BACKBEAT_WORKER_THREADS", "8", _integer(1, 256), "tasks that a worker process runs at once"
    )
    stop_timeout: int = _setting(
        "BACKBEAT_STOP_TIMEOUT",
        "60",
        _integer(1, 3600),
        "seconds that a stopping worker gives its running tasks to finish",
    )
    scan_interval: float = _setting(
        "BACKBEAT_SCAN_INTERVAL", "1", _number(0.1, 60), "seconds between two scans of the scheduler for due times"
    )
    retention_days: int = _setting(
        "BACKBEAT_RETENTION_DAYS", "30", _integer(1, 36500), "days that a finished task is kept"
    )
    log_days: int = _setting("BACKBEAT_LOG_DAYS", "7", _integer(1, 36500), "days that what operations log is kept")
    audit_days: int = _setting(
        "BACKBEAT_AUDIT_DAYS", "365", _integer(1, 36500), "days that an entry of the audit log is kept"
    )
    max_waiting: int = _setting(
        "BACKBEAT_MAX_WAITING",
        "10000000",
        _integer(1, 999_999_999),
        "tasks that may wait or run at a time; posting more is answered with 503",
    )
    trusted_proxies: int = _setting(
        "BACKBEAT_TRUSTED_PROXIES",
        "0",
        _integer(0, 16),
        "proxies before the web process whose `X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix` are believed",
    )
    log_level: str = _setting(
        "BACKBEAT_LOG_LEVEL",
        "info",
        _one_of(*LOG_LEVELS),
        "`debug`, `info` or `warning`: what the processes write to their log",
    )
    log_format: str = _setting(
        "BACKBEAT_LOG_FORMAT",
        "text",
        _one_of(*LOG_FORMATS),
        "`text` or `json`: the form of a line in the log",
    )
    http_allow: tuple[IPv4Network | IPv6Network | str, ...] = _setting(
        "BACKBEAT_HTTP_ALLOW",
        "",
        _reachable,
        "targets that tasks may call in addition to public addresses: networks, addresses or host names, separated by "
        "commas, or `local` for all loopback and private addresses; `make run` without a key sets `local`",
    )
    secrets_file: Path | None = _setting(
        "BACKBEAT_SECRETS_FILE",
        "",
        _file,
        "JSON file with the secrets that tasks name as `${secret:NAME}`; only its owner may read it; workers need it",
    )

    alert_url: str = _setting(
        "BACKBEAT_ALERT_URL",
        "",
        _http_url,
        "where the scheduler POSTs what begins and what ends to need attention, signed with the secret "
        "`backbeat.alerts`",
        secret=True,
    )
    heartbeat_url: str = _setting(
        "BACKBEAT_HEARTBEAT_URL",
        "",
        _http_url,
        "what the scheduler GETs once a minute while scheduler, worker, database and Redis are well",
        secret=True,
    )

    otlp_endpoint: str = _setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        _http_url,
        "where all processes send their spans, by OTLP over HTTP; needs `requirements-otel.txt`; when empty, there are "
        "no spans",
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Raises SettingsError for the first variable whose value is not allowed."""
        settings = cls(**{f.name: _parse(f.metadata, environ) for f in fields(cls)})
        if settings.host not in LOOPBACK and not settings.api_key:
            raise SettingsError(f"HOST: {settings.host!r} is beyond loopback; set BACKBEAT_API_KEY to allow it")
        if not settings.database_url:
            file = (settings.data_dir / "backbeat.db").absolute()
            object.__setattr__(settings, "database_url", f"sqlite:///{file}")
        return settings

    @classmethod
    def load(cls) -> Self:
        """The settings of this process: its environment first, then `.env` in the working directory.

        Variables that look like a setting but are none are named on standard error.
        """
        environ = environment()
        for line in unknown(environ):
            print(line, file=sys.stderr)
        return cls.from_env(environ)


def environment() -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(".env").items()} | os.environ


def unknown(environ: Mapping[str, str]) -> list[str]:
    """One line for each variable that has our prefix but is no setting. Else a typing error would go unnoticed."""
    known = [f.metadata["variable"] for f in fields(Settings)]
    lines = []
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
        close = get_close_matches(name, known, 1, 0.8)
        hint = f"; did you mean {close[0]}?" if close else ""
        lines.append(f"{name}: there is no such setting{hint}")
    return lines


def _parse(metadata: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    value = environ.get(metadata["variable"]) or metadata["default"]
    try:
        return metadata["parse"](value)
    except ValueError as error:
        shown = "the value given" if metadata["secret"] else repr(value)
        raise SettingsError(f"{metadata['variable']}: {shown} is not allowed; allowed is {error}") from None
