"""Who asks for what is done now, and which operations they reach.

`access` finds out who a request comes from. The scheduler and the workers act for nobody: they reach everything, and
are not in the audit log.
"""

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, or_

from scheduler_app.access_models import Scope
from scheduler_app.errors import Forbidden


@dataclass(frozen=True)
class Caller:
    name: str  # the key's; "local" without one, "admin" with BACKBEAT_API_KEY
    scope: Scope = Scope.ADMIN
    operations: tuple[str, ...] | None = None  # the only ones that it reaches, such as shop.*; None: all
    rate: str | None = None  # requests, as in 100/s; None: any number
    key_id: str | None = None  # None: not a key of the database
    address: str | None = None  # where the request comes from; None: the command line


LOCAL = Caller("local")
ADMIN = Caller("admin")
RESERVED = (LOCAL.name, ADMIN.name)

current: ContextVar[Caller | None] = ContextVar("caller", default=None)


def name() -> str | None:
    """Who creates what is created now."""
    caller = current.get()
    return caller.name if caller else None


def bounds() -> tuple[str, ...] | None:
    """The operations that the caller is bound to; None when it reaches all."""
    caller = current.get()
    return caller.operations if caller else None


def wrong_reach(operation: str) -> str | None:
    """Why the caller cannot post this operation; None when it can."""
    bound = bounds()
    if bound is None or any(_matches(operation, pattern) for pattern in bound):
        return None
    return f"This key reaches only the operations {', '.join(bound)}; not {operation}."


def check_reach(operations: Iterable[str]) -> None:
    """Raises Forbidden for the first of them that the caller does not reach."""
    if bounds() is None:
        return
    for message in filter(None, map(wrong_reach, operations)):
        raise Forbidden(message)


def within_reach(operation: Any) -> list[ColumnElement[bool]]:
    """The condition on this column under which the caller sees a row; none when it reaches all."""
    bound = bounds()
    return [] if bound is None else [or_(*(_is_like(operation, pattern) for pattern in bound))]


def _matches(operation: str, pattern: str) -> bool:
    return operation.startswith(pattern[:-1]) if pattern.endswith(".*") else operation == pattern


def _is_like(column: Any, pattern: str) -> ColumnElement[bool]:
    like: ColumnElement[bool]
    like = column.startswith(pattern[:-1], autoescape=True) if pattern.endswith(".*") else column == pattern
    return like
