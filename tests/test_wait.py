"""The parameter `wait`: the answer comes as soon as the task has ended, and waiting costs nobody else anything."""

import json
import select
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from scheduler_app.broker import WorkerBroker
from scheduler_app.broker.listener import Listener
from scheduler_app.extensions import db
from scheduler_app.models import Task
from scheduler_app.services.ends import MOST
from tests.support.processes import Process, eventually, free_port
from tests.support.servers import Valkey
from tests.support.system import WEB, WEB_READY
from tests.support.tasks import submit

LATER = "2999-01-01T00:00:00Z"
OPERATIONS = "actors,tests.support.trial_operations"
LONG = 60  # seconds to wait: a test that does not end before has failed


class Answer:
    """To a request that is on its way."""

    def __init__(self, port: int, method: str, path: str, body: object, headers: dict[str, str]) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=30)
        sent = {"Content-Type": "application/json", **headers}
        self.connection.request(method, path, json.dumps(body) if body is not None else None, sent)

    def get(self) -> tuple[int, dict[str, Any], HTTPResponse]:
        """Status, body and the answer itself; waits until it is there."""
        with closing(self.connection):
            answer = self.connection.getresponse()
            return answer.status, json.loads(answer.read()), answer

    def has_come(self) -> bool:
        return bool(select.select([self.connection.sock], [], [], 0)[0])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def web(start: Callable[..., Process], port: int) -> Process:
    return start(*WEB, ready=WEB_READY, PORT=str(port), BACKBEAT_OPERATIONS=OPERATIONS)


@pytest.fixture
def ask(web: Process, port: int) -> Iterator[Callable[..., Answer]]:
    answers: list[Answer] = []

    def ask(method: str, path: str, body: object = None, **headers: str) -> Answer:
        answers.append(Answer(port, method, path, body, headers))
        return answers[-1]

    yield ask
    for answer in answers:
        answer.connection.close()


@pytest.fixture
def waiting(ask: Callable[..., Answer], client: FlaskClient) -> Callable[..., list[Answer]]:
    """Requests that wait for these tasks, and have been waiting for a moment."""

    def waiting(*task_ids: int, seconds: int = LONG) -> list[Answer]:
        answers = [ask("GET", f"/tasks/{task_id}/?wait={seconds}") for task_id in task_ids]
        broker = client.application.extensions["backbeat.broker"]
        key = f"{broker.namespace}:__waited__"
        eventually(lambda: broker.client.zcard(key) == len(set(task_ids)))
        return answers

    return waiting


def later(client: FlaskClient, count: int = 1) -> list[int]:
    """Tasks that do not run in this test."""
    return submit(client, *({"operation": "4+7", "run_at": LATER} for _ in range(count)))


def end(client: FlaskClient, *task_ids: int) -> None:
    """Behind everybody's back: only who looks at the table finds out."""
    with client.application.app_context():
        now = client.application.extensions["backbeat.clock"].now()
        ended = update(Task).where(Task.task_id.in_(task_ids)).values(status="SUCCESS", result=11, finished_at=now)
        db.session.execute(ended)
        db.session.commit()


def test_a_post_that_waits_is_answered_with_the_result(ask: Callable[..., Answer], worker: Callable[..., Any]) -> None:
    worker()
    status, task, answer = ask("POST", f"/tasks/?wait={LONG}", {"operation": "4+7"}).get()
    assert (status, task["status"], task["result"]) == (200, "SUCCESS", 11)
    assert answer.headers["Location"] == f"/tasks/{task['task_id']}/"


def test_a_post_that_has_waited_for_long_enough_shows_the_task_as_it_is(ask: Callable[..., Answer]) -> None:
    status, task, answer = ask("POST", "/tasks/?wait=1", {"operation": "4+7", "run_at": LATER}).get()
    assert (status, task["status"]) == (202, "PENDING")
    assert "Backbeat-Wait" not in answer.headers


@pytest.mark.parametrize("operation", ["trial.spin", "trial.echo"])
def test_a_read_that_waits_is_answered_when_the_task_ends(
    ask: Callable[..., Answer], worker: Callable[..., Any], operation: str
) -> None:
    worker(BACKBEAT_OPERATIONS=OPERATIONS)
    params = {"value": "x"} if operation == "trial.echo" else {}
    _, posted, _ = ask("POST", "/tasks/", {"operation": operation, "params": params, "max_retries": 0}).get()
    status, task, _ = ask("GET", f"/tasks/{posted['task_id']}/?wait={LONG}").get()
    assert status == 200
    assert task["status"] == ("SUCCESS" if operation == "trial.echo" else "ERROR")
    assert len(task["failures"]) == (task["status"] == "ERROR")


def test_a_task_that_is_tried_again_is_waited_for_to_its_end(
    ask: Callable[..., Answer], worker: Callable[..., Any], scheduler: Callable[..., Any]
) -> None:
    worker(BACKBEAT_OPERATIONS=OPERATIONS)
    scheduler(BACKBEAT_SCAN_INTERVAL="0.1")
    _, task, _ = ask("POST", f"/tasks/?wait={LONG}", {"operation": "trial.spin", "max_retries": 1}).get()
    assert (task["status"], task["attempts"]) == ("ERROR", 2)


@pytest.mark.parametrize("way", ["cancel", "cancel many", "purge"])
def test_a_task_that_is_cancelled_has_ended(
    ask: Callable[..., Answer], client: FlaskClient, waiting: Callable[..., list[Answer]], way: str
) -> None:
    [task_id] = submit(client, {"operation": "4+7"})
    [answer] = waiting(task_id)
    if way == "cancel":
        client.post(f"/tasks/{task_id}/cancel/")
    elif way == "purge":
        client.post("/queues/5/purge/")
    else:
        client.post("/tasks/cancel/", json={"all": True})
    status, task, _ = answer.get()
    assert (status, task["status"]) == (200, "CANCELLED")


def test_a_task_that_expires_has_ended(ask: Callable[..., Answer], scheduler: Callable[..., Any]) -> None:
    scheduler(BACKBEAT_SCAN_INTERVAL="0.1")
    status, task, _ = ask("POST", f"/tasks/?wait={LONG}", {"operation": "4+7", "expires_in": 1}).get()
    assert (status, task["status"]) == (200, "EXPIRED")


def test_a_task_that_is_deleted_is_waited_for_no_longer(
    client: FlaskClient, waiting: Callable[..., list[Answer]]
) -> None:
    [task_id] = later(client)
    [answer] = waiting(task_id)
    client.delete(f"/tasks/{task_id}/")
    assert answer.get()[0] == 404


def test_several_may_wait_for_one_task(client: FlaskClient, waiting: Callable[..., list[Answer]]) -> None:
    [task_id] = later(client)
    answers = waiting(task_id, task_id, task_id)
    client.post(f"/tasks/{task_id}/cancel/")
    assert [answer.get()[1]["status"] for answer in answers] == ["CANCELLED"] * 3


def test_what_has_ended_or_is_not_there_is_not_waited_for(ask: Callable[..., Answer], client: FlaskClient) -> None:
    [task_id] = later(client)
    client.post(f"/tasks/{task_id}/cancel/")
    assert ask("GET", f"/tasks/{task_id}/?wait={LONG}").get()[1]["status"] == "CANCELLED"
    assert ask("GET", f"/tasks/{task_id + 1}/?wait={LONG}").get()[0] == 404


@pytest.mark.parametrize("wait", ["61", "-1", "1.5", "x", ""])
def test_a_wait_has_0_to_60_seconds(client: FlaskClient, wait: str) -> None:
    for answer in (client.get(f"/tasks/1/?wait={wait}"), client.post(f"/tasks/?wait={wait}", json={"operation": "1"})):
        assert answer.status_code == 422
        assert answer.json["errors"] == {"query": {"wait": ["Must be a whole number from 0 to 60."]}}


def test_a_repeated_post_waits_again_however_long(ask: Callable[..., Answer], client: FlaskClient) -> None:
    def post(path: str) -> tuple[int, dict[str, Any], HTTPResponse]:
        return ask("POST", path, {"operation": "4+7", "run_at": LATER}, **{"Idempotency-Key": "a"}).get()

    (_, first, _), (status, second, answer) = post("/tasks/"), post("/tasks/?wait=1")
    assert (status, second) == (202, first)
    assert answer.headers["Idempotent-Replayed"] == "true"
    end(client, first["task_id"])
    status, third, answer = post(f"/tasks/?wait={LONG}")
    assert (status, third["task_id"], third["status"]) == (200, first["task_id"], "SUCCESS")
    assert answer.headers["Location"] == f"/tasks/{first['task_id']}/"
    assert post("/tasks/")[1] == first


def test_200_that_wait_hold_neither_a_connection_nor_a_thread_that_others_need(
    ask: Callable[..., Answer], client: FlaskClient, waiting: Callable[..., list[Answer]], app: Flask
) -> None:
    task_ids = later(client, 200)
    answers = waiting(*task_ids)
    with ThreadPoolExecutor(50) as threads:
        posts = threads.map(lambda _: ask("POST", "/tasks/", {"operation": "1", "run_at": LATER}).get()[0], range(100))
        assert set(posts) == {202}
    if app.extensions["backbeat.settings"].database_url.startswith("postgresql"):
        with app.app_context():
            count = db.text("SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()")
            eventually(lambda: db.session.scalar(count) == 0)
    assert client.post("/tasks/cancel/", json={"task_ids": task_ids, "limit": 1000}).status_code == 202
    assert {answer.get()[1]["status"] for answer in answers} == {"CANCELLED"}


def test_beyond_the_bound_it_is_answered_at_once_and_a_client_that_has_left_gives_its_place_back(
    ask: Callable[..., Answer], client: FlaskClient, waiting: Callable[..., list[Answer]]
) -> None:
    [task_id] = later(client)
    answers = waiting(*[task_id] * (MOST + 5))
    eventually(lambda: sum(answer.has_come() for answer in answers) == 5)
    for refused in [answer for answer in answers if answer.has_come()]:
        status, task, answer = refused.get()
        assert (status, task["status"], answer.headers["Backbeat-Wait"]) == (200, "PENDING", "full")
    status, _, answer = ask("POST", f"/tasks/?wait={LONG}", {"operation": "4+7", "run_at": LATER}).get()
    assert (status, answer.headers["Backbeat-Wait"]) == (202, "full")
    for one in answers:
        one.connection.close()
    eventually(lambda: ask("GET", f"/tasks/{task_id}/?wait=1").get()[2].headers["Backbeat-Wait"] is None)


def test_a_server_that_stops_answers_those_who_wait(
    client: FlaskClient, waiting: Callable[..., list[Answer]], web: Process
) -> None:
    answers = waiting(*later(client, 20))
    web.popen.send_signal(signal.SIGTERM)
    assert {answer.get()[1]["status"] for answer in answers} == {"PENDING"}
    assert web.popen.wait(30) == 0


def test_an_end_of_which_redis_tells_nobody_is_found_in_the_table(
    client: FlaskClient, waiting: Callable[..., list[Answer]], valkey: Valkey
) -> None:
    task_ids = later(client, 50)
    answers = waiting(*task_ids)
    valkey.client.flushall()
    end(client, *task_ids)
    assert {answer.get()[1]["status"] for answer in answers} == {"SUCCESS"}


def test_one_can_wait_while_redis_is_away(
    start: Callable[..., Process], client: FlaskClient, own_valkey: Valkey, port: int
) -> None:
    start(*WEB, ready=WEB_READY, PORT=str(port), REDIS_URL=own_valkey.url)
    [before, after] = later(client, 2)
    waits = [Answer(port, "GET", f"/tasks/{before}/?wait={LONG}", None, {})]
    eventually(lambda: own_valkey.client.zcard("dramatiq:__waited__"))
    own_valkey.close()
    waits.append(Answer(port, "GET", f"/tasks/{after}/?wait={LONG}", None, {}))
    end(client, before, after)
    assert [wait.get()[1]["status"] for wait in waits] == ["SUCCESS"] * 2


class Told:
    """What was told of the ends of tasks."""

    def __init__(self, broker: WorkerBroker) -> None:
        self.ids: list[int] = []
        connected = threading.Event()
        self.listener = broker.ends.listener(on_end=self.ids.extend, on_connect=connected.set, on_tick=lambda: None)
        self.listener.start()
        assert connected.wait(10)


@pytest.fixture
def listeners() -> Iterator[list[Listener]]:
    """They are stopped with the test."""
    listeners: list[Listener] = []
    yield listeners
    for listener in listeners:
        listener.stop()
    for listener in listeners:
        listener.join()


@pytest.fixture
def here(valkey: Valkey, listeners: list[Listener]) -> WorkerBroker:
    """The broker of a worker."""
    broker = WorkerBroker(valkey.url)
    listeners.append(broker.ends.start())
    eventually(lambda: valkey.client.pubsub_numsub("dramatiq:__asked__")[0][1])
    return broker


@pytest.fixture
def elsewhere(valkey: Valkey) -> WorkerBroker:
    """The broker of one who waits."""
    return WorkerBroker(valkey.url)


@pytest.fixture
def told(elsewhere: WorkerBroker, listeners: list[Listener]) -> list[int]:
    told = Told(elsewhere)
    listeners.append(told.listener)
    return told.ids


def published(valkey: Valkey) -> int:
    calls: int = valkey.client.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]
    return calls


def test_a_worker_tells_only_what_is_waited_for(
    here: WorkerBroker, elsewhere: WorkerBroker, told: list[int], valkey: Valkey
) -> None:
    elsewhere.ends.ask([17], seconds=60)
    eventually(lambda: 17 in here.ends._asked)
    before = published(valkey)
    for task_id in range(1_000):
        if task_id != 17:
            here.ends.tell([task_id])
    assert published(valkey) == before
    here.ends.tell(range(10, 20))
    eventually(lambda: told == [17])


def test_what_has_ended_before_the_worker_hears_that_it_is_waited_for_is_told(
    here: WorkerBroker, elsewhere: WorkerBroker, told: list[int]
) -> None:
    here.ends.tell([16, 17, 18])
    elsewhere.ends.ask([17], seconds=60)
    eventually(lambda: told == [17])


def test_a_worker_that_starts_late_knows_what_is_waited_for(
    elsewhere: WorkerBroker, told: list[int], valkey: Valkey, listeners: list[Listener]
) -> None:
    elsewhere.ends.ask([17], seconds=60)
    late = WorkerBroker(valkey.url)
    listeners.append(late.ends.start())
    eventually(lambda: late.ends._asked)
    late.ends.tell([17])
    eventually(lambda: told == [17])


def test_nobody_is_waited_for_longer_than_was_asked(
    here: WorkerBroker, elsewhere: WorkerBroker, valkey: Valkey
) -> None:
    elsewhere.ends.ask([17], seconds=0)
    elsewhere.ends.ask([18], seconds=60)
    eventually(lambda: list(here.ends._asked) == [18])
    assert valkey.client.zrange("dramatiq:__waited__", 0, -1) == [b"18"]
