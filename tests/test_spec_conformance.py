"""Any request is answered as /openapi.json says, with a key and without, on both databases.

SPEC_EXAMPLES=300 tries so many requests for each call, and others each time.
"""

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from flask import Flask
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.specs.openapi.checks import positive_data_acceptance

from scheduler_app.config import Settings
from scheduler_app.extensions import db
from scheduler_app.services.ends import Ends
from scheduler_app.web import create_web_app

EXAMPLES = int(os.environ.get("SPEC_EXAMPLES", "0"))
KEY = "0123456789abcdef"
# No schema can say which values these take: an expression, a rule, a period that has begun, a name that is free, a key
# that came with no other request, a longest pause that is not the shorter one.
READ_BY_A_GRAMMAR = {
    "POST /tasks/",
    "POST /tasks/batch-request/",
    "PATCH /tasks/{task_id}/",
    "POST /task-schedules/",
    "POST /task-schedules/preview/",
    "PATCH /task-schedules/{task_schedule_id}/",
    "POST /task-schedules/{task_schedule_id}/backfill/",
    "POST /task-schedules/{task_schedule_id}/trigger/",
    "POST /keys/",
}


@pytest.fixture(params=[False, True], ids=["open", "with a key"])
def described(request: pytest.FixtureRequest, environ: dict[str, str], app: Flask) -> Iterator[schemathesis.BaseSchema]:
    """What the specification says; calls bring the key if one is needed."""
    if request.param:
        app = create_web_app(Settings.from_env(environ | {"BACKBEAT_API_KEY": KEY}))
        app.wsgi_app = bringing_the_key(app.wsgi_app)  # type: ignore[method-assign]
    app.extensions["backbeat.ends"] = Ends(app, most=0)  # whoever asks to wait is answered at once
    yield schemathesis.openapi.from_wsgi("/openapi.json", app)
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()


def bringing_the_key(application: Any) -> Any:
    # Below schemathesis, which leaves a key out on purpose to see that it is needed.
    return lambda environ, start: application({"HTTP_AUTHORIZATION": f"Bearer {KEY}"} | environ, start)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_any_request_is_answered_as_the_specification_says(
    described: schemathesis.BaseSchema, mode: schemathesis.GenerationMode
) -> None:
    """Both those that it allows and those that it does not."""
    for result in described.get_all_operations():
        operation = result.ok()
        try:
            strategy = operation.as_strategy(generation_mode=mode)
            bounded(4)(hypothesis.seed(0)(hypothesis.given(strategy)(check)))()
        except hypothesis.errors.Unsatisfiable:
            assert mode.is_negative, operation.label  # of nothing that is taken, nothing can be wrong


def test_calls_that_follow_from_each_other_are_answered_as_the_specification_says(
    described: schemathesis.BaseSchema,
) -> None:
    machine = described.as_state_machine()
    machine.validate_response = lambda self, response, case, **_: check_answer(response, case)  # type: ignore
    # Few at a time, since none goes twice the same way: the database keeps what was done. The first is always minimal.
    few = hypothesis.settings(
        bounded(2), max_examples=2, derandomize=False, stateful_step_count=12, phases=[hypothesis.Phase.generate]
    )
    for number in range(EXAMPLES or 8):
        seeded = machine if EXAMPLES else hypothesis.seed(number)(machine)
        run_state_machine_as_test(seeded, settings=few)


def bounded(examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def check(case: schemathesis.Case) -> None:
    check_answer(case.call(), case)


def check_answer(response: schemathesis.Response, case: schemathesis.Case) -> None:
    """By all checks that schemathesis has."""
    left_out = [positive_data_acceptance] if case.operation.label in READ_BY_A_GRAMMAR else []
    case.validate_response(response, excluded_checks=left_out)
