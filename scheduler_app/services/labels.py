"""What clients call their tasks by. A task has its labels in its row; a table beside it finds the tasks of a label."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import Select, insert, literal_column, select
from sqlalchemy.orm import aliased

from scheduler_app.database import as_table, parameters
from scheduler_app.database.columns import ID
from scheduler_app.models import Task, TaskLabel

FIRST: Any = literal_column("label_0.task_id")  # by which to order what `having` gives, so that its index is used
COLUMNS = {"task_id": ID, "name": TaskLabel.name.type, "value": TaskLabel.value.type}


def keep(tasks: Iterable[tuple[int, Mapping[str, str] | None]], execute: Callable[..., Any]) -> None:
    """Makes the labels of new tasks findable, each given as its id and its labels; in the caller's transaction."""
    rows = [(task_id, *label) for task_id, labels in tasks for label in (labels or {}).items()]
    if rows:
        new = as_table(COLUMNS)
        statement = insert(TaskLabel.__table__).from_select(list(COLUMNS), select(*new.c))  # type: ignore[arg-type]
        execute(statement, parameters(COLUMNS, rows))


def having(query: Select[Any], texts: Iterable[str]) -> Select[Any]:
    """Only tasks that have all these labels, each given as `name:value`."""
    for place, text in enumerate(texts):
        label = aliased(TaskLabel, name=f"label_{place}")
        name, _, value = text.partition(":")
        query = query.join(label, label.task_id == Task.task_id).where(label.name == name, label.value == value)
    return query


def ids(text: str) -> Select[Any]:
    """The tasks that have this label, in the order of its index."""
    name, _, value = text.partition(":")
    return select(TaskLabel.task_id).where(TaskLabel.name == name, TaskLabel.value == value)
