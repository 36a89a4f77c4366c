"""`callback`: delivers the news that a task has ended. Every worker has it, whatever BACKBEAT_OPERATIONS names.

services/callbacks.py makes its tasks. Nobody else can: a receiver trusts the signature of a delivery.
"""

import time
from datetime import UTC, datetime
from json import dumps
from typing import Any

from marshmallow import Schema, fields

from scheduler_app.operations import PermanentError, Retry, RetryLater, current_task, operation, running_task
from scheduler_app.outgoing import Answer, Refused, Request, send

CALLBACK = "callback"  # the operation's name
# The first pauses are seconds. From the seventh on one takes an hour in the middle, and all of them together a day.
RETRY = Retry(max_retries=30, min_seconds=5, factor=3, max_seconds=7_200)
TIMEOUT = 20.0  # seconds for one delivery, without the look-up of the name
GONE = 410
KEPT = 1_000  # characters of the answer


class CallbackParams(Schema):
    url = fields.String(required=True, metadata={"description": "Where it is delivered."})
    sign_with = fields.String(allow_none=True, load_default=None, metadata={"description": "The secret that signs it."})
    task = fields.Dict(
        keys=fields.String(), required=True, metadata={"description": "What it says: the task as it was when it ended."}
    )


class NotTaken(RetryLater):
    """The receiver did not answer with 2xx. It may do so later."""


@operation(CALLBACK, params=CallbackParams, retry=RETRY, time_limit=120, takes_secrets=True, internal=True)
def callback(url: str, sign_with: str | None, task: dict[str, Any]) -> dict[str, Any]:
    """Tells a URL that a task has ended.

    Backbeat makes these tasks itself, for tasks with a `callback`. Nobody can post one.

    A POST with the task as JSON, and with the headers of Standard Webhooks: `webhook-id`, which stays the same at each
    attempt, `webhook-timestamp`, and with `sign_with` also `webhook-signature`.

    Every status of 2xx counts as taken. Every other one, and no answer within 20 seconds, is tried again for about a
    day, and not before the time that the answer gives in `Retry-After`, up to an hour. The status 410 ends it at once,
    and so does a call that BACKBEAT_HTTP_ALLOW or BACKBEAT_SECRETS_FILE does not allow. Redirects are not followed.

    Result: `status`, `elapsed` seconds, and the first 1,000 characters of the answer's `body`.
    """
    message_id = f"task_{current_task.task_id}"
    headers = {
        "user-agent": "backbeat",
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(datetime.now(UTC).timestamp())),
    }
    began = time.monotonic()
    answer = _sent(Request(url, "POST", headers, dumps(task).encode(), TIMEOUT, sign_with, message_id))
    if not 200 <= answer.status < 300:
        raise _not_taken(answer)
    return {"status": answer.status, "elapsed": round(time.monotonic() - began, 3), "body": answer.body[:KEPT]}


def _sent(request: Request) -> Answer:
    task = running_task.get()  # another thread asks it
    try:
        return send(request, given_up=lambda: task.cancelled)
    except Refused as error:
        raise PermanentError(str(error)) from None
    except (ConnectionError, TimeoutError):
        task.check_cancelled()
        raise


def _not_taken(answer: Answer) -> Exception:
    message = f"The answer was {answer.status}: {answer.body[:200].strip() or '(no body)'}"
    if answer.status == GONE:
        return PermanentError(f"{message}. The receiver wants no more of these.")
    return NotTaken(message, seconds=answer.retry_after)
