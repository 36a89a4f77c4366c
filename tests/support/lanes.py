"""Lanes of a real Valkey, in short words for what tests do with them."""

import random
from itertools import chain

from scheduler_app.broker import Delivery, WorkerBroker
from scheduler_app.broker.limits import State
from scheduler_app.limits import Limit
from tests.support.servers import Valkey

Ids = list[str]
Lane = tuple[str, str | None]  # queue and group


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


def standing(valkey: Valkey) -> dict[Lane, Ids]:
    """What waits, by queue and group, in order. A lane has a list exactly if it has more than one message."""
    found: dict[Lane, Ids] = {}
    lists = set()
    for queue in (f"dramatiq:tasks.p{priority}" for priority in range(10)):
        if plain := text(valkey.client.lrange(queue, 0, -1)):
            found[queue, None] = plain
        lanes = valkey.client.hgetall(f"{queue}.heads")
        listed = int(lanes.pop(b"", 0))
        for lane, value in lanes.items():
            name = f"{queue}.lane.{lane.decode()}"
            rest = text(valkey.client.lrange(name, 0, -1))
            assert value.endswith(b"+") == bool(rest)
            found[queue, lane.decode().partition("|")[2]] = [value.decode().removesuffix("+"), *rest]
            listed -= len(rest)
            lists |= {name} if rest else set()
        assert listed == 0
    assert {*text(valkey.client.keys("*.lane.*"))} == lists
    return found


def text(values: list[bytes]) -> Ids:
    return [value.decode() for value in values]


class Played:
    """Random steps, the same for each seed, and what should wait after each. A pull may be made in pulls of one."""

    def __init__(self, seed: int, lanes: Lanes, valkey: Valkey, *, whole: bool) -> None:
        self.chosen = random.Random(seed)
        self.lanes, self.valkey, self.whole = lanes, valkey, whole
        self.waiting: dict[Lane, Ids] = {}
        self.pulled: dict[str, Lane] = {}
        self.order: Ids = []  # of all that was pulled
        self.posted = 0

    def play(self, steps: int) -> None:
        kinds = [self.post, self.post, self.post_first, self.take, self.take, self.requeue, self.settle, self.discard]
        for _ in range(steps):
            self.chosen.choice(kinds)()
            self.check()
        while self.waiting:
            self.take()
            self.check()

    def check(self) -> None:
        self.waiting = {lane: ids for lane, ids in self.waiting.items() if ids}
        assert standing(self.valkey) == self.waiting
        assert sum(self.lanes.waiting()) == sum(map(len, self.waiting.values()))

    def post(self) -> None:
        for _ in range(self.chosen.choice([1, 3, 20])):
            lane, delivery = self.new()
            self.lanes.publish([delivery])
            self.waiting.setdefault(lane, []).append(delivery.message_id)

    def post_first(self) -> None:
        lane, delivery = self.new()
        self.lanes.publish([delivery], first=True)
        self.waiting.setdefault(lane, []).insert(0, delivery.message_id)

    def new(self) -> tuple[Lane, Delivery]:
        self.posted += 1
        group, priority = self.chosen.choice([None, *"abcde+", "f|g+"]), self.chosen.choice([0, 5, 5, 9])
        return (f"dramatiq:tasks.p{priority}", group), Delivery(self.posted, 0, "other", priority, group)

    def take(self) -> None:
        count = min(self.chosen.choice([1, 2, 3, 17, 80]), sum(map(len, self.waiting.values())))
        taken = self.lanes.take(count) if self.whole else [*chain(*(self.lanes.take(1) for _ in range(count)))]
        assert len(taken) == count
        for id_ in taken:
            lane = next(lane for lane, ids in self.waiting.items() if id_ in ids)
            assert self.waiting[lane].pop(0) == id_
            self.pulled[id_] = lane
        self.order += taken

    def requeue(self) -> None:
        for id_, lane in self.some(self.pulled):
            self.lanes.requeue(lane[0].removeprefix("dramatiq:"), id_)
            self.waiting.setdefault(lane, []).append(id_)
            del self.pulled[id_]

    def settle(self) -> None:
        done = self.some(self.pulled)
        self.lanes.pull([], 0, done=[(lane[0].removeprefix("dramatiq:"), id_) for id_, lane in done])
        self.pulled = {id_: lane for id_, lane in self.pulled.items() if (id_, lane) not in done}

    def discard(self) -> None:
        for id_, lane in self.some({id_: lane for lane, ids in self.waiting.items() for id_ in ids}):
            assert self.lanes.discard(int(lane[0][-1]), [id_]) == 1
            self.waiting[lane].remove(id_)

    def some(self, ids: dict[str, Lane]) -> list[tuple[str, Lane]]:
        some = sorted(ids.items(), key=lambda item: float(item[0]))
        return self.chosen.sample(some, min(len(some), self.chosen.choice([1, 5])))
