"""/task-schedules/"""

from datetime import UTC, datetime
from typing import Any

from flask import url_for

from scheduler_app.api.body import Blueprint
from scheduler_app.api.pages import next_page
from scheduler_app.schemas.fields import PageQuery
from scheduler_app.schemas.task_schedules import (
    TaskScheduleChange,
    TaskScheduleDetailOut,
    TaskScheduleOut,
    TaskScheduleRequest,
)
from scheduler_app.services import task_schedules

blp = Blueprint("task-schedules", __name__, url_prefix="/task-schedules", description="Rules that create tasks.")


@blp.route("/", methods=["POST"])
@blp.arguments(TaskScheduleRequest, example={"operation": "5+10", "every_x_hours": 1, "schedule_x_times": 2})
@blp.response(
    201, TaskScheduleOut, headers={"Location": {"description": "The schedule.", "schema": {"type": "string"}}}
)
def create(body: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """Create a schedule

    Its first task is due at `start_at`, or at once. Intervals are counted from there and do not drift.
    """
    schedule = task_schedules.create(now=datetime.now(UTC), **body)
    return schedule, {"Location": url_for("task-schedules.get", task_schedule_id=schedule.task_schedule_id)}


@blp.route("/", methods=["GET"])
@blp.arguments(PageQuery, location="query")
@blp.response(
    200,
    TaskScheduleOut(many=True),
    headers={"Link": {"description": 'The next page, `rel="next"`.', "schema": {"type": "string"}}},
)
def find(query: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """List schedules, newest first"""
    schedules, following = task_schedules.find(**query)
    return list(schedules), next_page(following)


@blp.route("/<id:task_schedule_id>/", methods=["GET"])
@blp.response(200, TaskScheduleDetailOut)
@blp.alt_response(404, description="There is no such schedule.")
def get(task_schedule_id: int) -> Any:
    """Read a schedule, with its latest ten tasks"""
    return vars(task_schedules.get(task_schedule_id)) | {"tasks": task_schedules.latest_tasks(task_schedule_id)}


@blp.route("/<id:task_schedule_id>/", methods=["PATCH"])
@blp.arguments(TaskScheduleChange, example={"every_x_hours": 2})
@blp.response(200, TaskScheduleOut)
@blp.alt_response(404, description="There is no such schedule.")
def change(body: dict[str, Any], task_schedule_id: int) -> Any:
    """Change a schedule

    A changed rule counts from now: it does not make up for the past.
    """
    return task_schedules.change(task_schedule_id, now=datetime.now(UTC), **body)


@blp.route("/<id:task_schedule_id>/", methods=["DELETE"])
@blp.response(204)
@blp.alt_response(404, description="There is no such schedule.")
def remove(task_schedule_id: int) -> None:
    """Delete a schedule; its tasks stay"""
    task_schedules.remove(task_schedule_id)
