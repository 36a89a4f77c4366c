"""A refusal reports all errors at once, and says what would be right."""

import time
from typing import Any

import pytest
from flask.testing import FlaskClient

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # one kind is enough here

TASK_QUERY = (
    "operation, cause, created_after, created_before, error_type, finished_after, finished_before, group,"
    " unique_key, limit, cursor, status, priority, task_schedule_id, label"
)


def refused(client: FlaskClient, path: str, body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 422, answer.json
    errors: dict[str, Any] = answer.json["errors"]["json"]
    return errors


def test_a_body_that_is_too_large_is_told_the_limit(client: FlaskClient) -> None:
    answer = client.post("/tasks/", data=b" " * 5_000_000, content_type="application/json")
    assert (answer.status_code, answer.json["message"]) == (413, "The body is too large: at most 4,194,304 bytes.")


def test_a_list_of_tasks_is_told_where_it_belongs(client: FlaskClient) -> None:
    [message] = refused(client, "/tasks/", [{"operation": "4+7"}])["_schema"]
    assert "object" in message
    assert "/tasks/batch-request/" in message


def test_a_wrong_zone_hides_nothing_else(client: FlaskClient) -> None:
    rule = {"cron": "61 * * * *", "timezone": "Mars/Olympus"}
    assert refused(client, "/task-schedules/preview/", rule).keys() == {"cron", "timezone"}
    more = {"start_at": "2040-01-02T00:00:00Z", "end_at": "2040-01-01T00:00:00Z", "priority": 11, "colour": 1}
    operation = {"operation": "http_request", "params": {"timeout": 0}}
    errors = refused(client, "/task-schedules/", rule | more | operation)
    assert errors.keys() == {"cron", "timezone", "end_at", "priority", "colour", "params"}
    assert errors["params"].keys() == {"url", "timeout"}
    path = client.post("/task-schedules/", json={"operation": "1+1", "every_x_hours": 1}).headers["Location"]
    changed = client.patch(path, json=rule | operation | {"priority": 11, "every_x_hours": None})
    assert changed.json["errors"]["json"].keys() == {"cron", "timezone", "priority", "params"}


def test_a_misspelt_field_hides_nothing_else(client: FlaskClient) -> None:
    errors = refused(client, "/tasks/", {"operation": "calculate", "params": {}, "priorty": 1, "max_retries": "x"})
    assert errors == {
        "priorty": ["Unknown field; did you mean priority?"],
        "max_retries": ["Must be a whole number from 0 to 100."],
        "params": {"expression": ["Missing data for required field."]},
    }
    [entry] = client.post("/tasks/batch-request/", json=[{"operation": "1+1"}, {"operaton": "1+1"}]).json["errors"]
    assert entry["errors"]["operaton"] == ["Unknown field; did you mean operation?"]


def test_a_misspelt_kind_of_rule_counts_as_what_was_meant(client: FlaskClient) -> None:
    errors = refused(client, "/task-schedules/preview/", {"evry_x_hours": 2})
    assert errors == {"evry_x_hours": ["Unknown field; did you mean every_x_hours?"]}


@pytest.mark.parametrize("params", [[], 7])
def test_params_that_are_no_object_hide_no_unknown_operation(client: FlaskClient, params: Any) -> None:
    assert refused(client, "/tasks/", {"operation": "nothing", "params": params}).keys() == {"operation", "params"}
    assert refused(client, "/tasks/", {"operation": "http_request", "params": params}).keys() == {"params"}


def test_params_beside_an_expression_hide_no_error_in_it(client: FlaskClient) -> None:
    errors = refused(client, "/tasks/", {"operation": "4+", "params": {"expression": "1"}})
    assert errors.keys() == {"operation", "params"}


def test_a_name_close_to_a_known_one_is_asked_about_and_another_is_told_what_there_is(client: FlaskClient) -> None:
    assert "did you mean calculate?" in refused(client, "/tasks/", {"operation": "calclate"})["operation"][0]
    errors = refused(client, "/tasks/", {"operation": "http_request", "params": {"url": "http://a/", "metod": "GET"}})
    assert errors == {"params": {"metod": ["Unknown field; did you mean method?"]}}
    errors = refused(client, "/tasks/", {"operation": "calculate", "params": {"expression": "1", "colour": "red"}})
    assert errors == {"params": {"colour": ["Unknown field; known are: expression."]}}
    answer = client.get("/tasks/?stats=ERROR&colour=red&priority=x")
    assert answer.json["errors"]["query"] == {
        "stats": ["Unknown field; did you mean status?"],
        "colour": [f"Unknown field; known are: {TASK_QUERY}."],
        "priority": ["Must be a whole number from 0 to 9."],
    }


def test_hints_for_a_body_full_of_unknown_names_take_little_time(client: FlaskClient) -> None:
    batch = [{f"priorit{n}{'x' * 40}{entry}": 1 for n in range(40)} for entry in range(1_000)]
    began = time.process_time()
    refused(client, "/tasks/batch-request/", batch)
    refused(client, "/task-schedules/", {f"every_x_{n}{'x' * 60}": 1 for n in range(40_000)})
    assert time.process_time() - began < 5  # looking at each name would take minutes
