"""The commands in the README and in docs/ work, and give the answers that are shown there."""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask.testing import FlaskClient

from actors import calculate, http_request
from scheduler_app import operations
from scheduler_app.api import MAX_BODY, tasks
from scheduler_app.schemas.fields import MAX_GROUP, MAX_PARAMS
from scheduler_app.schemas.json_values import MAX_DEPTH
from scheduler_app.schemas.labels import MAX_LABEL, MAX_LABELS
from scheduler_app.worker.execution import MAX_RESULT
from tests.support.processes import Process, eventually, free_port
from tests.support.servers import Valkey
from tests.support.system import System

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text()
PAGES = {path.relative_to(ROOT): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
ALL = "\n".join(PAGES.values())
ADDRESS = "http://127.0.0.1:8000"
# What differs from one time to the next.
VARYING = r'(?<=")\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)(?=")|(?<="task_id": )\d+'
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Block(NamedTuple):
    language: str
    text: str


def blocks(text: str) -> list[Block]:
    found = re.finditer(r"^( *)```(\w+)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[2], re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)) for match in found]


BLOCKS = blocks(ALL)


def only(language: str, part: str) -> str:
    """The one block that has the part in it."""
    [text] = [block.text for block in BLOCKS if block.language == language and part in block.text]
    return text


@pytest.fixture
def backbeat(shop: Callable[..., System], tmp_path: Path) -> Iterator[System]:
    with shop(tmp_path, BACKBEAT_API_KEY="") as system:
        yield system


def test_every_call_answers_as_shown(backbeat: System) -> None:
    shown = [(block.text, following) for block, following in pairwise(blocks(README)) if is_call(block)]
    assert len(shown) == 6
    for command, following in shown:
        expected = alike(following.text) if following.language == "json" else None
        if " -d " in command:
            answer = run(command, backbeat)
            assert expected is None or cut(answer, expected) == expected
        else:
            eventually(partial(answers, command, expected, backbeat))


def is_call(block: Block) -> bool:
    return block.language == "sh" and block.text.startswith("curl ")


def answers(command: str, expected: Any, backbeat: System) -> bool:
    return bool(cut(run(command, backbeat), expected) == expected)


def cut(answer: Any, shown: Any) -> Any:
    """The parts of the answer that are shown."""
    if isinstance(answer, dict) and isinstance(shown, dict):
        return {name: cut(answer[name], value) for name, value in shown.items() if name in answer}
    if isinstance(answer, list) and isinstance(shown, list) and len(answer) == len(shown):
        return [cut(*pair) for pair in zip(answer, shown, strict=True)]
    return answer


def run(command: str, backbeat: System) -> Any:
    """The JSON answer, without what varies."""
    command = command.replace(ADDRESS, backbeat.url).replace("curl ", "curl -fsS ")
    called = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True, timeout=120)
    return alike(called.stdout.replace(backbeat.url, ADDRESS))


def alike(answer: str) -> Any:
    return json.loads(re.sub(VARYING, "0", json.dumps(json.loads(answer), sort_keys=True)))


@ON_SQLITE
def test_a_restored_backup_goes_on_where_it_was_made(
    client: FlaskClient,
    scheduler: Callable[..., Process],
    worker: Callable[..., Process],
    tmp_path: Path,
    valkey: Valkey,
) -> None:
    def holds(query: str) -> bool:
        with closing(sqlite3.connect(tmp_path / "backbeat.db")) as database:
            return database.execute(query).fetchone() is not None

    def run_as_shown(part: str) -> None:
        command = only("sh", part).replace(".venv/bin/", f"'{BIN}'/").replace(".data/", "")
        subprocess.run(["sh", "-e", "-c", command], check=True, cwd=tmp_path, timeout=120)

    client.post("/tasks/", json={"operation": "4+7"})
    before = scheduler()
    eventually(lambda: holds("SELECT 1 FROM task WHERE enqueued_at IS NOT NULL"))
    run_as_shown(".backup(")
    run_as_shown(".backup(")  # a second one replaces the first
    before.kill()
    valkey.client.flushall()
    run_as_shown("cp .data/backup.db")
    scheduler()
    worker()
    eventually(lambda: holds("SELECT 1 FROM task WHERE status = 'SUCCESS'"))


def test_the_operation_shown_is_the_tested_one() -> None:
    assert only("python", "@operation") == (ROOT / "examples/shop_operations.py").read_text()


def test_the_tables_are_made_by_the_command_shown(tmp_path: Path) -> None:
    [line] = re.findall(r"^\.venv/bin/flask (.*)", only("sh", "bin/dramatiq"), re.MULTILINE)
    environ = os.environ | {"DATABASE_URL": f"sqlite:///{tmp_path}/backbeat.db"}
    subprocess.run([sys.executable, "-m", "flask", *line.split()], check=True, cwd=ROOT, env=environ, timeout=300)
    with closing(sqlite3.connect(tmp_path / "backbeat.db")) as database:
        assert database.execute("SELECT count(*) FROM task").fetchall() == [(0,)]


@pytest.mark.usefixtures("no_template")
@ON_SQLITE
@pytest.mark.parametrize(
    ("command", "ready"),
    [
        ("python wsgi.py", "web process ready"),
        ("dramatiq actors.worker", "Worker process is ready"),
        ("python scheduler.py", "scheduler ready"),
    ],
)
def test_each_process_can_be_started_by_hand(start: Callable[..., Process], command: str, ready: str) -> None:
    [line] = re.findall(rf"^\.venv/bin/({command}.*)", only("sh", "bin/dramatiq"), re.MULTILINE)
    program, *arguments = shlex.split(line)
    start(*([] if program == "python" else ["-m", program]), *arguments, ready=ready, PORT=str(free_port()))


def test_the_secrets_that_it_makes_are_enough_for_compose(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text((ROOT / ".env.example").read_text())
    subprocess.run(["sh", "-e", "-c", only("sh", "openssl")], check=True, cwd=tmp_path)
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "BACKBEAT_API_KEY")
    }
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    files = ["--env-file", f"{tmp_path}/.env", "-f", "docker-compose.yml"]
    for part in ("urgent:", "caddy:"):
        (tmp_path / f"{part[:-1]}.yml").write_text(only("yaml", part))
        files += ["-f", f"{tmp_path}/{part[:-1]}.yml"]
    command = [f"{BIN}/docker-compose", *files, "config", "--format", "json"]
    config = subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True)
    services = json.loads(config.stdout)["services"]
    assert re.fullmatch("[0-9a-f]{48}", services["web"]["environment"]["BACKBEAT_API_KEY"])
    assert services["urgent"]["command"][-4:] == ["--worker-shutdown-timeout=60000", "-Q", "tasks.p0", "tasks.p1"]
    assert services["web"]["environment"]["BACKBEAT_TRUSTED_PROXIES"] == "1"


def test_every_make_target_named_exists() -> None:
    named = set(re.findall(r"(?:^|`|=\S+ )make ([a-z]+)", ALL, re.MULTILINE))
    assert {"run", "test", "lint", "hooks", "bench"} <= named
    assert named <= set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_file_named_exists() -> None:
    tree = re.findall(r"^  ([a-z_/.]+)  ", only("text", "create_app"), re.MULTILINE)
    assert "services/" in tree
    rooms = [f"scheduler_app/{name}" for name in tree]
    folders = "api|broker|database|schemas|services|supervisor|worker"
    named = re.findall(
        r"[`(]((?:examples|tests|scheduler_app|actors|\.env\.example|docker-compose\.yml)[\w./]*)[`)]", ALL
    )
    within = [f"scheduler_app/{name}" for name in re.findall(rf"`((?:{folders})/\w+\.(?:py|lua))\b", ALL)]
    assert len(within) > 20
    assert [name for name in rooms + named + within if not (ROOT / name).exists()] == []


def test_the_architecture_shows_the_layers_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"][1:] for contract in contracts if contract["type"] == "layers"]
    checked = [re.findall(r"(?<!\()scheduler_app\.(\w+)", layer) for layer in layers]
    _, *shown = only("text", "wsgi, scheduler").strip().splitlines()
    assert [re.findall(r"\w+", line.partition("   ")[0]) for line in shown] == checked


def test_every_name_in_a_file_exists_there() -> None:
    found = re.findall(r"`(?:scheduler_app/)?([\w/]+\.py): (\w+)", PAGES[Path("docs/architecture.md")])
    assert len(found) > 10
    wrong = []
    for file, name in found:
        text = next(path for path in (ROOT / "scheduler_app" / file, ROOT / file) if path.exists()).read_text()
        if not re.search(rf"^(?:def|class) {name}\b|^{name} =", text, re.MULTILINE):
            wrong.append(f"{file}: {name}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, fragment in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", PAGES[page]):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert fragment in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@ON_SQLITE
def test_every_call_of_the_api_is_named(client: FlaskClient) -> None:
    named = set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`]*)`", PAGES[Path("docs/api.md")]))
    paths = client.get("/openapi.json").json["paths"]
    calls = {(method.upper(), path) for path, methods in paths.items() for method in methods if method != "parameters"}
    assert calls == named


def test_the_limits_are_those_of_the_code() -> None:
    [table] = re.findall(r"^\| limit \| \|\n\| --- \| --- \|\n((?:\|.*\n)+)", PAGES[Path("docs/api.md")], re.MULTILINE)
    limits = dict(re.findall(r"^\| (.+) \| (.+) \|$", table, re.MULTILINE))
    assert limits == {
        "request body": f"{MAX_BODY // 2**20} MiB, {MAX_DEPTH} levels deep",
        "batch": f"{tasks.MAX_BATCH:,} tasks",
        "`params` of a task": f"{MAX_PARAMS:,} characters of JSON",
        "result of a task": f"{MAX_RESULT:,} characters of JSON",
        "arithmetic expression": f"{calculate.MAX_LENGTH:,} characters, {calculate.MAX_DEPTH} parentheses deep, "
        f"numbers of {calculate.MAX_DIGITS} digits",
        "body that `http_request` sends or keeps": f"{http_request.MAX_CONTENT:,} bytes",
        "retries of a task": str(operations.MAX_RETRIES),
        "key of `unique`": "200 characters",
        "group of a task": f'{MAX_GROUP} characters, no control character, no `"` and no `\\`',
        "labels of a task": f"{MAX_LABELS}, a name of 32 characters and a value of {MAX_LABEL} each",
    }


def test_every_benchmark_named_can_be_started() -> None:
    modules = set(re.findall(r"bin/python -m (benchmarks\.\w+)", ALL))
    assert modules == {"benchmarks.against", "benchmarks.faults", "benchmarks.schedules"}
    for module in modules:
        subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, check=True, capture_output=True, timeout=300)
