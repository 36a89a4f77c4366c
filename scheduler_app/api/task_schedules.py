"""/task-schedules/"""

from typing import Any

from flask import url_for

from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.api import answer_examples as answers
from scheduler_app.api.body import Blueprint
from scheduler_app.api.idempotency import PARAMETER, MakeOnce, idempotent
from scheduler_app.api.pages import next_page
from scheduler_app.api.rule_examples import RULES, SCHEDULES
from scheduler_app.database import clock
from scheduler_app.models import Task, TaskSchedule
from scheduler_app.schemas.fields import PageQuery
from scheduler_app.schemas.task_schedules import (
    BackfillRequest,
    LeftOutOut,
    PauseRequest,
    RuleRequest,
    TaskScheduleChange,
    TaskScheduleDetailOut,
    TaskScheduleOut,
    TaskScheduleRequest,
    UpcomingOut,
    UpcomingQuery,
)
from scheduler_app.schemas.tasks import ListedTaskOut, TaskOut
from scheduler_app.services import occurrences, task_schedules
from scheduler_app.services.listing import Listed

LOCATION = {"Location": {"description": "The schedule.", "schema": {"type": "string"}}}

blp = Blueprint("task-schedules", __name__, url_prefix="/task-schedules", description="Rules that create tasks.")


@blp.route("/", methods=["POST"])
@needs(Scope.WRITE)
@blp.arguments(TaskScheduleRequest, examples=SCHEDULES)
@blp.doc(parameters=[PARAMETER])
@blp.response(201, TaskScheduleOut, example=answers.SCHEDULE, headers=LOCATION)
@idempotent
def create_schedule(body: dict[str, Any], once: MakeOnce) -> tuple[Any, dict[str, str]]:
    """Create a schedule

    Give exactly one kind of rule: an interval, `cron` or `rrule`. The examples show each. An interval is
    `every_x_days`, `every_x_hours` or `every_x_minutes`; of several, the longest counts. The first task of an interval
    is due at `start_at`, or at once without it. The first task of another rule is due at the rule's first time.
    """
    schedule = task_schedules.create(now=clock(), once=once(_created), **body)
    return schedule, _location(schedule)


@blp.route("/", methods=["GET"])
@needs(Scope.READ)
@blp.arguments(PageQuery, location="query")
@blp.response(
    200,
    TaskScheduleOut(many=True),
    example=[answers.SCHEDULE],
    headers={"Link": {"description": 'The next page, `rel="next"`.', "schema": {"type": "string"}}},
)
def list_schedules(query: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """List schedules, newest first

    To read all of them, follow the `Link` header from page to page.
    """
    schedules, following = task_schedules.find(**query)
    return list(schedules), next_page(following)


@blp.route("/preview/", methods=["POST"])
@needs(Scope.READ)
@blp.arguments(UpcomingQuery, location="query")
@blp.arguments(RuleRequest, examples=RULES)
@blp.response(200, UpcomingOut(many=True), example=answers.UPCOMING)
def preview_rule(query: dict[str, Any], rule: dict[str, Any]) -> Any:
    """Show the next times of a rule without creating a schedule

    Each time is given in UTC and in the rule's zone, and with what a change of the clocks does to it. The rule is
    checked as a schedule's rule is. A rule has no jitter: `run_at` is `utc`.
    """
    return occurrences.preview(now=clock(), **query, **rule)


@blp.route("/<id:task_schedule_id>/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, TaskScheduleDetailOut, example=answers.SCHEDULE_DETAIL)
def get_schedule(task_schedule_id: int) -> Any:
    """Read a schedule

    The answer has its latest ten tasks, and the latest ten times that got no task, with the reason.
    """
    schedule = vars(task_schedules.get(task_schedule_id))
    latest = {"limit": task_schedules.LATEST}
    return schedule | {
        "tasks": task_schedules.latest_tasks(task_schedule_id, **latest),
        "left_out": task_schedules.left_out_times(task_schedule_id, **latest),
    }


@blp.route("/<id:task_schedule_id>/", methods=["PATCH"])
@needs(Scope.WRITE)
@blp.arguments(TaskScheduleChange, example={"every_x_hours": 2})
@blp.response(200, TaskScheduleOut, example=answers.SCHEDULE | {"every_x_hours": 2})
def change_schedule(body: dict[str, Any], task_schedule_id: int) -> Any:
    """Change a schedule

    A changed rule counts from now: no tasks are created for its past times. To change to another kind of rule, also
    set the fields of the old kind to null.
    """
    return task_schedules.change(task_schedule_id, now=clock(), **body)


@blp.route("/<id:task_schedule_id>/", methods=["DELETE"])
@needs(Scope.WRITE)
@blp.response(204)
def delete_schedule(task_schedule_id: int) -> None:
    """Delete a schedule

    Its tasks stay, without a schedule. Tasks that have not started yet still run.
    """
    task_schedules.remove(task_schedule_id, now=clock())


@blp.route("/<id:task_schedule_id>/pause/", methods=["POST"])
@needs(Scope.WRITE)
@blp.arguments(PauseRequest, required=False, example={"note": "the warehouse is being moved"})
@blp.response(200, TaskScheduleOut, example=answers.PAUSED)
def pause_schedule(body: dict[str, Any], task_schedule_id: int) -> Any:
    """Pause a schedule

    It creates no tasks until it is resumed. Tasks that it has already created still run.
    """
    return task_schedules.pause(task_schedule_id, now=clock(), **body)


@blp.route("/<id:task_schedule_id>/resume/", methods=["POST"])
@needs(Scope.WRITE)
@blp.response(200, TaskScheduleOut, example=answers.SCHEDULE)
def resume_schedule(task_schedule_id: int) -> Any:
    """Resume a schedule

    It goes on from now. Times during the pause are not caught up.
    """
    return task_schedules.resume(task_schedule_id, now=clock())


@blp.route("/<id:task_schedule_id>/trigger/", methods=["POST"])
@needs(Scope.WRITE)
@blp.doc(parameters=[PARAMETER])
@blp.response(
    202,
    TaskOut,
    example=answers.TRIGGERED,
    headers={"Location": {"description": "The task.", "schema": {"type": "string"}}},
)
@blp.alt_response(422, description="The Idempotency-Key is not valid, or another request has used it.")
@idempotent
def trigger_schedule(task_schedule_id: int, once: MakeOnce) -> tuple[Any, dict[str, str]]:
    """Create a task of the schedule now

    It does so at any time, even while the schedule is paused or a task of it runs. The task does not count towards
    `schedule_x_times`.
    """
    task = occurrences.trigger(task_schedule_id, now=clock(), once=once(_triggered))
    return task, _task_location(task)


@blp.route("/<id:task_schedule_id>/upcoming/", methods=["GET"])
@needs(Scope.READ)
@blp.arguments(UpcomingQuery, location="query")
@blp.response(200, UpcomingOut(many=True), example=answers.UPCOMING)
def list_upcoming_times(query: dict[str, Any], task_schedule_id: int) -> Any:
    """Show the next times of a schedule

    Each time is given in UTC and in the schedule's zone. There are none while it is paused, and never more than
    `schedule_x_times` still allows. `run_at` has the jitter in it.
    """
    return occurrences.upcoming(task_schedule_id, **query)


@blp.route("/<id:task_schedule_id>/left-out/", methods=["GET"])
@needs(Scope.READ)
@blp.response(200, LeftOutOut(many=True), example=answers.LEFT_OUT)
def list_times_left_out(task_schedule_id: int) -> Any:
    """Show which times of a schedule got no task, and why

    The latest first. Times in a row can share an entry. The latest 100 entries of each schedule are kept.
    """
    return task_schedules.left_out_times(task_schedule_id)


@blp.route("/<id:task_schedule_id>/backfill/", methods=["POST"])
@needs(Scope.WRITE)
@blp.arguments(BackfillRequest, example={"start": "2026-01-01T00:00:00Z", "end": "2026-01-08T00:00:00Z"})
@blp.doc(parameters=[PARAMETER])
@blp.response(202, ListedTaskOut(many=True), example=[answers.BACKFILLED])
@idempotent
def backfill_schedule(body: dict[str, Any], task_schedule_id: int, once: MakeOnce) -> Any:
    """Create tasks for the past times of a schedule that have none

    It uses the rule as it is now, and its times from `start` up to but not including `end`: at most 1,000 per call.
    `overlap` and a pause do not hold it back. The tasks do not count towards `schedule_x_times`.
    """
    return occurrences.backfill(task_schedule_id, now=clock(), once=once(_backfilled), **body)


def _created(schedule: TaskSchedule) -> dict[str, Any]:
    return {"body": TaskScheduleOut().dump(schedule), "status": 201, "headers": _location(schedule)}


def _backfilled(tasks: list[Listed]) -> dict[str, Any]:
    return {"body": ListedTaskOut(many=True).dump(tasks), "status": 202, "headers": {}}


def _triggered(task: Task) -> dict[str, Any]:
    return {"body": TaskOut().dump(task), "status": 202, "headers": _task_location(task)}


def _location(schedule: TaskSchedule) -> dict[str, str]:
    return {"Location": url_for("task-schedules.get_schedule", task_schedule_id=schedule.task_schedule_id)}


def _task_location(task: Task) -> dict[str, str]:
    return {"Location": url_for("tasks.get_task", task_id=task.task_id)}
