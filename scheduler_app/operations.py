"""The registry of operations: what a task can do.

An operation is a function whose parameters a marshmallow schema checks and whose result is JSON:

    @operation("resize", params=ResizeParams, max_retries=3, time_limit=60)
    def resize(url: str, width: int) -> dict:
        "Scales the picture at a URL."

This module knows nothing of HTTP, queues or the database.
"""

import importlib
import inspect
import random
import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, cast

from marshmallow import Schema, ValidationError, missing
from werkzeug.local import LocalProxy

from scheduler_app import limits as limiting
from scheduler_app.config import SettingsError
from scheduler_app.loading import Load, loader
from scheduler_app.spelling import explain_unknown, meant

Limit = limiting.Limit  # for those who write operations
Rate = limiting.Rate
ARITHMETIC = "calculate"  # the operation that an expression such as "4+7" is short for
MAX_RETRIES = 100
MAX_PAUSE = 86_400  # seconds
MAX_FACTOR = 10
LOGS = ("all", "failures", "off")
_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_EXPRESSION_START = re.compile(r"[0-9.+\-(]")


class PermanentError(Exception):
    """Raised by an operation when a retry would only fail again."""


class RetryLater(Exception):
    """Raised by an operation that knows how long the next attempt has to wait at least: so many seconds, up to an hour.

    It is retried as after any other exception.
    """

    def __init__(self, *args: object, seconds: float) -> None:
        super().__init__(*args)
        self.seconds = seconds


class Cancelled(Exception):
    """Raised in an operation when its task is to be cancelled. If the operation still returns, it has succeeded."""


class CurrentTask(Protocol):
    """The task that an operation runs for. The operation can ask it questions and report progress to it."""

    @property
    def task_id(self) -> int: ...

    @property
    def operation(self) -> str:
        """Its name."""

    @property
    def attempt(self) -> int:
        """1 for the first."""

    @property
    def cancelled(self) -> bool:
        """Whether the task is to stop. For loops that check this themselves, so that they are not interrupted."""

    @property
    def trace(self) -> dict[str, str]:
        """Headers that pass its trace on to what it calls: `traceparent`, perhaps `tracestate`; none without a trace.

        `http_request` and `scheduler_app.outgoing` send them by themselves.
        """

    def check_cancelled(self) -> None:
        """Raises Cancelled when the task is to stop. Code that never asks is interrupted soon after."""

    def log(self, message: object) -> None:
        """Adds lines to the log of this attempt, as the standard library's logging does as well. Cheap: only memory."""

    def progress(self, percent: float, message: str = "") -> None:
        """Shows how far the task is. Cheap: only the latest progress is written, about once a second.

        Raises ValueError when percent is not from 0 to 100.
        """


running_task: ContextVar[CurrentTask] = ContextVar("running_task")
current_task = cast(CurrentTask, LocalProxy(running_task, unbound_message="no task is running here"))


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a task is tried again, and after which pauses.

    After attempt n the next one waits for a random time, evenly from min_seconds to min_seconds * factor ** n, and to
    max_seconds at most. So a factor of 1 makes each pause min_seconds long.
    """

    max_retries: int = 5  # attempts after the first
    min_seconds: float = 1.0
    max_seconds: float = 600.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        if not (
            0 <= self.max_retries <= MAX_RETRIES
            and 1 <= self.min_seconds <= self.max_seconds <= MAX_PAUSE
            and 1 <= self.factor <= MAX_FACTOR
        ):
            raise ValueError(
                f"max_retries is 0 to {MAX_RETRIES}, factor 1 to {MAX_FACTOR}, min_seconds at least 1,"
                f" and max_seconds from that to {MAX_PAUSE}"
            )

    def pause(self, attempt: int) -> float:
        """Seconds from the failure of this attempt, 1 for the first, until the next one is due."""
        return random.uniform(self.min_seconds, min(self.max_seconds, self.min_seconds * self.factor**attempt))

    def changed(self, given: dict[str, Any] | None) -> "Retry":
        """The same with these fields. A longer shortest pause lengthens the longest one, unless that is given too."""
        if not given:
            return self
        longest = {"max_seconds": max(self.max_seconds, given.get("min_seconds", 0))}
        return replace(self, **longest | given)

    @property
    def pauses(self) -> dict[str, float] | None:
        """All but max_retries, as it is kept with a task. None when they are as usual."""
        pauses = {"min_seconds": self.min_seconds, "max_seconds": self.max_seconds, "factor": self.factor}
        return None if pauses == USUAL_PAUSES else pauses


USUAL = Retry()
USUAL_PAUSES = {"min_seconds": USUAL.min_seconds, "max_seconds": USUAL.max_seconds, "factor": USUAL.factor}


@dataclass(frozen=True)
class Operation:
    name: str
    function: Callable[..., Any]
    params: type[Schema]
    retry: Retry  # what holds when the task does not say otherwise
    time_limit: float  # seconds that one attempt may take
    takes_secrets: bool  # its parameters may name secrets
    description: str  # the function's whole docstring
    logs: str = "all"  # what of its attempts' logs is kept, one of LOGS
    limits: tuple[Limit, ...] = ()  # as the code gives them; see services/limits.py for those that count
    internal: bool = False  # Backbeat makes such tasks itself, and nobody can post one

    @property
    def max_retries(self) -> int:
        return self.retry.max_retries

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return self.description.partition("\n")[0]

    def check(self, params: dict[str, Any]) -> dict[str, Any]:
        """The function's arguments; raises marshmallow's ValidationError."""
        return cast(dict[str, Any], self._load(params))

    @property
    def fields(self) -> list[str]:
        """The names of its parameters."""
        return [field.data_key or name for name, field in self._schema.load_fields.items()]

    @cached_property
    def _schema(self) -> Schema:
        return self.params()

    @cached_property
    def _load(self) -> Load:
        return loader(self._schema)


_operations: dict[str, Operation] = {}


def operation(
    name: str,
    *,
    params: type[Schema],
    max_retries: int | None = None,
    retry: Retry = USUAL,
    time_limit: float = 600,
    takes_secrets: bool = False,
    logs: str = "all",
    limits: Iterable[Limit] = (),
    internal: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function an operation. Its docstring is the description; the first line is the summary.

    max_retries=3 is short for retry=Retry(max_retries=3). logs="failures" keeps what an attempt logs only when it
    fails, and "off" never. limits=[Limit(max_running=10, per="group")] can be changed at runtime.
    internal=True is for operations of the application itself.

    Raises ValueError for a name that is taken or not of the form `[a-z][a-z0-9_.]*`, for limits out of range, and for
    a function whose parameters do not fit the schema.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"operation {name!r}: a name is a lower-case letter, then up to 63 of a-z, 0-9, '_' and '.'")
    if not 0 < time_limit <= 86_400:
        raise ValueError(f"operation {name!r}: time_limit is up to 86400 seconds")
    if logs not in LOGS:
        raise ValueError(f"operation {name!r}: logs is one of {', '.join(LOGS)}")
    if max_retries is not None:
        try:
            retry = replace(retry, max_retries=max_retries)
        except ValueError as error:
            raise ValueError(f"operation {name!r}: {error}") from None

    named = _named(name, limits)

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _check_function(name, function, params)
        known = _operations.get(name)
        if known and _place(known.function) != _place(function):
            raise ValueError(f"operation {name!r} is already defined in {known.function.__module__}")
        description = inspect.cleandoc(function.__doc__ or "")
        _operations[name] = Operation(
            name, function, params, retry, time_limit, takes_secrets, description, logs, named, internal
        )
        return function

    return register


def _named(operation: str, limits: Iterable[Limit]) -> tuple[Limit, ...]:
    named = tuple(replace(one, name=one.name or limiting.default_name(operation, one.per)) for one in limits)
    others = [one.name for known in _operations.values() if known.name != operation for one in known.limits]
    names = [*others, *(one.name for one in named)]
    if twice := next((limit.name for limit in named if names.count(limit.name) > 1), None):
        raise ValueError(f"operation {operation!r}: two limits have the name {twice!r}")
    return named


def _check_function(name: str, function: Callable[..., Any], params: Any) -> None:
    if not (inspect.isclass(params) and issubclass(params, Schema)):
        raise ValueError(f"operation {name!r}: params must be a marshmallow Schema class")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ValueError(f"operation {name!r}: {function.__qualname__} must be a plain function, not async")
    fields = params().load_fields
    always = [key for key, field in fields.items() if field.required or field.load_default is not missing]
    for given in (always, list(fields)):
        try:
            inspect.signature(function).bind(**{fields[key].attribute or key: None for key in given})
        except TypeError as error:
            when = f"when {params.__name__} gives {', '.join(given) or 'nothing'}"
            raise ValueError(f"operation {name!r}: {function.__qualname__} does not fit: {error}, {when}") from None


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def load(modules: Iterable[str]) -> None:
    """Imports the modules, which registers their operations. Raises SettingsError when a module does not exist."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and f"{module}.".startswith(f"{error.name}."):
                raise SettingsError(f"BACKBEAT_OPERATIONS: there is no module {module!r}") from None
            raise


def registered() -> list[Operation]:
    return sorted(_operations.values(), key=lambda operation: operation.name)


def offered() -> list[Operation]:
    """Those that can be posted."""
    return [operation for operation in registered() if not operation.internal]


def lookup(name: str) -> Operation | None:
    return _operations.get(name)


def resolve(text: str, params: dict[str, Any]) -> tuple[Operation, dict[str, Any]]:
    """The operation that a request names, and its parameters. Call `check` first.

    `text` is an operation's name, or an arithmetic expression, short for `calculate` with `params.expression`.
    """
    if _EXPRESSION_START.match(text):
        return _known(ARITHMETIC), {"expression": text}
    return _known(text), params


def check(text: str, params: dict[str, Any] | None) -> None:
    """Raises marshmallow's ValidationError with all errors by field. Without `params` it only checks the name."""
    known, given = resolve(text, params or {})
    if not _EXPRESSION_START.match(text):
        errors = {} if params is None else _wrong(known, given, field="params")
    else:
        errors = _wrong(known, given, field="operation")
        errors |= {"params": ["Not allowed beside an expression."]} if params else {}
    if errors:
        raise ValidationError(errors)


def _known(name: str) -> Operation:
    known = _operations.get(name)
    if known is None:
        names = [one.name for one in offered()]
        close = meant(name, names)
        hint = f"did you mean {close}? " if close else ""
        message = f"Unknown; {hint}Known are {', '.join(names)}, or an expression such as 4+7."
        raise ValidationError({"operation": [message]})
    if known.internal:
        raise ValidationError({"operation": [f"Nobody can post {name}: Backbeat makes such tasks itself."]})
    return known


def _wrong(known: Operation, params: dict[str, Any], *, field: str) -> dict[str, Any]:
    try:
        known.check(params)
    except ValidationError as error:
        messages: Any = error.messages_dict
        if field == "operation":
            return {field: messages.get("expression", messages)}
        explain_unknown(messages, known.fields)
        return {field: messages}
    return {}
