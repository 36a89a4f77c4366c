"""The table of benchmarks/faults.py: what each fault cost."""

import statistics
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter

from sqlalchemy import select

from scheduler_app.models import Task
from tests.support.account import Account
from tests.support.posting import Client, Post
from tests.support.target import Target

SLOWEST = 5  # posts that are named
ALL = "all"


@dataclass(frozen=True)
class Done:
    """A fault that was done."""

    name: str
    at: float  # as time.time()
    quick: bool  # only short tasks tell how long it took to recover


@dataclass
class Record:
    """What was done to a system, and which of its tasks were stuck."""

    target: Target
    client: Client
    harms: list[Done] = field(default_factory=list)
    stuck: set[int] = field(default_factory=set)


def table(record: Record, result: Account) -> str:
    """A Markdown table with one row per fault, and one for all of them."""
    counts = {
        "tasks": record.client.accepted,
        "lost": result.lost,
        "stuck": record.stuck,
        "wrong": result.wrong,
        "run twice": result.run_twice,
    }
    attributed = {name: by_fault(record, tasks) for name, tasks in counts.items()}
    seconds, posts = recoveries(record, result), slowest_posts(record)
    lines = [
        "| fault | times | tasks | lost | stuck | wrong | run twice | recovery p50 (s) | max (s) | slowest post (s) |",
        "| --- |" + " ---: |" * 9,
    ]
    for name in [*sorted(seconds), ALL]:
        own = [recovery for fault in (seconds if name == ALL else [name]) for recovery in seconds[fault]]
        cells = [len(own), *(counter.total() if name == ALL else counter[name] for counter in attributed.values())]
        figures = statistics.median(own), max(own), posts[name]
        lines.append(f"| {name} | {' | '.join([*map(str, cells), *(f'{figure:.1f}' for figure in figures)])} |")
    return "\n".join([*lines, *(f"wrong: {problem}" for problem in result.wrong.values())])


def posts(record: Record) -> str:
    """How they were answered, and the slowest ones."""
    slowest = sorted(record.client.posts, key=attrgetter("seconds"), reverse=True)[:SLOWEST]
    named = (f"{post.seconds:.1f} s: {post.answer} ({'; '.join(during(record, post))})" for post in slowest)
    return "\n".join([f"answers to the posts: {dict(record.client.answers)}; the slowest:", *named])


def by_fault(record: Record, tasks: Iterable[int]) -> Counter[str]:
    times = [harm.at for harm in record.harms]
    names = [*(harm.name for harm in record.harms), "after the last"]
    return Counter(names[bisect_left(times, record.client.accepted[task_id])] for task_id in tasks)


def slowest_posts(record: Record) -> dict[str, float]:
    """Seconds that the slowest post of each fault took."""
    found: dict[str, float] = defaultdict(float)
    for post in record.client.posts:
        for name in (ALL, *during(record, post)):
            found[name] = max(found[name], post.seconds)
    return found


def during(record: Record, post: Post) -> list[str]:
    """The faults that were done while the post was under way, and the last one before it."""
    times = [harm.at for harm in record.harms]
    first, end = bisect_left(times, post.began), bisect_left(times, post.began + post.seconds)
    return [harm.name for harm in record.harms[max(0, first - 1) : end]]


def recoveries(record: Record, result: Account) -> dict[str, list[float]]:
    """Seconds from each harm until the end of the last task that was accepted before it."""
    rows = record.target.rows(select(Task.task_id, Task.params).where(Task.operation == "fault.work"))
    ends = {row.task_id: (row.params["seconds"], result.finished.get(row.task_id)) for row in rows}
    found: dict[str, list[float]] = {}
    for quick in (True, False):
        considered = [
            (record.client.accepted[task_id], end.timestamp())
            for task_id, (seconds, end) in ends.items()
            if end and task_id in record.client.accepted and (seconds < 1 or not quick)
        ]
        considered.sort()
        accepted = [at for at, _ in considered]
        latest = [0.0, *accumulate((end for _, end in considered), max)]
        for harm in record.harms:
            if harm.quick == quick:
                end = latest[bisect_left(accepted, harm.at)]
                found.setdefault(harm.name, []).append(max(0.0, end - harm.at))
    return found
