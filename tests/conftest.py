"""Fixtures: real servers, an application on each database, real worker and scheduler processes."""

import gc
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import compress
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from hypothesis import settings
from playwright.sync_api import Browser, Page
from sqlalchemy import delete, exists, select, text

from scheduler_app.access import admission
from scheduler_app.config import Settings
from scheduler_app.database import connections, engines
from scheduler_app.extensions import Base, db
from scheduler_app.services import health
from scheduler_app.web import create_web_app
from tests.support.browser import Watch, open_browser
from tests.support.http_server import Server, serving
from tests.support.processes import Process, free_port
from tests.support.servers import Postgres, Valkey
from tests.support.system import SCHEDULER, SCHEDULER_READY, WEB, WEB_READY, WORKER_READY, System, worker_command
from tests.support.template import Template, keep_pages

settings.register_profile("suite", deadline=None)  # an example is slow on a busy machine
settings.load_profile("suite")

LONG = 90  # seconds
PATIENT = {
    admission: ["LONGEST"],
    connections: ["IDLE_TIMEOUT", "STATEMENT_TIMEOUT"],
    engines: ["BUSY_TIMEOUT"],
    health: ["ANSWER_WITHIN", "GIVEN_UP_AFTER"],
    import_module("scheduler_app.database.waits"): ["PATIENCE"],
}

WEIGHTS = "512,256,128,64,32,16,8,4,2,1"


def pytest_collection_finish() -> None:
    """What is loaded now stays. To look for garbage in it again and again took a third of a test's processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Most processes of the tests are forked from one, which costs a tenth. No application compiles a page again."""
    pages = tmp_path_factory.mktemp("pages")
    keep_pages(pages)
    Process.template = Template(pages)
    yield
    Process.template.close()


@pytest.fixture
def no_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's processes begin as in production."""
    monkeypatch.setattr(Process, "template", None)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process waits longer for the database than in production: the machine may be busy with something else."""
    for module, names in PATIENT.items():
        for name in names:
            monkeypatch.setattr(module, name, LONG)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    server = Valkey(appendonly=False)
    yield server
    server.close()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """Empty."""
    valkey_server.client.flushall()
    return valkey_server


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """For tests that harm it."""
    server = Valkey()
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.sql("ALTER SYSTEM SET fsync = off")  # it outlives no crash of the machine
    server.sql("SELECT pg_reload_conf()")
    yield server
    server.close()


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """For tests that harm it; with a migrated database, backbeat."""
    server = Postgres()
    server.sql("CREATE DATABASE backbeat")
    app = create_web_app(Settings.from_env({"DATABASE_URL": server.url("backbeat")}))
    with app.app_context():
        upgrade()
        db.engine.dispose()
    yield server
    server.close()


@pytest.fixture(scope="session")
def migrated(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The URL of a migrated, empty database of each kind."""
    postgres.sql("CREATE DATABASE backbeat")
    file = tmp_path_factory.mktemp("migrated") / "backbeat.db"
    urls = {"postgresql": postgres.url("backbeat"), "sqlite": f"sqlite:///{file}"}
    for url in urls.values():
        app = create_web_app(Settings.from_env({"DATABASE_URL": url}))
        with app.app_context():
            upgrade()
            db.engine.dispose()
    return urls


@pytest.fixture(scope="session")
def shop(valkey_server: Valkey, migrated: dict[str, str]) -> Callable[..., System]:
    """Starts a system on SQLite with the operations of the examples, as a reader of the README has it."""

    def shop(folder: Path, *, serve: Sequence[str] = WEB, **environ: str) -> System:
        valkey_server.client.flushall()
        shutil.copy(migrated["sqlite"].removeprefix("sqlite:///"), folder / "backbeat.db")
        settings = {
            "DATABASE_URL": f"sqlite:///{folder}/backbeat.db",
            "REDIS_URL": valkey_server.url,
            "BACKBEAT_HTTP_ALLOW": "local",
            "BACKBEAT_OPERATIONS": "actors,examples.shop_operations",
            "SHOP_INVOICES": str(folder / "invoices"),
        }
        return System(settings | environ, serve=serve)

    return shop


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, migrated: dict[str, str], tmp_path: Path) -> str:
    """A migrated database without rows, once of each kind."""
    url = migrated[request.param]
    if request.param == "postgresql":
        return url
    shutil.copy(url.removeprefix("sqlite:///"), tmp_path / "backbeat.db")
    return f"sqlite:///{tmp_path}/backbeat.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    """An application on a database of its own, once of each kind, at the revision that the test's mark `old` names."""
    url = f"sqlite:///{tmp_path}/old.db"
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        postgres.sql("CREATE DATABASE old")
        url = postgres.url("old")
    app = create_web_app(Settings.from_env({"DATABASE_URL": url}))
    with app.app_context():
        upgrade(revision=request.node.get_closest_marker("old").args[0])
        yield app
        db.session.remove()
        db.engine.dispose()
    if request.param == "postgresql":
        postgres.sql("DROP DATABASE old WITH (FORCE)")


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


@pytest.fixture
def server(running_server: Server) -> Server:
    """An HTTP server that operations can call. It notes the requests that it gets."""
    running_server.requests.clear()
    return running_server


@pytest.fixture
def environ(database_url: str, valkey: Valkey, tmp_path: Path) -> dict[str, str]:
    """The settings of a test's processes."""
    return {"DATABASE_URL": database_url, "REDIS_URL": valkey.url, "BACKBEAT_DATA_DIR": str(tmp_path)}


@pytest.fixture
def app(environ: dict[str, str]) -> Iterator[Flask]:
    app = create_web_app(Settings.from_env(environ))
    yield app
    with app.app_context():
        if db.engine.dialect.name == "postgresql":
            _empty()
        for engine in db.engines.values():
            engine.dispose()


@pytest.fixture
def another(app: Flask, environ: dict[str, str]) -> Iterator[Callable[..., Flask]]:
    """Makes applications with other settings, on the test's database."""
    made: list[Flask] = []

    def another(**settings: str) -> Flask:
        made.append(create_web_app(Settings.from_env(environ | settings)))
        return made[-1]

    yield another
    for app in made:
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()


@pytest.fixture
def context(app: Flask) -> Iterator[None]:
    """For tests that call services; requests of the test's client then share its database session."""
    with app.app_context():
        yield


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def start(app: Flask, environ: dict[str, str]) -> Iterator[Callable[..., Process]]:
    """Starts real processes of the system, on the test's database; they are ended with the test."""
    processes: list[Process] = []

    def start(*command: str, ready: str, **extra: str) -> Process:
        process = Process(command, environ | extra, ready)
        processes.append(process)
        return process.wait_until_ready()

    yield start
    for process in reversed(processes):
        process.kill()


@pytest.fixture
def worker(start: Callable[..., Process]) -> Callable[..., Process]:
    """Starts a worker with the stock dramatiq command."""

    def worker(*options: str, threads: int = 8, **extra: str) -> Process:
        return start(*worker_command(*options, threads=threads), ready=WORKER_READY, **extra)

    return worker


@pytest.fixture
def scheduler(start: Callable[..., Process]) -> Callable[..., Process]:
    return lambda **extra: start(*SCHEDULER, ready=SCHEDULER_READY, **extra)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def site(start: Callable[..., Process]) -> str:
    """The URL of a web process on the test's database."""
    port = free_port()
    start(*WEB, ready=WEB_READY, PORT=str(port))
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Of a browser without cookies. See `watch` for what it may not do."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.fixture
def watch(page: Page, site: str) -> Iterator[Watch]:
    """The test fails when the page has complained, or asked for something elsewhere."""
    watch = Watch(page)
    yield watch
    assert watch.asked_elsewhere(site) == []
    assert watch.errors == []


def _empty() -> None:
    """As TRUNCATE of all tables does, which costs more than most tests do."""
    tables = Base.metadata.sorted_tables
    db.session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    # A process that was killed may have left a statement that still runs.
    db.session.execute(text(f"LOCK TABLE {', '.join(table.name for table in tables)} IN EXCLUSIVE MODE"))
    used = db.session.execute(select(*(exists(select(1).select_from(table)) for table in tables))).one()
    db.session.execute(text("SET LOCAL session_replication_role = replica"))  # no row's references are looked at
    for table in compress(tables, used):
        db.session.execute(delete(table))
    db.session.execute(text("SELECT setval(seqrelid, 1, false) FROM pg_sequence"))
    db.session.commit()
