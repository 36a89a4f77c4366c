"""python -m benchmarks [--only drain,accept] [--quick]: one table of each goal beside what was measured."""

import argparse
import sys
import time
from collections.abc import Callable, Iterable

from benchmarks import (
    accept,
    drain,
    growth,
    history,
    idle,
    lanes,
    listing,
    memory,
    node,
    post,
    priority,
    publish,
    sleeping,
    sqlite,
    strangers,
    sustained,
    waiting,
    wal,
    watchers,
)
from benchmarks.harness import PEERS_PYTHON, Options, Servers, progress
from benchmarks.table import HEAD, Row, machine

Work = Callable[[Servers, Options], Iterable[Row]]

WORKS: dict[str, Work] = {
    "drain": drain.run,
    "node": node.run,
    "accept": accept.run,
    "post": post.run,
    "keyed": post.keyed,
    "idle": idle.run,
    "priority": priority.run,
    "lanes": lanes.run,
    "publish": publish.run,
    "sleeping": sleeping.run,
    "sqlite": sqlite.run,
    "growth": growth.run,
    "wal": wal.run,
    "sustained": sustained.run,
    "history": history.run,
    "memory": memory.run,
    "listing": listing.run,
    "strangers": strangers.run,
    "watchers": watchers.run,
    "waiting": waiting.run,
}


def main() -> None:
    names, options = arguments()
    if not PEERS_PYTHON.exists():
        sys.exit("The peers are not installed: run `make bench`.")
    on, servers = machine(), Servers()
    try:
        rows = [row for name in names for row in measure(name, servers, options)]
        on = f"{on}; {servers.description()}"
    finally:
        servers.close()
    print("\n".join([HEAD, *map(str, rows), "", on]))


def arguments() -> tuple[list[str], Options]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What the work costs, beside others.")
    parser.add_argument("--only", type=names, default=list(WORKS), metavar="NAME,…", help=", ".join(WORKS))
    parser.add_argument("--quick", action="store_true", help="less of everything: for a look, not for figures")
    parser.add_argument("--explain", action="store_true", help="print the plans of what is listed too slowly")
    parser.add_argument("--tasks", type=int, default=Options.tasks, help="of the work that watches memory")
    given = parser.parse_args()
    return given.only, Options(given.quick, given.explain, given.tasks)


def names(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - set(WORKS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}; there are {', '.join(WORKS)}")
    return chosen


def measure(name: str, servers: Servers, options: Options) -> list[Row]:
    began = time.monotonic()
    rows = list(WORKS[name](servers, options))
    for row in rows:
        progress(str(row))
    progress(f"{name}: {time.monotonic() - began:.0f} s")
    return rows


if __name__ == "__main__":
    main()
