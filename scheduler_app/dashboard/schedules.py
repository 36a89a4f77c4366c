"""What fires next? What is late? Did it fire, and why not?"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from flask import Response, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from scheduler_app import recurrence, rule_words
from scheduler_app.access import needs
from scheduler_app.access_models import Scope
from scheduler_app.dashboard import schedule_fields
from scheduler_app.dashboard.frame import blp, page, told
from scheduler_app.dashboard.schedule_form import CATCH_UPS, OVERLAPS, zone_words
from scheduler_app.database import clock
from scheduler_app.errors import BackbeatError, BadRequest, Invalid
from scheduler_app.models import LeftOut, TaskSchedule
from scheduler_app.recurrence import InvalidRule
from scheduler_app.services import callers, occurrences, schedule_lists, task_schedules
from scheduler_app.services.occurrences import Time
from scheduler_app.services.schedule_lists import Cursor, State
from scheduler_app.services.shared import shared

ROWS = 50  # of a page
RUNS = 20  # tasks that the page of one schedule shows
TIMES = 10  # next times that it shows
LONGEST = 200  # characters to search for
NOTE = 500  # characters
REASONS = {
    LeftOut.SUPERSEDED.value: "It was missed; a newer time got the task.",
    LeftOut.TOO_LATE.value: "It was noticed too late to be caught up.",
    LeftOut.OVERLAP.value: "A task of the schedule had not finished.",
    LeftOut.PAUSED.value: "The schedule was paused.",
    LeftOut.CHANGED.value: "It was missed, and then the rule was changed.",
}
STATES = {State.ALL: "All", State.LATE: "Late", State.PAUSED: "Paused", State.ENDED: "Ended"}


class Line(NamedTuple):
    """A schedule in the list."""

    schedule: TaskSchedule
    words: str
    late: bool
    runs: list[Any]  # the oldest first


@blp.get("/schedules")
@needs(Scope.READ)
def schedules() -> Response:
    now, words, state = clock(), request.args.get("q", "").strip()[:LONGEST], _state()
    found, following = schedule_lists.find(
        now=now, limit=ROWS, words=words, state=state, cursor=_cursor(request.args.get("after", ""))
    )
    runs = schedule_lists.latest_runs([one.task_schedule_id for one in found])
    lines = [
        Line(one, _words(one), schedule_lists.late_by(one, now) is not None, runs[one.task_schedule_id][::-1])
        for one in found
    ]
    return page(
        "schedules.html",
        here="schedules",
        lines=lines,
        q=words,
        state=state.value,
        states={one.value: (title, _count(one, words, now)) for one, title in STATES.items()},
        following=f"{following[0].isoformat() if following[0] else ''}~{following[1]}" if following else "",
        first="after" not in request.args,
    )


@blp.post("/schedules/pause")
@needs(Scope.WRITE)
def pause_schedules() -> BaseResponse:
    note = request.form.get("note", "").strip()[:NOTE] or None
    return _each(lambda number: task_schedules.pause(number, note=note, now=clock()), "paused.")


@blp.post("/schedules/resume")
@needs(Scope.WRITE)
def resume_schedules() -> BaseResponse:
    return _each(lambda number: task_schedules.resume(number, now=clock()), "resumed, from now on.")


@blp.post("/schedules/trigger")
@needs(Scope.WRITE)
def trigger_schedules() -> BaseResponse:
    return _each(lambda number: occurrences.trigger(number, now=clock()), "triggered: a task was created.")


@blp.get("/schedules/<id:task_schedule_id>")
@needs(Scope.READ)
def schedule(task_schedule_id: int) -> Response:
    now, found = clock(), task_schedules.get(task_schedule_id)
    times = shared.get(
        ("schedule-times", task_schedule_id, found.next_run_at, callers.bounds()),
        lambda: _upcoming(task_schedule_id),
    )
    return page(
        "schedule.html",
        here="schedules",
        schedule=found,
        words=_words(found),
        zone_words=_zone_words(found, now),
        late=schedule_lists.late_by(found, now) is not None,
        times=[(time, None) for time in times],
        runs=task_schedules.latest_tasks(task_schedule_id, limit=RUNS),
        left_out=task_schedules.left_out_times(task_schedule_id),
        reasons=REASONS,
        remaining=task_schedules.remaining(found),
        overlap=OVERLAPS.get(found.overlap, found.overlap),
        catch_up=CATCH_UPS.get(found.catch_up, found.catch_up),
        window=timedelta(seconds=found.catch_up_window),
    )


@blp.get("/schedules/<id:task_schedule_id>/backfill")
@needs(Scope.WRITE)
def count_backfill(task_schedule_id: int) -> Response:
    return _backfill(task_schedules.get(task_schedule_id))


@blp.post("/schedules/<id:task_schedule_id>/backfill")
@needs(Scope.WRITE)
def backfill_schedule(task_schedule_id: int) -> BaseResponse:
    found = task_schedules.get(task_schedule_id)
    try:
        start, end = _stretch(found)
        made = occurrences.backfill(task_schedule_id, start=start, end=end, now=clock())
    except Invalid as error:
        return _backfill(found, error)
    says = f"{len(made):,} {'task is' if len(made) == 1 else 'tasks are'} created."
    return told(url_for("dashboard.schedule", task_schedule_id=task_schedule_id), says)


@blp.get("/schedules/<id:task_schedule_id>/delete")
@needs(Scope.WRITE)
def confirm_delete_schedule(task_schedule_id: int) -> Response:
    found = task_schedules.get(task_schedule_id)
    return page("schedule_delete.html", here="schedules", schedule=found, words=_words(found))


@blp.post("/schedules/<id:task_schedule_id>/delete")
@needs(Scope.WRITE)
def delete_schedule(task_schedule_id: int) -> BaseResponse:
    task_schedules.remove(task_schedule_id, now=clock())
    return told(url_for("dashboard.schedules"), f"Schedule {task_schedule_id} is deleted. Its tasks stay.")


def _words(one: TaskSchedule) -> str:
    try:
        return rule_words.in_words(task_schedules.rule_of(one))
    except InvalidRule:  # what it is paused for says why
        return one.cron or one.rrule or ""


def _zone_words(one: TaskSchedule, now: datetime) -> str:
    try:
        return zone_words(one.timezone, now)
    except InvalidRule:
        return ""


def _upcoming(task_schedule_id: int) -> list[Time]:
    try:
        return occurrences.upcoming(task_schedule_id, limit=TIMES)
    except InvalidRule:
        return []


def _count(state: State, words: str, now: datetime) -> int:
    def count() -> int:
        return schedule_lists.count(now=now, words=words, state=state)

    return shared.get(("schedules", state, words, callers.bounds()), count)


def _state() -> State:
    try:
        return State(request.args.get("state", State.ALL.value))
    except ValueError:
        raise BadRequest(f"A state is one of {', '.join(State)}.") from None


def _cursor(text: str) -> Cursor | None:
    at, _, number = text.partition("~")
    if not text:
        return None
    try:
        if len(text) > 60 or len(number) > 18:
            raise ValueError
        moment = datetime.fromisoformat(at) if at else None
        if moment is not None and moment.tzinfo is None:
            raise ValueError
        return moment, int(number)
    except ValueError:
        raise BadRequest("That is not where a page begins.") from None


def _each(act: Callable[[int], object], done: str) -> BaseResponse:
    """Does it to each schedule that the form names, and leads back to where the form was."""
    numbers = [int(text) for text in request.form.getlist("id")[:ROWS] if text.isdecimal() and len(text) < 19]
    problems: list[str] = []
    for number in numbers:
        try:
            act(number)
        except BackbeatError as error:
            problems.append(error.message)
    reached = len(numbers) - len(problems)
    counted = "1 schedule is" if reached == 1 else f"{reached} schedules are"
    said = [f"{counted} {done}", *problems[:3]] if numbers else ["Choose schedules first."]
    if request.form.get("to") == "one" and len(numbers) == 1 and not problems:
        return told(url_for("dashboard.schedule", task_schedule_id=numbers[0]), f"The schedule is {done}")
    return told(url_for("dashboard.schedules"), " ".join(said))


def _backfill(one: TaskSchedule, error: Invalid | None = None) -> Response:
    start, end, gaps = request.values.get("start", "")[:40], request.values.get("end", "")[:40], None
    if (start or end) and error is None:
        try:
            first, last = _stretch(one)
            gaps = occurrences.gaps(one.task_schedule_id, start=first, end=last, now=clock())
        except Invalid as wrong:
            error = wrong
    problems: Sequence[str] = [m for at in (error.errors or {}).get("json", {}).values() for m in at] if error else []
    return page(
        "schedule_backfill.html",
        here="schedules",
        status=422 if error else 200,
        schedule=one,
        words=_words(one),
        start=start,
        end=end,
        gaps=gaps,
        problems=problems or ([error.message] if error else []),
        most=occurrences.MAX_BACKFILL,
        zone=recurrence.zone(one.timezone),
    )


def _stretch(one: TaskSchedule) -> tuple[datetime, datetime]:
    """From the form: local times of the schedule's zone. Raises Invalid."""
    zone, moments = recurrence.zone(one.timezone), []
    for name in ("start", "end"):
        text = schedule_fields.moment(request.values.get(name, "").strip(), zone)
        try:
            moments.append(datetime.fromisoformat(text or ""))
        except ValueError:
            needed = {"json": {name: [f"Needed is a date with a time, where it {name}s."]}}
            raise Invalid("Backfill is for a stretch of the past.", needed) from None
    return moments[0], moments[1]
