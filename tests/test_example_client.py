"""The client of the examples works against a real service, also where the network or the service fails it."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3

from examples import client
from examples.client import BackbeatError, Client
from tests.support.system import System

KEY = "a-key-of-the-client"
LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(scope="module")
def backbeat(shop: Callable[..., System], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    operations = "actors,tests.support.trial_operations"
    with shop(tmp_path_factory.mktemp("client"), BACKBEAT_API_KEY=KEY, BACKBEAT_OPERATIONS=operations) as system:
        yield system


@pytest.fixture
def caller(backbeat: System) -> Client:
    return Client(backbeat.url, KEY)


class Front(ThreadingHTTPServer):
    """Passes calls on to the service. In the place of the first answers it does what `faults` says."""

    daemon_threads = True

    def __init__(self, url: str, *faults: Callable[["Passing"], None]) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.target = url
        self.faults = list(faults)
        self.calls: list[tuple[str, str, str | None]] = []  # method, path and Idempotency-Key


class Passing(BaseHTTPRequestHandler):
    server: Front

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.calls.append((self.command, self.path, self.headers["Idempotency-Key"]))
        url = self.server.target + self.path
        got = urllib3.request(self.command, url, headers=dict(self.headers), body=body, retries=False, timeout=20)
        if self.server.faults:
            self.server.faults.pop(0)(self)
        else:
            self.send(got.status, got.data, Link=got.headers.get("Link", ""))

    do_GET = do_POST = answer

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def front(backbeat: System) -> Iterator[Callable[..., Front]]:
    fronts: list[Front] = []

    def front(*faults: Callable[[Passing], None]) -> Front:
        fronts.append(Front(backbeat.url, *faults))
        threading.Thread(target=fronts[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return fronts[-1]

    yield front
    for one in fronts:
        one.shutdown()
        one.server_close()


def through(front: Front, **options: float) -> Client:
    return Client(f"http://127.0.0.1:{front.server_port}", KEY, **options)


def break_off(request: Passing) -> None:
    """The answer is lost."""
    request.close_connection = True


def refuse(status: int, content: bytes = b"<html>not here</html>", **headers: str) -> Callable[[Passing], None]:
    return lambda request: request.send(status, content, **headers)


def test_it_is_typed_and_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    copied = tmp_path / "client.py"
    copied.write_text(Path(client.__file__).read_text())
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.11", copied], check=False, capture_output=True
    )
    assert checked.returncode == 0, checked.stdout
    imported = set(re.findall(r"^(?:import|from) (\w+)", copied.read_text(), re.MULTILINE))
    assert imported <= sys.stdlib_module_names


def test_every_field_that_it_names_is_one_of_the_api(backbeat: System) -> None:
    schemas = backbeat.get("/openapi.json")["components"]["schemas"]
    for named, schema in (
        (client.Task, "TaskDetailOut"),
        (client.NewTask, "TaskRequest"),
        (client.Refused, "BatchError"),
        (client.Batch, "BatchOut"),
    ):
        fields = named.__required_keys__ | named.__optional_keys__
        assert fields <= schemas[schema]["properties"].keys()
    assert client.NewTask.__required_keys__ == set(schemas["TaskRequest"]["required"])


def test_it_posts_a_task_and_waits_for_its_result(caller: Client) -> None:
    task = caller.post("4+7", priority=0)
    assert task["status"] == "PENDING"
    done = caller.wait(task["task_id"], timeout=20)
    assert (done["status"], done["result"]) == ("SUCCESS", 11)


def test_a_post_can_wait_for_the_result(caller: Client) -> None:
    done = caller.post("4+7", wait=20)
    assert (done["status"], done["result"]) == ("SUCCESS", 11)


def test_a_task_that_fails_has_ended_too(caller: Client) -> None:
    task = caller.post("trial.spin", max_retries=0)
    done = caller.wait(task["task_id"], timeout=20)
    assert done["error"]
    assert (done["status"], done["error"]["type"]) == ("ERROR", "TimeLimitExceeded")


def test_a_wait_ends_after_its_time(caller: Client) -> None:
    task = caller.post("trial.echo", {"value": 1}, run_at=LATER)
    with pytest.raises(TimeoutError, match=rf"task {task['task_id']} is PENDING after 0.2 s"):
        caller.wait(task["task_id"], timeout=0.2)


def test_a_batch_names_what_is_not_valid(caller: Client) -> None:
    batch = caller.batch([{"operation": "4+7", "run_at": LATER}, {"operation": "4+7", "priority": 12}])
    assert [task["operation"] for task in batch["tasks"]] == ["calculate"]
    [refused] = batch["errors"]
    assert (refused["index"], list(refused["errors"])) == (1, ["priority"])
    with pytest.raises(BackbeatError) as caught:
        caller.batch([{"operation": "4+7"}, {"operation": "4+7", "priority": 12}], atomic=True)
    assert list(caught.value.errors["json"]) == ["1"]


def test_an_error_says_what_is_wrong_by_place_and_field(caller: Client) -> None:
    with pytest.raises(BackbeatError) as caught:
        caller.post("4+7", priority=12)
    error = caught.value
    assert (error.code, error.status, error.message) == (422, "Unprocessable Entity", "The request is not valid.")
    assert error.errors == {"json": {"priority": ["Must be a whole number from 0 to 9."]}}
    assert str(error) == f"422: The request is not valid. {json.dumps(error.errors)}"


def test_a_wrong_key_is_refused(backbeat: System) -> None:
    with pytest.raises(BackbeatError) as caught:
        Client(backbeat.url, "another-key-than-it").get(1)
    assert caught.value.code == 401


def test_a_task_that_waits_is_cancelled_however_often_one_asks(caller: Client) -> None:
    task_id = caller.post("4+7", run_at=LATER)["task_id"]
    assert [caller.cancel(task_id)["status"] for _ in range(2)] == ["CANCELLED"] * 2


def test_a_task_that_has_succeeded_is_not_cancelled(caller: Client) -> None:
    task_id = caller.post("4+7")["task_id"]
    caller.wait(task_id)
    with pytest.raises(BackbeatError) as caught:
        caller.cancel(task_id)
    assert caught.value.code == 409


def test_a_list_goes_from_page_to_page(caller: Client, front: Callable[..., Front]) -> None:
    posted = caller.batch([{"operation": "1+1", "priority": n % 3 + 7, "run_at": LATER} for n in range(610)])["tasks"]
    between = front()
    since = datetime.fromisoformat(posted[0]["created_at"]) - timedelta(microseconds=1)
    listed = through(between).list(status=["PENDING", "ERROR"], priority=[8, 9], created_after=since)
    wanted = [task["task_id"] for task in reversed(posted) if task["priority"] in (8, 9)]
    first = next(listed)
    assert len(between.calls) == 1  # the rest is asked for when it is needed
    assert [first["task_id"], *(task["task_id"] for task in listed)] == wanted
    assert len(between.calls) == 3


def test_a_post_whose_answer_is_lost_creates_one_task(front: Callable[..., Front]) -> None:
    between = front(break_off, refuse(503, Retry_After="0"), refuse(502))
    caller = through(between)
    task = caller.post("2+2", run_at=LATER)
    keys = {key for _, _, key in between.calls}
    assert (len(between.calls), len(keys)) == (4, 1)
    since = datetime.fromisoformat(task["created_at"]) - timedelta(microseconds=1)
    assert [one["task_id"] for one in caller.list(created_after=since)] == [task["task_id"]]
    caller.post("2+2", run_at=LATER)
    assert between.calls[-1][2] not in keys


def test_a_key_of_one_s_own_makes_a_post_once_in_all_runs_of_a_program(backbeat: System) -> None:
    posts = [Client(backbeat.url, KEY).post("4+7", run_at="2999-01-01T00:00:00Z", idempotency_key="a") for _ in "ab"]
    assert posts[0]["task_id"] == posts[1]["task_id"]


def test_it_gives_up_after_so_many_tries(front: Callable[..., Front]) -> None:
    between = front(refuse(503), refuse(504))
    with pytest.raises(BackbeatError, match=r"^504: Gateway Timeout$"):
        through(between, tries=2).get(1)
    lost = front(break_off, break_off)
    with pytest.raises(ConnectionError, match="does not answer"):
        through(lost, tries=2).get(1)
    assert (len(between.calls), len(lost.calls)) == (2, 2)


def test_an_answer_that_is_not_the_service_s_is_not_taken_for_one(front: Callable[..., Front]) -> None:
    with pytest.raises(ConnectionError):
        through(front(refuse(200)), tries=1).get(1)
    with pytest.raises(BackbeatError) as caught:
        through(front(refuse(302, Location="http://127.0.0.1:1/"))).get(1)
    assert caught.value.code == 302
