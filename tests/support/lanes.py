"""Lanes of a real Valkey, in short words for what tests do with them."""

from scheduler_app.broker import Delivery, WorkerBroker
from scheduler_app.broker.limits import State
from scheduler_app.limits import Limit

Ids = list[str]


class Lanes(WorkerBroker):
    epochs = 0

    def limit(
        self, *limits: Limit, operation: str = "fetch", running: list[tuple[str, str, str]] | None = None
    ) -> None:
        Lanes.epochs += 1
        given = {operation: [limit.for_scripts() for limit in limits]} if limits else {}
        assert self.limits.open(State(Lanes.epochs, ""), given, running or [])

    def post(self, *ids: int, operation: str = "fetch", group: str | None = None, priority: int = 5) -> None:
        self.publish(Delivery(id_, 0, operation, priority, group) for id_ in ids)

    def take(self, count: int = 1, *, idle: int | None = None, done: Ids = (), priority: int = 5) -> Ids:  # type: ignore[assignment]
        acknowledged = [(f"tasks.p{priority}", id_) for id_ in done]
        return [id_ for _, id_ in self.pull([*self.weights], count, idle=idle, done=acknowledged).messages]

    def slots(self) -> int:
        return self.limits.used().total()


def ids(*numbers: int) -> Ids:
    return [f"{number}.0" for number in numbers]
