"""Calls for many tasks at once, in requests and answers."""

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields, post_load, validates_schema

from scheduler_app.config import PRIORITIES
from scheduler_app.models import FINISHED
from scheduler_app.schemas.base import AnswerSchema
from scheduler_app.schemas.fields import MAX_ID, Flag, Ids, WholeNumber, one_or_more
from scheduler_app.schemas.labels import label_texts
from scheduler_app.schemas.tasks import CREATOR, PRIORITY, ListedTaskOut, TaskFilter, of_status
from scheduler_app.services.bulk import COUNTED, SEARCHED, SHOWN, Chosen
from scheduler_app.services.control import CANCELLABLE, RETRIABLE

MOST = 1_000  # tasks of one call
OTHERS = ("all", "limit", "cursor", "dry_run")  # the fields that are no conditions


class ManyTasks(TaskFilter):
    """Which tasks to act on, the oldest first. At least one condition is needed, or `all`."""

    task_ids = Ids(MOST, metadata={"description": "Only these.", "example": [17, 18]})
    priority = one_or_more(WholeNumber(PRIORITIES[0], PRIORITIES[-1]), of=PRIORITY, description="0 to 9.")
    task_schedule_id = WholeNumber(1, MAX_ID, metadata={"description": CREATOR})
    label = one_or_more(**label_texts())
    all = Flag(metadata={"description": "True, instead of conditions: every task that the call can be for."})
    limit = WholeNumber(1, MOST, load_default=100, metadata={"description": "How many tasks at most."})
    cursor = WholeNumber(1, MAX_ID, metadata={"description": "Where to go on: the `next_cursor` of the call before."})
    dry_run = Flag(
        load_default=False,
        metadata={"description": f"Change nothing. Count the tasks, and show the first {SHOWN}."},
    )

    def __init_subclass__(cls) -> None:
        every: Mapping[str, Any] = {"required": ["all"], "properties": {"all": {"const": True}}}
        named = [{"required": [name]} for name in _names(cls())]
        cls.together = {"oneOf": [every, {"anyOf": named}]}

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_named(self, data: dict[str, Any], original: Any, **_: Any) -> None:
        if not isinstance(original, Mapping):
            return
        named = original.keys() & self.load_fields.keys() - OTHERS
        if not named and data.get("all") is not True:
            raise ValidationError(f'Name at least one condition ({", ".join(_names(self))}), or "all": true.')
        if named and data.get("all"):
            raise ValidationError({"all": ["Not allowed beside conditions."]})

    @post_load
    def choose(self, data: dict[str, Any], **_: Any) -> Chosen:
        conditions = {"task_id" if name == "task_ids" else name: data[name] for name in data.keys() - OTHERS}
        return Chosen(conditions, data["limit"], data.get("cursor"), data["dry_run"])


def _names(schema: ManyTasks) -> list[str]:
    return [name for name in schema.load_fields if name not in OTHERS]


class TasksToCancel(ManyTasks):
    """The tasks to cancel."""

    status = one_or_more(**of_status(CANCELLABLE), description="All three, when not given.")


class TasksToRetry(ManyTasks):
    """The tasks to run again."""

    status = one_or_more(**of_status(RETRIABLE), description="All three, when not given.")


class TasksToDelete(ManyTasks):
    """The tasks to delete."""

    status = one_or_more(**of_status(FINISHED), description="All four, when not given.")


class ManyTasksOut(AnswerSchema):
    """What a call for many tasks reached, and what is left."""

    task_ids = fields.List(
        fields.Integer(), metadata={"description": "The tasks that were reached. None in a dry run.", "example": [17]}
    )
    remaining = fields.Integer(
        metadata={
            "description": f"How many more match now: {COUNTED:,} means so many or more. With conditions that no index"
            f" fits, only the next {SEARCHED:,} tasks of each status are looked through.",
            "example": 0,
        }
    )
    next_cursor = fields.Integer(
        allow_none=True,
        metadata={"description": "The `cursor` with which the same call goes on; null at the end.", "example": None},
    )
    tasks = fields.List(
        fields.Nested(ListedTaskOut), metadata={"optional": True, "description": f"Of a dry run: the first {SHOWN}."}
    )
