"""Who may call. With a key: whoever sends it. Without one: only programs and pages of this machine."""

import logging

import pytest
from flask import Flask
from flask.testing import FlaskClient

from scheduler_app.access.views import check_every_view
from scheduler_app.config import Settings
from scheduler_app.web import create_web_app

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough here

KEY = "a-key-of-24-characters!!"
RULES = ["/tasks/", "/tasks/1/", "/tasks/batch-request/", "/task-schedules/", "/task-schedules/1/", "/operations/"]
OPEN = ["/livez", "/readyz", "/openapi.json", "/swagger/", "/swagger/start.js", "/swagger/swagger-ui.css"]


@pytest.fixture
def keyed(environ: dict[str, str]) -> FlaskClient:
    return create_web_app(Settings.from_env(environ | {"BACKBEAT_API_KEY": KEY})).test_client()


def bearer(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {key}"}


@pytest.mark.parametrize("path", [*RULES, "/nothing", "/tasks/abc/"])
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_no_call_is_answered_without_the_key(keyed: FlaskClient, path: str, method: str) -> None:
    answer = keyed.open(path, method=method)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="Backbeat"'
    assert method == "HEAD" or answer.json["message"] == "Send the key as Authorization: Bearer <key>."


@pytest.mark.parametrize(
    "headers",
    [
        bearer(""),
        bearer(KEY[:-1]),
        bearer(KEY + "x"),
        bearer(KEY.upper()),
        bearer("é" * 24),
        bearer("x" * 50_000),
        bearer(KEY, "Basic"),
        {"Authorization": KEY},
        {"Authorization": f"Bearer{KEY}"},
        {"X-Api-Key": KEY},
        {"Cookie": f"key={KEY}"},
    ],
    ids=lambda headers: repr(headers)[:40],
)
def test_a_wrong_key_is_refused(keyed: FlaskClient, headers: dict[str, str]) -> None:
    assert keyed.get("/operations/", headers=headers).status_code == 401
    assert keyed.get(f"/operations/?key={KEY}", headers=headers).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_key_opens_every_call_from_everywhere(keyed: FlaskClient, scheme: str) -> None:
    headers = bearer(KEY, scheme) | {"Host": "backbeat.example.com", "Sec-Fetch-Site": "cross-site"}
    assert keyed.get("/operations/", headers=headers).status_code == 200


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_documentation_need_no_key(keyed: FlaskClient, path: str) -> None:
    with keyed.get(path, headers={"Host": "backbeat.example.com"}) as answer:
        assert answer.status_code == 200
        assert KEY not in answer.text


def test_every_rule_of_the_application_is_either_open_or_needs_the_key(keyed: FlaskClient) -> None:
    rules = {rule.rule for rule in keyed.application.url_map.iter_rules() if not rule.rule.startswith("/dashboard/")}
    paths = {rule: rule.replace("<path:name>", "swagger-ui.css") for rule in rules if "<id:" not in rule}
    for path in paths.values():
        with keyed.get(path) as answer:
            assert (answer.status_code == 401) == (path not in (*OPEN, "/"))


def test_the_key_is_compared_in_constant_time(keyed: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr("hmac.compare_digest", lambda given, key: bool(compared.append((given, key))))
    assert keyed.get("/operations/", headers=bearer("guess")).status_code == 401
    assert compared == [(b"guess", KEY.encode())]


def test_the_key_is_in_no_log(keyed: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for headers in ({}, bearer(KEY), bearer("x" + KEY)):
        keyed.get("/operations/", headers=headers)
        keyed.post("/tasks/", data=b"{", headers=headers, content_type="application/json")
    assert KEY not in caplog.text


HERE = ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"]
ELSEWHERE = [
    "",
    "[",
    "]",
    "[::1",
    "[::1]x",
    "::1",
    "a@b",
    "evil.example@localhost",
    "localhost@evil.example",
    "localhost.evil.example",
    "evil.example:8000",
    "localhost.",
    "localhost:port",
    "localhost/..",
    "localhost, evil.example",
    "0.0.0.0",
    "192.168.1.5:8000",
    "[v1.x]",
    "%",
    "é",
    "x" * 60_000,
]


@pytest.mark.parametrize("host", HERE)
def test_without_a_key_the_names_of_this_machine_are_answered(client: FlaskClient, host: str) -> None:
    assert client.get("/operations/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ELSEWHERE, ids=lambda host: repr(host)[:30])
@pytest.mark.parametrize("path", ["/operations/", "/tasks/", "/nothing"])
def test_without_a_key_any_other_name_is_refused(client: FlaskClient, path: str, host: str) -> None:
    answer = client.get(path, headers={"Host": host})
    assert (answer.status_code, answer.json["code"]) == (403, 403)


@pytest.mark.parametrize(
    ("site", "status"), [("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403), ("", 403)]
)
def test_without_a_key_pages_of_other_sites_are_refused(client: FlaskClient, site: str, status: int) -> None:
    assert client.get("/operations/", headers={"Sec-Fetch-Site": site}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost", 200), ("http://evil.example", 403), ("null", 403), ("http://localhost:81", 403), ("[", 403)],
)
def test_without_a_key_the_origin_is_looked_at_too(client: FlaskClient, origin: str, status: int) -> None:
    assert client.get("/operations/", headers={"Origin": origin}).status_code == status


def test_a_view_that_says_nothing_keeps_the_application_from_starting(app: Flask) -> None:
    app.view_functions["silent"] = lambda: ""
    with pytest.raises(AssertionError, match="silent"):
        check_every_view(app)


@pytest.mark.parametrize(("trusted", "seen"), [("0", "127.0.0.1"), ("1", "198.51.100.7"), ("2", "192.0.2.1")])
def test_behind_proxies_the_address_is_the_client_s(environ: dict[str, str], trusted: str, seen: str) -> None:
    given = {"BACKBEAT_API_KEY": KEY, "BACKBEAT_TRUSTED_PROXIES": trusted}
    client = create_web_app(Settings.from_env(environ | given)).test_client()
    headers = bearer(KEY) | {"X-Forwarded-For": "203.0.113.9, 192.0.2.1, 198.51.100.7"}
    client.post("/keys/", json={"name": "shop", "scope": "read"}, headers=headers)
    assert client.get("/audit/", headers=headers).json[0]["address"] == seen


def test_behind_a_proxy_a_path_prefix_works(environ: dict[str, str]) -> None:
    given = {"BACKBEAT_API_KEY": KEY, "BACKBEAT_TRUSTED_PROXIES": "1"}
    client = create_web_app(Settings.from_env(environ | given)).test_client()
    headers = bearer(KEY) | {"X-Forwarded-Prefix": "/backbeat"}
    assert client.post("/tasks/", json={"operation": "4+7"}, headers=headers).location == "/backbeat/tasks/1/"


def test_without_a_key_an_odd_address_of_the_server_does_no_harm(app: Flask) -> None:
    environ = {"HTTP_HOST": "[", "SERVER_NAME": "[", "HTTP_X_FORWARDED_HOST": "localhost"}
    assert app.test_client().get("/operations/", environ_overrides=environ).status_code == 403


@pytest.mark.parametrize("path", ["/tasks/", "/tasks/1/", "/nothing", "/livez", "/openapi.json"])
def test_every_answer_tells_browsers_and_caches_to_keep_out(keyed: FlaskClient, path: str) -> None:
    for headers in ({}, bearer(KEY)):
        given = keyed.get(path, headers=headers).headers
        assert given["X-Content-Type-Options"] == "nosniff"
        assert given["Referrer-Policy"] == "no-referrer"
        assert given["Cross-Origin-Resource-Policy"] == "same-origin"
        assert given["Cache-Control"] == "no-store"
