"""A client for Backbeat. Copy this file; it needs Python 3.11 or newer, and nothing else.

    backbeat = Client("http://127.0.0.1:8000", key="…")
    print(backbeat.post("4+7", priority=0, wait=10)["result"])
    task = backbeat.post("http_request", {"url": "https://example.com/"})
    print(backbeat.wait(task["task_id"])["status"])

A call that was not answered, or that can succeed later, is tried again. Posts are sent with an Idempotency-Key, so that
a task is created once however often its post is tried. Calls may come from several threads at once.

Raises BackbeatError when the service refuses a call, and ConnectionError when it cannot be reached.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from email.message import Message
from http.client import HTTPException
from typing import Any, NotRequired, Required, TypedDict, Unpack
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from uuid import uuid4

FINAL = ("SUCCESS", "ERROR", "CANCELLED", "EXPIRED")
LATER = (429, 502, 503, 504)  # statuses of a call that can succeed later


class Options(TypedDict, total=False):
    """Of a task to post."""

    priority: int  # 0 is the most urgent, 9 the least
    run_at: datetime | str  # with a zone
    max_retries: int
    callback: dict[str, Any]  # url, on, sign_with: what is told when it ends


class NewTask(Options, total=False):
    """An item of a batch."""

    operation: Required[str]
    params: dict[str, Any]


class Task(TypedDict):
    """A task as the service shows it. It may have fields beyond these."""

    task_id: int
    operation: str
    params: dict[str, Any]
    priority: int
    status: str
    result: Any
    error: dict[str, str] | None  # type and message
    progress: dict[str, Any] | None  # percent and message
    attempts: int
    max_retries: int
    run_at: str
    created_at: str
    started_at: str | None
    finished_at: str | None  # None until its status is final


class Refused(TypedDict):
    """An item of a batch that was not valid."""

    index: int
    errors: dict[str, Any]  # messages by field


class Batch(TypedDict):
    tasks: list[Task]
    errors: NotRequired[list[Refused]]


class BackbeatError(Exception):
    """The service refused the call."""

    def __init__(self, answer: Mapping[str, Any], headers: Message) -> None:
        self.code: int = answer["code"]  # the HTTP status
        self.status: str = answer["status"]
        self.message: str = answer["message"]
        self.errors: dict[str, Any] = answer.get("errors", {})  # by place (json, query, headers), then by field
        self.headers = headers
        super().__init__(f"{self.code}: {self.message}" + (f" {json.dumps(self.errors)}" if self.errors else ""))


class NoRedirects(HTTPRedirectHandler):
    """The service sends none, and the key must not go elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Client:
    def __init__(self, url: str, key: str = "", *, tries: int = 6, timeout: float = 15) -> None:
        """`tries` is how often a call is made at most. `timeout` is the seconds for each try, beside what it waits."""
        self.url = url.rstrip("/")
        self.tries = tries
        self.timeout = timeout
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._opener = build_opener(NoRedirects)

    def post(
        self,
        operation: str,
        params: dict[str, Any] | None = None,
        *,
        wait: int = 0,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Task:
        """Posts one task, and waits for its end for up to `wait` seconds (60 at most).

        With a key of your own, a program that was started again may repeat the post as well.
        """
        body = {"operation": operation, "params": params or {}, **options}
        path, key = f"/tasks/?wait={wait}" if wait else "/tasks/", idempotency_key or uuid4().hex
        posted: tuple[Task, Message] = self._answer("POST", path, body, key, wait=wait)
        return posted[0]

    def batch(self, tasks: Sequence[NewTask], *, atomic: bool = False, idempotency_key: str | None = None) -> Batch:
        """Posts up to 1,000 tasks. What is not valid is left out, and named in `errors`; with `atomic` all or none."""
        path = "/tasks/batch-request/?atomic=true" if atomic else "/tasks/batch-request/"
        created: Batch = self.call("POST", path, tasks, key=idempotency_key or uuid4().hex)
        return created

    def get(self, task_id: int) -> Task:
        task: Task = self.call("GET", f"/tasks/{task_id}/")
        return task

    def wait(self, task_id: int, timeout: float | None = None) -> Task:
        """The task once it has ended, however it ended. Raises TimeoutError when that takes over `timeout` seconds."""
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while True:
            left = max(0.0, deadline - time.monotonic())
            seconds = int(min(30, left))
            found: tuple[Task, Message] = self._answer("GET", f"/tasks/{task_id}/?wait={seconds}", wait=seconds)
            task, headers = found
            if task["status"] in FINAL:
                return task
            if not left:
                raise TimeoutError(f"task {task_id} is {task['status']} after {timeout:g} s")
            if not seconds or headers.get("Backbeat-Wait") == "full":
                time.sleep(min(1.0, left))

    def cancel(self, task_id: int) -> Task:
        """Asks it to end. A running task is told, and may still succeed. Raises BackbeatError when it has finished."""
        try:
            task: Task = self.call("POST", f"/tasks/{task_id}/cancel/")
        except BackbeatError as error:
            # Perhaps by an earlier try of this call, whose answer was lost.
            if error.code != 409 or (task := self.get(task_id))["status"] != "CANCELLED":
                raise
        return task

    def call(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Any:
        """Any call of the API, for what has no method here. Give a call that creates something a `key` of its own, its
        Idempotency-Key: a call whose answer is lost is made again.
        """
        answer, _ = self._answer(method, path, body, key)
        return answer

    def list(self, **filters: object) -> Iterator[Task]:
        """The tasks that meet all filters (status, priority, operation, …), newest first; asks page by page.

        A filter may be a list of values. Values above 1 KiB are left out; `get` has them.
        """
        pairs = [("limit", 200), *((name, _text(one)) for name, value in filters.items() for one in _each(value))]
        query: str | None = urlencode(pairs)
        while query is not None:
            page, headers = self._answer("GET", f"/tasks/?{query}")
            yield from page
            link = headers.get("Link", "")
            query = urlsplit(link[1 : link.index(">")]).query if link else None

    def _answer(
        self, method: str, path: str, body: object = None, key: str | None = None, *, wait: int = 0
    ) -> tuple[Any, Message]:
        request = Request(f"{self.url}{path}", method=method, headers=dict(self._headers))  # noqa: S310 (your own URL)
        if body is not None:
            request.data = json.dumps(body, default=_text).encode()
            request.add_header("Content-Type", "application/json")
        if key is not None:
            request.add_header("Idempotency-Key", key)
        for failed in range(1, self.tries + 1):
            pause = random.uniform(0.5, 1) * min(10.0, 0.2 * 2**failed)
            try:
                with self._opener.open(request, timeout=self.timeout + wait) as response:
                    return _parsed(response.read()), response.headers
            except HTTPError as error:
                refusal = _refusal(error)
                if error.code not in LATER or failed == self.tries:
                    raise refusal from None
                pause = max(pause, _seconds(error.headers.get("Retry-After")))
            except (OSError, HTTPException, ValueError) as error:
                if failed == self.tries:
                    raise ConnectionError(f"{self.url} does not answer: {error}") from error
            time.sleep(pause)
        raise ValueError("tries is at least 1")


def _text(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _each(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else [value]


def _parsed(content: bytes) -> Any:
    return json.loads(content) if content else None


def _refusal(error: HTTPError) -> BackbeatError:
    with error:
        try:
            answer = {"code": error.code, "status": error.reason} | json.loads(error.read())
        except (ValueError, TypeError, OSError, HTTPException):  # from a proxy, not from the service
            answer = {}
    return BackbeatError({"code": error.code, "status": error.reason, "message": error.reason} | answer, error.headers)


def _seconds(retry_after: str | None) -> float:
    return min(60.0, float(retry_after)) if retry_after and retry_after.isdecimal() else 0.0
