"""A request that is repeated with the same Idempotency-Key gets the same answer, and does nothing a second time.

The key is stored in the same transaction as what the request creates. Of two requests at the same moment, the second
waits for the first at the unique constraint, and then finds its answer. An expired key is taken over in the same way:
the database decides which transaction does so.

What is kept is bounded: an answer has at most some KiB for each of its tasks, and it is compressed.
"""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import select

from scheduler_app.database import insert
from scheduler_app.errors import Invalid
from scheduler_app.extensions import db
from scheduler_app.models import IdempotencyKey

T = TypeVar("T")

KEPT_FOR = timedelta(hours=24)


class Repeated(Exception):
    """Another request was first with this key. This transaction is rolled back as a whole."""


@dataclass(frozen=True)
class Once(Generic[T]):
    """A key, and the function that renders the answer."""

    key: str
    fingerprint: str
    render: Callable[[T], dict[str, Any]]  # {body, status, headers}

    def keep(self, created: T, *, now: datetime) -> None:
        """Stores the key in the caller's transaction. Raises Repeated when the key is taken and has not expired."""
        row = {"fingerprint": self.fingerprint, "answer": _packed(self.render(created)), "created_at": now}
        statement = insert(IdempotencyKey).values(key=self.key, **row)
        expired = IdempotencyKey.created_at <= now - KEPT_FOR
        take_over = statement.on_conflict_do_update(index_elements=["key"], set_=row, where=expired)
        if db.session.scalar(take_over.returning(IdempotencyKey.key)) is None:
            db.session.rollback()
            raise Repeated


def answered(key: str, fingerprint: str, *, now: datetime) -> dict[str, Any] | None:
    """The earlier answer to this request. None when the request comes for the first time in 24 hours.

    Raises Invalid when another request has used the key.
    """
    columns = IdempotencyKey.fingerprint, IdempotencyKey.answer, IdempotencyKey.created_at
    known = db.session.execute(select(*columns).where(IdempotencyKey.key == key)).first()
    db.session.rollback()  # what follows writes, and must not begin as a reader
    if known is None or known.created_at <= now - KEPT_FOR:
        return None
    if known.fingerprint != fingerprint:
        message = "Has come with another request; a key is for one request and its repetitions."
        raise Invalid("The Idempotency-Key is taken.", {"headers": {"Idempotency-Key": [message]}})
    return _unpacked(known.answer)


def _packed(answer: dict[str, Any]) -> dict[str, str]:
    return {"zlib": b64encode(zlib.compress(json.dumps(answer).encode())).decode()}


def _unpacked(kept: dict[str, Any]) -> dict[str, Any]:
    """An earlier release has kept the answer as it is."""
    answer: dict[str, Any] = json.loads(zlib.decompress(b64decode(kept["zlib"]))) if "zlib" in kept else kept
    return answer
