"""Settings: which values are allowed, the message for others, and that no process starts with a wrong one."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from scheduler_app.config import Settings, SettingsError, unknown

ROOT = Path(__file__).parent.parent
KEY = "0123456789abcdef"
SETTINGS = {f.metadata["variable"]: f for f in fields(Settings)}
ENTRY_POINTS = {
    "web": ("wsgi.py",),
    "migrate": ("-m", "flask", "--app", "wsgi", "db", "upgrade"),
    "scheduler": ("scheduler.py",),
    "worker": ("-m", "dramatiq", "actors.worker", "--processes", "1", "--threads", "1"),
}

BAD = {
    "DATABASE_URL": [
        "backbeat.db",
        "mysql://user:secret@host/database",
        "postgresql+asyncpg://user:secret@host/database",
        "postgresql://user:secret@host:port/database",
        "postgresql://[::1/database",
        "sqlite://",
        "sqlite:///relative.db",
        "sqlite:///:memory:",
    ],
    "REDIS_URL": [
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis://:secret@host:port/0",
        "redis://host:99999",
        "redis://host?db=x",
    ],
    "PORT": ["0", "65536", "-1", "80.5", "http", "1e3", "9" * 5_000],
    "BACKBEAT_API_KEY": ["short", "has spaces in its middle", "not-ascii-é-0123456789", "x" * 201],
    "BACKBEAT_OPERATIONS": ["actors,", "actors.py files", "../actors", "actors;os", "1module"],
    "BACKBEAT_PRIORITY_WEIGHTS": ["1,2,3,4,5,6,7,8,9", *(f"{part}{',1' * 9}" for part in ("0", "nan", "x", ""))],
    "BACKBEAT_WEB_PROCESSES": ["0", "65", "many"],
    "BACKBEAT_WORKER_PROCESSES": ["0", "65", "1.5"],
    "BACKBEAT_WORKER_THREADS": ["0", "257", "eight"],
    "BACKBEAT_STOP_TIMEOUT": ["0", "3601", "1m"],
    "BACKBEAT_SCAN_INTERVAL": ["0", "0.09", "61", "nan", "inf", "soon"],
    "BACKBEAT_LOG_LEVEL": ["loud", "INFO"],
    "BACKBEAT_LOG_FORMAT": ["xml", "JSON"],
    "BACKBEAT_LOG_DAYS": ["0", "a week"],
    "BACKBEAT_ALERT_URL": ["example.com", "ftp://example.com/", "https://user@example.com/", "https://example.com/a b"],
    "BACKBEAT_HEARTBEAT_URL": ["x", "https://"],
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["collector:4318", "ftp://collector/", "http://"],
    "BACKBEAT_RETENTION_DAYS": ["0", "36501", "forever"],
    "BACKBEAT_AUDIT_DAYS": ["0", "36501", "forever"],
    "BACKBEAT_MAX_WAITING": ["0", "1000000000", "1e6", "many"],
    "BACKBEAT_TRUSTED_PROXIES": ["-1", "17", "all"],
    "BACKBEAT_HTTP_ALLOW": [
        *("10.0.0.5/8", "10.0.0.300", "10.0.0.0/33", "fd00::/129", "[::1]"),
        *("127.1", "0x7f.1", "2130706433", "local,", "http://a", "a:80", "*.example.com", "two words", "exämple.com"),
    ],
}  # fmt: skip
ANY_TEXT = {"HOST", "BACKBEAT_DATA_DIR", "BACKBEAT_SECRETS_FILE"}  # the system says whether it can use them


def refusal(environ: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as error:
        Settings.from_env(environ)
    return str(error.value)


@pytest.mark.parametrize(("variable", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_wrong_value_is_refused_in_one_line_that_says_what_is_allowed(variable: str, value: str) -> None:
    message = refusal({variable: value})
    shown = "the value given" if SETTINGS[variable].metadata["secret"] else repr(value)
    assert re.fullmatch(f"{variable}: {re.escape(shown)} is not allowed; allowed is .+", message)


def test_every_setting_has_a_wrong_value_above() -> None:
    assert BAD.keys() | ANY_TEXT == SETTINGS.keys()


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL", "BACKBEAT_API_KEY"])
def test_a_secret_is_shown_neither_in_a_refusal_nor_in_the_settings(variable: str) -> None:
    assert "s3cret" not in refusal({variable: "mysql://user:s3cret word@host"})
    environ = {"DATABASE_URL": "postgresql://u:s3cret@h/d", "REDIS_URL": "redis://:s3cret@h", "BACKBEAT_API_KEY": KEY}
    shown = repr(Settings.from_env(environ))
    assert "s3cret" not in shown
    assert KEY not in shown


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.from_env(dict.fromkeys(SETTINGS, "")) == Settings.from_env({})


def test_without_database_url_sqlite_is_used_in_the_data_directory(tmp_path: Path) -> None:
    settings = Settings.from_env({"BACKBEAT_DATA_DIR": str(tmp_path)})
    assert settings.database_url == f"sqlite:///{tmp_path}/backbeat.db"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_name_of_postgresql_is_taken(scheme: str) -> None:
    settings = Settings.from_env({"DATABASE_URL": f"{scheme}://user@host/database"})
    assert settings.database_url == "postgresql+psycopg://user@host/database"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_beyond_loopback_a_key_is_needed(host: str) -> None:
    assert refusal({"HOST": host}) == f"HOST: {host!r} is beyond loopback; set BACKBEAT_API_KEY to allow it"
    assert Settings.from_env({"HOST": host, "BACKBEAT_API_KEY": KEY}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_on_loopback_no_key_is_needed(host: str) -> None:
    assert Settings.from_env({"HOST": host}).api_key == ""


def test_dotenv_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nBACKBEAT_WORKER_THREADS='3' # few\nBACKBEAT_STOP_TIMEOUT\n")
    monkeypatch.chdir(tmp_path)
    for variable in SETTINGS:
        monkeypatch.delenv(variable, raising=False)
    settings = Settings.load()
    assert (settings.port, settings.worker_threads, settings.stop_timeout) == (9001, 3, 60)
    monkeypatch.setenv("PORT", "9002")
    assert Settings.load().port == 9002


def start(name: str, tmp_path: Path, **wrong: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    environ |= {"BACKBEAT_DATA_DIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    command = (sys.executable, *ENTRY_POINTS[name])
    return subprocess.run(
        command, check=False, cwd=ROOT, env=environ | wrong, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_no_process_starts_with_a_wrong_setting(name: str, tmp_path: Path) -> None:
    ended = start(name, tmp_path, PORT="http")
    assert ended.returncode > 0
    assert (
        ended.stderr.splitlines().count("PORT: 'http' is not allowed; allowed is a whole number from 1 to 65535") == 1
    )
    assert "Traceback" not in ended.stderr


def test_no_worker_starts_with_secrets_that_others_can_read(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text("{}")
    file.chmod(0o640)
    ended = start("worker", tmp_path, BACKBEAT_SECRETS_FILE=str(file))
    assert ended.returncode > 0
    reason = "it must be a file that its owner alone can read, as chmod 600 makes it"
    assert ended.stderr.splitlines().count(f"BACKBEAT_SECRETS_FILE: '{file}' cannot be used: {reason}") == 1
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["web", "worker"])
def test_no_process_starts_without_a_module_of_operations(name: str, tmp_path: Path) -> None:
    ended = start(name, tmp_path, BACKBEAT_OPERATIONS="actors,no_such.module")
    assert ended.returncode > 0
    assert ended.stderr.splitlines().count("BACKBEAT_OPERATIONS: there is no module 'no_such.module'") == 1


@pytest.mark.parametrize("name", ["web", "worker"])
def test_a_module_of_operations_that_fails_ends_the_process_and_shows_where(name: str, tmp_path: Path) -> None:
    module = tmp_path / "failing_operations.py"
    module.write_text("raise RuntimeError('not today')\n")
    ended = start(name, tmp_path, BACKBEAT_OPERATIONS="failing_operations")
    assert ended.returncode > 0
    assert f'File "{module}", line 1' in ended.stderr
    assert "RuntimeError: not today" in ended.stderr


def test_a_variable_that_is_no_setting_is_named() -> None:
    variables = {"BACKBEAT_WORKER_THREAD": "2", "BACKBEAT_COLOUR": "red", "BACKBEAT_SCAN_INTERVAL": "2", "PORTS": "1"}
    assert unknown(variables) == [
        "BACKBEAT_COLOUR: there is no such setting",
        "BACKBEAT_WORKER_THREAD: there is no such setting; did you mean BACKBEAT_WORKER_THREADS?",
    ]


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_process_names_a_variable_that_is_no_setting(name: str, tmp_path: Path) -> None:
    # The wrong port stops it, so that there is nothing to wait for.
    environ = os.environ | {"BACKBEAT_WORKER_THREAD": "2", "PORT": "80x", "BACKBEAT_DATA_DIR": str(tmp_path)}
    command = [sys.executable, *ENTRY_POINTS[name]]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=300)
    assert "BACKBEAT_WORKER_THREAD: there is no such setting" in done.stdout + done.stderr


def test_a_database_that_does_not_answer_is_named_in_one_line() -> None:
    environ = os.environ | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    command = [sys.executable, *ENTRY_POINTS["migrate"]]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stderr.splitlines() if "RuntimeDirWarning" not in line]
    assert done.returncode == 1
    assert len(lines) == 1
    assert lines[0].startswith("DATABASE_URL: the database does not answer: ")
