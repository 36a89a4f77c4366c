"""The dashboard's pages about callbacks: they link to the delivery and back, and schedules have theirs in the form."""

from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from scheduler_app.extensions import db
from scheduler_app.models import Task, TaskSchedule
from scheduler_app.services import control
from tests.support.pages import OURS

URL = "https://shop.example.com/hooks/tasks"
FORM = {"operation": "calculate", "params.expression": "4+7", "kind": "interval", "every": "1", "unit": "hours"}
TOLD = {"callback.url": URL, "callback.on": ["SUCCESS", "ERROR"], "callback.sign_with": "HOOK"}

pytestmark = pytest.mark.usefixtures("context")


def saved(client: FlaskClient, path: str, **fields: Any) -> Any:
    """The callback of the schedule once the form is saved; the page when it was not."""
    form = FORM | {"do": "save", "priority": "5", "overlap": "allow", "catch_up": "latest", "window": "1"}
    answer = client.post(path, data=form | {"window_unit": "days"} | fields, headers=OURS)
    if answer.status_code != 303:
        return answer.text
    db.session.remove()
    return db.session.scalars(select(TaskSchedule.callback)).one()


def test_a_task_links_to_its_delivery_and_the_delivery_back(client: FlaskClient) -> None:
    body = {"operation": "4+7", "callback": {"url": URL, "sign_with": "HOOK"}, "run_at": "2040-01-01T00:00:00Z"}
    task_id = client.post("/tasks/", json=body).json["task_id"]
    page = client.get(f"/dashboard/tasks/{task_id}").text
    assert URL in page
    assert "signed with <code>HOOK</code>" in page
    control.cancel(task_id, now=datetime.now(UTC))
    delivery = db.session.scalars(select(Task.task_id).where(Task.operation == "callback")).one()
    assert (
        f'<a href="/dashboard/tasks/{delivery}">task {delivery}</a>' in client.get(f"/dashboard/tasks/{task_id}").text
    )
    back = client.get(f"/dashboard/tasks/{delivery}").text
    assert f'<a href="/dashboard/tasks/{task_id}">task {task_id}</a>' in back
    assert "Run again with changes" not in back


def test_the_operation_is_shown_without_a_way_to_run_it(client: FlaskClient) -> None:
    listed, page = client.get("/dashboard/operations").text, client.get("/dashboard/operations/callback").text
    assert "Tells a URL that a task has ended." in listed
    assert 'aria-label="Run calculate"' in listed
    assert 'aria-label="Run callback"' not in listed
    assert "Nobody can post one." in page
    assert 'id="run"' not in page
    assert client.post("/dashboard/operations/callback", data={"params.url": URL}, headers=OURS).status_code == 422
    assert '<option value="callback"' not in client.get("/dashboard/schedules/new").text


def test_the_form_of_an_operation_takes_a_callback(client: FlaskClient) -> None:
    fields = {"params.expression": "4+7", "callback.url": URL, "callback.on": "SUCCESS\nERROR"}
    assert client.post("/dashboard/operations/calculate", data=fields, headers=OURS).status_code == 303
    db.session.remove()
    task = db.session.scalars(select(Task)).one()
    assert task.callback == {"url": URL, "on": ["SUCCESS", "ERROR"]}
    again = client.get(f"/dashboard/operations/calculate?from={task.task_id}").text
    assert URL in again
    plain = client.post("/dashboard/operations/calculate", data={"params.expression": "4+7"}, headers=OURS)
    assert plain.status_code == 303


def test_the_form_of_a_schedule_sets_keeps_and_removes_it(client: FlaskClient) -> None:
    kept = {"url": URL, "on": ["SUCCESS", "ERROR"], "sign_with": "HOOK"}
    assert saved(client, "/dashboard/schedules/new", **TOLD) == kept
    [number] = db.session.scalars(select(TaskSchedule.task_schedule_id))
    path = f"/dashboard/schedules/{number}/edit"
    form = client.get(path).text
    assert f'name="callback.url" value="{URL}"' in form
    assert form.count('name="callback.on"') == 4
    assert "signed with <code>HOOK</code>" in client.get(f"/dashboard/schedules/{number}").text
    every = ["SUCCESS", "ERROR", "CANCELLED", "EXPIRED"]
    assert saved(client, path, **{"callback.url": URL}) == {"url": URL, "on": every}
    assert saved(client, path) is None


def test_the_form_of_a_schedule_says_what_is_wrong_with_it(client: FlaskClient) -> None:
    assert "Not a URL of http:// or https://" in saved(client, "/dashboard/schedules/new", **{"callback.url": "x"})
    assert "Missing data" in saved(client, "/dashboard/schedules/new", **{"callback.sign_with": "HOOK"})
