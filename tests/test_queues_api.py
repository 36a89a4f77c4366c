"""The list of queues."""

from flask.testing import FlaskClient

from scheduler_app.models import Status
from tests.support.tasks import set_status, submit


def test_the_queues_show_what_waits_runs_and_has_failed(client: FlaskClient) -> None:
    ids = submit(client, *[{"operation": "1+1", "priority": 3}] * 6, {"operation": "1+1", "priority": 9})
    set_status(client, ids[:1], Status.STARTED)
    set_status(client, ids[1:3], Status.ERROR)
    set_status(client, ids[3:4], Status.RETRYING)
    queues = client.get("/queues/").json
    assert [queue["priority"] for queue in queues] == list(range(10))
    assert [queue["weight"] for queue in queues] == [2.0 ** (9 - n) for n in range(10)]
    third = queues[3]
    assert (third["queue"], third["running"], third["dead_letters"], third["retrying"]) == ("tasks.p3", 1, 2, 1)
    assert [queue["waiting"] for queue in queues] == [0, 0, 0, 6, 0, 0, 0, 0, 0, 1]
    assert [queue["oldest_waiting_seconds"] is None for queue in queues].count(False) == 2
    assert 0 <= third["oldest_waiting_seconds"] < 20
